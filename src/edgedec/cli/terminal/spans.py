"""`edgedec run --profile`: where the time of requests went, as tables, JSON or a Chrome trace."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgedec.errors import InputError
from edgedec.runtime.report.columns import columns

if TYPE_CHECKING:
    from edgedec.runtime.generator import Generator, Input
    from edgedec.runtime.profiling.record import Sample
    from edgedec.runtime.spans import Span

NOTHING = "-"
MOST_LINES = 20
"""More requests than this are not listed one by one."""
MUCH = 0.01
"""Fraction of a request that may be missing from its phases before that is worth a line."""


def check_trace(path: str, others: Iterable[str | None]) -> None:
    """Refuse a file that cannot become a trace, before anything runs.

    Raises:
        InputError: with the reason.
    """
    from edgedec.runtime.text_file import check_writable

    if not path.endswith(".json"):
        raise InputError(f"--profile={path}: name a file that ends with .json, for a Chrome trace.")
    check_writable(path)
    for other in others:
        if other and Path(other).resolve() == Path(path).resolve():
            raise InputError(f"--profile={path} names a file that is used otherwise.")


@dataclass
class Watched:
    """Requests of one run of the command line.

    Attributes:
        generator: whose requests they are; its spans are switched on.
        trace: whether all spans are kept.
        samples: one per request.
        spent: what ran -> how often, and for how many seconds in all.
        spans: of all requests, if they are kept.
    """

    generator: Generator
    trace: bool
    samples: list[Sample] = field(default_factory=list)
    spent: dict[str, tuple[int, float]] = field(default_factory=dict)
    spans: list[Span] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.generator.spans.on = True
        self.generator.spans.take()

    def end(self, prompts: Sequence[Input], tokens: int) -> None:
        """A request is over.

        Args:
            prompts: its inputs; if there are none, there was nothing to measure.
            tokens: generated, all of them.
        """
        from edgedec.runtime.profiling.sample import Call, sample_of

        spans = self.generator.spans.take()
        if not prompts:
            return
        whole = next(span for span in spans if span.kind == "request")
        call = Call(
            began=whole.begin,
            seconds=whole.seconds,
            inputs=len(prompts),
            new_tokens=tokens,
            text=isinstance(prompts[0], str),
        )
        self.samples.append(sample_of(0, call, spans, self.generator.statistics))
        for span in spans:
            if span.kind in {"run", "work"}:
                count, seconds = self.spent.get(span.name, (0, 0.0))
                self.spent[span.name] = count + 1, seconds + span.seconds
        if self.trace:
            self.spans += spans

    def facts(self) -> dict[str, Any]:
        """For JSON: a sample of docs/metrics.md for each request, with what follows from it."""
        from edgedec.runtime.profiling.metrics import tokens_per_s, tpot_ms, ttft_ms
        from edgedec.runtime.schema import encode

        requests = []
        for sample in self.samples:
            record = encode(sample)
            del record["round"]  # there are none
            for metric in (ttft_ms, tpot_ms, tokens_per_s):
                record[metric.__name__] = metric(sample)
            requests.append(record)
        return {"requests": requests}

    def tables(self) -> list[str]:
        """For people."""
        if not self.samples:
            return ["Nothing was generated: there is nothing to measure."]
        return [
            *columns(_phases(self.samples), right=frozenset({1, 2})),
            "",
            *columns(_parts(self.spent), right=frozenset({1, 2, 3})),
            "",
            *columns(_requests(self.samples), right=frozenset(range(1, 8))),
            "The first request after loading takes longer; `edgedec profile` measures warm ones.",
        ]

    def write(self, path: str, label: str) -> None:
        """Write the trace of all requests.

        Raises:
            InputError: the file cannot be written.
        """
        from edgedec.runtime.profiling.trace import span_events, write_trace

        zero = min((span.begin for span in self.spans), default=0.0)
        events = span_events(self.spans, pid=os.getpid(), tid=threading.get_native_id(), zero=zero)
        write_trace(path, [(label, events)])


def _phases(samples: Sequence[Sample]) -> list[list[str]]:
    """Where all requests together spent their time."""
    whole = sum(sample.e2e_ms for sample in samples)
    steps = sum(sample.steps or 0 for sample in samples)
    named = {
        "tokenize": "tokenize_ms",
        "prepare": "prepare_ms",
        "encode": "encode_ms",
        "first step": "first_step_ms",
        f"steps ({steps:,})": "steps_ms",
        "detokenize": "detokenize_ms",
    }
    spent = {}
    for phase, attribute in named.items():
        values = [value for s in samples if (value := getattr(s, attribute)) is not None]
        if values:
            spent[phase] = sum(values)
    missing = whole - sum(spent.values())
    if missing > MUCH * whole:
        spent["output"] = missing  # of a stream: nothing else lies between phases
    rows = [["phase", "ms", "%"]]
    rows += [[phase, _ms(ms), f"{100 * ms / whole:.1f}"] for phase, ms in spent.items()]
    return [*rows, ["in all", _ms(whole), "100.0"]]


def _parts(spent: dict[str, tuple[int, float]]) -> list[list[str]]:
    """What ran within these phases."""
    rows = [["within", "runs", "ms", "ms each"]]
    for name, (count, seconds) in spent.items():
        rows.append([name, f"{count:,}", _ms(1e3 * seconds), f"{1e3 * seconds / count:.3f}"])
    return rows


def _requests(samples: Sequence[Sample]) -> list[list[str]]:
    """Every request, or the first ones."""
    from edgedec.runtime.profiling.metrics import tokens_per_s, tpot_ms, ttft_ms

    rows = [["request", "inputs", "read", "tokens", "ms", "TTFT ms", "TPOT ms", "tokens/s"]]
    for number, sample in enumerate(samples[:MOST_LINES], start=1):
        speed = tokens_per_s(sample)
        rows.append(
            [
                f"{number:,}",
                f"{sample.inputs:,}",
                f"{sample.source_tokens:,}",
                f"{sample.new_tokens:,}",
                _ms(sample.e2e_ms),
                _ms(ttft_ms(sample)),
                _ms(tpot_ms(sample)),
                NOTHING if speed is None else f"{speed:,.1f}",
            ]
        )
    if len(samples) > MOST_LINES:
        rows.append([f"and {len(samples) - MOST_LINES:,} more (--json)", *[""] * 7])
    return rows


def _ms(value: float | None) -> str:
    return NOTHING if value is None else f"{value:,.2f}"
