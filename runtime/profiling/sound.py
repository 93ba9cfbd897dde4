"""Whether figures of somebody else can be true: of profiles from files, of answers from devices.

Decoding has checked their types. Here are the ranges in which all that is computed from them, and
all that shows them, can rely on them: no time of 0 to divide by, no number that overflows.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from edgedec.runtime.schema import SchemaError

if TYPE_CHECKING:
    from edgedec.runtime.profiling.record import Profile, Sample, Summary, Turn

Range = tuple[float, float]
LONGEST_TEXT = 10_000
"""Characters of a text; the longest are sentences with names of files."""
MOST_LAYERS = 1 << 24
"""A manifest may have as many."""
TOLERANCE_MS = 1e-3
"""By which times may disagree: they were rounded one by one."""
COUNT = (1, 1e9)
TAKEN_MS = (1e-6, 1e9)
"""Of what certainly took time; a profile has nanoseconds, and up to eleven days."""
FIGURE = (-TOLERANCE_MS, 1e40)
"""Of a summary: what metrics make of numbers in their ranges."""
ANY = (-math.inf, math.inf)
OTHERS = (0, 1e15)
RANGES: dict[str, Range] = {
    **dict.fromkeys(("e2e_ms", "yardstick_ms"), TAKEN_MS),
    **dict.fromkeys(("inputs", "batch", "threads", "rounds", "repetitions", "n", "cores"), COUNT),
    **dict.fromkeys(("decoder_layers", "d_model", "vocab_size", "stages"), COUNT),
    **dict.fromkeys(("new_tokens", "source_tokens"), COUNT),
    **dict.fromkeys(("round", "steps", "calls", "exits", "drafted", "accepted"), (0, 1e9)),
    **dict.fromkeys(("p50", "p90", "p99", "mean", "min", "max"), FIGURE),
    "sd": (0, FIGURE[1]),
    "mean_layers": (0, MOST_LAYERS),
    "bandwidth_gb_s": (1e-3, 1e6),
    "seed": ANY,
}
"""Field -> least and most."""
UNITS: dict[str, Range] = {"ms": (0, TAKEN_MS[1]), "mb": (0, 1e12), "bytes": (0, 1e18)}
"""The same, of other fields whose names end so."""


def check_values(value: Any) -> None:
    """Refuse numbers out of their ranges and endless texts, by the names of fields.

    Args:
        value: a decoded dataclass, with all that it contains.

    Raises:
        SchemaError: there is one.
    """
    _check(value, "", "")


def check_turn(turn: Turn, *, rounds: int, path: str = "") -> None:
    """Refuse a turn whose values contradict each other.

    Args:
        turn: whose values are in their ranges.
        rounds: that there are.
        path: for messages.

    Raises:
        SchemaError: what cannot be.
    """
    if turn.round >= rounds:
        raise SchemaError(f"{_join(path, 'round')} is {turn.round}, of {rounds} from 0 on")
    for index, sample in enumerate(turn.samples):
        _check_sample(sample, turn.round, _join(path, f"samples.{index}"))


def check_profile(profile: Profile) -> None:
    """Refuse a profile that cannot be, such as a file that somebody has changed.

    Raises:
        SchemaError: what cannot be.
    """
    check_values(profile)
    for number, row in enumerate(profile.rows):
        path = f"rows.{number}"
        for index, turn in enumerate(row.turns):
            check_turn(turn, rounds=profile.effort.rounds, path=f"{path}.turns.{index}")
        seen = [turn.round for turn in row.turns]
        if len(set(seen)) < len(seen):
            raise SchemaError(f"{path}.turns has a round twice")
        for name, summary in row.metrics.items():
            if summary is not None:
                _check_summary(summary, f"{path}.metrics.{name[:80]}")


def _check_sample(sample: Sample, number: int, path: str) -> None:
    tokens = sample.token_ms
    problems = {
        "round is another one than its turn's": sample.round != number,
        "token_ms is empty": not tokens,
        "token_ms is not in order": any(before > after for before, after in pairwise(tokens)),
        "token_ms goes on after the request": bool(tokens)
        and tokens[-1] > sample.e2e_ms + TOLERANCE_MS,
        # As little may be divided by, and is no time that a clock has measured.
        "token_ms or steps_ms is next to nothing": any(
            0 < time < TAKEN_MS[0] / 10
            for time in (sample.steps_ms or 0, tokens[-1] - tokens[0] if tokens else 0)
        ),
        "new_tokens is less than one for each input": sample.new_tokens < sample.inputs,
        "accepted is more than drafted": (sample.accepted or 0) > (sample.drafted or 0),
        "exits has layers that are no number": not all(
            layers.isascii() and layers.isdecimal() and len(layers) < len(str(MOST_LAYERS))
            for layers in sample.exits or ()
        ),
    }
    for problem, found in problems.items():
        if found:
            raise SchemaError(_join(path, problem))


def _check_summary(summary: Summary, path: str) -> None:
    ordered = (summary.min, summary.p50, summary.p90, summary.p99, summary.max)
    if any(low > high for low, high in pairwise(ordered)) or not (
        summary.min <= summary.mean <= summary.max
    ):
        raise SchemaError(f"{path} is not in order")


def _check(value: Any, name: str, path: str) -> None:
    if isinstance(value, str):
        if len(value) > LONGEST_TEXT:
            raise SchemaError(f"{path} has more than {LONGEST_TEXT:,} characters")
    elif isinstance(value, int | float):
        least, most = RANGES.get(name, UNITS.get(name.rpartition("_")[2], OTHERS))
        if not least <= value <= most:
            # a whole number may have more digits than Python wants to show
            shown = f"{value:g}" if abs(value) < OTHERS[1] else "as much"
            raise SchemaError(f"{path} must be from {least:g} to {most:g}, not {shown}")
    else:
        for key, item_name, item in _items(value, name):
            _check(item, item_name, _join(path, key))


def _items(value: Any, name: str) -> Iterator[tuple[str, str, Any]]:
    """What a value contains: where, the name of its field, and itself."""
    if is_dataclass(value):
        for field in fields(value):
            yield field.name, field.name, getattr(value, field.name)
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield key[:80], name, key
            yield key[:80], name, item
    elif isinstance(value, Sequence):
        for index, item in enumerate(value):
            yield str(index), name, item


def _join(path: str, key: str) -> str:
    return f"{path}.{key}" if path else key
