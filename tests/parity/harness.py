"""Small random checkpoints, and who knows their right answers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol

import numpy as np
import pytest
from numpy.typing import NDArray

torch: ModuleType = pytest.importorskip("torch")
transformers: ModuleType = pytest.importorskip("transformers")
torch.set_num_threads(1)
transformers.logging.set_verbosity_error()

TOLERANCE = 2e-4
"""Largest accepted logit difference, as a fraction of the logits' range."""
NEW_TOKENS = 14

Array = NDArray[np.float32]
Rows = list[list[int]]


class Oracle(Protocol):
    """Knows the right answers; written by others, or at least without a line of edgedec."""

    def logits(self, sources: Rows | None, targets: Rows) -> list[Array]:
        """Logits ``[T, vocab]`` of each target row; sources are padded, target rows are not."""

    def generate(self, inputs: Rows, beams: int) -> Rows:
        """Generated ids of a padded batch, up to an end-of-sequence token and including it."""


@dataclass(frozen=True)
class Case:
    """A checkpoint to make, as data.

    Attributes:
        name: what is particular about it.
        write: writes the checkpoint into a folder and returns its path and its oracle.
        lengths: lengths of the sources, or of the prompts of a decoder-only model.
        target: length of the target that logits are compared on.
        cuts: values of ``--stages`` to compare with a decoder of one piece.
    """

    name: str
    write: Callable[[Path], tuple[Path, Oracle]]
    lengths: tuple[int, ...] = (11, 4, 7)
    target: int = 13
    cuts: tuple[str, ...] = ("all", "0,1")


def random_rows(seed: int, vocab: int, lengths: Sequence[int]) -> Rows:
    """Rows of random ids above the special ones."""
    rng = np.random.default_rng(seed)
    return [rng.integers(4, vocab - 1, n).tolist() for n in lengths]


def padded(rows: Rows, pad: int, *, left: bool = False) -> tuple[NDArray[Any], NDArray[Any]]:
    """Ids and mask ``[B, longest]`` of rows, padded at the end or at the beginning."""
    longest = max(map(len, rows))
    ids: NDArray[np.int64] = np.full((len(rows), longest), pad, np.int64)
    mask = np.zeros((len(rows), longest), np.int64)
    for i, row in enumerate(rows):
        place = slice(longest - len(row), longest) if left else slice(0, len(row))
        ids[i, place], mask[i, place] = row, 1
    return ids, mask


def difference(actual: Sequence[Array], expected: Sequence[Array]) -> float:
    """Largest logit difference as a fraction of the range of the expected ones."""
    flat = np.concatenate([e.ravel() for e in expected])
    largest = max(float(np.abs(a - e).max()) for a, e in zip(actual, expected, strict=True))
    return largest / float(flat.max() - flat.min())


def randomise(model: Any, *, embed: float = 0.5, positions: float = 0.5, gain: float = 2.5) -> None:
    """Fill a model with weights under which every part of it shows in the logits.

    Fresh weights of transformers are so small that many errors would vanish in the tolerance:
    biases of zero, norms of one, attention that is uniform.

    Args:
        model: of transformers, changed in place.
        embed: standard deviation of token embeddings.
        positions: standard deviation of learned position embeddings.
        gain: of the other matrices, relative to one that keeps the size of its input.
    """
    g = torch.Generator().manual_seed(0)

    def normal(shape: Any, std: float) -> Any:
        return torch.randn(shape, generator=g) * std

    t5_head = getattr(model.config, "d_kv", None)
    for name, p in model.named_parameters():
        leaf = name.rpartition(".")[2]
        if not p.requires_grad:
            continue  # sinusoidal positions
        if p.ndim == 1:
            values = normal(p.shape, 0.2) + (1.0 if "norm" in name and leaf == "weight" else 0.0)
        elif "relative_attention_bias" in name:
            values = normal(p.shape, 1.0)
        elif "embed_positions" in name:
            values = normal(p.shape, positions)
        elif p.shape[0] == model.config.vocab_size:
            values = normal(p.shape, embed)
        else:
            values = normal(p.shape, gain * p.shape[1] ** -0.5)
            if t5_head and name.endswith("Attention.q.weight"):
                values *= t5_head**-0.5  # T5 does not scale its scores: its queries are small
        with torch.no_grad():
            p.copy_(values)
    if hasattr(model, "final_logits_bias"):
        model.final_logits_bias = normal(model.final_logits_bias.shape, 0.5)


class Transformers:
    """Answers of a transformers model."""

    def __init__(self, model: Any) -> None:
        self.model = model.eval().float()
        self.encodes = bool(model.config.is_encoder_decoder)
        self.pad = model.generation_config.pad_token_id or 0

    def logits(self, sources: Rows | None, targets: Rows) -> list[Array]:
        """See `Oracle`."""
        with torch.no_grad():
            if sources is None:
                rows = [torch.tensor([row]) for row in targets]
                return [self.model(row, use_cache=False).logits[0].numpy() for row in rows]
            ids, mask = (torch.from_numpy(a) for a in padded(sources, self.pad))
            output = self.model(
                input_ids=ids,
                attention_mask=mask,
                decoder_input_ids=torch.tensor(targets),
                use_cache=False,
            )
        return list(output.logits.numpy())

    def generate(self, inputs: Rows, beams: int) -> Rows:
        """See `Oracle`."""
        ids, mask = padded(inputs, self.pad, left=not self.encodes)
        with torch.no_grad():
            output = self.model.generate(
                input_ids=torch.from_numpy(ids),
                attention_mask=torch.from_numpy(mask),
                max_new_tokens=NEW_TOKENS,
                num_beams=beams,
                do_sample=False,
                # transformers gives a T5 as many caches as its encoder has layers
                use_cache=False,
            )
        skip = 1 if self.encodes else ids.shape[1]
        return [until_eos(row[skip:], self.eos) for row in output.tolist()]

    @property
    def eos(self) -> list[int]:
        """Ids that end a row."""
        eos = self.model.generation_config.eos_token_id
        return [] if eos is None else [eos] if isinstance(eos, int) else list(eos)


def until_eos(row: list[int], eos: Sequence[int]) -> list[int]:
    """A row without what was padded after its end."""
    ends = [i for i, token in enumerate(row) if token in eos]
    return row[: ends[0] + 1] if ends else row


def tokens_of(rows: Rows) -> int:
    """Different tokens in rows: a model that repeats itself would prove little."""
    return len({token for row in rows for token in row})


def choose_eos(rows: Rows, never: Sequence[int] = ()) -> int:
    """A token that ends some row in its middle and the others late or never."""

    def lengths(token: int) -> list[int]:
        return [len(until_eos(row, [token])) for row in rows]

    last = max(map(len, rows)) - 2
    ending = [
        token
        for token in sorted({token for row in rows for token in row} - set(never))
        if any(3 < n < last for n in lengths(token)) and min(lengths(token)) > 1
    ]
    assert ending, f"nothing but repetition: {rows}"
    return max(ending, key=lambda token: sum(lengths(token)))
