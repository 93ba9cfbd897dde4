"""Run the encoder graph: a padded batch of sources in, every layer's cross keys and values out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgedec.runtime.contract import check_encoder
from edgedec.runtime.manifest import Interface
from edgedec.runtime.memory import require
from edgedec.runtime.session import Session, empty

SCORES = 3
"""Float32 arrays ``[rows, heads, S, S]`` alive at a time in attention: bias, scores, a copy."""


@dataclass(frozen=True, eq=False)
class Memory:
    """What the decoder reads of its source.

    ``arrays`` holds ``cross.{i}.key`` and ``cross.{i}.value`` float32 ``[rows, S, width]`` of every
    decoder layer, and ``cross.mask`` float32 ``[rows, 1, 1, S]``. ``mean``, float32
    ``[rows, d_model]``, is what routers read of it; None without routers.
    """

    arrays: dict[str, NDArray[np.float32]]
    mean: NDArray[np.float32] | None = None

    @property
    def nbytes(self) -> int:
        """Bytes of all keys and values."""
        return sum(array.nbytes for array in self.arrays.values())

    def fork(self, copies: int) -> Memory:
        """Every row ``copies`` times, side by side."""
        return Memory(
            {k: np.repeat(a, copies, axis=0) for k, a in self.arrays.items()},
            None if self.mean is None else np.repeat(self.mean, copies, axis=0),
        )


class Encoder:
    """The encoder component of a bundle.

    Args:
        session: its graph.
        interface: shapes of the graphs' contract.
        with_mean: whether the bundle's routers read the mean of the encoder's states.

    Raises:
        BundleError: the graph does not fit the interface.
    """

    def __init__(self, session: Session, interface: Interface, *, with_mean: bool = False) -> None:
        check_encoder(session, interface, with_mean=with_mean)
        self._session = session
        self._interface = interface

    def encode(self, sources: Sequence[Sequence[int]], pad: int) -> Memory:
        """Encode a batch; each source has at least one token, shorter ones are padded.

        Raises:
            InputError: attention over the longest source does not fit into memory.
        """
        rows, longest = len(sources), max(len(s) for s in sources)
        heads = self._interface.attention_heads or 1
        require(
            SCORES * rows * heads * longest * longest * 4,
            f"encoding {longest:,} tokens, {rows} input(s) at a time,",
            "split the input, or take fewer at a time",
        )
        width = self._interface.kv_width
        arrays: dict[str, NDArray[Any]] = {
            f"cross.{i}.{part}": empty(rows, longest, width)
            for i in range(self._interface.decoder_layers)
            for part in ("key", "value")
        }
        arrays["cross.mask"] = empty(rows, 1, 1, longest)
        outputs = dict(arrays)
        mean = None
        if "source.mean" in self._session.outputs:
            mean = outputs["source.mean"] = empty(rows, self._interface.d_model)
        self._session.bind(padded(sources, longest, pad), outputs).run()
        return Memory(arrays, mean)


def padded(sources: Sequence[Sequence[int]], length: int, pad: int) -> dict[str, NDArray[np.int64]]:
    """The encoder's inputs ``[rows, length]``: shorter sources are padded and masked."""
    ids: NDArray[np.int64] = np.full((len(sources), length), pad, np.int64)
    mask = np.zeros_like(ids)
    for row, source in enumerate(sources):
        ids[row, : len(source)] = source
        mask[row, : len(source)] = 1
    return {"input_ids": ids, "attention_mask": mask}
