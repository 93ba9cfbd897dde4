"""Made-up profiles for pages: with everything, with nothing, and what else may come."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache

from tests.profiling import profiles as made_up
from tests.profiling.profiles import configuration, failed, profile, row, summaries, turn

from edgedec.runtime.profiling.comparison import Comparison, compare
from edgedec.runtime.profiling.record import (
    Configuration,
    Memory,
    Operator,
    Operators,
    Profile,
    Row,
    Sample,
    Turn,
)
from edgedec.runtime.report.html import render_html

HOSTILE = (
    "<script>alert(1)</script>",
    '"><img src=x onerror="alert(1)">',
    "</script><script>alert(2)</script>",
    "<!-- ]]> &amp; $x_1$ ${y} --",
    "\x00\x1b[2J\u2028",
    "'; background: url(https://example.com/x)",
    "重み行列",
    "a-very-long-name-without-any-place-to-break-" * 4,
)


def operators(layers: int = 4, steps: int = 31) -> Operators:
    """As many layers as wanted; the last ones take longer."""
    parts = ("self_attn", "cross_attn", "mlp")
    encoder = [
        Operator("encoder", "encode", f"encoder.{layer}.{part}", 8, 0.3 + 0.1 * layer)
        for layer in range(layers)
        for part in ("self_attn", "mlp")
    ]
    decoder = [
        Operator("decoder", phase, f"decoder.{layer}.{part}", 8 * calls, calls * (0.01 + 0.002 * n))
        for phase, calls in (("first step", 1), ("step", steps))
        for layer in range(layers)
        for n, part in enumerate(parts)
    ]
    rest = [
        Operator("decoder", "step", "decoder.embed", steps, 0.02),
        Operator("decoder", "step", "head", steps, 1.5),
        Operator("decoder", "step", "other", steps, 0.25),
    ]
    kinds = ("MatMul", "Attention", "Add", "Mul", "RMSNormalization", "Gather", "Softmax", "Cast")
    types = [
        Operator(component, phase, kind, 16, 2.5 / (n + 1))
        for component, phase in (
            ("encoder", "encode"),
            ("decoder", "first step"),
            ("decoder", "step"),
        )
        for n, kind in enumerate((*kinds, *(f"Rare{n}" for n in range(6))))
    ]
    return Operators(31.5, steps, tuple(types), (*encoder, *decoder, *rest), 0.75)


def request(number: int, chance: random.Random, *, speed: float = 1.0, steps: int = 32) -> Sample:
    """A request with every phase, and times that vary."""
    tokenize, prepare, encode, first = (
        speed * ms * chance.uniform(0.95, 1.15) for ms in (0.08, 0.15, 3.2, 0.9)
    )
    tokens = [tokenize + prepare + encode + first]
    for place in range(1, steps):
        pause = 6.0 if chance.random() < 0.01 else 0.0
        tokens.append(tokens[-1] + speed * (0.5 + 0.004 * place) * chance.gauss(1, 0.06) + pause)
    whole = tokens[-1] - tokens[0]
    detokenize = 0.05
    return Sample(
        round=number,
        inputs=1,
        source_tokens=128,
        new_tokens=steps,
        e2e_ms=tokens[-1] + detokenize,
        token_ms=tuple(tokens),
        steps=steps - 1,
        steps_ms=whole,
        tokenize_ms=tokenize,
        prepare_ms=prepare,
        encode_ms=encode,
        first_step_ms=first,
        detokenize_ms=detokenize,
        runs_ms={"decoder": 0.84 * whole},
        plan_ms=0.02 * whole,
        search_ms=0.04 * whole,
        mean_layers=3.0,
        exits={"3": steps},
        energy_j=0.4 * speed,
        cache_bytes=400_000,
        cross_bytes=300_000,
    )


def full_row(
    what: Configuration | None = None,
    *,
    speed: float = 1.0,
    rounds: int = 5,
    each: int = 4,
    depth: bool = False,
    warnings: tuple[str, ...] = (),
    seed: int = 0,
    steps: int = 32,
    recorded: bool = True,
) -> Row:
    """A row in which nothing is missing."""
    chance = random.Random(seed)
    turns = []
    for number in range(rounds):
        samples = [request(number, chance, speed=speed, steps=steps) for _ in range(each)]
        if depth:
            samples = [
                replace(
                    one,
                    mean_layers=2.25,
                    exits={"1": 11, "2": 5, "3": 16, "10": 2},
                    drafted=24,
                    accepted=18,
                )
                for one in samples
            ]
        memory = Memory(120 * speed + number, 110 * speed, 60 * speed, 50 * speed)
        turns.append(turn(number, samples, memory=memory))
    records = operators() if recorded else None
    return put_together(turns, what or configuration(), records, warnings)


def put_together(
    turns: Sequence[Turn],
    what: Configuration,
    recorded: Operators | None = None,
    warnings: tuple[str, ...] = (),
) -> Row:
    """A row of these turns with its metrics."""
    metrics, missing = summaries(turns, what, recorded)
    return Row(what, None, tuple(turns), recorded, metrics, missing, warnings)


def everything() -> Profile:
    """Several configurations, a policy, a baseline, a failure, warnings."""
    theirs = replace(configuration("g2p (transformers)"), program="transformers")
    bare = [
        [replace(baseline(one), round=number) for one in (30.0, 31.0, 33.5)] for number in range(5)
    ]
    peer = put_together([turn(number, samples) for number, samples in enumerate(bare)], theirs)
    return profile(
        full_row(),
        full_row(configuration("g2p-cb4"), speed=0.6, seed=1),
        full_row(
            configuration(depth="layerskip:exit=2,draft=4"),
            speed=0.8,
            depth=True,
            seed=2,
            warnings=("2 rounds are few: 5 or more tell noise from change.",),
        ),
        peer,
        failed("encoder.onnx: not a graph; export the bundle again.", configuration("broken")),
        facts={"g2p": made_up.FACTS, "g2p-cb4": replace(made_up.FACTS, precision="cb4")},
    )


def baseline(ms: float) -> Sample:
    """A request that is only seen from outside."""
    return Sample(0, 1, 128, 16, ms, tuple(ms * (4 + n) / 19 for n in range(16)))


def single() -> Profile:
    """One configuration, measured well."""
    return profile(full_row(rounds=5, each=6))


def texts() -> Profile:
    """Outputs of all lengths, as real texts have them; one of a single token."""
    chance = random.Random(3)
    turns = [
        turn(number, [request(number, chance, steps=steps) for steps in (1, 9, 4 + number)])
        for number in range(3)
    ]
    what = replace(configuration(), text="words.txt", source_tokens=None, new_tokens=None)
    return profile(put_together(turns, what))


def minimal() -> Profile:
    """One request of one token, in a process that had other work."""
    only = Sample(0, 1, 3, 1, 1.25, (1.25,))
    turns = (turn(0, [only], fresh=False),)
    made = put_together(turns, configuration())
    environment = replace(
        made_up.ENVIRONMENT,
        instruction_set=None,
        cache_bytes=None,
        memory_bytes=None,
        governor=None,
        boost=None,
        hypervisor=None,
        bandwidth_gb_s={},
        load=None,
    )
    missing = dict.fromkeys(made.metrics, "it was not measured")
    bare = replace(made, turns=turns, metrics=dict.fromkeys(made.metrics), missing=missing)
    return profile(bare, environment=environment, facts={})


def interrupted() -> Profile:
    """Stopped before the second row."""
    nothing = replace(row(what=configuration(threads=1)), turns=(), metrics={}, missing={})
    return profile(full_row(rounds=2, each=1), nothing, complete=False)


def all_failed() -> Profile:
    """Nothing could be measured."""
    return profile(failed("no such bundle."), failed("nor this one.", configuration("x")), facts={})


def hostile() -> Profile:
    """Every name is an attack or a nuisance."""
    rows = [
        full_row(
            replace(configuration(name, depth=name, device=name), text=name, source_tokens=None),
            depth=True,
            rounds=2,
            each=2,
            warnings=(name,),
            recorded=False,
        )
        for name in HOSTILE
    ]
    named = tuple(Operator(name, "step", name, 1, 0.5) for name in HOSTILE)
    rows[0] = replace(rows[0], operators=Operators(30.0, 3, named, named, None))
    rows = [
        replace(one, missing={**one.missing, name: name})
        for one, name in zip(rows, HOSTILE, strict=True)
    ]
    rows.append(failed("".join(HOSTILE), configuration("".join(HOSTILE))))
    joined = "".join(HOSTILE)
    environment = replace(
        made_up.ENVIRONMENT, cpu=joined, governor=joined, versions={joined: joined}
    )
    facts = {name: replace(made_up.FACTS, source=name, producer=name) for name in HOSTILE}
    return profile(*rows, environment=environment, facts=facts)


def sweep() -> Profile:
    """Thirty configurations."""
    rows = [
        full_row(
            configuration(threads=threads, batch=batch, source_tokens=source),
            speed=batch**0.5 * source / 64 / threads**0.5,
            rounds=2,
            each=2,
            seed=seed,
            steps=8,
            recorded=seed < 3,
        )
        for seed, (source, batch, threads) in enumerate(
            (source, batch, threads)
            for source in (32, 64, 128, 256, 512)
            for batch in (1, 4, 16)
            for threads in (1, 4)
        )
    ]
    return profile(*rows)


def compared() -> tuple[Profile, Comparison]:
    """A profile, and what has become of it since an earlier one."""
    now = single()
    return now, compare(profile(full_row(rounds=8, speed=0.8)), now, 0.05)


PROFILES: dict[str, Callable[[], Profile]] = {
    "everything": everything,
    "single": single,
    "texts": texts,
    "minimal": minimal,
    "interrupted": interrupted,
    "all-failed": all_failed,
    "hostile": hostile,
    "sweep": sweep,
}


@cache
def made(name: str) -> Profile:
    """One of these, made once."""
    return PROFILES[name]()


@cache
def written(name: str) -> str:
    """The page of one of these, written once."""
    return render_html(made(name))
