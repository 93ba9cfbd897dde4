"""Codes chosen column by column, each knowing what the columns before it changed.

Error feedback and coordinate descent differ in what a column wants and in how much of a change
another column makes up for; this loop is what they share. Matrices are transposed here,
``[K, N]``, so that a column of weights is one run of memory.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]
BLOCK = 64
"""Columns between two products that tell all later ones about changes."""
SLAB = 2304
"""Rows taken together: more do not fit the cache, fewer do not pay for the calls."""


@dataclass(frozen=True, eq=False)
class Tables:
    """The levels that N rows choose from.

    Attributes:
        levels: float32 ``[G * 2**bits]``, each group's ascending.
        middles: float32 ``[2**bits - 1, N]``: between the levels of each row's group.
        first: intp ``[N]``: where each row's levels begin.
    """

    levels: Array
    middles: Array
    first: NDArray[np.intp]

    @classmethod
    def of(cls, codebooks: Array, group: NDArray[np.intp]) -> Tables:
        """Of ascending codebooks ``[G, 2**bits]`` and the group of each row ``[N]``."""
        middles = (codebooks[:, 1:] + codebooks[:, :-1]) / 2
        first = group * codebooks.shape[1]
        return cls(codebooks.ravel(), np.ascontiguousarray(middles[group].T), first)

    def part(self, rows: slice) -> Tables:
        """Those of some rows."""
        return Tables(self.levels, np.ascontiguousarray(self.middles[:, rows]), self.first[rows])


class Chooser:
    """Chooses codes of one block of columns after the other, for some rows."""

    def __init__(self, tables: Tables) -> None:
        self._tables = tables
        rows = len(tables.first)
        self._above = np.empty(tables.middles.shape, np.bool_)
        self._index = np.empty(rows, np.intp)
        self._wanted = np.empty(rows, np.float32)
        self._changes = np.empty((BLOCK, rows), np.float32)

    def block(
        self,
        wanted: Array,
        mixing: Array,
        before: Array,
        codes: NDArray[np.uint8],
        values: Array,
        unit: Array | None = None,
    ) -> Array:
        """The nearest levels, from the first column of a block to its last.

        Args:
            wanted: ``[B, N]``: what each column should be if no other column of the block changed.
            mixing: ``[B, B]``: how much of a change of column j column i takes off; below the
                diagonal.
            before: ``[B, N]``: what changes are counted from.
            codes: ``[B, N]``, written.
            values: ``[B, N]``, written; may not be ``before``.
            unit: ``[B, N]``, what level 1 stands for in each weight, if not 1.

        Returns:
            ``values - before``, valid until the next call.
        """
        tables, want = self._tables, self._wanted
        for j in range(len(wanted)):
            np.dot(mixing[j, :j], self._changes[:j], out=want)
            np.subtract(wanted[j], want, out=want)
            if unit is not None:
                want /= unit[j]
            np.greater(want, tables.middles, out=self._above)
            np.add.reduce(self._above, axis=0, dtype=np.uint8, out=codes[j])
            np.add(tables.first, codes[j], out=self._index)
            # "clip" because the default checks into a second buffer
            np.take(tables.levels, self._index, out=values[j], mode="clip")
            if unit is not None:
                values[j] *= unit[j]
            np.subtract(values[j], before[j], out=self._changes[j])
        return self._changes[: len(wanted)]
