"""The decoder in NumPy under a plan: every token takes every layer in its own way.

What a depth policy leaves in the caches is checked against this. It goes token by token and layer
by layer; a runtime that lets positions wait and takes them through a stage later, many at once,
must come to the same, because no position looks at later ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from edgedec.export.reference import Array, Ids, Reference
from edgedec.export.spec import Stack

Action = Literal["full", "fill", "low-rank", "skip"]
"""What a layer does with a token: all that it does; write keys and values of the hidden state,
which passes unchanged; write them, and give its last full output with a low-rank correction; or
nothing at all."""


@dataclass(frozen=True)
class Fed:
    """A token of a row, and what each layer does with it (``layers`` actions, first to last)."""

    token: int
    actions: tuple[Action, ...]


@dataclass(frozen=True, eq=False)
class Replayed:
    """What a row's decoder has computed.

    Attributes:
        keys: for every layer float32 ``[its length, kv_width]``, as the cache holds them,
        values: and as many values.
        states: float32 ``[tokens, layers + 1, d_model]``: the first layer's input, and what came
            out behind every layer.
    """

    keys: tuple[Array, ...]
    values: tuple[Array, ...]
    states: Array


def replay(reference: Reference, source: Sequence[int] | None, row: Sequence[Fed]) -> Replayed:
    """Decode one row under a plan.

    A token's position in a layer is the length of that layer's cache, and learned or sinusoidal
    positions are those of the first layer, which always runs.

    Args:
        reference: the model.
        source: the encoder's tokens, None without an encoder.
        row: what is fed, prompt included.

    Raises:
        ValueError: a low-rank step without a full one before, or layer 0 does not run in full.
    """
    layers = [_Cached(reference, i) for i in range(reference.spec.decoder.layers)]
    memory = padding = None
    if source is not None:
        ids = np.array([source], np.int64)
        memory, padding = reference.remember(ids, np.ones_like(ids))
    states = []
    for place, fed in enumerate(row):
        if fed.actions[0] != "full":
            raise ValueError("layer 0 runs in full")
        ids = np.array([[fed.token]], np.int64)
        x = reference.embed("decoder", reference.spec.decoder, ids, np.array([place]))
        passed = [x]
        for layer, action in zip(layers, fed.actions, strict=True):
            x = layer.take(action, x, memory, padding)
            passed.append(x)
        states.append(np.concatenate(passed, axis=1)[0])
    return Replayed(
        keys=tuple(layer.keys[0] for layer in layers),
        values=tuple(layer.values[0] for layer in layers),
        states=np.stack(states),
    )


class _Cached:
    """One layer with its cache, and its anchor."""

    def __init__(self, reference: Reference, layer: int) -> None:
        self._reference, self._layer = reference, layer
        self._name = f"decoder.{layer}"
        width = reference.spec.decoder.kv_width
        self.keys = self.values = np.zeros((1, 0, width), np.float32)
        self._anchor: Array | None = None

    def take(self, action: Action, x: Array, memory: Array | None, padding: Array | None) -> Array:
        """What comes out for one token's state ``x [1, 1, d_model]``."""
        if action == "skip":
            return x
        if action == "full":
            self._anchor = self._reference.layer(self._layer, x, self._attend, memory, padding)
            return self._anchor
        stack = self._reference.spec.decoder
        name = f"{self._name}.self_attn"
        y = self._reference.norm(f"{name}.norm", stack, x) if stack.norm_first else x
        self._write(name, stack, y)
        if action == "fill":
            return x
        if self._anchor is None:
            raise ValueError(f"layer {self._layer} has no anchor yet")
        adapter = f"{self._name}.lora_adapter"
        return self._anchor + self._reference.low_rank(x, f"{adapter}.A", f"{adapter}.B")

    def _attend(self, name: str, stack: Stack, x: Array) -> Array:
        place = self._write(name, stack, x)
        seen = np.arange(self.keys.shape[1])
        bias = self._reference.relative("decoder", self._layer, stack, place, seen)
        return self._reference.attend(name, stack, x, self.keys, self.values, bias, place)

    def _write(self, name: str, stack: Stack, x: Array) -> Ids:
        """Append keys and values of ``x``; returns its position ``[1]``."""
        place = np.array([self.keys.shape[1]])
        key, value = self._reference.keys_values(name, stack, x, place)
        self.keys = np.concatenate([self.keys, key], axis=1)
        self.values = np.concatenate([self.values, value], axis=1)
        return place
