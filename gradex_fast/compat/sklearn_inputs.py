"""What `gradex_fast.compat.sklearn` is given besides X and y: numbers of rows, groups and subsets."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike
from sklearn.utils import check_array

from gradex_fast.regression import subset_masks


def column_of(values: ArrayLike | None, count: int, name: str, default: float) -> np.ndarray:
    """float64 [count]."""
    if values is None:
        return np.full(count, default)
    column = check_array(values, dtype=np.float64, ensure_2d=False, ensure_min_samples=0, input_name=name)
    if column.shape != (count,):
        raise ValueError(f"{name} must be one number a row, [{count}], got {list(column.shape)}")
    return column


def groups_of(groups: ArrayLike, count: int) -> np.ndarray:
    array = np.asarray(groups)
    if array.shape != (count,) or array.dtype.kind not in "iu" or (array < 0).any():
        raise ValueError(
            f"groups must be integers from 0, one a row, [{count}], got {array.dtype} {list(array.shape)}; "
            "numpy.unique(groups, return_inverse=True)[1] makes them of anything"
        )
    return array.astype(np.int64)


def masks_of(subsets: ArrayLike | Sequence[Sequence[int]], groups: np.ndarray) -> np.ndarray:
    """bool [m, n]; lists of booleans are a mask's rows."""
    if hasattr(subsets, "to_numpy"):
        subsets = subsets.to_numpy()
    if not hasattr(subsets, "dtype") and any(np.asarray(members).dtype == bool for members in subsets):
        subsets = np.asarray(subsets)
    count = int(groups.max()) + 1
    if hasattr(subsets, "dtype") and subsets.ndim == 2 and subsets.shape[1] > count:
        count = subsets.shape[1]
    return subset_masks(subsets, count)
