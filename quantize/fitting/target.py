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
    exact, right = hessian.astype(np.float64), drift
    rows = np.cumsum([len(weight) for weight in weights])
    few = len(rows) > 0 and rows[-1] < len(hessian)
    if few:  # fewer columns on the right side
        right = pool.product(drift, np.ascontiguousarray(np.concatenate(weights).T))
    shift = np.linalg.solve(exact, right.astype(np.float64)).T.astype(np.float32)
    if few:
        moved = np.split(shift, rows[:-1])
    else:
        shift = np.ascontiguousarray(shift)
        moved = [pool.product(weight, shift) for weight in weights]
    return [weight + change for weight, change in zip(weights, moved, strict=True)]
