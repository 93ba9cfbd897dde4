"""What the generation loop and a search say to each other."""

from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

FinishReason = Literal["stop", "length"]


@dataclass(frozen=True, eq=False)
class Advance:
    """What to run next.

    Attributes:
        tokens: `int64 [rows]`, the token each decoder row takes next. A finished row gets padding.
        parents: `int64 [rows]`, for each row the row whose cache it continues, counted over the
            whole batch; None where every row continues its own.
        finished: `bool [batch]`, the inputs whose result is known.
        done: All are finished: no further decoder run is needed.
    """

    tokens: NDArray[np.int64]
    parents: NDArray[np.int64] | None
    finished: NDArray[np.bool_]
    done: bool


@dataclass(frozen=True)
class Hypothesis:
    """The result for one input.

    Attributes:
        tokens: The generated tokens without the prompt, up to the end-of-sequence token and
            including it.
        score: Of a beam search: the sum of the tokens' scores divided by
            length ** length_penalty. None otherwise.
        finish_reason: "stop" at an end-of-sequence token, "length" where the limit cut it off.
    """

    tokens: list[int]
    score: float | None
    finish_reason: FinishReason


class Search(Protocol):
    """Chooses tokens step by step. One object serves one batch once."""

    @property
    def rows(self) -> int:
        """Decoder rows to run: inputs times beams. Row `i` belongs to input `i // beams`."""

    @property
    def needs_logits(self) -> bool:
        """Whether `advance` needs logits, now or at a later step.

        Where it is False, the index of the highest logit is enough. It may turn False on the way
        but never True, so reading it before every step saves time and reading it once is correct.
        """

    def advance(
        self, next_token: NDArray[np.int64] | None, logits: NDArray[np.float32] | None
    ) -> Advance:
        """Take what the decoder says of each row's next token, and say what to run next.

        Args:
            next_token: `int64 [rows]`, the index of the highest logit; may be None where there are
                logits.
            logits: `float32 [rows, V]`, left unchanged and not kept; may be None where
                `needs_logits` is False. The first call may pass `[batch, V]`, one row for each
                input, since all its beams are equal then.

        Raises:
            EdgedecError: the logits are not numbers.
            InputError: the options rule out every token.
            ValueError: called wrongly: without logits that are needed, or after the end.
        """

    def results(self) -> list[Hypothesis]:
        """Return the best result so far for each input, in order."""
