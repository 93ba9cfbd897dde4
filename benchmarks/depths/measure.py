"""Quality of every policy on all inputs, and times in turns on some of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any

from depths.cases import Case, Tokens
from depths.forced import perplexity
from edgedec.runtime.comparison import Agreement, add_to
from edgedec.runtime.depth.plan import Policy
from edgedec.runtime.depth.statistics import Statistics
from edgedec.runtime.generator import Generator, Result

FULL = "full"


@dataclass(frozen=True)
class Subject:
    """A policy on a bundle.

    Attributes:
        checkpoint: name of what the bundle was made of.
        depth: the policy, as results show it.
        policy: to generate with.
        generator: of the bundle.
    """

    checkpoint: str
    depth: str
    policy: Policy
    generator: Generator


@dataclass(frozen=True)
class Outcome:
    """What was measured of one subject; ratios are to the first one: one stage, at full depth.

    Attributes:
        checkpoint, depth: the subject.
        errors: in percent, or perplexity; None where drafts make no difference to it.
        agreement: fraction of tokens that the first subject generates too.
        identical: inputs with the same tokens, as a fraction.
        layers: mean decoder layers per token.
        acceptance: fraction of drafts that held, None without drafts.
        tokens: generated for all inputs.
        decode_ms: milliseconds of decoding per token: median over rounds.
        input_ms: the same per input.
        decode_x: how many times as fast: median over rounds.
        whole_x: the same with encoder, prompt and everything else of the call.
    """

    checkpoint: str
    depth: str
    errors: float | None
    agreement: float
    identical: float
    layers: float
    acceptance: float | None
    tokens: int
    decode_ms: float
    input_ms: float
    decode_x: float
    whole_x: float


@dataclass
class _Round:
    decode: float = 0.0
    decoded: int = 0
    whole: float = 0.0
    tokens: int = 0


@dataclass
class _Trial:
    subject: Subject
    results: list[Result] = field(default_factory=list)
    counted: Statistics = field(default_factory=Statistics)
    rounds: list[_Round] = field(default_factory=list)


def measure(
    subjects: Sequence[Subject],
    case: Case,
    *,
    timed: int,
    rounds: int,
    progress: Callable[[str], None],
) -> list[Outcome]:
    """Generate one input at a time: that is what runs at the edge, and what rows of a batch change.

    Args:
        subjects: the first is what the others are compared with.
        case: all its inputs count for quality,
        timed: and so many of them, spread over them, for times.
        rounds: how often these are generated for, all subjects in turns for every input.
        progress: told what is being done.
    """
    trials = [_Trial(subject) for subject in subjects]
    for trial in trials:
        progress(f"{trial.subject.checkpoint}: {trial.subject.depth}")
        for source in case.sources:
            trial.results.append(_run(trial.subject, source, case))
            add_to(trial.counted, trial.subject.generator.statistics)
    step = max(1, len(case.sources) // timed)
    for turn in range(rounds):
        progress(f"times, round {turn + 1} of {rounds}")
        for trial in trials:
            trial.rounds.append(_Round())
        for index, source in enumerate(case.sources[::step][:timed]):
            for trial in _rotated(trials, index + turn):
                _time(trial, source, case)
    return list(_outcomes(trials, case, timed))


def _rotated(trials: list[_Trial], by: int) -> list[_Trial]:
    by %= len(trials)
    return trials[by:] + trials[:by]


def _run(subject: Subject, source: Tokens, case: Case) -> Result:
    options: dict[str, Any] = {} if case.end else {"eos_token_ids": []}
    (result,) = subject.generator.generate(
        [source],
        batch_size=1,
        depth=subject.policy,
        max_new_tokens=case.longest,
        num_beams=1,
        temperature=0.0,
        **options,
    )
    return result


def _time(trial: _Trial, source: Tokens, case: Case) -> None:
    begin = time.perf_counter()
    result = _run(trial.subject, source, case)
    now = trial.rounds[-1]
    counted = trial.subject.generator.statistics
    now.whole += time.perf_counter() - begin
    now.tokens += len(result.tokens)
    now.decode += counted.total_seconds
    now.decoded += counted.tokens
    if case.first:
        now.decode += counted.seconds.get("prompt", 0.0)
        now.decoded += 1


def _outcomes(trials: Sequence[_Trial], case: Case, timed: int) -> Iterator[Outcome]:
    reference = trials[0]
    for trial in trials:
        agreement = Agreement()
        for ours, theirs in zip(trial.results, reference.results, strict=True):
            agreement.add(ours.tokens, theirs.tokens)
        pairs = list(zip(trial.rounds, reference.rounds, strict=True))
        yield Outcome(
            checkpoint=trial.subject.checkpoint,
            depth=trial.subject.depth,
            errors=_errors(trial, case),
            agreement=agreement.of_tokens or 0.0,
            identical=agreement.of_inputs or 0.0,
            layers=trial.counted.mean_layers or 0.0,
            acceptance=trial.counted.acceptance,
            tokens=trial.counted.tokens,
            decode_ms=median(1e3 * one.decode / one.decoded for one in trial.rounds),
            input_ms=median(1e3 * one.decode / timed for one in trial.rounds),
            # Per token: an answer that ends too early would be fast.
            decode_x=median((b.decode / b.decoded) / (a.decode / a.decoded) for a, b in pairs),
            whole_x=median((b.whole / b.tokens) / (a.whole / a.tokens) for a, b in pairs),
        )


def _errors(trial: _Trial, case: Case) -> float | None:
    if case.rate is not None:
        return case.rate([(result.text or "").strip() for result in trial.results])
    if trial.subject.policy.one_row:
        return None
    subject = trial.subject
    return perplexity(subject.generator, subject.policy, case.sources, case.truth)
