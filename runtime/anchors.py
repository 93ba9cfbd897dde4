"""What the layers of a stage gave at their last full pass, for its low-rank variant."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edgedec.runtime.session import empty


class Anchors:
    """Hidden states ``[rows, 1, width]`` behind every layer of a stage (arXiv 2601.02569).

    Args:
        layers: of the stage.
        rows: sequences decoded side by side.
        width: channels of a hidden state.
    """

    def __init__(self, layers: range, rows: int, width: int) -> None:
        self._states = {f"anchor.{layer}": empty(rows, 1, width) for layer in layers}

    @property
    def inputs(self) -> dict[str, NDArray[np.float32]]:
        """What the low-rank graph reads, under the names of its inputs; memory of this object."""
        return self._states

    def set(self, outputs: list[NDArray[np.float32]], counts: NDArray[np.int64] | None) -> None:
        """Keep each row's last position of a full pass.

        Args:
            outputs: ``[rows, T', width]`` of every layer.
            counts: int64 ``[rows]``, how many of T' are the row's own, None for all; a row that
                has none keeps its anchor.
        """
        for anchor, states in zip(self._states.values(), outputs, strict=True):
            if counts is None:
                anchor[:] = states[:, -1:]
            else:
                rows = np.flatnonzero(counts)
                anchor[rows, 0] = states[rows, counts[rows] - 1]

    def reorder(self, parents: NDArray[np.int64]) -> None:
        """Let row r continue row ``parents[r]``."""
        for anchor in self._states.values():
            anchor[:] = anchor[parents]

    def fork(self, copies: int) -> None:
        """Repeat every row ``copies`` times, side by side."""
        self._states = {k: np.repeat(a, copies, axis=0) for k, a in self._states.items()}

    def copy(self, other: Anchors, rows: NDArray[np.int64]) -> None:
        """Let row r continue row ``rows[r]`` of others, in memory that stays where it is."""
        for name, anchor in self._states.items():
            anchor[:] = other.inputs[name][rows]
