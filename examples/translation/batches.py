"""Batches of sentence pairs of similar length."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator
from typing import TYPE_CHECKING

import torch
from g2p.batches import pad
from torch import Tensor

from translation.data import Pair

if TYPE_CHECKING:
    from tokenizers import Tokenizer

# Token ids of a sentence and of its translation, each ending with </s>.
Ids = tuple[Tensor, Tensor]

SORTED_BATCHES = 32
LONGEST = 64


def encode_pairs(pairs: list[Pair], tokenizer: Tokenizer) -> list[Ids]:
    """The ids of every pair; pairs with more than ``LONGEST`` tokens on a side are left out."""
    sides = [tokenizer.encode_batch([pair[side] for pair in pairs]) for side in (0, 1)]
    return [
        (torch.tensor(source.ids), torch.tensor(target.ids))
        for source, target in zip(*sides, strict=True)
        if max(len(source.ids), len(target.ids)) <= LONGEST
    ]


def batches(pairs: list[Ids], size: int, seed: int) -> Iterator[list[Ids]]:
    """Endless shuffled batches of ``size`` pairs.

    Pairs are sorted by length within windows of ``SORTED_BATCHES`` batches, so that padding is
    rare; the few that do not fill a window's last batch wait for the next epoch.
    """
    for epoch in itertools.count():
        shuffle = random.Random(f"{seed}/{epoch}")
        order = list(range(len(pairs)))
        shuffle.shuffle(order)
        chosen: list[list[int]] = []
        for start in range(0, len(order), size * SORTED_BATCHES):
            window = order[start : start + size * SORTED_BATCHES]
            window.sort(key=lambda i: (len(pairs[i][1]), len(pairs[i][0])))
            chosen += [window[j : j + size] for j in range(0, len(window) - size + 1, size)]
        shuffle.shuffle(chosen)
        for batch in chosen:
            yield [pairs[i] for i in batch]


def pad_pairs(pairs: list[Ids]) -> Ids:
    """Pairs -> sources [B, S] and targets [B, T], padded at the end."""
    sources, targets = zip(*pairs, strict=True)
    return pad(list(sources)), pad(list(targets))
