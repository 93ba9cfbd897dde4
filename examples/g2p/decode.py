"""Greedy decoding through any exit. The project's runtime does this fast; this is for training."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from g2p.batches import pad
from g2p.model import EOS, PAD, G2PTransformer
from g2p.tokenizer import grapheme_ids

if TYPE_CHECKING:
    from tokenizers import Tokenizer

MAX_PHONEMES = 40
BATCH_WORDS = 64


def predict(
    model: G2PTransformer, tokenizer: Tokenizer, words: list[str], exit_layer: int | None = None
) -> list[str]:
    """The greedy pronunciation of each word through an exit, phonemes joined by spaces."""
    order = sorted(range(len(words)), key=lambda i: len(words[i]))
    predictions = [""] * len(words)
    for start in range(0, len(order), BATCH_WORDS):
        batch = order[start : start + BATCH_WORDS]
        source = pad([torch.tensor(grapheme_ids(tokenizer, words[i])) for i in batch])
        for i, ids in zip(batch, greedy(model, source, exit_layer).tolist(), strict=True):
            predictions[i] = tokenizer.decode(ids, skip_special_tokens=True)
    return predictions


@torch.no_grad()
def greedy(model: G2PTransformer, source: Tensor, exit_layer: int | None = None) -> Tensor:
    """Letters [B, S] -> phonemes [B, <= MAX_PHONEMES], ``<pad>`` after ``</s>``.

    Exit 1 is the first decoder layer's; the default is the last. The whole prefix is decoded again
    at every step.
    """
    memory, mask = model.encode(source)
    target = torch.full((source.shape[0], 1), PAD)
    finished = torch.zeros(source.shape[0], dtype=torch.bool)
    while target.shape[1] <= MAX_PHONEMES and not finished.all():
        logits = model.decode(target, memory, mask, exit_layer)[-1]
        following = logits[:, -1].argmax(-1).masked_fill(finished, PAD)
        finished |= following == EOS
        target = torch.cat([target, following[:, None]], 1)
    return target[:, 1:]
