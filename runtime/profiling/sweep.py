"""Lists and ranges of a sweep, in the syntax of llama-bench, and the configurations they make."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

from edgedec.errors import InputError
from edgedec.runtime.depth.options import POLICIES
from edgedec.runtime.profiling.record import Configuration

RANGE = re.compile(r"([0-9]{1,9})(?:-([0-9]{1,9})(?:([+*])([0-9]{1,9}))?)?")
MOST = 1000
"""Values of one option, and configurations of a sweep."""


def numbers(text: str, option: str) -> tuple[int, ...]:
    """Whole numbers of at least 1, in the order given: ``8``, ``1,4``, ``16-64+16``, ``1-64*2``.

    Args:
        text: as on the command line.
        option: for messages.

    Raises:
        InputError: anything else.
    """
    found: list[int] = []
    for part in text.split(","):
        match = RANGE.fullmatch(part.strip())
        if match is None:
            raise _no_list(text, option)
        first, last, sign, step = match.groups()
        found += _range(int(first), int(last or first), sign or "+", int(step or 1), text, option)
    if len(found) > MOST:
        raise InputError(f"{option} {text}: {len(found):,} values; give at most {MOST:,}.")
    return tuple(dict.fromkeys(found))


def _range(first: int, last: int, sign: str, step: int, text: str, option: str) -> list[int]:
    if not 1 <= first <= last or step < (2 if sign == "*" else 1):
        raise _no_list(text, option)
    values = [first]
    while len(values) <= MOST:
        following = values[-1] * step if sign == "*" else values[-1] + step
        if following > last:
            break
        values.append(following)
    return values


def _no_list(text: str, option: str) -> InputError:
    return InputError(
        f"{option} {text!r} is not a list of whole numbers from 1 on such as 8, 1,4 or a range "
        "such as 1-4, 16-64+16 or 32-512*2."
    )


def policies(texts: Sequence[str]) -> tuple[str, ...]:
    """Depth policies of ``--depth``, which may be repeated and lists several between commas.

    A comma that stands before the name of a policy ends one; others divide its parameters.
    """
    found: list[str] = []
    for text in texts:
        for index, part in enumerate(text.split(",")):
            if index and part.partition(":")[0].strip() not in {*POLICIES, "auto"}:
                found[-1] += f",{part}"
            else:
                found.append(part)
    return tuple(dict.fromkeys(part.strip() for part in found))


@dataclass(frozen=True)
class Sweep:
    """Values of every option; all combinations are measured.

    Attributes:
        bundles: labels.
        devices, threads, batches, depths: of the options of these names.
        source_tokens, new_tokens: of synthetic inputs; with ``text``, new_tokens only limits.
        text: name of the file of inputs; None for synthetic ones.
    """

    bundles: tuple[str, ...]
    devices: tuple[str, ...]
    threads: tuple[int | None, ...]
    batches: tuple[int, ...]
    depths: tuple[str, ...]
    source_tokens: tuple[int | None, ...]
    new_tokens: tuple[int | None, ...]
    text: str | None = None

    def configurations(self) -> tuple[Configuration, ...]:
        """Bundles change fastest, so that those which are compared are measured side by side.

        Raises:
            InputError: too many.
        """
        found = tuple(
            Configuration(bundle, device, threads, batch, source, new, depth, self.text)
            for source, new, batch, threads, device, depth, bundle in product(
                self.source_tokens,
                self.new_tokens,
                self.batches,
                self.threads,
                self.devices,
                self.depths,
                self.bundles,
            )
        )
        if len(found) > MOST:
            raise InputError(f"this sweep has {len(found):,} rows; measure at most {MOST:,}.")
        return found
