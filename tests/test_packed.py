"""One row of several samples gives each of them the sketch that it has alone; or it is refused."""

from __future__ import annotations

import pytest
import torch
from families import FAMILIES, NO_SDPA, family
from oracle import TOLERANCE, error
from tiny import random_batch, random_examples
from torch import nn

from gradex_fast.batch import collate
from gradex_fast.capture import Capture
from gradex_fast.errors import GradexError
from gradex_fast.rows import Packed, laid_out
from gradex_fast.sketch import Sketcher

DIM = 6
LENGTHS = [9, 2, 6, 1 + 4, 9]
KEPT_APART = [name for name in FAMILIES if name not in ("bert", "roberta", "t5", "flan-t5", "bloom", "opt")]


def packed_and_padded(lengths: list[int] = LENGTHS):
    examples = random_examples(lengths)
    ids = torch.cat([torch.as_tensor(example.input_ids) for example in examples])[None].long()
    labels = torch.cat([torch.as_tensor(example.labels) for example in examples])[None].long()
    positions = torch.cat([torch.arange(length) for length in lengths])[None]
    return {"input_ids": ids, "labels": labels, "position_ids": positions}, collate(examples, 0)


def ends(lengths: list[int]) -> torch.Tensor:
    return torch.tensor([0, *lengths]).cumsum(0)


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("adapter", ["all", "full"])
@pytest.mark.parametrize("name", KEPT_APART)
def test_equals_padded_rows(name, adapter, attention):
    if attention == "sdpa" and name in NO_SDPA:
        attention = None
    sketcher = Sketcher(family(name, adapter, attn_implementation=attention), dim=DIM)
    packed, padded = packed_and_padded()
    found, truth = sketcher(packed), sketcher(padded)
    assert error(found.g, truth.g) <= TOLERANCE
    assert abs(found.margin - truth.margin).max() <= TOLERANCE and abs(found.loss - truth.loss).max() <= TOLERANCE


@pytest.mark.parametrize("name", ["llama", "mixtral"])
def test_gradient_checkpointing_of_packed_rows(name):
    model, (packed, _) = family(name).train(), packed_and_padded()
    sketcher = Sketcher(model, dim=DIM)
    before = sketcher(packed).g
    model.gradient_checkpointing_enable()
    assert error(sketcher(packed).g, before) == 0


@pytest.mark.parametrize("lengths", [[7], [5, 5, 5, 5, 5], [2, 2], [12, 3]])
def test_other_lengths_and_boundaries_by_cu_seqlens(lengths):
    packed, padded = packed_and_padded(lengths)
    del packed["position_ids"]
    packed |= {"cu_seqlens": ends(lengths), "attention_mask": torch.ones_like(packed["input_ids"])}
    sketcher = Sketcher(family("qwen3"), dim=DIM)
    assert error(sketcher(packed).g, sketcher(padded).g) <= TOLERANCE


@pytest.mark.parametrize("adapter", ["all", "full"])
def test_the_first_token_of_a_sample_is_never_predicted(adapter):
    packed, _ = packed_and_padded()
    sketcher = Sketcher(family("llama", adapter), dim=DIM)
    before = sketcher(packed).g
    packed["labels"][0, 9] = 5  # the second sample's first token
    assert error(sketcher(packed).g, before) == 0


@pytest.mark.parametrize(("name", "adapter"), [("bloom", "full"), ("opt", "full"), ("opt", "all")])
def test_a_model_that_mixes_packed_samples_is_refused_by_name(name, adapter):
    with pytest.raises(GradexError, match=rf"^{FAMILIES[name].kind} does not keep packed samples apart"):
        Sketcher(family(name, adapter).bfloat16(), dim=DIM)(packed_and_padded()[0])


def test_a_batch_that_proves_nothing_is_followed_by_one_that_does():
    sketcher, (mixed, _) = Sketcher(family("opt"), dim=DIM), packed_and_padded()
    sketcher(packed_and_padded([7])[0] | {"cu_seqlens": ends([7])})
    mixed["labels"][:, 9:] = -100
    sketcher(mixed)
    with pytest.raises(GradexError, match="does not keep packed samples apart"):
        sketcher(packed_and_padded()[0])


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("llama", {"cu_seqlens": torch.tensor([0, 9, 11])}, r"one row of samples.*\[1, 31\] for lengths \[9, 2\]"),
        ("llama", {"cu_seqlens": torch.tensor([0, 9, 9, 31])}, "one row of samples"),
        ("t5", {}, "one row of samples for a decoder"),
        ("bert", {"labels": torch.tensor([1])}, "one row of samples for a decoder"),
        ("llama", {"cu_seqlens": ends(LENGTHS), "attention_mask": torch.tensor([[1] * 30 + [0]])}, "no padding"),
    ],
)
def test_refused(name, change, message):
    with pytest.raises(ValueError, match=message):
        Sketcher(family(name), dim=DIM)({**packed_and_padded()[0], **change})


@pytest.mark.parametrize(
    "positions", [[0, 1, 2, 0, 1, 2, 3, 4, 5], [0, 1, 2, 3, 4, 5, 6, 7, 8], [2] * 9, [0] * 8 + [9]]
)
@pytest.mark.parametrize("masked", [True, False])
def test_one_row_is_packed_only_if_its_positions_start_again_and_no_mask_is_given(positions, masked):
    batch = random_batch("llama", samples=1) | {"position_ids": torch.tensor([positions])}
    if not masked:
        del batch["attention_mask"]
    given, rows = laid_out(batch)
    packed = not masked and positions[3] == 0 and positions[8] == 5
    assert rows.samples == (2 if packed else 1) and ("attention_mask" in given) == masked


class Heads(nn.Module):
    """As many heads as tokens, before or after them: no shape tells which axis is which."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(4)


def test_an_axis_that_may_be_the_tokens_is_refused():
    model = Heads()
    rows, capture = Packed([2, 4], torch.device("cpu")), Capture(model)
    for shape in ((1, 8, 6, 4), (1, 6, 6, 4), (1, 8, 4), (8, 4)):
        with pytest.raises(NotImplementedError, match="cannot be told apart"), capture.taps(rows, print) as leaf:
            torch.autograd.grad(model.norm(torch.randn(shape)).sum(), leaf)
    shares = []
    with capture.taps(rows, lambda name, f: shares.append((name, f.grads.shape, f.lengths))) as leaf:
        torch.autograd.grad(model.norm(torch.randn(1, 6, 8, 4)).sum(), leaf)
    assert [shape[:1] for _, shape, _ in shares] == [(2,), (2,)]
