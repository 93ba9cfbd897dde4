"""Cyclic coordinate descent over codes: each weight in turn takes the best level given all others.

This is exact: within a block of columns changes are passed on one by one, and a block begins with
what all other columns are by then. So no step raises the objective.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edgedec.quantize.fitting.columns import BLOCK, SLAB, Chooser, Tables
from edgedec.quantize.fitting.products import pieces, wide_product
from edgedec.quantize.pool import Pool

Array = NDArray[np.float32]


def descend(
    pull: Array,
    tables: Tables,
    coupling: Array,
    pool: Pool,
    codes: NDArray[np.uint8],
    values: Array,
) -> None:
    """One sweep over all columns.

    Args:
        pull: ``[K, N]``: ``(coupling + I) @ target``: the best value of each weight if all others
            were 0.
        tables: what rows choose from.
        coupling: `Curvature.coupling`.
        pool: for the products.
        codes: ``[K, N]``, changed.
        values: ``[K, N]``, their levels, changed.
    """
    columns, rows = pull.shape
    for slab in pieces(rows, SLAB):
        chooser = Chooser(tables.part(slab))
        current = values[:, slab]
        for block in pieces(columns, BLOCK):
            wanted = np.empty((block.stop - block.start, current.shape[1]), np.float32)
            wide_product(coupling[block], current, wanted, pool)
            np.subtract(pull[block, slab], wanted, out=wanted)
            chooser.block(
                wanted,
                coupling[block, block],
                current[block].copy(),
                codes[block, slab],
                current[block],
            )
