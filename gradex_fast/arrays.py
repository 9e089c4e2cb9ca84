"""Arrays of any library as tensors or NumPy arrays, if possible without a copy, and results back to their kind."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeGuard, TypeVar

import numpy as np
import torch

Array = TypeVar("Array", torch.Tensor, np.ndarray)
"""Any other array with `__dlpack__` is taken as the tensor that shares its memory; results are tensors then."""


def is_array(value: object) -> TypeGuard[Any]:
    """Whether it is a tensor, a NumPy array or one that DLPack can exchange; a list is not."""
    return isinstance(value, (torch.Tensor, np.ndarray)) or hasattr(value, "__dlpack__")


def is_numpy(value: object) -> bool:
    """Whether results for it are NumPy arrays, as they are for lists."""
    return isinstance(value, np.ndarray) or not is_array(value)


def tensor_of(array: Array | Sequence) -> torch.Tensor:
    """The array as a real tensor to read from: it may share memory that is read-only.

    Raises:
        ValueError: complex numbers. TypeError: NumPy types that torch does not have.
    """
    if isinstance(array, torch.Tensor):
        tensor = array
    elif not is_numpy(array):
        tensor = torch.from_dlpack(array)
    elif torch.compiler.is_compiling():  # it has tensors in place of NumPy's arrays, without flags
        tensor = torch.as_tensor(array)
    else:
        tensor = torch.from_numpy(_shareable(np.asarray(array)))
    if tensor.is_complex():
        raise ValueError(f"arrays must be real, got {described(tensor)}")
    return tensor


def array_of(array: Array | Sequence) -> np.ndarray:
    if is_numpy(array):
        return np.asarray(array)
    tensor = tensor_of(array)
    return (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).detach().cpu().numpy()


def like(tensor: torch.Tensor, example: Array) -> Array:
    """A tensor as what results for the example are."""
    return tensor if isinstance(example, torch.Tensor) or not is_numpy(example) else tensor.cpu().numpy()


def device_of(example: Array | Sequence) -> torch.device | None:
    """Where results for it live; None is NumPy."""
    return None if is_numpy(example) else tensor_of(example).device


def placed(array: np.ndarray, device: torch.device | None) -> Array:
    """The array where `device_of` says."""
    return array if device is None else torch.from_numpy(array).to(device)


def described(tensor: torch.Tensor) -> str:
    return f"{tensor.dtype} {list(tensor.shape)} on {tensor.device}"


class _Promised:
    """An array's memory, said to be writeable: torch has no read-only tensors, and would warn of each."""

    def __init__(self, array: np.ndarray) -> None:
        self._array = array
        self.__array_interface__ = {**array.__array_interface__, "data": (array.ctypes.data, False)}


def _shareable(array: np.ndarray) -> np.ndarray:
    """torch's tensors have no negative strides."""
    if any(stride < 0 for stride in array.strides):
        return array.copy()
    return array if array.flags.writeable else np.asarray(_Promised(array))
