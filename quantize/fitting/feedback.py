"""Codes by error feedback: later columns make up for the rounding of earlier ones.

GPTQ (arXiv 2210.17323) on any codebook, in the order of falling second moments, in blocks whose
effect on the columns behind them is one product.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edgedec.quantize.fitting.columns import BLOCK, SLAB, Chooser, Tables
from edgedec.quantize.fitting.damping import Curvature
from edgedec.quantize.fitting.products import pieces, wide_product
from edgedec.quantize.pool import Pool

Array = NDArray[np.float32]


def error_feedback(
    weight: Array,
    scale: Array,
    codebooks: Array,
    group_of_row: NDArray[np.integer],
    curvature: Curvature,
    pool: Pool,
) -> NDArray[np.uint8]:
    """Codes of a matrix ``[N, K]`` such that rounding errors cancel in its products.

    Args:
        weight: the matrix.
        scale: what level 1 stands for, positive: ``[N]`` per row, or ``[N, K]`` per weight.
        codebooks: ``[G, 2**bits]``, ascending.
        group_of_row: ``[N]``: each row's codebook, in any order.
        curvature: of the second moments of its inputs.
        pool: for the products.

    Returns:
        uint8 ``[N, K]``.

    Raises:
        ValueError: levels that do not ascend, scales that are not positive.
    """
    if (np.diff(codebooks, axis=1) < 0).any():
        raise ValueError("the levels of a codebook must ascend")
    if not (scale > 0).all():
        raise ValueError("scales must be positive")
    order = curvature.order
    wanted = np.ascontiguousarray(weight.T[order], np.float32)
    unit = None
    if scale.ndim == 1:
        wanted /= scale
    else:
        unit = np.ascontiguousarray(scale.T[order], np.float32)
    tables = Tables.of(codebooks.astype(np.float32), group_of_row.astype(np.intp))
    codes = np.empty(wanted.shape, np.uint8)
    choose_with_feedback(wanted, tables, curvature.feedback, pool, codes, unit)
    result = np.empty(weight.shape, np.uint8)
    result[:, order] = codes.T
    return result


def choose_with_feedback(
    target: Array,
    tables: Tables,
    mixing: Array,
    pool: Pool,
    codes: NDArray[np.uint8],
    unit: Array | None = None,
) -> Array:
    """`error_feedback` of matrices in the order and units of a fit.

    Args:
        target: ``[K, N]``, over the scales of rows.
        tables: what rows choose from.
        mixing: `Curvature.feedback`.
        pool: for the products.
        codes: ``[K, N]``, written.
        unit: ``[K, N]``, what level 1 stands for, if not 1.

    Returns:
        The levels chosen, ``[K, N]``.
    """
    values = np.empty_like(target)
    columns, rows = target.shape
    for slab in pieces(rows, SLAB):
        chooser = Chooser(tables.part(slab))
        errors = np.empty((columns, slab.stop - slab.start), np.float32)
        for block in pieces(columns, BLOCK):
            earlier = slice(0, block.start)
            wanted = np.empty((block.stop - block.start, errors.shape[1]), np.float32)
            wide_product(mixing[block, earlier], errors[earlier], wanted, pool)
            np.subtract(target[block, slab], wanted, out=wanted)
            errors[block] = chooser.block(
                wanted,
                mixing[block, block],
                target[block, slab],
                codes[block, slab],
                values[block, slab],
                None if unit is None else unit[block, slab],
            )
    return values
