"""Batches of words and pronunciations of similar length."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from g2p.data import Lexicon
from g2p.model import PAD
from g2p.tokenizer import grapheme_ids, phoneme_ids

if TYPE_CHECKING:
    from tokenizers import Tokenizer

# Letters and phonemes of one pronunciation, each ending with </s>.
Pair = tuple[Tensor, Tensor]

SORTED_BATCHES = 64


def encode_pairs(lexicon: Lexicon, tokenizer: Tokenizer) -> list[Pair]:
    """Every listed pronunciation of every word is one training example."""
    return [
        (
            torch.tensor(grapheme_ids(tokenizer, word)),
            torch.tensor(phoneme_ids(tokenizer, pronunciation)),
        )
        for word, pronunciations in lexicon.items()
        for pronunciation in pronunciations
    ]


def batches(pairs: list[Pair], size: int, seed: int) -> Iterator[Pair]:
    """Endless shuffled batches of letters [B, S] and phonemes [B, T].

    Examples are sorted by length within windows of ``SORTED_BATCHES`` batches, so that padding is
    rare; the few that do not fill a window's last batch wait for the next epoch.
    """
    for epoch in itertools.count():
        shuffle = random.Random(f"{seed}/{epoch}")
        order = list(range(len(pairs)))
        shuffle.shuffle(order)
        chosen: list[list[int]] = []
        for start in range(0, len(order), size * SORTED_BATCHES):
            window = order[start : start + size * SORTED_BATCHES]
            window.sort(key=lambda i: (len(pairs[i][0]), len(pairs[i][1])))
            chosen += [window[j : j + size] for j in range(0, len(window) - size + 1, size)]
        shuffle.shuffle(chosen)
        for batch in chosen:
            yield pad([pairs[i][0] for i in batch]), pad([pairs[i][1] for i in batch])


def pad(rows: list[Tensor]) -> Tensor:
    """Rows of ids -> one tensor, filled up with ``<pad>``."""
    return pad_sequence(rows, batch_first=True, padding_value=PAD)
