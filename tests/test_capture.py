"""Taps give every parameter its per-sample gradient, and refuse what they cannot tell apart."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from oracle import TOLERANCE, oracle
from tiny import MODELS, adapted, gpt2, llama, random_batch
from torch import nn

from gradex_fast.capture import Capture
from gradex_fast.losses import sample_losses, token_losses
from gradex_fast.rows import Packed, Padded, Rows
from gradex_fast.terms import Dense, Factors, Term

TOY = 5
"""Samples and tokens of the toys: equal, so that a wrong axis fits."""


def dense(model: nn.Module, terms: Callable[[], torch.Tensor], rows: int | Rows) -> dict[str, torch.Tensor]:
    """Per-sample gradients of terms() [n], float64 [n, elements], summed from terms as they are defined."""
    rows = Padded(rows) if isinstance(rows, int) else rows
    capture = Capture(model)
    tapped = {name: p for name, p in capture.parameters.items() if name not in capture.slow}
    total = {name: torch.zeros(rows.samples, p.numel(), dtype=torch.float64) for name, p in tapped.items()}

    def receive(name: str, term: Term) -> None:
        if isinstance(term, Factors):
            total[name] += torch.einsum("nto,ntc->noc", term.grads.double(), term.inputs.double()).flatten(1)
        elif isinstance(term, Dense):
            total[name][term.sample, term.offset : term.offset + len(term.gradient)] += term.gradient
        else:
            lines = total[name].view(rows.samples, -1, term.values.shape[-1])
            for i, t in (term.rows >= 0).nonzero().tolist():
                lines[i, term.rows[i, t]] += term.values[i, t]

    with capture.taps(rows, receive) as leaf:
        torch.autograd.grad(terms().sum(), leaf, allow_unused=True)
    return total


def losses(model: nn.Module, batch) -> torch.Tensor:
    return sample_losses(*token_losses(model, batch)[:2])


@pytest.mark.parametrize("adapter", ["all", "some", "full"])
@pytest.mark.parametrize("name", MODELS)
def test_each_parameter_gets_the_gradients_of_single_rows(name, adapter):
    model, batch = adapted(name, adapter).eval(), random_batch(name)
    truth, _, _ = oracle(model, batch, "loss")
    found = dense(model, lambda: losses(model, batch), 5)
    assert set(found) == {key for key in truth if not _needs_the_slow_way(adapter, key)}
    whole = max(abs(rows).max() for rows in truth.values())
    for key, rows in found.items():  # a key's bias cancels in the softmax: its true gradient is 0
        assert abs(rows.numpy() - truth[key]).max() <= TOLERANCE * max(abs(truth[key]).max(), whole / 10), key


def _needs_the_slow_way(adapter: str, parameter: str) -> bool:
    return adapter == "full" and "relative_attention_bias" in parameter


@pytest.mark.parametrize("build", [llama, lambda: gpt2(resid_pdrop=0, embd_pdrop=0, attn_pdrop=0)])
def test_gradient_checkpointing_that_really_recomputes_changes_nothing(build):
    model, batch, calls = build().train(), random_batch("gpt2"), []
    model.get_input_embeddings().register_forward_hook(lambda *_: calls.append("embedding"))
    block = next(module for name, module in model.named_modules() if name.endswith(("1.self_attn", "1.attn")))
    block.register_forward_hook(lambda *_: calls.append("block"))
    plain = dense(model, lambda: losses(model, batch), 5)
    model.gradient_checkpointing_enable()
    again = dense(model, lambda: losses(model, batch), 5)
    assert calls.count("block") == 3 and calls.count("embedding") == 2
    assert all(torch.equal(plain[name], again[name]) for name in plain)


class Scaled(nn.Embedding):
    """Its rows are multiplied, as in Gemma, and its ids are shifted, as in OPT."""

    def forward(self, mask: torch.Tensor, ids: torch.Tensor | None = None) -> torch.Tensor:
        return 3 * super().forward((mask + 1) % 7)


class Bare(nn.Module):
    """A table in a class of its own."""

    def __init__(self, rows: int, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(rows, width))

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return self.weight[ids].sin()


class OnePlus(nn.Module):
    """A norm of no known class, in Gemma's form, with a bias."""

    def __init__(self, width: int, power: int = 1) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.randn(width)), nn.Parameter(torch.randn(width))
        self.power = power

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x / (1 + x.square().mean(-1, keepdim=True)) * (1 + self.weight) ** self.power - self.bias * (-1)


