"""One decoder graph of fixed shapes, with the memory that it reads and writes."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgedec.runtime.session import Binding, Session, empty
from edgedec.runtime.static.bias import Bias, decoder_bias
from edgedec.runtime.static.cache import StaticCache
from edgedec.runtime.static.numbers import Numbers


class StaticGraph:
    """Runs new tokens of one row at a time.

    Args:
        session: the graph, checked.
        bias: of self-attention.
        numbers: how caches store their numbers, by input.

    Attributes:
        tokens: that it takes, or makes, in one run.
        chosen: int32 ``[1, K]``: greedy choices of the last run.
        logits: float32 ``[1, 1, vocab]`` of the last run that was asked for them.
        new: rows for the caches, by output.
    """

    def __init__(self, session: Session, bias: Bias, numbers: dict[str, Numbers]) -> None:
        shapes = {name: port.lengths for name, port in session.inputs.items()}
        found = {name: port.lengths for name, port in session.outputs.items()}
        self.tokens = shapes["self.bias"][2]
        self.chosen: NDArray[np.int32] = np.zeros(found["next_token"], np.int32)
        self.logits = empty(*found["logits"]) if "logits" in found else empty(0)
        self.new = {
            name: np.zeros(shape, numbers[name.replace("new.", "past.", 1)].dtype)
            for name, shape in found.items()
            if name.startswith("new.")
        }
        self._session = session
        self._table = bias
        self._ids: NDArray[np.int32] = np.zeros(shapes["input_ids"], np.int32)
        self._positions: NDArray[np.int32] = np.zeros((1, self.tokens), np.int32)
        self._picked: NDArray[np.int32] = np.zeros((1, 1), np.int32)
        self._bias = empty(*shapes["self.bias"])
        self._past = self._bias.shape[3] - self.tokens
        self._steps = np.arange(self.tokens)
        self._bindings: dict[tuple[int, bool], Binding] = {}

    def forget(self) -> None:
        """Memory of rows has changed its place."""
        self._bindings.clear()

    def run(
        self,
        row: int,
        tokens: NDArray[np.int64],
        cache: StaticCache,
        cross: dict[str, NDArray[Any]],
        *,
        want_logits: bool,
    ) -> float:
        """Run once.

        Args:
            row: whose tokens they are.
            tokens: int64 ``[n]``, as many as the graph takes or fewer.
            cache: of all rows.
            cross: what the graph reads of the source, of all rows.
            want_logits: write `logits` too.

        Returns:
            The seconds that it took.
        """
        known = int(cache.lengths[row])
        self._ids[:] = 0
        self._ids[0, : len(tokens)] = tokens
        self._picked[:] = len(tokens) - 1
        # What is no position of the row goes anywhere, and nobody reads it.
        np.minimum(known + self._steps, self._past, out=self._positions[0], casting="unsafe")
        decoder_bias(self._table, self._past, known, self._bias)
        binding = self._bindings.get((row, want_logits))
        if binding is None:
            inputs: dict[str, NDArray[Any]] = {
                "input_ids": self._ids,
                "positions": self._positions,
                "logit_positions": self._picked,
                "self.bias": self._bias,
            }
            for name, array in (*cache.arrays.items(), *cross.items()):
                inputs[name] = array[row : row + 1]
            outputs: dict[str, NDArray[Any]] = {"next_token": self.chosen, **self.new}
            if want_logits:
                outputs["logits"] = self.logits
            binding = self._bindings[row, want_logits] = self._session.bind(inputs, outputs)
        return binding.run()
