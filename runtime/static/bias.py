"""What is added to attention scores: windows of a table over distances.

A table holds one value for every distance, in falling order of places: a row of scores, in which
the distance falls by one from column to column, is a piece of it.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgedec.errors import BundleError
from edgedec.runtime.manifest import BiasTable

MASKED = np.float32(-40)
"""Added to a score that must not count, and the least that is ever added. A score of a trained
model lies so far below others that its weight vanishes, and grids of 16 bits still have fine steps
over this range; -10,000 would take them all (docs/npu.md)."""


class Bias:
    """A table in memory.

    Args:
        values: float32 ``[heads, 2 * reach]``, at ``reach - 1 - distance``.

    Attributes:
        heads: 1 where all add the same.
    """

    def __init__(self, values: NDArray[np.float32]) -> None:
        self._values = np.maximum(values, MASKED)
        self.heads = values.shape[0]
        self._origin = values.shape[1] // 2 - 1

    def window(self, distance: int, count: int) -> NDArray[np.float32]:
        """A view ``[heads, count]`` of the values at ``distance``, ``distance - 1``, and so on.

        Raises:
            ValueError: the table does not reach so far.
        """
        begin = self._origin - distance
        if begin < 0 or begin + count > self._values.shape[1]:
            raise ValueError(f"{count} distances from {distance} are not in the table")
        return self._values[:, begin : begin + count]


def read_bias(path: Path, table: BiasTable) -> Bias:
    """Read a table from its file.

    Raises:
        BundleError: the file is not of its size, or holds what is no number.
    """
    try:
        values = np.fromfile(path, "<f4")
    except OSError as error:
        raise BundleError(f"{path.name} cannot be read: {error.strerror}.") from error
    if values.size != table.heads * 2 * table.reach or not np.isfinite(values).all():
        raise BundleError(f"{path.name} is no table of biases: export the bundle again.")
    return Bias(values.reshape(table.heads, -1).astype(np.float32, copy=False))


def encoder_bias(bias: Bias, rows: int, source: int) -> NDArray[np.float32]:
    """The bias of an encoder without padding, ``[1, heads, rows, source]``.

    Args:
        bias: the table.
        rows: ``source``, or 1 where the rows are equal.
        source: tokens.
    """
    return np.stack([bias.window(row, source) for row in range(rows)], axis=1)[None]


def hide(bias: NDArray[np.float32], length: int) -> None:
    """Mask all columns from ``length`` on, in place."""
    bias[..., length:] = MASKED


def decoder_bias(bias: Bias, past: int, known: int, out: NDArray[np.float32]) -> None:
    """Write the bias of self-attention.

    Args:
        bias: the table.
        past: slots of the caches.
        known: how many of them hold positions, so that the first new position is this.
        out: ``[1, heads, C, past + C]``. Column j is slot j of the caches, or the new position
            ``j - past``. Where the table is causal, later ones are masked by it.
    """
    new = out.shape[2]
    for row in range(new):
        here = out[0, :, row]
        here[:, :past] = bias.window(known + row, past)
        here[:, known:past] = MASKED
        here[:, past:] = bias.window(row, new)
