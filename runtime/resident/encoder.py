"""Run an encoder that leaves what it gives in a device's memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgedec.runtime.contract import check_encoder
from edgedec.runtime.encoder import padded
from edgedec.runtime.manifest import Interface, Limits
from edgedec.runtime.resident.arena import Arena
from edgedec.runtime.resident.contract import NUMBERS, kept_by_encoder
from edgedec.runtime.resident.memory import ResidentMemory, empty_memory, padded_length
from edgedec.runtime.session import Array, Binding, Session, empty

SHAPES = 4
"""Shapes whose memory is kept for the next batch."""


class ResidentEncoder:
    """The encoder component of a bundle, on a device with memory of its own.

    Args:
        session: its graph.
        interface: shapes of the graphs' contract.
        limits: how far the graph reaches.
        arena: the device's memory.
        with_mean: whether the bundle's routers read the mean of the encoder's states.

    Raises:
        BundleError: the graph does not fit the interface.
    """

    def __init__(
        self,
        session: Session,
        interface: Interface,
        limits: Limits,
        arena: Arena,
        *,
        with_mean: bool = False,
    ) -> None:
        kept = kept_by_encoder(session, interface)
        check_encoder(session, interface, kept, with_mean=with_mean)
        self._session = session
        self._interface = interface
        self._limits = limits
        self._arena = arena
        self._dtype = NUMBERS[kept.type]
        self._bound: dict[tuple[int, int], _Bound] = {}

    def encode(self, sources: Sequence[Sequence[int]], pad: int) -> ResidentMemory:
        """Encode a batch; each source has at least one token, shorter ones are padded.

        Returns:
            Memory that the next batch of this shape overwrites.

        Raises:
            InputError: the device has not enough memory.
        """
        length = padded_length(max(len(s) for s in sources), self._limits.source)
        key = len(sources), length
        bound = self._bound.pop(key, None) or self._bind(*key)
        while len(self._bound) >= SHAPES:
            del self._bound[next(iter(self._bound))]
        self._bound[key] = bound
        for name, array in padded(sources, length, pad).items():
            bound.inputs[name][...] = array
        bound.binding.run()
        return bound.memory

    def _bind(self, rows: int, length: int) -> _Bound:
        inputs = padded([[0]] * rows, length, 0)
        memory = empty_memory(self._arena, self._interface, rows, length, self._dtype)
        outputs: dict[str, Array] = dict(memory.arrays)
        if "source.mean" in self._session.outputs:
            mean = outputs["source.mean"] = empty(rows, self._interface.d_model)
            memory = ResidentMemory(self._arena, memory.arrays, mean)
        return _Bound(inputs, memory, self._session.bind(inputs, outputs))


@dataclass(frozen=True, eq=False)
class _Bound:
    """The graph for one shape, with its memory."""

    inputs: dict[str, NDArray[np.int64]]
    memory: ResidentMemory
    binding: Binding
