"""The loss in pieces is torch's; rows without a label are nothing; the arg max is the first of equals."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from gradex_fast import cross_entropy as module
from gradex_fast.cross_entropy import cross_entropy
from gradex_fast.types import UNSUPERVISED


@pytest.fixture(params=[1, 40, 1 << 19], autouse=True)
def piece(request, monkeypatch):
    """One row a piece, two and a shorter last one, all at once."""
    monkeypatch.setitem(module._PIECE, "cpu", request.param)


def made(dtype=torch.float32, scale: float = 3.0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    logits = (scale * torch.randn(3, 5, 17, generator=generator)).to(dtype).requires_grad_()
    targets = torch.randint(17, (3, 5), generator=generator)
    targets[1, 3:] = targets[2, 4] = UNSUPERVISED
    return logits, targets


@pytest.mark.parametrize("scale", [0.1, 3.0, 40.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
def test_equals_torch(dtype, scale):
    logits, targets = made(dtype, scale)
    weights = torch.rand(3, 5)
    losses, right = cross_entropy(logits, targets)
    (found,) = torch.autograd.grad((losses * weights).sum(), logits)
    exact = logits.detach().double().requires_grad_()
    truth = F.cross_entropy(exact.transpose(1, 2), targets, reduction="none", ignore_index=UNSUPERVISED)
    (gradient,) = torch.autograd.grad((truth * weights).sum(), exact)
    torch.testing.assert_close(losses, truth.float(), rtol=2e-6, atol=2e-6 * max(1.0, scale))
    unit = max(torch.finfo(dtype).eps, torch.finfo(torch.float32).eps)
    torch.testing.assert_close(found.double(), gradient, rtol=8 * unit, atol=8 * 2.0**-23 if unit < 1e-6 else unit / 64)
    assert losses.dtype == torch.float32 and found.dtype == dtype
    assert torch.equal(right, exact.argmax(-1) == targets)


def test_a_sure_token_keeps_its_small_loss():
    """float32's 1 - p would be 0 or 6e-8 here."""
    logits = torch.tensor([[[18.0, 0.0, 0.0]]])
    losses, _ = cross_entropy(logits, torch.zeros(1, 1, dtype=torch.long))
    assert losses.item() == pytest.approx(2 * 1.522998e-8, abs=2**-24)


def test_what_is_not_supervised_is_nothing_even_where_it_is_not_a_number():
    logits, targets = made()
    whole, whole_right = cross_entropy(logits, targets)
    (gradient,) = torch.autograd.grad(whole.sum(), logits)
    broken = logits.detach().masked_fill((targets == UNSUPERVISED)[..., None], torch.nan).requires_grad_()
    losses, right = cross_entropy(broken, targets)
    (found,) = torch.autograd.grad(losses.sum(), broken)
    assert torch.equal(losses, whole) and torch.equal(found, gradient)
    assert (losses[targets == UNSUPERVISED] == 0).all() and (found[targets == UNSUPERVISED] == 0).all()
    kept = targets != UNSUPERVISED
    assert torch.equal(right[kept], whole_right[kept])


def test_of_equal_logits_the_first_is_the_likeliest_as_in_greedy_decoding():
    logits = torch.tensor([[0.0, 2.0, 2.0, 1.0]] * 4)[None]
    _, right = cross_entropy(logits, torch.tensor([[0, 1, 2, 3]]))
    assert right.tolist() == [[False, True, False, False]]
    close = torch.tensor([[[4096.0, 4096.0005, 0.0]] * 2])  # one unit apart: rounding must not make them equal
    assert cross_entropy(close, torch.tensor([[0, 1]]))[1].tolist() == [[False, True]]


def test_only_the_logits_themselves_are_kept_for_the_backward_pass():
    logits, targets = made(torch.bfloat16)
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: kept.append(tensor) or tensor, lambda tensor: tensor):
        cross_entropy(logits, targets)
    large = [tensor for tensor in kept if tensor.numel() > targets.numel()]
    assert [tensor.data_ptr() for tensor in large] == [logits.data_ptr()]
