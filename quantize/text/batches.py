"""Token sequences as padded arrays, and what a bundle's graphs want to be fed with them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from edgedec.quantize.text.samples import Sample

TOKENS = 512
"""Tokens of a batch, padding included: so few that a batch's attention scores and logits are small,
and enough for products to be fast and for every thread to have several batches."""

Ids = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Batch:
    """Some sequences side by side, padded at their ends, with the tokens that each should predict.

    Attributes:
        source: encoder input ``[B, S]``; None for a decoder-only model.
        source_mask: ``[B, S]``, 1 for a token, 0 for padding; None without a source.
        target: decoder input ``[B, T]``.
        labels: ``[B, T]``, the token after each.
        target_mask: bool ``[B, T]``, False for padding.
    """

    source: Ids | None
    source_mask: Ids | None
    target: Ids
    labels: Ids
    target_mask: NDArray[np.bool_]

    @property
    def predictions(self) -> int:
        """Tokens that are predicted."""
        return int(self.target_mask.sum())

    def feeds(self, inputs: Sequence[ir.Value]) -> dict[str, NDArray[Any]]:
        """What a graph of docs/bundle.md is fed to read whole targets at once.

        Args:
            inputs: of the graph; those that another graph computes left out.

        Raises:
            ValueError: an input that this contract does not know.
        """
        rows, new = self.target.shape
        encodes = takes_source(inputs)
        places = np.ascontiguousarray(np.broadcast_to(np.arange(new), (rows, new)))
        known: dict[str, NDArray[Any] | None] = {
            "input_ids": self.source if encodes else self.target,
            "attention_mask": self.source_mask,
            "past_length": np.zeros(rows, np.int64),
            "positions": places,
            "logit_positions": places,
        }
        empty: dict[int, NDArray[np.float32]] = {}
        fed: dict[str, NDArray[Any]] = {}
        for value in inputs:
            name = str(value.name)
            array = known.get(name)
            if name.startswith("past.") and value.shape is not None and len(value.shape) == 3:
                width = value.shape[2]
                if isinstance(width, int):
                    array = empty.setdefault(width, np.zeros((rows, new, width), np.float32))
            if array is None:
                raise ValueError(f"there is nothing to feed the graph's input {name!r} with")
            fed[name] = array
        return fed

    def mask(self, inputs: Sequence[ir.Value]) -> NDArray[np.bool_]:
        """Which positions ``[B, S]`` or ``[B, T]`` are tokens, for the side that a graph reads."""
        if takes_source(inputs):
            assert self.source_mask is not None
            return self.source_mask.astype(np.bool_)
        return self.target_mask


def make_batches(
    samples: Sequence[Sample], *, pad: int, start: int | None, tokens: int = TOKENS
) -> list[Batch]:
    """Batches of samples of similar length; the same samples always give the same batches.

    Args:
        samples: with targets; those that leave nothing to predict are left out.
        pad: fills up the shorter ones.
        start: the decoder's first input for every sample; None for a decoder-only model, where a
            sample's own first token is.
        tokens: a batch has at most so many per side, padding included, or one sample.

    Raises:
        ValueError: an encoder-decoder's sample without a source or target, or nothing is left.
    """
    pairs = [_pair(sample, start) for sample in samples]
    kept = [pair for pair in pairs if pair.labels and (start is None or pair.source)]
    if not kept:
        raise ValueError("no sample has a token to predict")
    batches: list[Batch] = []
    rows: list[_Pair] = []
    for pair in sorted(kept, key=lambda p: (p.longest, p)):
        if rows and (len(rows) + 1) * pair.longest > tokens:
            batches.append(_batch(rows, pad, encodes=start is not None))
            rows = []
        rows.append(pair)
    return [*batches, _batch(rows, pad, encodes=start is not None)]


def takes_source(inputs: Sequence[ir.Value]) -> bool:
    """Whether a graph reads the source: encoders alone take a mask of it."""
    return any(value.name == "attention_mask" for value in inputs)


@dataclass(frozen=True, order=True)
class _Pair:
    """A sample as the decoder reads it; ordered, so that batches do not depend on luck."""

    source: tuple[int, ...]
    inputs: tuple[int, ...]
    labels: tuple[int, ...]

    @property
    def longest(self) -> int:
        return max(len(self.source), len(self.inputs))


def _pair(sample: Sample, start: int | None) -> _Pair:
    if sample.target is None:
        raise ValueError("a sample has no target")
    if start is None:
        return _Pair((), sample.target[:-1], sample.target[1:])
    if sample.source is None:
        raise ValueError("a sample of an encoder-decoder has no source")
    return _Pair(sample.source, (start, *sample.target[:-1]), sample.target)


def _batch(rows: Sequence[_Pair], pad: int, *, encodes: bool) -> Batch:
    target, mask = _padded([row.inputs for row in rows], pad)
    source, source_mask = _padded([row.source for row in rows], pad) if encodes else (None, None)
    return Batch(
        source=source,
        source_mask=source_mask,
        target=target,
        labels=_padded([row.labels for row in rows], pad)[0],
        target_mask=mask.astype(np.bool_),
    )


def _padded(rows: Sequence[Sequence[int]], pad: int) -> tuple[Ids, Ids]:
    longest = max(map(len, rows))
    ids: Ids = np.full((len(rows), longest), pad, np.int64)
    mask = np.zeros((len(rows), longest), np.int64)
    for i, row in enumerate(rows):
        ids[i, : len(row)] = row
        mask[i, : len(row)] = 1
    return ids, mask
