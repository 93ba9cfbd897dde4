"""The T5 of ``examples/g2p`` without its exits, and how it becomes a Hugging Face folder."""

from __future__ import annotations

import json
from pathlib import Path

from g2p.checkpoint import save_checkpoint
from g2p.model import G2PTransformer
from tokenizers import Tokenizer
from torch import Tensor


class Translator(G2PTransformer):
    """Only the last decoder layer speaks: with thousands of tokens every head costs real time."""

    def decode(
        self, target: Tensor, memory: Tensor, mask: Tensor, depth: int | None = None
    ) -> list[Tensor]:
        """Previous tokens [B, T] -> logits [B, T, V] after ``depth`` layers (all), as one exit."""
        x, bias = self._embed(target), self.decoder.position_bias(target.shape[1])
        for layer in self.decoder.layers[:depth]:
            x = layer(x, bias, memory, mask)
        return [self.head(x)]


def save_translator(folder: Path, model: Translator, tokenizer: Tokenizer) -> None:
    """Write config, weights in float16 and tokenizer, and no note that layers are exits."""
    save_checkpoint(folder, model, tokenizer)
    path = folder / "config.json"
    config = json.loads(path.read_text())
    del config["edgedec"]
    path.write_text(json.dumps(config, indent=2) + "\n")
