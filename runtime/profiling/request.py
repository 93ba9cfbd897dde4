"""What requests a configuration makes: synthetic ids of a forced length, or lines of a text."""

from __future__ import annotations

import random
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any

from edgedec.errors import InputError
from edgedec.runtime.generation import GenerationConfig
from edgedec.runtime.manifest import Interface, Manifest
from edgedec.runtime.profiling.plan import Job
from edgedec.runtime.profiling.record import Configuration

PLAIN: dict[str, Any] = {
    "do_sample": False,
    "num_beams": 1,
    "min_new_tokens": 0,
    "repetition_penalty": 1.0,
    "no_repeat_ngram_size": 0,
    "eos_token_ids": (),
    "forced_bos_token_id": None,
    "forced_eos_token_id": None,
    "suppress_tokens": (),
    "begin_suppress_tokens": (),
    "bad_words_ids": (),
}
"""Greedy decoding that nothing but a limit ends, and that needs no logits."""


@dataclass(frozen=True)
class Requests:
    """The requests of one turn.

    Attributes:
        job: the turn.
        vocab_size: of the model.
        special: ids that synthetic inputs do not contain.
        options: of generation.
    """

    job: Job
    vocab_size: int
    special: frozenset[int]
    options: dict[str, Any]

    def inputs(self, number: int) -> list[str] | list[list[int]]:
        """The inputs of a request.

        Args:
            number: of the request in this turn, from 0; warming up takes those that will count.
        """
        job = self.job
        rows, count = range(job.configuration.batch), job.configuration.source_tokens
        if count is None:
            first = number * len(rows)
            return [job.inputs[(first + row) % len(job.inputs)] for row in rows]
        return [
            synthetic_ids(count, self.vocab_size, self.special, (job.seed, job.first + number, row))
            for row in rows
        ]


def requests_of(job: Job, manifest: Manifest) -> Requests:
    """The requests of a turn with a bundle.

    Raises:
        InputError: the bundle does not take inputs or outputs of that length.
    """
    interface, generation = manifest.interface, manifest.generation
    check_lengths(job.configuration, interface)
    return Requests(
        job=job,
        vocab_size=interface.vocab_size,
        special=special_ids(generation),
        options=options_of(job.configuration),
    )


def options_of(configuration: Configuration) -> dict[str, Any]:
    """Options of generation: the checkpoint's own for text, exactly ``new_tokens`` otherwise."""
    limit = {} if configuration.new_tokens is None else {"max_new_tokens": configuration.new_tokens}
    if configuration.source_tokens is None:
        return limit
    return {**PLAIN, **limit}


def special_ids(generation: GenerationConfig) -> frozenset[int]:
    """Ids with a meaning of their own, as far as generation knows them."""
    single = (
        generation.pad_token_id,
        generation.bos_token_id,
        generation.decoder_start_token_id,
        generation.forced_bos_token_id,
        generation.forced_eos_token_id,
    )
    return frozenset({*generation.eos_token_ids, *(token for token in single if token is not None)})


def synthetic_ids(
    count: int, vocab_size: int, special: Collection[int], key: tuple[int, int, int]
) -> list[int]:
    """Random ids, uniform over all that are not special.

    Args:
        count: how many.
        vocab_size: ids are below it.
        special: ids to leave out.
        key: seed, number of the request and of its row, which choose the ids alone.

    Raises:
        InputError: there are no others.
    """
    if len({token for token in special if token < vocab_size}) == vocab_size:
        raise InputError("all tokens of the model are special ones: give a text with -f.")
    # Not NumPy's: this one is imported anyway, and its numbers stay the same in all versions.
    draw = random.Random("-".join(map(str, key)))  # noqa: S311  # no secret
    ids: list[int] = []
    while len(ids) < count:
        token = int(draw.random() * vocab_size)
        if token not in special:
            ids.append(token)
    return ids


def check_lengths(configuration: Configuration, interface: Interface) -> None:
    """Refuse synthetic inputs and outputs that are longer than the model allows.

    Raises:
        InputError: with the limit.
    """
    source, new = configuration.source_tokens, configuration.new_tokens
    if source is None:
        return  # lines are checked when they are read, and their outputs end at the model's limit
    encoder = interface.architecture == "encoder-decoder"
    if encoder and interface.max_source is not None and source > interface.max_source:
        raise InputError(
            f"{configuration.bundle} reads at most {interface.max_source:,} source tokens, not "
            f"{source:,}: use a smaller -s."
        )
    prompt = 1 if encoder else source
    if interface.max_target is not None and prompt + (new or 1) > interface.max_target:
        room = interface.max_target - prompt
        if room < 1:
            raise InputError(
                f"{configuration.bundle} has room for {interface.max_target:,} tokens, prompt "
                f"included, not {source:,} and new ones: use a smaller -s."
            )
        raise InputError(
            f"{configuration.bundle} generates at most {room:,} tokens"
            f"{'' if encoder else f' after a prompt of {source:,}'}, not {new or 1:,}: use a "
            "smaller -n."
        )


def usable_lines(lines: Sequence[str], note: Callable[[str], None] | None = None) -> list[str]:
    """The lines that are not blank.

    Args:
        lines: of a text.
        note: is told how many were skipped.

    Raises:
        InputError: all are blank, or there is none.
    """
    found = [line for line in lines if line.strip()]
    if not found:
        raise InputError(
            "the text has no line that is not empty: give a file with one input per line."
        )
    if note is not None and len(found) < len(lines):
        skipped = len(lines) - len(found)
        note(f"skipped {skipped:,} empty line{'s' if skipped > 1 else ''} of the text.")
    return found
