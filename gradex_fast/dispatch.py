"""When a kernel's call goes by torch's dispatcher (`ops.py`), whose tens of microseconds a plain call is spared."""

from __future__ import annotations

import torch

_PLAIN = (torch.Tensor, torch.nn.Parameter)
_modes = torch._C._len_torch_dispatch_stack  # such as a FakeTensorMode; torch has no public name for either
_level = torch._C._functorch.maybe_current_level  # of vmap, grad and their like


def dispatched(*tensors: torch.Tensor | None, differentiable: bool = True) -> bool:
    """Whether torch must see the call: in a graph, for fake or wrapped tensors, or to differentiate it."""
    if torch.compiler.is_compiling() or _modes() or _level() is not None:
        return True
    differentiable = differentiable and torch.is_grad_enabled()
    for tensor in tensors:
        if tensor is not None and (
            type(tensor) not in _PLAIN or tensor.is_meta or (differentiable and tensor.requires_grad)
        ):
            return True
    return False


def word(number: int) -> int:
    """A seed or offset as an operator takes it: its low 64 bits, all that P depends on, as a signed number."""
    number = int(number)
    return number if -(1 << 63) <= number < 1 << 63 else (number + (1 << 63)) % (1 << 64) - (1 << 63)
