"""Records of operators: every bundle gives them, they add up, and they find their place."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.export import tiny

from edgedec.builtin import builtin_checkpoint, resolve_bundle
from edgedec.errors import InputError
from edgedec.export import export_checkpoint
from edgedec.runtime.profiling.node_path import OTHER, cross_projection, part_of
from edgedec.runtime.profiling.operators import pair, run, sum_up
from edgedec.runtime.profiling.plan import Job
from edgedec.runtime.profiling.record import Configuration, Operator, Operators
from edgedec.runtime.profiling.records import Node, Run
from edgedec.runtime.spans import Span

JOB = Job(
    Configuration("b", "cpu", 1, 2, 8, 4, "full"),
    folder="",
    kind="operators",
    round=0,
    repetitions=1,
    first=0,
    warmup=1,
    seed=1,
    trace=True,
)
LAYERS = 4
"""Of g2p, in encoder and decoder each."""


def job(folder: Path | str, **changes: Any) -> Job:
    """A job for a bundle; other keys change its configuration."""
    return replace(JOB, folder=str(folder), configuration=replace(JOB.configuration, **changes))


@pytest.fixture(scope="module")
def coded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """g2p with codes."""
    checkpoint = builtin_checkpoint("g2p")
    assert checkpoint is not None
    folder = tmp_path_factory.mktemp("coded") / "g2p"
    return export_checkpoint(checkpoint, folder, quant="cb4", method="kmeans", verify=False)


@pytest.fixture(scope="module")
def decoder_only(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Llama of five layers."""
    folder = tmp_path_factory.mktemp("llama")
    return export_checkpoint(tiny.write(folder / "tiny", "llama"), folder / "b", verify=False)


def check_sums(operators: Operators, steps: int) -> None:
    """What holds of every bundle."""
    assert operators.steps == steps
    by: list[dict[tuple[str, str], tuple[int, float]]] = []
    for entries in (operators.by_type, operators.by_layer):
        assert len({(e.component, e.phase, e.name) for e in entries}) == len(entries)
        sums: dict[tuple[str, str], tuple[int, float]] = {}
        for entry in entries:
            calls, ms = sums.get((entry.component, entry.phase), (0, 0.0))
            sums[entry.component, entry.phase] = calls + entry.calls, round(ms + entry.ms, 9)
        by.append(sums)
    assert by[0] == by[1]
    assert {phase for _, phase in by[0]} <= {"encode", "first step", "step"}
    assert 0 < sum(ms for _, ms in by[0].values()) < operators.e2e_ms
    for (component, phase), (calls, _) in by[0].items():
        if phase == "step":
            assert calls % steps == 0, component


def parts(operators: Operators, phase: str) -> dict[str, Operator]:
    """By part of the model, of one phase."""
    return {entry.name: entry for entry in operators.by_layer if entry.phase == phase}


def check_trace(events: tuple[dict[str, Any], ...], operators: Operators) -> None:
    """Every operator is shown inside of a run, and every run inside of a phase."""
    by = {kind: [e for e in events if e["cat"] == kind] for kind in ("phase", "run", "operator")}
    assert len(by["operator"]) == sum(entry.calls for entry in operators.by_type)
    for inner, outer in (("operator", "run"), ("run", "phase")):
        for event in by[inner]:
            assert any(
                around["ts"] <= event["ts"]
                and event["ts"] + event["dur"] <= around["ts"] + around["dur"] + 1e-3
                for around in by[outer]
            ), event


@pytest.mark.parametrize("threads", [1, 2])
def test_codes(coded: Path, threads: int) -> None:
    operators, events = run(job(coded, threads=threads))
    check_sums(operators, steps=3)
    check_trace(events, operators)
    encode, step = parts(operators, "encode"), parts(operators, "step")
    blocks = {f"encoder.{i}.{b}" for i in range(LAYERS) for b in ("self_attn", "mlp")}
    cross = {f"decoder.{i}.cross_attn" for i in range(LAYERS)}
    assert blocks | cross | {"encoder.embed", "encoder.norm"} <= set(encode)
    assert cross | {"decoder.embed", "head"} <= set(step)
    assert OTHER not in encode
    assert operators.cross_kv_ms == pytest.approx(sum(encode[name].ms for name in cross))
    assert all(encode[name].calls == 1 for name in cross), "one product for keys and values"
    types = {entry.name for entry in operators.by_type}
    assert {"CodebookMatMul", "DecodeAttention"} <= types


def test_floating_point() -> None:
    operators, events = run(job(resolve_bundle("g2p")))
    check_sums(operators, steps=3)
    check_trace(events, operators)
    cross = {f"decoder.{i}.cross_attn" for i in range(LAYERS)}
    encode = parts(operators, "encode")
    assert operators.cross_kv_ms == pytest.approx(sum(encode[name].ms for name in cross))
    assert all(encode[name].calls == 2 for name in cross)


@pytest.mark.usefixtures("no_library")
def test_function_bodies_have_no_place(coded: Path) -> None:
    operators, _ = run(job(coded))
    check_sums(operators, steps=3)
    assert OTHER in parts(operators, "encode")
    assert operators.cross_kv_ms is None, "unknown is not 0"


def test_stages_that_not_every_step_runs(staged_g2p: Path) -> None:
    operators, events = run(job(staged_g2p, depth="layerskip:exit=2,drafts=2", batch=1))
    components = {entry.component for entry in operators.by_type}
    assert components == {"encoder", "head", *(f"decoder.{i}-{i + 1}" for i in range(LAYERS))}
    assert operators.steps == 3
    assert operators.cross_kv_ms is not None
    check_trace(events, operators)


