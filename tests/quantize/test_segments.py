"""Where graphs are cut, and what lives across the cuts."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from tests.devices.models import graph
from tests.quantize.graphs import g2p, llama, noise, program, run_whole, sites, t5, with_weights

from edgedec.quantize.calibration.segments import cut
from edgedec.quantize.calibration.walk import FLOAT, Walk
from edgedec.quantize.pool import Pool
from edgedec.quantize.text.batches import Batch, make_batches
from edgedec.quantize.text.samples import Sample

GENERIC = """
main (int64[B, T] input_ids, float[B, T, 24] hidden, float[B, T, 24] more)
  => (float[N, 12] scores) {
    e = Gather (table, input_ids)  # embed
    u = MatMul (e, first)  # first
    v = MatMul (e, second)  # second
    w = Add (u, hidden)
    six = Constant <value_ints = [-1, 24]> ()
    p, q = Split <axis = -1, num_outputs = 2> (v)
    pq = Concat <axis = -1> (q, p)
    flat = Reshape (pq, six)
    g = Gemm <transB = 1> (flat, third, bias)  # third
    rest = Reshape (w, six)
    sum = Add (g, rest)
    again = MatMul (hidden, first24)  # of an input
    both = Add (again, more)
    flatter = Reshape (both, six)
    total = Mul (sum, flatter)
    scores = MatMul (total, last)  # last
}
"""
SHAPES = {
    "table": (40, 16),
    "first": (16, 24),
    "second": (16, 24),
    "third": (24, 24),
    "bias": (24,),
    "first24": (24, 24),
    "last": (24, 12),
}


def test_steps_of_an_encoder_decoder() -> None:
    steps = program(t5()).steps
    names = [[m.name for m in step.matrices] for step in steps]
    assert [step.component for step in steps] == ["encoder"] * 10 + ["decoder"] * 14
    assert names[0] == ["encoder.embed.weight"]
    assert names[1] == [f"encoder.0.self_attn.{part}.weight" for part in "qkv"]
    assert names[9] == [f"decoder.{i}.cross_attn.{p}.weight" for i in range(2) for p in "kv"]
    assert names[10] == ["decoder.embed.weight"]
    assert names[-1] == ["head.weight"]
    assert [n for n, step in enumerate(steps) if step.x is None] == [0, 10]


@pytest.mark.parametrize(("model", "weights"), [(t5, None), (llama, None), (g2p, 4_187_520)])
def test_every_matrix_has_its_step(model: type, weights: int | None) -> None:
    graphs = model()
    found = [m.name for step in program(graphs).steps for m in step.matrices]
    expected = [site.matrix.name for those in sites(graphs).values() for site in those]
    assert sorted(found) == sorted(expected)
    if weights is not None:
        assert program(graphs).weights == weights


@pytest.mark.parametrize("model", [t5, llama])
@pytest.mark.parametrize("stages", [None, "all"])
def test_little_lives_across_a_cut(model: type, stages: str | None) -> None:
    """A residual stream, what is multiplied next, the source; no keys of layers that come later."""
    for segment in program(model(stages)).segments:
        assert len(segment.takes) <= 3
        assert len(segment.gives) <= 2


def test_values_expire_once() -> None:
    cut_up = program(t5())
    expired = [name for segment in cut_up.segments for name in segment.expires]
    given = {name for segment in cut_up.segments for name in segment.gives}
    assert len(expired) == len({*expired})
    assert given - {*expired} == {*cut_up.outputs}


def generic() -> dict[str, ir.Model]:
    one = graph(
        "main (int64[B, S] input_ids, int64[B, S] attention_mask) => "
        "(float[B, S, 24] hidden_out, float[B, S, 24] more) {"
        " near = Gather (near_table, input_ids)\n"
        " hidden_out = MatMul (near, near_first)\n"
        " more = MatMul (hidden_out, near_second)\n }",
        near_table=(40, 16),
        near_first=(16, 24),
        near_second=(24, 24),
    )
    return {"one": one, "two": graph(GENERIC, **SHAPES)}


def text() -> list[Batch]:
    """Sources as long as their targets: the two graphs are added up."""
    rng = np.random.default_rng(0)
    rows = [tuple(rng.integers(3, 40, n).tolist()) for n in (5, 5, 3)]
    return make_batches([Sample(row, row) for row in rows], pad=0, start=0, tokens=10)


def test_any_graph() -> None:
    graphs = generic()
    cut_up = cut(graphs, sites(graphs), outputs=["scores"])
    names = [[m.name for m in step.matrices] for step in cut_up.steps]
    assert names == [
        ["near_table"],
        ["near_first"],
        ["near_second"],
        ["first24"],
        ["table"],
        ["first", "second"],
        ["third"],
        ["last"],
    ]
    changed = {m.name: noise(m.name, m.read()) for step in cut_up.steps for m in step.matrices}
    with Pool(2) as pool, Walk(cut_up, text(), pool, paths=["q"]) as walk:
        for step in walk:
            for batch, tokens in enumerate(text()):
                if step.has_inputs:
                    columns = step.matrices[0].columns
                    assert step.inputs("q", batch).shape == (tokens.predictions, columns)
            step.use("q", {m.name: changed[m.name] for m in step.matrices})
        found = [walk.logits(path, b) for path in (FLOAT, "q") for b in range(2)]
    expected = [
        scores
        for model in (generic(), with_weights(generic(), changed))
        for scores in run_whole(model, text(), output="scores")
    ]
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5, rtol=1e-5)


def test_several_outputs() -> None:
    """One of them is what a later matrix reads, and was computed for it."""
    graphs = {"one": generic()["one"]}
    names = ["more", "hidden_out"]
    cut_up = cut(graphs, sites(graphs), outputs=names)
    with Pool(1) as pool, Walk(cut_up, text(), pool, paths=["q"]) as walk:
        for step in walk:
            step.use("q", {m.name: 2 * m.read() for m in step.matrices})
        found = [[walk.outputs(path, b) for b in range(2)] for path in (FLOAT, "q")]
    for i, (name, factor) in enumerate(zip(names, (8, 4), strict=True)):
        for batch, expected in enumerate(run_whole(graphs, text(), output=name)):
            np.testing.assert_allclose(found[0][batch][i], expected, atol=1e-5, rtol=1e-5)
            np.testing.assert_allclose(found[1][batch][i], factor * expected, atol=1e-4, rtol=1e-5)


def test_matrices_that_nobody_looks_at_are_constants() -> None:
    graphs = llama()
    only = {"decoder": [s for s in sites(graphs)["decoder"] if s.matrix.role == "head"]}
    cut_up = cut(graphs, only)
    assert [m.name for step in cut_up.steps for m in step.matrices] == ["head.weight"]
    batches = make_batches([Sample(None, (5, 9, 7, 3))], pad=0, start=None)
    with Pool(1) as pool, Walk(cut_up, batches, pool) as walk:
        assert len([*walk]) == 1
        (expected,) = run_whole(graphs, batches)
        np.testing.assert_allclose(walk.logits(FLOAT, 0), expected, atol=1e-5)


def test_what_cannot_be_cut() -> None:
    graphs = llama()
    with pytest.raises(ValueError, match="no graph has an output 'scores'"):
        cut(graphs, sites(graphs), outputs=["scores"])
    mixed = {**t5(), **llama()}
    mixed["decoder"].graph.opset_imports[""] = 23
    with pytest.raises(ValueError, match="operator sets"):
        cut(mixed, {})
