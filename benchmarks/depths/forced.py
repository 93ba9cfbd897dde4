"""Perplexity of a text under a depth policy: the text is decoded as if the search had chosen it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgedec.runtime.depth.options import layout_of
from edgedec.runtime.depth.plan import Policy, Request
from edgedec.runtime.depth.statistics import Statistics
from edgedec.runtime.generator import PREFILL, Generator
from edgedec.runtime.loop import Loop
from edgedec.runtime.prompt import RouterScores, feed_prompts
from edgedec.runtime.search.protocol import Advance, Hypothesis
from edgedec.runtime.spans import Spans


@dataclass
class Forced:
    """A search that always chooses the next token of a text, and adds up what that costs.

    Attributes:
        text: tokens of the only row.
        nats: of all of them but the first, which every policy reads off the prompt.
    """

    text: Sequence[int]
    nats: float = 0.0
    done: int = 0
    rows: int = 1
    needs_logits: bool = True

    def advance(self, _: NDArray[np.int64] | None, logits: NDArray[np.float32] | None) -> Advance:
        """Choose what the text says."""
        assert logits is not None
        token = self.text[self.done]
        if self.done:
            scores = logits[0].astype(np.float64)
            scores -= scores.max()
            self.nats += float(np.log(np.exp(scores).sum()) - scores[token])
        self.done += 1
        over = self.done == len(self.text)
        return Advance(np.array([token]), None, np.array([over]), over)

    def results(self) -> list[Hypothesis]:
        """Nothing that anyone asks for."""
        return []


def perplexity(
    generator: Generator,
    policy: Policy,
    prompts: Sequence[Sequence[int]],
    texts: Sequence[Sequence[int]],
) -> float:
    """Of texts after prompts, one at a time, for a decoder-only model."""
    nats, count = 0.0, 0
    manifest = generator.bundle.manifest
    needs = policy.needs(manifest.interface.decoder_layers)
    for prompt, text in zip(prompts, texts, strict=True):
        search = Forced(text)
        decoding = generator.start_decoding(None, 1, anchors=bool(needs.low_rank))
        routers = RouterScores(decoding.components, 1) if needs.routers else None
        output = feed_prompts(
            decoding, [prompt], pad=0, piece=PREFILL, want_logits=True, routers=routers
        )
        planner = policy.start(layout_of(manifest), Request(1, len(text), None, [prompt]))
        loop = Loop(decoding, search, planner, Statistics(), Spans(), beams=1, context=len(prompt))
        for _ in loop.run(output, None if routers is None else routers.mean()):
            pass
        nats += search.nats
        count += len(text) - 1
    return float(np.exp(nats / count))
