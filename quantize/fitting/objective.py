"""How far a matrix is from another, by what its inputs make of the difference."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]


def energy(matrix: Array, hessian: Array) -> float:
    """tr(M H M^T) of a matrix ``[N, K]`` and moments ``[K, K]``; not below 0."""
    product = matrix @ hessian
    return max(float(np.einsum("nk,nk->", product, matrix, dtype=np.float64)), 0.0)


def relative_error(values: Array, weight: Array, hessian: Array) -> float:
    """sqrt(tr(E H E^T) / tr(W H W^T)), E being ``values - weight``, ``[N, K]``.

    This is the relative error of outputs over the inputs that H ``[K, K]`` was summed from. It is 0
    where both are 0, and infinite where only W H W^T is.
    """
    error, whole = energy(values - weight, hessian), energy(weight, hessian)
    if whole == 0:
        return 0.0 if error == 0 else float("inf")
    return float(np.sqrt(error / whole))
