"""What generation should do, as plain facts: one frozen dataclass, checked when it is made.

The names and meanings are those of `transformers.GenerationConfig`, so that what users know still
holds; the differences are listed in the docstring of `GenerationConfig`.
"""

import difflib
import math
import numbers
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Literal

from edgedec.errors import InputError

DEFAULT_NEW_TOKENS = 256
"""How many tokens to generate when neither the checkpoint nor the caller says: `step_limit`."""


_LARGEST = (1 << 31) - 1
"""No count or token id of any model is larger, and sums of these stay far from overflow."""


@dataclass(frozen=True)
class _Rule:
    """What one option accepts: in words for the error message, and as a function."""

    wanted: str
    read: Callable[[Any], Any]
    """Returns the value in its one normal form; raises TypeError or ValueError if unsuitable."""


def _as_whole(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, numbers.Integral):
        raise TypeError
    return int(value)


def _whole(low: int, high: int = _LARGEST) -> _Rule:
    def read(value: Any) -> int:
        number = _as_whole(value)
        if not low <= number <= high:
            raise ValueError
        return number

    bounds = f"from {low} to {high:,}"
    return _Rule(f"a whole number {bounds}", read)


def _real(low: float, high: float, *, open_low: bool = False) -> _Rule:
    def read(value: Any) -> float:
        if isinstance(value, bool) or not isinstance(value, numbers.Real):
            raise TypeError
        number = float(value)
        if not math.isfinite(number) or not low <= number <= high or (open_low and number == low):
            raise ValueError
        return number

    if high == math.inf:
        bounds = f"above {low:g}" if open_low else f"of at least {low:g}"
    else:
        bounds = f"above {low:g} and up to {high:g}" if open_low else f"from {low:g} to {high:g}"
    return _Rule(f"a number {bounds}", read)


def _optional(rule: _Rule) -> _Rule:
    return _Rule(
        f"{rule.wanted}, or None", lambda value: None if value is None else rule.read(value)
    )


def _read_flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise TypeError
    return value


def _read_early_stopping(value: Any) -> bool | str:
    if isinstance(value, bool) or value == "never":
        return value  # type: ignore[no-any-return]
    raise ValueError


def _read_ids(value: Any) -> tuple[int, ...]:
    if isinstance(value, numbers.Integral):
        value = (value,)
    if isinstance(value, str | bytes | Mapping):
        raise TypeError
    # repeating an id means nothing, and would widen a beam search's selection for nothing
    return tuple(dict.fromkeys(_TOKEN.read(item) for item in value))


def _read_sequences(value: Any) -> tuple[tuple[int, ...], ...]:
    if isinstance(value, str | bytes | Mapping):
        raise TypeError
    sequences = tuple(tuple(_TOKEN.read(token) for token in item) for item in value)
    if not all(sequences):
        raise ValueError
    return sequences


_TOKEN = _whole(0)
_FLAG = _Rule("True or False", _read_flag)
_IDS = _Rule("a list of token ids", _read_ids)

_RULES: dict[str, _Rule] = {
    "max_new_tokens": _optional(_whole(1)),
    "max_length": _optional(_whole(1)),
    "min_new_tokens": _whole(0),
    "min_length": _whole(0),
    "num_beams": _whole(1, 1000),
    "length_penalty": _real(-10, 10),
    "early_stopping": _Rule('True, False or "never"', _read_early_stopping),
    "do_sample": _FLAG,
    "temperature": _real(0, math.inf),
    "top_k": _whole(0),
    "top_p": _real(0, 1),
    "seed": _optional(_whole(0, (1 << 64) - 1)),
    "repetition_penalty": _real(0, math.inf, open_low=True),
    "no_repeat_ngram_size": _whole(0),
    "renormalize_logits": _FLAG,
    "decoder_start_token_id": _optional(_TOKEN),
    "pad_token_id": _optional(_TOKEN),
    "bos_token_id": _optional(_TOKEN),
    "eos_token_ids": _IDS,
    "forced_bos_token_id": _optional(_TOKEN),
    "forced_eos_token_id": _optional(_TOKEN),
    "suppress_tokens": _IDS,
    "begin_suppress_tokens": _IDS,
    "bad_words_ids": _Rule("a list of non-empty lists of token ids", _read_sequences),
}

_SHAPES_SAMPLING = ("temperature", "top_k", "top_p")


