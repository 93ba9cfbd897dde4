"""The formulas against a count of the exported graphs, node by node."""

from __future__ import annotations

from math import prod
from pathlib import Path
from typing import Any

import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import shape_inference

from edgedec.runtime.bundle import open_bundle
from edgedec.study import flops
from edgedec.study.flops import Flops
from edgedec.study.shapes import ARCHITECTURES, SHAPES, Architecture, spec_of

Bundles = dict[tuple[str, str], Path]
TINY = SHAPES["tiny"]


def count(graph: Path, **lengths: int) -> Flops:
    """Operations of a graph whose free axes have these lengths, from inferred shapes.

    Attention computes with all keys that it is shown, masked or not.
    """
    model = onnx.load(graph, load_external_data=False)
    for value in model.graph.input:
        for axis in value.type.tensor_type.shape.dim:
            if axis.dim_param:
                axis.dim_value = lengths[axis.dim_param]
    del model.graph.value_info[:]
    for output in model.graph.output:
        output.type.tensor_type.ClearField("shape")
    inferred = shape_inference.infer_shapes(model, strict_mode=True, data_prop=True).graph
    shapes = {tensor.name: list(tensor.dims) for tensor in inferred.initializer}
    for value in [*inferred.input, *inferred.value_info, *inferred.output]:
        shapes[value.name] = [axis.dim_value for axis in value.type.tensor_type.shape.dim]
    matrices = attention = 0
    for node in inferred.node:
        given_ = [shapes.get(name, []) for name in node.input]
        if node.op_type in {"MatMul", "Gemm"}:
            assert all(given_[0]), node.name
            (transposed,) = [a.i for a in node.attribute if a.name == "transB"] or [0]
            columns = given_[1][0 if transposed else 1]
            matrices += 2 * prod(given_[0]) * columns
        elif node.op_type == "Attention":
            query, key = given_[:2]
            assert all(query + key), node.name
            attention += 4 * query[1] * key[1] * query[2]
    return Flops(matrices, attention)


def masked(new: int) -> int:
    """Operations of the tiny decoder's attention that its causal mask makes vain."""
    return 4 * TINY.heads * TINY.head_dim * new * (new - 1) // 2


@pytest.mark.parametrize("source", [1, 7, 40])
def test_an_encoder_decoder_computes_what_the_formulas_say(tiny: Bundles, source: int) -> None:
    folder = tiny["encoder-decoder", "none"]
    spec = spec_of(TINY, "encoder-decoder")
    encoder = count(folder / "encoder.onnx", batch=1, source=source)

    def step(past: int) -> Flops:
        axes = {"batch": 1, "new": 1, "picked": 1, "source": source, "capacity": past + 1}
        return count(folder / "decoder.onnx", **axes)

    assert flops.first_token(spec, source) == encoder + step(0)
    assert flops.next_token(spec, source, 1) == step(1)
    assert flops.next_token(spec, source, 9) == step(9)
    steps = [step(past) for past in range(4)]
    assert flops.request(spec, source, 4) == sum(steps, encoder)


@pytest.mark.parametrize("source", [1, 7, 40])
def test_a_decoder_only_model_computes_what_the_formulas_say(tiny: Bundles, source: int) -> None:
    graph = tiny["decoder-only", "none"] / "decoder.onnx"
    spec = spec_of(TINY, "decoder-only")

    def seen(new: int, capacity: int) -> Flops:
        found = count(graph, batch=1, new=new, picked=1, capacity=capacity)
        return Flops(found.matrices, found.attention - masked(new) * spec.decoder.layers)

    prompt = seen(source, source)
    assert flops.first_token(spec, source) == prompt
    assert flops.next_token(spec, source, 1) == seen(1, source + 1)
    steps = [seen(1, source + index) for index in range(1, 4)]
    assert flops.request(spec, source, 4) == sum(steps, prompt)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_codes_stand_for_the_same_products(tiny: Bundles, architecture: Architecture) -> None:
    """Every matrix of codes is multiplied once per token; the embedding is only read."""
    manifest = open_bundle(tiny[architecture, "cb4"]).manifest
    assert manifest.codebooks is not None

    def per_token(component: str) -> int:
        assert manifest.codebooks is not None
        nodes = manifest.codebooks.matrices[component].items()
        return sum(2 * m.rows * m.columns for name, m in nodes if not name.endswith("embed"))

    source = 11
    spec = spec_of(TINY, architecture)
    assert flops.next_token(spec, source, 5).matrices == per_token("decoder")
    if architecture == "encoder-decoder":
        first = source * per_token("encoder") + per_token("decoder")
        assert flops.first_token(spec, source).matrices == first


@given(
    architecture=st.sampled_from(ARCHITECTURES),
    source=st.integers(1, 300),
    new=st.integers(1, 20),
)
def test_a_request_is_its_tokens(architecture: Any, source: int, new: int) -> None:
    spec = spec_of(TINY, architecture)
    tokens = [flops.next_token(spec, source, index) for index in range(1, new)]
    whole = sum(tokens, flops.first_token(spec, source))
    assert flops.request(spec, source, new) == whole
    assert whole.total == whole.matrices + whole.attention


@given(prompt=st.integers(1, 60), more=st.integers(1, 20))
def test_a_prompt_costs_what_its_tokens_cost_one_by_one(prompt: int, more: int) -> None:
    """But for the head, which a prompt passes once."""
    spec = spec_of(TINY, "decoder-only")
    longer, shorter = (flops.first_token(spec, n) for n in (prompt + more, prompt))
    head = 2 * spec.d_model * spec.vocab_size
    for index in range(1, more + 1):
        shorter += flops.next_token(spec, prompt, index)
    assert longer.attention == shorter.attention
    assert longer.matrices == shorter.matrices - more * head
