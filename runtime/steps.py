"""What decoding at full depth asks of a batch, whatever graphs run it."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from edgedec.runtime.bound import Scores, StepOutput
from edgedec.runtime.depth.clock import Clock
from edgedec.runtime.depth.plan import Variant
from edgedec.runtime.manifest import Stage
from edgedec.runtime.waiting import Counts


class Held(Protocol):
    """Memory that a batch holds."""

    @property
    def nbytes(self) -> int:
        """Bytes of all keys and values."""


class SourceMemory(Held, Protocol):
    """What the decoder reads of its source."""

    @property
    def mean(self) -> NDArray[np.float32] | None:
        """Mean of the encoder's states ``[rows, d_model]``, for routers; None without them."""


class Steps(Protocol):
    """A batch being decoded, a row for each sequence.

    `edgedec.runtime.decoder.Decoding` documents every member, and has more for depth policies;
    `edgedec.runtime.static.decoding.StaticDecoding` has no more than these.
    """

    layers: int
    seconds: dict[str, float]

    @property
    def stages(self) -> tuple[Stage, ...]:
        """The decoder's stages, in order."""

    @property
    def memory(self) -> SourceMemory | None:
        """What the encoder gave, None without one."""

    @property
    def cache(self) -> Held:
        """Keys and values of self-attention."""

    @property
    def clock(self) -> Clock:
        """Is told how long runs take."""

    def step(
        self, tokens: NDArray[np.int64], *, counts: Counts = None, want_logits: bool = False
    ) -> StepOutput:
        """Feed new tokens through all stages and score the token after each row's last."""

    def feed(
        self,
        tokens: NDArray[np.int64],
        counts: Counts = None,
        *,
        last: int = 1,
        want_logits: bool = False,
    ) -> None:
        """Put new tokens on their way."""

    def run(
        self,
        index: int,
        variant: Variant = "full",
        behind: Variant = "full",
        rows: tuple[bool, ...] | None = None,
    ) -> None:
        """Take them through a stage."""

    def wait(self) -> None:
        """Let them wait before the stage that comes next."""

    def read(self, last: int = 1, *, want_logits: bool = False) -> Scores:
        """The head at the last positions."""

    def keep(self, on: bool) -> None:
        """Begin to keep what every stage gives, or forget it."""

    def crop(self, length: int) -> None:
        """Forget every position from ``length`` on."""

    def reorder(self, parents: NDArray[np.int64]) -> None:
        """Let row r continue row ``parents[r]``."""

    def fork(self, copies: int) -> None:
        """Continue every row ``copies`` times, side by side."""

    def close(self) -> None:
        """Give back what the next batch can use; nothing is decoded after that."""