class AcrossTokens(OnePlus):
    """A norm of every feature over the tokens: no two tokens are independent."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return (x - x.mean(1, keepdim=True)) * self.weight + self.bias


class Toy(nn.Module):
    """ids [n, t] → embedding → layer → head of the embedding's own weight (if tied)."""

    def __init__(self, embedding: nn.Module, layer: nn.Module | None = None, tied: bool = False) -> None:
        super().__init__()
        self.embedding, self.layer, self.head = embedding, layer or nn.Identity(), nn.Identity()
        if tied:
            self.head = nn.Linear(4, 7, bias=False)
            self.head.weight = embedding.weight

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return self.head(self.layer(self.embedding(ids)))


TOYS = {
    "padding_idx": (lambda: Toy(nn.Embedding(7, 4, padding_idx=2)), set()),
    "padding_idx, tied": (lambda: Toy(nn.Embedding(7, 4, padding_idx=2), tied=True), set()),
    "norm": (lambda: Toy(nn.Embedding(7, 4), nn.LayerNorm(4, eps=0.3)), set()),
    "norm without bias": (lambda: Toy(nn.Embedding(7, 4), nn.LayerNorm(4, bias=False)), set()),
    "bias, then in place": (lambda: Toy(nn.Embedding(7, 4), nn.Sequential(nn.Linear(4, 3), nn.ReLU(True))), set()),
    "norm of two axes": (lambda: Toy(nn.Embedding(7, 4), nn.LayerNorm((TOY, 4))), {"layer.weight", "layer.bias"}),
    "scaled embedding": (lambda: Toy(Scaled(7, 4)), set()),
    "scaled embedding, tied": (lambda: Toy(Scaled(7, 4, padding_idx=2), tied=True), set()),
    "one use has no tap": (lambda: Toy(Bare(7, 4), tied=True), {"embedding.weight"}),
    "RMS norm": (lambda: Toy(nn.Embedding(7, 4), nn.RMSNorm(4, eps=0.3)), set()),
    "RMS norm, ε of the type": (lambda: Toy(nn.Embedding(7, 4), nn.RMSNorm(4)), set()),
    "unknown norm": (lambda: Toy(nn.Embedding(7, 4), OnePlus(4)), set()),
    "norm of a squared weight": (lambda: Toy(nn.Embedding(7, 4), OnePlus(4, power=2)), {"layer.weight", "layer.bias"}),
    "norm across tokens": (lambda: Toy(nn.Embedding(7, 4), AcrossTokens(4)), {"layer.weight", "layer.bias"}),
}


@pytest.mark.parametrize("name", TOYS)
def test_kinds_of_layers(name):
    torch.manual_seed(0)
    build, slow = TOYS[name]
    toy, ids = build(), torch.randint(0, 7, (TOY, TOY))
    cotangent = torch.randn(toy(ids).shape)
    found = dense(toy, lambda: (toy(ids) * cotangent).flatten(1).sum(1), TOY)
    assert set(Capture(toy).slow) == slow and set(found) == set(dict(toy.named_parameters())) - slow
    for row in range(TOY):
        toy.zero_grad()
        (toy(ids[row : row + 1]) * cotangent[row]).sum().backward()
        for key, rows in found.items():
            torch.testing.assert_close(rows[row], toy.get_parameter(key).grad.double().flatten(), atol=1e-5, rtol=0)


