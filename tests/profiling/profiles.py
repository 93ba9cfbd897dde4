"""Profiles of measurements that nobody made: every figure can be chosen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from edgedec.runtime.profiling.metrics import Context, metrics_of
from edgedec.runtime.profiling.record import (
    SCHEMA_VERSION,
    BundleFacts,
    Conditions,
    Configuration,
    Effort,
    Environment,
    Memory,
    Operator,
    Operators,
    Profile,
    Row,
    Sample,
    Summary,
    Turn,
)
from edgedec.runtime.profiling.summary import summarize

ENVIRONMENT = Environment(
    date="2026-03-04T05:06:07Z",
    system="Linux-6.1-x86_64",
    machine="x86_64",
    python="3.12.1",
    cpu="Imaginary CPU @ 2.00GHz",
    instruction_set="avx2",
    cores=4,
    cache_bytes=32 << 20,
    memory_bytes=16 << 30,
    governor="performance",
    boost=True,
    hypervisor=False,
    versions={"edgedec": "0.1.0", "numpy": "2.0.0", "onnxruntime": "1.30.0"},
    bandwidth_gb_s={"1": 12.5, "4": 20.0},
    load=0.25,
)

FACTS = BundleFacts(
    sha256="ab" * 32,
    source="g2p",
    producer="edgedec 0.1.0",
    architecture="encoder-decoder",
    precision="fp32",
    compute=None,
    parameters=4_000_000,
    file_bytes=16_500_000,
    weight_bytes=16_000_000,
    encoder_layers=4,
    decoder_layers=3,
    d_model=256,
    vocab_size=110,
    stages=1,
    step_bytes=6_000_000,
    head_bytes=112_640,
    kv_width=256,
)

MEMORY = Memory(
    peak_rss_mb=120.0, steady_rss_mb=110.0, steady_file_mb=60.0, steady_anonymous_mb=50.0
)
CONDITIONS = Conditions(others=0.01, stolen=0.0, clock_mhz=3000.0, yardstick_ms=5.0)

OPERATORS = Operators(
    e2e_ms=30.0,
    steps=63,
    by_type=(
        Operator("encoder", "encode", "MatMul", 16, 2.5),
        Operator("decoder", "first step", "MatMul", 20, 0.5),
        Operator("decoder", "step", "MatMul", 1260, 12.5),
        Operator("decoder", "step", "Add", 600, 1.25),
    ),
    by_layer=(
        Operator("encoder", "encode", "encoder.0.mlp", 4, 1.5),
        Operator("encoder", "encode", "encoder.0.self_attn", 4, 1.0),
        Operator("decoder", "first step", "decoder.0.self_attn", 5, 0.5),
        Operator("decoder", "step", "decoder.0.self_attn", 700, 6.5),
        Operator("decoder", "step", "decoder.0.cross_attn", 600, 5.25),
        Operator("decoder", "step", "head", 60, 2.0),
    ),
    cross_kv_ms=0.75,
)


def configuration(
    bundle: str = "g2p",
    *,
    device: str = "cpu",
    threads: int | None = 4,
    batch: int = 1,
    source_tokens: int | None = 128,
    new_tokens: int | None = 64,
    depth: str = "full",
) -> Configuration:
    return Configuration(bundle, device, threads, batch, source_tokens, new_tokens, depth)


def sample(
    e2e_ms: float, *, ttft_ms: float | None = None, steps: int = 5, number: int = 0
) -> Sample:
    """A request of one input: its first token comes after a fifth unless said, others evenly.

    Args:
        e2e_ms: the whole request.
        ttft_ms: to the first token.
        steps: tokens.
        number: of its round.
    """
    first = e2e_ms / 5 if ttft_ms is None else ttft_ms
    between = (e2e_ms - first) / max(1, steps - 1)
    return Sample(
        round=number,
        inputs=1,
        source_tokens=128,
        new_tokens=steps,
        e2e_ms=e2e_ms,
        # the last token is the end of the request, whatever rounding says
        token_ms=(*(first + between * step for step in range(steps - 1)), e2e_ms)[:steps],
        steps=steps - 1,
        steps_ms=e2e_ms - first if steps > 1 else 0.0,
        prepare_ms=first / 10,
        encode_ms=first * 6 / 10,
        first_step_ms=first * 3 / 10,
        detokenize_ms=0.0,
        runs_ms={"decoder": (e2e_ms - first) * 0.9},
        plan_ms=(e2e_ms - first) * 0.01,
        search_ms=(e2e_ms - first) * 0.05,
        mean_layers=3.0,
        exits={"3": steps},
        cache_bytes=400_000,
        cross_bytes=300_000,
    )


def turn(
    number: int,
    samples: Sequence[Sample],
    *,
    memory: Memory | None = MEMORY,
    conditions: Conditions = CONDITIONS,
    fresh: bool = True,
) -> Turn:
    """A process that measured these requests; even ones started with a cold file cache."""
    cold = number % 2 == 0
    return Turn(
        round=number,
        start_ms=(500.0 if cold else 300.0) + number if fresh else None,
        imports_ms=200.0 if fresh else None,
        load_ms=50.0 + number,
        file_cache=("cold" if cold else "warm") if fresh else None,
        memory=memory if fresh else None,
        conditions=conditions,
        samples=tuple(replace(one, round=number) for one in samples),
    )


def row(
    rounds: Sequence[Sequence[float]] = ((20.0, 21.0), (22.0, 20.5), (20.25, 20.75)),
    what: Configuration | None = None,
    *,
    peak_rss_mb: Sequence[float] | None = None,
    yardstick_ms: Sequence[float] | None = None,
    steps: int = 5,
    fresh: bool = True,
    operators: Operators | None = None,
    warnings: Sequence[str] = (),
) -> Row:
    """A row that took these times.

    Args:
        rounds: milliseconds of every request, by round.
        what: was measured.
        peak_rss_mb, yardstick_ms: of every round; the same in all unless said.
        steps: tokens of every request.
        fresh: whether every round had a process of its own.
        operators: of a run with records.
        warnings: sentences.
    """
    turns = tuple(
        turn(
            number,
            [sample(ms, steps=steps) for ms in times],
            memory=MEMORY
            if peak_rss_mb is None
            else replace(MEMORY, peak_rss_mb=peak_rss_mb[number]),
            conditions=CONDITIONS
            if yardstick_ms is None
            else replace(CONDITIONS, yardstick_ms=yardstick_ms[number]),
            fresh=fresh,
        )
        for number, times in enumerate(rounds)
    )
    what = what or configuration()
    metrics, missing = summaries(turns, what, operators)
    return Row(
        configuration=what,
        error=None,
        turns=turns,
        operators=operators,
        metrics=metrics,
        missing=missing,
        warnings=tuple(warnings),
    )


def failed(error: str, what: Configuration | None = None) -> Row:
    """A row that could not be measured."""
    return Row(what or configuration(), error, (), None, {}, {}, ())


def summaries(
    turns: Sequence[Turn], what: Configuration, operators: Operators | None = None
) -> tuple[dict[str, Summary | None], dict[str, str]]:
    """Every metric of these turns, and why some are missing."""
    context = Context(what, turns, operators, FACTS, ENVIRONMENT)
    values = {name: metric.values(context) for name, metric in metrics_of(context).items()}
    reasons = {name: metric.reason for name, metric in metrics_of(context).items()}
    return (
        {name: summarize(found) if found else None for name, found in values.items()},
        {name: reasons[name] for name, found in values.items() if not found},
    )


def profile(
    *rows: Row,
    environment: Environment = ENVIRONMENT,
    facts: Mapping[str, BundleFacts] | None = None,
    complete: bool = True,
) -> Profile:
    """A profile of these rows; of one row with three rounds if none is given."""
    rows = rows or (row(),)
    labels = dict.fromkeys(one.configuration.bundle for one in rows)
    rounds = max(len(one.turns) for one in rows)
    return Profile(
        schema_version=SCHEMA_VERSION,
        producer="edgedec 0.1.0",
        complete=complete,
        environment=environment,
        effort=Effort(
            rounds=max(1, rounds),
            repetitions=max(1, *(sum(len(t.samples) for t in one.turns) for one in rows)),
            warmup=2,
            fresh=all(turn.start_ms is not None for one in rows for turn in one.turns),
            seed=0,
        ),
        bundles=dict(facts) if facts is not None else dict.fromkeys(labels, FACTS),
        rows=rows,
    )
