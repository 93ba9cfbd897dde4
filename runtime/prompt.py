"""Feed decoder prompts in full, and read routers on the way."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, cast

import numpy as np
from numpy.typing import NDArray

from edgedec.runtime.bound import StepOutput
from edgedec.runtime.components import Components
from edgedec.runtime.session import empty
from edgedec.runtime.steps import Steps
from edgedec.runtime.waiting import States

if TYPE_CHECKING:
    from edgedec.runtime.decoder import Decoding


def feed_prompts(
    decoding: Steps,
    prompts: Sequence[Sequence[int]],
    *,
    pad: int,
    piece: int,
    want_logits: bool,
    routers: RouterScores | None = None,
) -> StepOutput:
    """Feed prompts, padded at the end, and score each row's next token.

    Args:
        decoding: just begun, a row for each prompt.
        prompts: of unequal lengths.
        pad: token to fill rows with.
        piece: tokens that are fed at a time, so that attention over a long prompt stays small.
        want_logits: also return logits.
        routers: are shown the layers' inputs.
    """
    counts = np.array([len(prompt) for prompt in prompts], np.int64)
    longest = int(counts.max())
    tokens: NDArray[np.int64] = np.full((len(prompts), longest), pad, np.int64)
    for row, prompt in enumerate(prompts):
        tokens[row, : len(prompt)] = prompt
    found: StepOutput | None = None
    for begin in range(0, longest, piece):
        new = tokens[:, begin : begin + piece]
        here = np.clip(counts - begin, 0, new.shape[1])
        decoding.feed(new, here, want_logits=want_logits)
        for index, stage in enumerate(decoding.stages):
            if routers is not None and index > 0:
                routers.see(stage.first, cast("Decoding", decoding).states, here)
            decoding.run(index)
        output = decoding.read(want_logits=want_logits).last
        # The row's next token follows from the piece that its prompt ends in.
        found = output.copy() if found is None else found.replace(here > 0, output)
    assert found is not None
    return found


class RouterScores:
    """Each layer's mean score over the prompt (arXiv 2410.12513), or over the source.

    Args:
        components: with routers.
        rows: prompts.
    """

    def __init__(self, components: Components, rows: int) -> None:
        self._session = components.router
        self._routed = frozenset(components.manifest.routed)
        self._sums = np.zeros((rows, components.interface.decoder_layers))
        self._seen = np.zeros_like(self._sums)

    def see(self, layer: int, states: States, counts: NDArray[np.int64]) -> None:
        """Score a layer's inputs ``[rows, T', d_model]``, of which ``counts [rows]`` are live."""
        if layer not in self._routed:
            return
        score = empty(*states.shape[:2])
        inputs = {"hidden": np.ascontiguousarray(states), "layer": np.array([layer])}
        self._session.bind(inputs, {"score": score}).run()
        live = np.arange(states.shape[1]) < counts[:, None]
        self._sums[:, layer] += np.where(live, score, 0).sum(axis=1, dtype=np.float64)
        self._seen[:, layer] += counts

    def see_source(self, mean: States) -> None:
        """Score the mean ``[rows, d_model]`` of the encoder's states, for every layer."""
        for layer in self._routed:
            self.see(layer, mean[:, None], np.ones(len(mean), np.int64))

    def mean(self) -> NDArray[np.float32]:
        """The scores ``[rows, layers]``; 1 for layers that have no router, or showed no input."""
        seen = self._seen > 0
        means = np.where(seen, self._sums / np.where(seen, self._seen, 1), 1)
        return means.astype(np.float32)
