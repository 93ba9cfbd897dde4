"""A depth policy beside full depth: same inputs, same options, in turns."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from edgedec.runtime.depth.statistics import Statistics

if TYPE_CHECKING:
    from edgedec.runtime.depth.plan import Policy
    from edgedec.runtime.generator import Generator, Input, Result

FULL = "full"
"""The policy that all others are compared with."""


@dataclass
class Agreement:
    """Generated tokens against those of full depth, position by position.

    Attributes:
        inputs: that were compared,
        equal_inputs: and whose tokens are all the same.
        tokens: positions that were compared: of each input, as many as the longer result has,
        equal_tokens: and those with the same token in both.
    """

    inputs: int = 0
    equal_inputs: int = 0
    tokens: int = 0
    equal_tokens: int = 0

    def add(self, tokens: Sequence[int], full: Sequence[int]) -> None:
        """Count one input."""
        self.inputs += 1
        self.equal_inputs += list(tokens) == list(full)
        self.tokens += max(len(tokens), len(full))
        self.equal_tokens += sum(map(int.__eq__, tokens, full))

    @property
    def of_tokens(self) -> float | None:
        """Fraction of equal tokens; None before there is one."""
        return self.equal_tokens / self.tokens if self.tokens else None

    @property
    def of_inputs(self) -> float | None:
        """Fraction of inputs with the same result; None before there is one."""
        return self.equal_inputs / self.inputs if self.inputs else None


def agreement(tokens: Sequence[int], full: Sequence[int]) -> float | None:
    """Fraction of equal tokens of one input; None where both are empty."""
    found = Agreement()
    found.add(tokens, full)
    return found.of_tokens


def add_to(total: Statistics, part: Statistics) -> None:
    """Count what another call did into a sum."""
    total.source_tokens += part.source_tokens
    total.tokens += part.tokens
    total.steps += part.steps
    total.layers += part.layers
    total.drafted += part.drafted
    total.accepted += part.accepted
    total.total_seconds += part.total_seconds
    for layer, count in part.exits.items():
        total.exits[layer] = total.exits.get(layer, 0) + count
    for what, seconds in part.seconds.items():
        total.seconds[what] = total.seconds.get(what, 0.0) + seconds


def milliseconds(counted: Statistics) -> float | None:
    """Of decoding per generated token, without encoder and prompt; None where nothing ran."""
    if not counted.tokens or not counted.total_seconds:
        return None
    return 1e3 * counted.total_seconds / counted.tokens


@dataclass
class SideBySide:
    """Generates with a policy, and again at full depth, so that noise hits both alike.

    Each takes the first turn in every other batch. Both run the first input once before anything
    is measured: the first run of a graph takes longer. Where the policy is full depth, nothing is
    run twice.

    Attributes:
        generator: of the bundle.
        policy: to compare.
        depth: its canonical text.
        ours: what it did,
        full: and what full depth did.
        agreement: of the results.
    """

    generator: Generator
    policy: Policy
    depth: str
    ours: Statistics = field(default_factory=Statistics)
    full: Statistics = field(default_factory=Statistics)
    agreement: Agreement = field(default_factory=Agreement)
    _seed: int = field(default_factory=lambda: secrets.randbelow(1 << 32))
    _turns: int = 0

    def generate(
        self, inputs: Sequence[Input], *, first_row: int, **options: Any
    ) -> list[tuple[Result, float | None]]:
        """One batch: the policy's results, and how far each agrees with full depth.

        Where sampling has no seed, both get the same random one.

        Raises:
            InputError: as `Generator.generate`.
        """
        if not inputs:
            return []
        if options.get("seed", self.generator.defaults.seed) is None:
            options["seed"] = self._seed
        first = not self._turns
        self._turns += 1
        if self.policy.name == FULL:
            if first:
                self._run(inputs[:1], FULL, Statistics(), first_row, options)
            results = self._run(inputs, FULL, self.ours, first_row, options)
            return [(result, None) for result in results]
        turns: list[tuple[Policy | str, Statistics]] = [(self.policy, self.ours), (FULL, self.full)]
        if first:
            for policy, _ in turns:
                self._run(inputs[:1], policy, Statistics(), first_row, options)
        order = turns if self._turns % 2 else turns[::-1]
        found = [self._run(inputs, *turn, first_row, options) for turn in order]
        ours, full = found if self._turns % 2 else found[::-1]
        for mine, theirs in zip(ours, full, strict=True):
            self.agreement.add(mine.tokens, theirs.tokens)
        return [
            (mine, agreement(mine.tokens, theirs.tokens))
            for mine, theirs in zip(ours, full, strict=True)
        ]

    def _run(
        self,
        inputs: Sequence[Input],
        policy: Policy | str,
        total: Statistics,
        first_row: int,
        options: dict[str, Any],
    ) -> list[Result]:
        results = self.generator.generate(
            inputs, batch_size=len(inputs), first_row=first_row, depth=policy, **options
        )
        add_to(total, self.generator.statistics)
        return results

    def facts(self) -> dict[str, Any]:
        """What was measured, for JSON; what was not is None."""
        ours, full = milliseconds(self.ours), milliseconds(self.full)
        drafts = self.ours.drafted > 0
        return {
            "depth": self.depth,
            "tokens": self.ours.tokens,
            "steps": self.ours.steps,
            "decoder_layers": self.generator.bundle.manifest.interface.decoder_layers,
            "mean_layers": self.ours.mean_layers,
            "exits": {str(layer): count for layer, count in sorted(self.ours.exits.items())},
            "drafted": self.ours.drafted if drafts else None,
            "accepted": self.ours.accepted if drafts else None,
            "acceptance": self.ours.acceptance,
            "agreement": self.agreement.of_tokens,
            "exact_match": self.agreement.of_inputs,
            "ms_per_token": ours,
            "full_ms_per_token": full,
            "speedup": full / ours if full and ours else None,
            "seconds": dict(self.ours.seconds),
        }