def test_no_encoder(decoder_only: Path) -> None:
    operators, events = run(job(decoder_only))
    check_sums(operators, steps=3)
    check_trace(events, operators)
    assert {entry.component for entry in operators.by_type} == {"decoder"}
    assert {entry.phase for entry in operators.by_type} == {"first step", "step"}
    assert operators.cross_kv_ms is None


def test_a_trace_only_if_it_is_wanted() -> None:
    _, events = run(replace(job(resolve_bundle("g2p"), new_tokens=1), trace=False))
    assert events == ()


def test_a_text() -> None:
    wanted = job(resolve_bundle("g2p"), source_tokens=None, new_tokens=None, text="w.txt")
    operators, events = run(replace(wanted, inputs=("model", "a")))
    assert operators.steps == sum(e["name"] == "step" and e["cat"] == "phase" for e in events)
    check_sums(operators, operators.steps)


def seen(begin: float, name: str = "decoder") -> Span:
    """A run of half a second."""
    return Span("run", name, begin, 0.5)


def recorded(us: int) -> Run:
    """A run with a product."""
    return Run(0, us, (Node("decoder.0.mlp.up", "MatMul", "", 0, us),))


def test_runs_before_the_request_are_left_out() -> None:
    runs = {"encoder": [recorded(1), recorded(2)], "decoder": [recorded(i) for i in range(5)]}
    before = [seen(0, "encoder"), seen(1), seen(2)]
    request = [seen(3, "encoder"), seen(4), Span("work", "search", 5, 1), seen(6)]
    found = pair(before, request, runs)
    assert [(span.begin, run.us) for span, run in found] == [(3, 2), (4, 2), (6, 3)]


def test_records_that_are_full_are_refused() -> None:
    with pytest.raises(InputError, match="records of decoder are full after 1 runs"):
        pair([], [seen(0), seen(1)], {"decoder": [recorded(1)]})


def test_sums_by_phase() -> None:
    request = [
        Span("phase", "prepare", 0, 1),
        Span("phase", "first step", 1, 1),
        Span("phase", "step", 2, 1),
        Span("phase", "step", 3, 1),
        Span("request", "request", 0, 4.5),
    ]
    pairs = [(seen(begin), recorded(us)) for begin, us in ((1.0, 10), (2.25, 20), (3.5, 30))]
    operators = sum_up(request, pairs, decoder_layers=1)
    assert operators == Operators(
        e2e_ms=4500.0,
        steps=2,
        by_type=(
            Operator("decoder", "first step", "MatMul", 1, 0.01),
            Operator("decoder", "step", "MatMul", 2, 0.05),
        ),
        by_layer=(
            Operator("decoder", "first step", "decoder.0.mlp", 1, 0.01),
            Operator("decoder", "step", "decoder.0.mlp", 2, 0.05),
        ),
        cross_kv_ms=None,
    )


@pytest.mark.parametrize(
    ("nodes", "ms"),
    [
        (["decoder.0.cross_attn.kv", "decoder.1.cross_attn.k", "decoder.1.cross_attn.v"], 0.03),
        (["decoder.0.cross_attn.kv", "decoder.1.cross_attn.k"], None),
        (["decoder.0.cross_attn.kv", "decoder.0.cross_attn.kv"], None),
    ],
)
def test_projections_of_all_layers_or_nothing(nodes: list[str], ms: float | None) -> None:
    request = [
        Span("phase", "encode", 0, 1),
        Span("phase", "first step", 1, 1),
        Span("request", "request", 0, 2),
    ]
    made = tuple(Node(name, "MatMul", "", 0, 10) for name in nodes)
    # What a decoder would compute under such a name is no part of it.
    pairs = [(seen(0.2, "encoder"), Run(0, 30, made)), (seen(1.2), Run(0, 30, made))]
    found = sum_up(request, pairs, decoder_layers=2).cross_kv_ms
    assert found == (None if ms is None else pytest.approx(ms))


@pytest.mark.parametrize(
    ("node", "part"),
    [
        ("decoder.11.self_attn.qkv", "decoder.11.self_attn"),
        ("encoder.0.mlp.norm", "encoder.0.mlp"),
        ("encoder.embed", "encoder.embed"),
        ("decoder.norm.scale", "decoder.norm"),
        ("decoder.cross_bias.shape", "decoder.cross_bias"),
        ("head", "head"),
        ("head.next_token", "head"),
        ("Gemm_187", OTHER),
        ("header", OTHER),
        ("decoder.5", OTHER),
        (
            "/decoder/block.0/layer.1/EncDecAttention/k/MatMul",
            "decoder.block.0.layer.1.EncDecAttention",
        ),
        ("decoder./decoder/layers.1/encoder_attn/k_proj/Add", "decoder.layers.1.encoder_attn"),
        ("/decoder/layers.1/Add", "decoder.layers.1"),
        ("/shared/Gather", "shared"),
        ("/Reshape", OTHER),
        ("", OTHER),
    ],
)
def test_parts(node: str, part: str) -> None:
    assert part_of(node) == part


@pytest.mark.parametrize(
    ("node", "projection"),
    [
        ("decoder.3.cross_attn.kv", (3, "kv")),
        ("decoder.12.cross_attn.k", (12, "k")),
        ("decoder.0.cross_attn.v.bias_add", (0, "v")),
        ("decoder./decoder/block.1/layer.1/EncDecAttention/v/MatMul", (1, "v")),
        ("decoder./model/decoder/layers.4/encoder_attn/k_proj/MatMul", (4, "k")),
        ("decoder.0.cross_attn.key", None),
        ("decoder.0.cross_attn.q", None),
        ("encoder.0.self_attn.k", None),
        ("MatMul_3", None),
    ],
)
def test_cross_projections(node: str, projection: tuple[int, str] | None) -> None:
    assert cross_projection(node) == projection