@dataclass(frozen=True)
class GenerationConfig:
    """Options of generation. Every instance is valid; lists become tuples, whole numbers floats.

    Where it differs from transformers:

    * Without any limit on the length, generation goes on for `DEFAULT_NEW_TOKENS` tokens or to the
      model's limit, not for 20.
    * Lengths count a row's own prompt, never the padding that a longer neighbour makes necessary,
      so that a row's result does not depend on its batch.
    * `temperature=0` means greedy decoding. Sampling together with beams is refused.
    * Sampling uses its own generator, so a seed gives other tokens than torch does; the
      distribution is the same.

    Attributes:
        max_new_tokens: How many tokens to generate at most; wins over `max_length`.
        max_length: The same including the decoder's prompt (the start token of an encoder-decoder).
        min_new_tokens: No end-of-sequence token before this many tokens; wins over `min_length`.
        min_length: The same including the decoder's prompt.
        num_beams: Width of the beam search; 1 is greedy decoding or sampling.
        length_penalty: A finished beam scores its log-probability / length ** length_penalty.
        early_stopping: True stops once `num_beams` candidates are finished, False once the best
            running beam at its present length cannot beat them, "never" only once it cannot at any
            length.
        do_sample: Draw tokens at random.
        temperature: Divides the logits before sampling.
        top_k: Sample from this many most probable tokens; 0 turns it off.
        top_p: Sample from the fewest most probable tokens whose probabilities reach this sum.
        seed: Makes sampling repeatable; None draws a fresh seed each time.
        repetition_penalty: Above 1 makes tokens that occurred before less likely.
        no_repeat_ngram_size: No sequence of this many tokens occurs twice; 0 turns it off.
        renormalize_logits: Beam scores stay log-probabilities after tokens were ruled out.
        decoder_start_token_id: First token of the decoder of an encoder-decoder.
        pad_token_id: Fed to finished rows; the first end-of-sequence token where missing.
        bos_token_id: Beginning-of-sequence token.
        eos_token_ids: Each of these ends a row (and is part of its result).
        forced_bos_token_id: First token generated after a prompt of one token.
        forced_eos_token_id: Last token of a row that reaches its maximum length.
        suppress_tokens: Tokens that are never generated.
        begin_suppress_tokens: Tokens that are not generated first (after a forced one).
        bad_words_ids: Token sequences that are never generated.

    Raises:
        InputError: a value is out of range, or two options contradict each other.
    """

    max_new_tokens: int | None = None
    max_length: int | None = None
    min_new_tokens: int = 0
    min_length: int = 0
    num_beams: int = 1
    length_penalty: float = 1.0
    early_stopping: bool | Literal["never"] = False
    do_sample: bool = False
    temperature: float = 1.0
    top_k: int = 50
    top_p: float = 1.0
    seed: int | None = None
    repetition_penalty: float = 1.0
    no_repeat_ngram_size: int = 0
    renormalize_logits: bool = False
    decoder_start_token_id: int | None = None
    pad_token_id: int | None = None
    bos_token_id: int | None = None
    eos_token_ids: tuple[int, ...] = ()
    forced_bos_token_id: int | None = None
    forced_eos_token_id: int | None = None
    suppress_tokens: tuple[int, ...] = ()
    begin_suppress_tokens: tuple[int, ...] = ()
    bad_words_ids: tuple[tuple[int, ...], ...] = ()

    def __post_init__(self) -> None:
        for name in OPTIONS:
            object.__setattr__(self, name, _read(name, getattr(self, name)))
        if self.temperature == 0:
            object.__setattr__(self, "do_sample", False)
            object.__setattr__(self, "temperature", 1.0)
        if self.pad_token_id is None and self.eos_token_ids:
            object.__setattr__(self, "pad_token_id", self.eos_token_ids[0])
        if self.do_sample and self.num_beams > 1:
            raise InputError(
                f"Beam search does not sample: use num_beams=1 to sample or do_sample=False to "
                f"search with num_beams={self.num_beams}."
            )

    @classmethod
    def from_huggingface(
        cls,
        generation_config: Mapping[str, Any] | None,
        config: Mapping[str, Any],
        *,
        encoder_decoder: bool | None = None,
    ) -> "GenerationConfig":
        """Read a checkpoint's `generation_config.json` and `config.json`, both parsed.

        Without the former (old checkpoints), the generation options are looked for in the latter.
        Its `task_specific_params` are never applied: they belong to no particular prompt. Special
        tokens missing from the former are taken from the latter. Settings that would change the
        output and are not supported are named in a logged warning.

        Args:
            generation_config: None where the checkpoint has no such file.
            config: The model's configuration.
            encoder_decoder: Whether the decoder needs a start token; `config` says where None.

        Raises:
            CheckpointError: a supported setting has a value out of range.
        """
        from edgedec.runtime.generation_file import read_settings

        return cls(**read_settings(generation_config, config, encoder_decoder=encoder_decoder))

    def override(self, **options: Any) -> "GenerationConfig":
        """Return a copy with the caller's options, which win over the checkpoint's.

        What an option implies, unless the related option is given as well:

        * `temperature`, `top_k` or `top_p` turn sampling on (`temperature=0` turns it off). A seed
          alone does not, so that passing one always is harmless.
        * Sampling replaces the checkpoint's beams, and `num_beams` above 1 its sampling.
        * `eos_token_id`, the name in `generation_config.json`, is `eos_token_ids`.
        * `max_length` replaces the checkpoint's `max_new_tokens`, and `min_length` its
          `min_new_tokens`.

        None removes an optional setting; to leave one as it is, do not pass it.

        Raises:
            InputError: an unknown option, a value out of range, or options that contradict.
        """
        if "eos_token_id" in options:
            options.setdefault("eos_token_ids", options.pop("eos_token_id"))
        for name in options:
            if name not in _RULES:
                raise InputError(_unknown(name))
        changes = {name: _read(name, value) for name, value in options.items()}
        _imply_strategy(changes)
        _imply_lengths(changes)
        return replace(self, **changes)

    def step_limit(self, prompt_length: int, capacity: int | None = None) -> int:
        """Return how many tokens may be generated after a decoder prompt of `prompt_length` tokens.

        That is what the configuration asks for or else `DEFAULT_NEW_TOKENS`, and no more than what
        `capacity` (positions the model has, prompt included; None: any number) leaves.

        Raises:
            InputError: the prompt leaves no room for a single token.
        """
        limit = self.requested_steps(prompt_length)
        if limit is None:
            limit = DEFAULT_NEW_TOKENS
        if capacity is not None:
            limit = min(limit, capacity - prompt_length)
            if limit < 1:
                raise InputError(
                    f"The prompt has {prompt_length} tokens, but the model takes {capacity} "
                    f"including at least one new token; shorten the prompt."
                )
        return limit

    def requested_steps(self, prompt_length: int) -> int | None:
        """Return the number of new tokens the configuration allows, None where it sets no limit.

        Raises:
            InputError: `max_length` is used up by the prompt.
        """
        if self.max_new_tokens is not None:
            return self.max_new_tokens
        if self.max_length is None:
            return None
        if self.max_length <= prompt_length:
            raise InputError(
                f"max_length={self.max_length} counts the prompt, which has {prompt_length} tokens "
                f"already; raise it or use max_new_tokens."
            )
        return self.max_length - prompt_length

    def minimum_steps(self, prompt_length: int) -> int:
        """Return how many tokens come before an end-of-sequence token is allowed."""
        return self.min_new_tokens or max(0, self.min_length - prompt_length)