class Positions(nn.Module):
    """Adds a learned position to every token; `shape` is that of the positions that are looked up."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.table, self.ids = nn.Embedding(TOY, 4), torch.arange(TOY).reshape(shape)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.table(self.ids)


def test_a_position_table_that_serves_the_whole_batch():
    x = torch.randn(3, TOY, 4)
    found = dense(positions := Positions((1, TOY)), lambda: positions(x).flatten(1).sum(1), 3)
    torch.testing.assert_close(found["table.weight"], x.double().flatten(1))


class Flat(nn.Module):
    """A layer that sees the batch's tokens in one row."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.linear(x.flatten(0, 1))


def test_flattened_tokens_are_told_apart_by_their_number():
    x, cotangent, layer = torch.randn(TOY, 3, 4), torch.randn(TOY, 3, 4), Flat()
    found = dense(layer, lambda: (layer(x).reshape(x.shape) * cotangent).flatten(1).sum(1), Padded(TOY, (7, 3)))
    expected = torch.einsum("nto,ntc->noc", cotangent.double(), x.double()).flatten(1)
    torch.testing.assert_close(found["linear.weight"], expected)


class Gated(OnePlus):
    """A norm that may be given a gate."""

    def forward(self, x: torch.Tensor, gate: float | None = None) -> torch.Tensor:
        return super().forward(x) * (1 if gate is None else gate)


class Sine(nn.Embedding):
    """No table of rows."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(torch.zeros(x.shape[:2], dtype=torch.long)).sin()


REFUSED = {
    "tokens": (Flat(), lambda layer, x: layer(x), r"linear.weight gave \[25, 4\] for 5 samples"),
    "positions": (Positions((TOY,)), lambda layer, x: layer(x), r"table.weight gave \[5, 4\] for 5 samples"),
    "gate": (Gated(4), lambda layer, x: layer(x, 2.0), r"weight \(Gated\) was given more than one input"),
    "no table": (Sine(3, 4), lambda layer, x: layer(x), r"weight \(Sine\) is not a scaled table"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_rows_that_cannot_be_told_apart_are_refused(name):
    layer, call, message = REFUSED[name]
    with pytest.raises(NotImplementedError, match=message):
        dense(layer, lambda: call(layer, torch.randn(TOY, TOY, 4)).sum(), TOY)
    assert all(parameter.requires_grad for parameter in layer.parameters())
    assert not any(module._forward_hooks for module in layer.modules())


class PickRouter(nn.Module):
    """A router of this batch size: alone a sample chooses otherwise, as near a tie."""

    def __init__(self, fickle: bool) -> None:
        super().__init__()
        self.weight, self.fickle = nn.Parameter(torch.randn(6, 4)), fickle

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        scores = x @ self.weight.T
        places = scores.topk(2, dim=-1, largest=not self.fickle or len(x) > 3).indices
        return scores, scores.gather(-1, places), places


@pytest.mark.parametrize("rows", [Padded(TOY, (3,)), Packed([3, 2, 4, 6], torch.device("cpu"))])
@pytest.mark.parametrize("fickle", [False, True])
def test_a_layer_that_is_run_again_sample_by_sample(fickle, rows):
    torch.manual_seed(0)
    router, x, cotangent = PickRouter(fickle), torch.randn(15, 4), torch.randn(15, 8)

    def terms() -> torch.Tensor:
        logits, picked, places = router(x)
        assert places.dtype == torch.long
        tokens = (torch.cat([logits, picked.sin()], 1) * cotangent).sum(1)
        return tokens.reshape(TOY, 3).sum(1) if isinstance(rows, Padded) else rows.split(tokens, "flat").sum(1)

    truth = torch.stack([torch.autograd.grad(term, router.weight, retain_graph=True)[0].flatten() for term in terms()])
    found = dense(router, terms, rows)
    torch.testing.assert_close(found["weight"], truth.double(), atol=1e-5, rtol=0)


class EverythingRouter(PickRouter):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return (x @ self.weight.T).sum(0)


def test_a_layer_whose_outputs_do_not_tell_their_samples_is_not_run_again():
    router = EverythingRouter(False)
    with pytest.raises(NotImplementedError, match=r"weight took and gave \[\[5, 4\], \[6\]\] for 5 samples"):
        dense(router, lambda: router(torch.randn(TOY, 4)), TOY)
