"""Second moments made invertible, in the forms that feedback and coordinate descent need."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]

LEAST = 1e-6
"""Inputs that are always 0, or always alike, leave moments singular: they need some damping."""


@dataclass(frozen=True, eq=False)
class Curvature:
    """Damped second moments H of inputs, with the columns that matter most first.

    Attributes:
        order: intp ``[K]``: column i here is column ``order[i]`` of the matrix. All other fields
            are in this order.
        diagonal: float32 ``[K]``: H's, whose mean is made 1 plus the damping.
        coupling: float32 ``[K, K]``: H over its diagonal, by rows, without the diagonal. The best
            weight i, given errors e of the others, is off by ``-coupling[i] @ e``.
        feedback: float32 ``[K, K]``, strictly lower: what errors of the columns before i are worth
            in column i, if all later columns can still make up for the rest.
    """

    order: NDArray[np.intp]
    diagonal: Array
    coupling: Array
    feedback: Array


def damped(moments: Array, damping: float) -> Array:
    """``moments + damping * mean(diag(moments)) * I``, float32 ``[K, K]``.

    Moments that are all 0 become the unit matrix, with which a product's error is the weights'.

    Raises:
        ValueError: moments that are no square matrix, or hold NaN or infinity.
    """
    if moments.ndim != 2 or moments.shape[0] != moments.shape[1] or not moments.size:
        raise ValueError(f"second moments of shape {list(moments.shape)} are no square matrix")
    mean = float(np.mean(np.diag(moments), dtype=np.float64))
    if not np.isfinite(mean) or not np.isfinite(moments).all():
        raise ValueError("second moments hold NaN or infinity")
    if mean <= 0:
        return np.eye(len(moments), dtype=np.float32)
    result = moments.astype(np.float32)
    result[np.diag_indices_from(result)] += np.float32(max(damping, LEAST) * mean)
    return result


def curvature(hessian: Array) -> Curvature:
    """Factorize damped second moments ``[K, K]``.

    H is U D U^T with a unit upper triangle U, so the objective is the sum over columns i of
    ``D_i * (e_i + sum_{j<i} U_ji e_j)^2``: choosing e_i to cancel the sum is error feedback. This
    is how QuIP (arXiv 2307.13304, section 4) writes what GPTQ (arXiv 2210.17323) does with the
    inverse; it takes one Cholesky decomposition and no inverse.
    """
    diagonal = np.diag(hessian)
    order = np.argsort(-diagonal, kind="stable")
    exact = hessian[np.ix_(order, order)].astype(np.float64)
    exact /= np.mean(diagonal, dtype=np.float64)
    # Of the reversed matrix, the lower factor is the reversed upper one.
    upper = np.linalg.cholesky(exact[::-1, ::-1])[::-1, ::-1]
    feedback = np.ascontiguousarray((upper / np.diag(upper)).T, np.float32)
    np.fill_diagonal(feedback, 0)
    own = np.diag(exact).copy()
    coupling = (exact / own[:, None]).astype(np.float32)
    np.fill_diagonal(coupling, 0)
    return Curvature(order, own.astype(np.float32), coupling, feedback)
