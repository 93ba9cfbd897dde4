"""Graphs of fixed shapes compute what the bundle's own graphs do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from tests.export.tiny import CONFIGS, VOCAB, lora, tensors, write, write_adapter
from tests.npu.lowering import (
    CHUNK,
    SOURCE,
    TARGET,
    Bundles,
    Host,
    dynamic_logits,
    host,
    lower,
    tiny_bundles,
)

from edgedec.export import export_checkpoint

CLOSE = 2e-5
"""Between float32 graphs that order sums differently; logits are below 10."""


@pytest.fixture(scope="session")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> Bundles:
    """Bundles of tiny models; do not change them."""
    return tiny_bundles(tmp_path_factory)


def tokens(count: int, seed: int) -> list[int]:
    numbers: list[int] = np.random.default_rng(seed).integers(3, VOCAB, count).tolist()
    return numbers


def source_of(family: str) -> list[int] | None:
    return None if family in ("llama", "qwen2", "opt") else tokens(7, 1)


def ready(host: Host, source: list[int] | None) -> Host:
    """A host that has read the source."""
    if source is not None:
        host.encode(source)
    return host


def length_of(source: list[int] | None) -> int | None:
    return None if source is None else SOURCE


@pytest.mark.parametrize("family", [*CONFIGS])
def test_every_family_step_by_step_and_in_chunks(bundles: Bundles, family: str) -> None:
    folder, source, target = bundles(family), source_of(family), tokens(13, 2)
    model = lower(folder, length_of(source), TARGET, chunk=CHUNK)
    expected = dynamic_logits(folder, source, target)
    found = ready(host(model), source).logits(target)
    np.testing.assert_allclose(found, expected, atol=CLOSE, rtol=0)
    if source is None:
        prompted = host(model)
        for last in (6, 12):  # one chunk and a half, then from within the caches
            logits = prompted.prefill(target[prompted.length : last + 1])
            np.testing.assert_allclose(logits, expected[last], atol=CLOSE, rtol=0)


def test_a_relative_bias_of_every_layer(tmp_path: Path) -> None:
    """umt5 has a table for each; they come through one input."""
    extra = {}
    for stack, layers in (("encoder", 1), ("decoder", 5)):
        for i in range(layers):
            at = f"{stack}.block.{i}.layer.0.SelfAttention.relative_attention_bias.weight"
            extra[at] = np.random.default_rng(i).normal(size=(8, 2)).astype(np.float32)
    checkpoint = write(tmp_path / "umt5", "t5", extra, model_type="umt5", feed_forward_proj="relu")
    folder = export_checkpoint(checkpoint, tmp_path / "bundle")
    source, target = tokens(7, 1), tokens(9, 2)
    model = lower(folder, SOURCE, TARGET)
    assert model.static.decoder is not None
    assert model.static.decoder.bias.heads == 10
    found = ready(host(model), source).logits(target)
    expected = dynamic_logits(folder, source, target)
    np.testing.assert_allclose(found, expected, atol=CLOSE, rtol=0)


@pytest.mark.parametrize("family", ["t5", "bart", "llama"])
def test_unrolled_steps_choose_what_single_ones_do(bundles: Bundles, family: str) -> None:
    folder, source = bundles(family), source_of(family)
    single = ready(host(lower(folder, length_of(source), TARGET)), source)
    unrolled = ready(host(lower(folder, length_of(source), TARGET, unroll=3)), source)
    chosen, token = [], 5
    for _ in range(9):
        token = int(single.logits([token])[0].argmax())
        chosen.append(token)
    assert unrolled.greedy(5, runs=3) == chosen
    for name, rows in single.past.items():
        np.testing.assert_allclose(unrolled.past[name], rows, atol=CLOSE, rtol=0)


@given(st.data())
@settings(max_examples=4, deadline=None, phases=[Phase.generate])
def test_any_lengths(bundles: Bundles, data: st.DataObject) -> None:
    family = data.draw(st.sampled_from(["t5", "llama"]))
    folder, source = bundles(family), source_of(family)
    if source is not None:
        source = source[: data.draw(st.integers(1, 7))]
    past = data.draw(st.integers(2, 9))
    chunk = data.draw(st.integers(1, past))
    size = None if source is None else data.draw(st.integers(len(source), 9))
    target = tokens(past + 1, data.draw(st.integers(0, 9)))
    model = lower(folder, size, past + 1, chunk=chunk)
    expected = dynamic_logits(folder, source, target)
    found = ready(host(model), source).logits(target)  # the last one with full caches
    np.testing.assert_allclose(found, expected, atol=CLOSE, rtol=0)
    if "prefill" in model.models:
        logits = host(model).prefill(target)
        np.testing.assert_allclose(logits, expected[-1], atol=CLOSE, rtol=0)


@pytest.mark.parametrize(
    ("family", "options"),
    [
        ("t5", {"quant": "cb4", "method": "kmeans"}),
        ("bart", {"quant": "int8", "portable": True}),
        ("t5", {"dtype": "fp16"}),
    ],
    ids=["cb4", "int8", "fp16"],
)
def test_weights_in_other_forms(bundles: Bundles, family: str, options: dict[str, Any]) -> None:
    """Codes become the matrices that they stand for, each by its own name."""
    folder, source, target = bundles(family, **options), source_of(family), tokens(9, 3)
    model = lower(folder, length_of(source), TARGET)
    found = ready(host(model), source).logits(target)
    expected = dynamic_logits(folder, source, target)
    np.testing.assert_allclose(found, expected, atol=CLOSE, rtol=0)
    plain = lower(bundles(family), length_of(source), TARGET)
    for name, graph in model.models.items():
        assert matrices(graph) == matrices(plain.models[name])
    bits = {"cb4": {4, 8}, "int8": {8}}.get(str(options.get("quant")), set())
    assert set(model.coded.values()) == bits
    if bits:
        assert model.coded.keys() == set().union(*map(matrices, model.models.values()))


def matrices(model: ir.Model) -> dict[str, tuple[int, ...]]:
    """The matrices of products and embeddings, and their shapes."""
    found: dict[str, tuple[int, ...]] = {}
    for name, value in model.graph.initializers.items():
        assert value.shape is not None
        shape = tuple(value.shape.numpy())
        if name.endswith(".weight") and len(shape) == 2:
            found[name] = shape
    return found


def test_lora_branches_that_stay(tmp_path: Path) -> None:
    modules = [f"model.layers.{i}.self_attn.q_proj" for i in range(5)]
    adapter = write_adapter(tmp_path / "adapter", lora(tensors("llama"), *modules))
    base = write(tmp_path / "base", "llama")
    folder = export_checkpoint(adapter, tmp_path / "bundle", base=base, lora="keep")
    target = tokens(9, 2)
    found = host(lower(folder, None, TARGET)).logits(target)
    np.testing.assert_allclose(found, dynamic_logits(folder, None, target), atol=CLOSE, rtol=0)


@pytest.mark.parametrize("family", ["t5", "llama"])
def test_openvino_gets_operators_that_it_knows(bundles: Bundles, family: str) -> None:
    folder, source, target = bundles(family), source_of(family), tokens(9, 2)
    model = lower(folder, length_of(source), TARGET, chunk=CHUNK, device="openvino")
    for graph in model.models.values():
        assert graph.opset_imports == {"": 21}
        assert "RMSNormalization" not in {node.op_type for node in graph.graph}
    found = ready(host(model), source).logits(target)
    expected = dynamic_logits(folder, source, target)
    np.testing.assert_allclose(found, expected, atol=CLOSE, rtol=0)
