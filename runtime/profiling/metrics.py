"""Metrics: what each is computed from (docs/metrics.md explains them)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from edgedec.runtime.profiling.record import (
    BundleFacts,
    Configuration,
    Environment,
    Memory,
    Operators,
    Sample,
    Turn,
)

Better = Literal["less", "more"] | None


@dataclass(frozen=True)
class Context:
    """What a metric may need besides its sample or turn.

    Attributes:
        configuration: of the row.
        turns: of the row.
        operators: of the row, if they were recorded.
        facts: of its bundle; None if that cannot be opened, and for baselines.
        environment: the machine.
    """

    configuration: Configuration
    turns: Sequence[Turn]
    operators: Operators | None
    facts: BundleFacts | None
    environment: Environment


@dataclass(frozen=True)
class Metric:
    """A figure of a row.

    Attributes:
        name: with its unit; a key of `Row.metrics`.
        unit: for people; empty for plain numbers.
        better: which way is better; None if that depends.
        per: what it has a value for: each ``sample``, each ``turn``, or the ``row`` as a whole.
        value: of such a sample, turn, or (``row``) the context itself; None if unmeasured.
        reason: why there may be no value, as in ``null: reason``.
        known: a better reason, of a machine that knows one.
    """

    name: str
    unit: str
    better: Better
    per: Literal["sample", "turn", "row"]
    value: Callable[[Any, Context], float | None]
    reason: str
    known: Callable[[Environment], str | None] = lambda _: None

    def why(self, environment: Environment) -> str:
        """Why there is no value."""
        return self.known(environment) or self.reason

    def values(self, context: Context) -> list[float]:
        """Those that there are."""
        subjects: Iterator[Any]
        if self.per == "sample":
            subjects = (sample for turn in context.turns for sample in turn.samples)
        elif self.per == "turn":
            subjects = iter(context.turns)
        else:
            subjects = iter((context,))
        found = (self.value(subject, context) for subject in subjects)
        return [value for value in found if value is not None]


COMPONENT = "run_ms[COMPONENT]"
"""Stands for one metric per component of the bundle."""
BATCHED = ("ttft_ms", "tpot_ms")
"""Metrics that suppose that the inputs of a batch are decoded side by side."""
MB = 1e6


def metrics_of(context: Context) -> dict[str, Metric]:
    """The metrics of a row: `METRICS`, with one for each component that ran in steps.

    Where inputs were taken one by one, that is why those of `BATCHED` are missing.
    """
    components = {
        name: None for turn in context.turns for sample in turn.samples for name in sample.runs_ms
    }
    sequential = any(one_by_one(sample) for turn in context.turns for sample in turn.samples)
    found: dict[str, Metric] = {}
    for name, metric in METRICS.items():
        if name != COMPONENT:
            missing = sequential and name in BATCHED
            found[name] = replace(metric, reason=_ONE_BY_ONE) if missing else metric
            continue
        for component in components:
            full = name.replace("COMPONENT", component)
            found[full] = Metric(
                full, metric.unit, metric.better, metric.per, _run(component), metric.reason
            )
    return found


def one_by_one(sample: Sample) -> bool:
    """Whether the inputs of a batch followed each other: each has a first step of its own."""
    return sample.steps is not None and len(sample.token_ms) - sample.steps > 1


def ttft_ms(sample: Sample) -> float | None:
    """From the request to the first token; None where inputs were taken one by one."""
    return sample.token_ms[0] if sample.token_ms and not one_by_one(sample) else None


def tpot_ms(sample: Sample) -> float | None:
    """Mean time of every token after the first; None where inputs were taken one by one."""
    following = len(sample.token_ms) - 1
    if one_by_one(sample):
        return None
    return (sample.e2e_ms - sample.token_ms[0]) / following if following > 0 else None


def tokens_per_s(sample: Sample) -> float | None:
    """Tokens of steps after the first, in a second of these steps."""
    if sample.steps is None or sample.steps_ms is None:  # a baseline, which is seen from outside
        steps, ms = len(sample.token_ms) - 1, sample.token_ms[-1] - sample.token_ms[0]
    else:
        steps, ms = sample.steps, sample.steps_ms
    return (sample.new_tokens - sample.inputs) * 1e3 / ms if steps > 0 and ms > 0 else None


def _run(component: str) -> Callable[[Sample, Context], float | None]:
    return lambda sample, _: _per_step(sample.runs_ms.get(component, 0.0), sample)


def _per_step(ms: float | None, sample: Sample) -> float | None:
    return None if ms is None or not sample.steps else ms / sample.steps


def _field(name: str) -> Callable[[Any, Context], float | None]:
    """An attribute as it is."""
    return lambda subject, _: getattr(subject, name)


def _bytes(name: str) -> Callable[[Sample, Context], float | None]:
    def value(sample: Sample, _: Context) -> float | None:
        count = getattr(sample, name)
        return None if count is None else count / MB

    return value


def _memory(name: str) -> Callable[[Turn, Context], float | None]:
    def value(turn: Turn, _: Context) -> float | None:
        memory: Memory | None = turn.memory
        return None if memory is None else getattr(memory, name)

    return value


def _start(file_cache: str) -> Callable[[Turn, Context], float | None]:
    return lambda turn, _: turn.start_ms if turn.file_cache == file_cache else None


def _acceptance(sample: Sample, _: Context) -> float | None:
    if not sample.drafted or sample.accepted is None:
        return None
    return sample.accepted / sample.drafted


def _energy(sample: Sample, _: Context) -> float | None:
    return None if sample.energy_j is None else sample.energy_j * 1e3 / sample.new_tokens


def _cross_kv(context: Context, _: Context) -> float | None:
    return None if context.operators is None else context.operators.cross_kv_ms


def _bytes_per_weight(context: Context, _: Context) -> float | None:
    facts = context.facts
    return None if facts is None or not facts.parameters else facts.weight_bytes / facts.parameters


def _read_mb(sample: Sample, context: Context) -> float | None:
    from edgedec.runtime.profiling.traffic import read_bytes_per_token

    if context.facts is None or _on_gpu(context.configuration):
        return None
    found = read_bytes_per_token(sample, context.facts)
    return None if found is None else found / MB


def _bandwidth(sample: Sample, context: Context) -> float | None:
    read, speed = _read_mb(sample, context), tokens_per_s(sample)
    threads = threads_of(context.configuration, context.environment)
    measured = context.environment.bandwidth_gb_s.get(str(threads))
    if read is None or speed is None or measured is None:
        return None
    return read * speed / 1e3 / measured


def _on_gpu(configuration: Configuration) -> bool:
    """Whether a GPU ran, or may have: it has weights and caches of other sizes than the bundle."""
    from edgedec.devices.base import is_resident

    words = configuration.device.replace("=", ",").split(",")
    return any(word.strip() == "auto" or is_resident(word) for word in words)


def threads_of(configuration: Configuration, environment: Environment) -> int:
    """Threads that were computed with; the choice of that machine where none were asked for."""
    from edgedec.devices.options import default_threads

    asked = configuration.threads
    return default_threads(environment.cores) if asked is None else asked


_IDS = "inputs were synthetic ids: -f FILE measures it"
_PHASES = "a baseline is only seen from outside"
_ENCODER = "there is no encoder, or it is a baseline, which is only seen from outside"
_OPS = "only --ops measures it, and only of graphs that name their nodes as edgedec's do"
_STEPS = "there was no token after the first, or it is a baseline, which is only seen from outside"
_NEXT = "there was no token after the first"
_REQUEST = "no request was measured"
_ONE_BY_ONE = "inputs were taken one by one: TTFT and TPOT of a batch mean nothing; use -b 1"
_COLD = "no process is known to have started with the bundle's files out of memory"
_WARM = "no process is known to have started with the bundle's files in memory"
_PROCESS = "no turn had a process of its own (--in-process)"
_SYSTEM = "the system does not tell, or no turn had a process of its own (--in-process)"
_FACTS = "the bundle could not be read, or it is a baseline"
_READ = (
    "not known of this bundle, of GPUs, of policies that draft, or there was no token after the "
    "first"
)
_ROOF = "what a token reads, or the bandwidth of memory, is not known"
_DRAFTS = "the depth policy drafted nothing"


def _sample(
    name: str,
    unit: str,
    value: Callable[[Sample, Context], float | None],
    reason: str,
    better: Better = "less",
) -> Metric:
    return Metric(name, unit, better, "sample", value, reason)


def _turn(
    name: str, unit: str, value: Callable[[Turn, Context], float | None], reason: str
) -> Metric:
    return Metric(name, unit, "less", "turn", value, reason)


_ALL = (
    _sample("ttft_ms", "ms", lambda sample, _: ttft_ms(sample), _REQUEST),
    _sample("tpot_ms", "ms", lambda sample, _: tpot_ms(sample), _NEXT),
    _sample("tokens_per_s", "tokens/s", lambda sample, _: tokens_per_s(sample), _NEXT, "more"),
    _sample("e2e_ms", "ms", _field("e2e_ms"), _REQUEST),
    _sample("inputs_per_s", "inputs/s", lambda s, _: s.inputs * 1e3 / s.e2e_ms, _REQUEST, "more"),
    _sample("tokenize_ms", "ms", _field("tokenize_ms"), _IDS),
    _sample("prepare_ms", "ms", _field("prepare_ms"), _PHASES),
    _sample("encode_ms", "ms", _field("encode_ms"), _ENCODER),
    Metric("cross_kv_ms", "ms", "less", "row", _cross_kv, _OPS),
    _sample("first_step_ms", "ms", _field("first_step_ms"), _PHASES),
    _sample("detokenize_ms", "ms", _field("detokenize_ms"), _PHASES),
    _sample(COMPONENT, "ms", _run("COMPONENT"), _STEPS),
    _sample("plan_ms", "ms", lambda sample, _: _per_step(sample.plan_ms, sample), _STEPS),
    _sample("search_ms", "ms", lambda sample, _: _per_step(sample.search_ms, sample), _STEPS),
    _turn("cold_start_ms", "ms", _start("cold"), _COLD),
    _turn("warm_start_ms", "ms", _start("warm"), _WARM),
    _turn("imports_ms", "ms", _field("imports_ms"), _PROCESS),
    _turn("load_ms", "ms", _field("load_ms"), _REQUEST),
    _turn("peak_rss_mb", "MB", _memory("peak_rss_mb"), _SYSTEM),
    _turn("steady_rss_mb", "MB", _memory("steady_rss_mb"), _SYSTEM),
    _turn("steady_file_mb", "MB", _memory("steady_file_mb"), _SYSTEM),
    _turn("steady_anonymous_mb", "MB", _memory("steady_anonymous_mb"), _SYSTEM),
    _sample("cache_mb", "MB", _bytes("cache_bytes"), _PHASES),
    _sample("cross_mb", "MB", _bytes("cross_bytes"), _ENCODER),
    Metric("bytes_per_weight", "bytes", "less", "row", _bytes_per_weight, _FACTS),
    _sample("read_mb_per_token", "MB", _read_mb, _READ),
    _sample("bandwidth_fraction", "", _bandwidth, _ROOF, None),
    _sample("mean_layers", "layers", _field("mean_layers"), _STEPS, None),
    _sample("acceptance", "", _acceptance, _DRAFTS, "more"),
    Metric(
        "energy_mj_per_token",
        "mJ",
        "less",
        "sample",
        _energy,
        "the processor's energy counters (RAPL) cannot be read here",
        lambda environment: environment.energy_missing,
    ),
)
METRICS: dict[str, Metric] = {metric.name: metric for metric in _ALL}
"""All of them, in the order in which reports show them."""