OPTIONS: tuple[str, ...] = tuple(field.name for field in fields(GenerationConfig))
"""The names of all options, in the order of the dataclass."""


def _read(name: str, value: Any) -> Any:
    rule = _RULES[name]
    try:
        return rule.read(value)
    except (TypeError, ValueError):
        raise InputError(f"{name} must be {rule.wanted}, not {value!r}.") from None


def _unknown(name: str) -> str:
    close = difflib.get_close_matches(name, OPTIONS, n=1)
    hint = f"did you mean {close[0]}?" if close else f"the options are {', '.join(OPTIONS)}."
    return f"Unknown generation option {name}; {hint}"


def _imply_strategy(changes: dict[str, Any]) -> None:
    """Complete the caller's options so that what was asked for last is what happens."""
    if any(name in changes for name in _SHAPES_SAMPLING):
        changes.setdefault("do_sample", changes.get("temperature") != 0)
    if changes.get("do_sample"):
        changes.setdefault("num_beams", 1)
    elif changes.get("num_beams", 1) > 1:
        changes.setdefault("do_sample", False)


def _imply_lengths(changes: dict[str, Any]) -> None:
    if changes.get("max_length") is not None:
        changes.setdefault("max_new_tokens", None)
    if "min_new_tokens" in changes:
        changes["min_length"] = 0
    elif "min_length" in changes:
        changes["min_new_tokens"] = 0
    for low, high in (("min_new_tokens", "max_new_tokens"), ("min_length", "max_length")):
        least, most = changes.get(low) or 0, changes.get(high)
        if most is not None and least > most:
            raise InputError(f"{low}={least} is more than {high}={most}.")
