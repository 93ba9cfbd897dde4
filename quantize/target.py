"""What matrices should become when their inputs have changed already."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from edgedec.quantize.pool import Pool

Array = NDArray[np.float32]


def corrected(weights: Sequence[Array], drift: Array, hessian: Array, pool: Pool) -> list[Array]:
    """Matrices whose products with changed inputs come closest to the original ones.

    With inputs X' instead of X ``[tokens, K]`` and damped moments H of X', the minimum over W* of
    ``|X' W*^T - X W^T|^2`` plus damping is ``W* = W + [H^-1 X'^T (X - X') W^T]^T``.

    Args:
        weights: matrices W ``[N, K]``.
        drift: X'^T (X - X') / tokens, ``[K, K]``.
        hessian: H, ``[K, K]``, damped.
        pool: for the products.
    """
    # One system for all rows of all matrices, unless there are more rows than columns.
    exact = hessian.astype(np.float64)
    shift = np.linalg.solve(exact, drift.astype(np.float64)).T.astype(np.float32)
    return [weight + pool.product(weight, np.ascontiguousarray(shift)) for weight in weights]
