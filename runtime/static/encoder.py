"""Run an encoder of fixed shapes: one source at a time."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgedec.runtime.manifest import Interface, Static
from edgedec.runtime.memory import require
from edgedec.runtime.session import Session
from edgedec.runtime.static.bias import Bias, encoder_bias, hide
from edgedec.runtime.static.contract import check_static_encoder
from edgedec.runtime.static.memory import StaticMemory


class StaticEncoder:
    """The encoder component of a bundle, of fixed shapes.

    Args:
        session: its graph.
        interface: shapes of the graphs' contract.
        static: what the manifest says of fixed shapes.
        bias: of its attention.

    Raises:
        BundleError: the graph does not fit the manifest.
    """

    def __init__(self, session: Session, interface: Interface, static: Static, bias: Bias) -> None:
        assert static.encoder is not None
        self._numbers = check_static_encoder(session, interface, static)
        self._session = session
        self._source = static.encoder.source
        self._shapes = {name: session.outputs[name].lengths for name in self._numbers}
        shape = session.inputs["self.bias"].lengths
        require(_bytes(shape), f"the bias of {session.name}", "export with a shorter --max-source")
        self._bias = encoder_bias(bias, shape[2], self._source)

    def encode(self, sources: Sequence[Sequence[int]], pad: int) -> StaticMemory:
        """Encode sources of 1 to S tokens each; what follows a shorter one is masked.

        Raises:
            InputError: what it gives does not fit into memory.
        """
        rows = len(sources)
        require(
            rows * sum(map(_bytes, self._shapes.values())),
            f"the memory of {rows} input(s)",
            "take fewer at a time",
        )
        arrays = {
            name: self._numbers[name].empty(rows, *shape[1:])
            for name, shape in self._shapes.items()
        }
        ids: NDArray[np.int32] = np.full((1, self._source), pad, np.int32)
        bias = self._bias.copy()
        inputs: dict[str, NDArray[Any]] = {"input_ids": ids, "self.bias": bias}
        for row, source in enumerate(sources):
            ids[:] = pad
            ids[0, : len(source)] = source
            np.copyto(bias, self._bias)
            hide(bias, len(source))
            outputs = {name: array[row : row + 1] for name, array in arrays.items()}
            self._session.bind(inputs, outputs).run()
        lengths = np.array([len(source) for source in sources], np.int64)
        return StaticMemory(arrays, self._numbers, lengths)


def _bytes(shape: Sequence[int]) -> int:
    """Of float32, the widest that there is."""
    return 4 * math.prod(shape)
