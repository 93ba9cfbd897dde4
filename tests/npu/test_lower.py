"""Graphs of fixed shapes compute what the bundle's own graphs do."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from tests.export.tiny import CONFIGS, VOCAB, lora, tensors, write, write_adapter
from tests.npu.lowering import Host, dynamic_logits, host, load, lower

from edgedec.devices.npu.bias import by_distance
from edgedec.devices.npu.lower import TARGETS, Shapes, lower_static
from edgedec.errors import InputError
from edgedec.export import export_checkpoint
from edgedec.runtime.manifest import Manifest

CLOSE = 2e-5
"""Between float32 graphs that order sums differently; logits are below 10."""
SOURCE, TARGET, CHUNK = 12, 20, 4
USUAL = Shapes(SOURCE, TARGET)
Bundles = Callable[..., Path]


@pytest.fixture(scope="session")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> Bundles:
    """Bundles of tiny models by family and options of the export, each made once."""

    @cache
    def bundle(family: str, **options: Any) -> Path:
        folder = tmp_path_factory.mktemp(family)
        export_checkpoint(write(folder / "checkpoint", family), folder / "bundle", **options)
        return folder / "bundle"

    return bundle


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


def ports(values: Sequence[ir.Value]) -> dict[str, tuple[str, list[int]]]:
    found = {}
    for value in values:
        assert value.shape is not None
        assert value.dtype is not None
        found[str(value.name)] = value.dtype.name, list(value.shape.numpy())
    return found


def test_ports_of_an_encoder_and_its_decoder(bundles: Bundles) -> None:
    models = lower(bundles("t5"), SOURCE, TARGET).models
    encoder, decoder = models["encoder"].graph, models["decoder"].graph
    heads, width, past = 2, 4, TARGET - 1
    cross = {}
    for i in range(5):
        cross[f"cross.{i}.key"] = ("FLOAT", [1, heads, width, SOURCE])
        cross[f"cross.{i}.value"] = ("FLOAT", [1, heads, SOURCE, width])
    assert ports(encoder.inputs) == {
        "input_ids": ("INT32", [1, SOURCE]),
        "self.bias": ("FLOAT", [1, heads, SOURCE, SOURCE]),
    }
    assert ports(encoder.outputs) == cross
    caches, rows = {}, {}
    for i in range(5):
        caches[f"past.{i}.self.key"] = ("FLOAT", [1, heads, width, past])
        caches[f"past.{i}.self.value"] = ("FLOAT", [1, heads, past, width])
        for part in ("key", "value"):
            rows[f"new.{i}.self.{part}"] = ("FLOAT", [1, 1, heads * width])
    assert ports(decoder.inputs) == {
        "input_ids": ("INT32", [1, 1]),
        "self.bias": ("FLOAT", [1, heads, 1, past + 1]),
        "cross.bias": ("FLOAT", [1, 1, 1, SOURCE]),
        **caches,
        **cross,
    }
    assert ports(decoder.outputs) == {
        "next_token": ("INT32", [1, 1]),
        "logits": ("FLOAT", [1, 1, VOCAB]),
        **rows,
    }


def test_ports_of_steps_and_chunks(bundles: Bundles) -> None:
    models = lower(bundles("llama"), None, TARGET, chunk=CHUNK, unroll=3).models
    steps, chunk, past = models["decoder"].graph, models["prefill"].graph, TARGET - 1
    given = ports(steps.inputs)
    assert given["input_ids"] == ("INT32", [1, 1])
    assert given["positions"] == ("INT32", [1, 3])
    assert given["self.bias"] == ("FLOAT", [1, 1, 3, past + 3])
    assert ports(steps.outputs)["next_token"] == ("INT32", [1, 3])
    assert ports(steps.outputs)["new.0.self.key"] == ("FLOAT", [1, 3, 8])
    assert "logits" not in ports(steps.outputs)
    given = ports(chunk.inputs)
    assert given["input_ids"] == given["positions"] == ("INT32", [1, CHUNK])
    assert given["self.bias"] == ("FLOAT", [1, 1, CHUNK, past + CHUNK])
    assert given["logit_positions"] == ("INT32", [1, 1])
    assert ports(chunk.outputs)["logits"] == ("FLOAT", [1, 1, VOCAB])


def test_an_encoder_without_relative_positions_gets_its_mask_alone(bundles: Bundles) -> None:
    encoder = lower(bundles("bart"), SOURCE, TARGET).models["encoder"].graph
    assert ports(encoder.inputs)["self.bias"] == ("FLOAT", [1, 1, 1, SOURCE])


def test_a_step_turns_nothing(bundles: Bundles) -> None:
    """One token's heads are split and joined by reshaping."""
    for family in ("t5", "mu"):
        decoder = lower(bundles(family), SOURCE, TARGET, unroll=2).models["decoder"].graph
        assert not [node for node in decoder if node.op_type == "Transpose"]


def test_one_part_alone_and_graphs_that_stay_as_they_were(bundles: Bundles) -> None:
    models, manifest = load(bundles("t5"))
    before = {name: ir.serde.serialize_model(model) for name, model in models.items()}
    shapes = Shapes(SOURCE, TARGET)
    for part in ("encoder", "decoder"):
        static = lower_static(models, manifest, shapes, TARGETS["qnn"], frozenset({part}))
        assert [*static.models] == [part]
        assert [*static.tables] == [f"{part}.bias.bin"]
        assert (static.static.encoder is None) == (part == "decoder")
        assert (static.static.decoder is None) == (part == "encoder")
    assert before == {name: ir.serde.serialize_model(model) for name, model in models.items()}


@given(st.integers(1, 20), st.integers(1, 3), st.integers(0, 30), st.integers(1, 9))
@settings(deadline=None)
def test_tables_by_distance(length: int, heads: int, origin: int, reach: int) -> None:
    values = np.random.default_rng(length).normal(size=(heads, length)).astype(np.float32) * 40
    found = by_distance(values, origin, reach)
    for distance in range(-reach, reach):
        entry = values[:, min(max(distance + origin, 0), length - 1)]
        np.testing.assert_array_equal(found[:, reach - 1 - distance], np.maximum(entry, -40))


def refused(models: dict[str, ir.Model], manifest: Manifest, shapes: Shapes = USUAL) -> str:
    """The sentence that lowering ends in."""
    with pytest.raises(InputError) as error:
        lower_static(models, manifest, shapes, TARGETS["qnn"])
    sentence = str(error.value)
    assert sentence.endswith(".")
    assert "\n" not in sentence
    return sentence


@pytest.mark.parametrize(
    ("component", "way_out"),
    [
        ("encoder", "--device decoder=qnn,encoder=cpu"),
        ("decoder", "--device encoder=qnn,decoder=cpu"),
    ],
)
def test_an_operator_that_the_device_lacks(bundles: Bundles, component: str, way_out: str) -> None:
    models, manifest = load(bundles("t5"))
    node = next(node for node in models[component].graph if node.op_type == "Relu")
    models[component].graph.insert_before(node, made := ir.node("Erf", node.inputs, name="odd"))
    made.outputs[0].name = "odd"
    node.replace_input_with(0, made.outputs[0])
    sentence = refused(models, manifest)
    assert "'odd' (Erf)" in sentence
    assert way_out in sentence


def test_attention_of_another_form(bundles: Bundles) -> None:
    models, manifest = load(bundles("llama"))
    table = models["decoder"].graph.initializers["decoder.0.self_attn.relative_bias.table"]
    table.const_value = ir.tensor(np.zeros((1, 2), np.float32), name=table.name)
    sentence = refused(models, manifest, Shapes(None, TARGET))
    assert "(TensorScatter)" in sentence
    assert "--device cpu" in sentence


def test_what_depends_on_more_than_positions(bundles: Bundles) -> None:
    """The place in the cache is no input of static graphs."""
    models, manifest = load(bundles("opt"))
    graph = models["decoder"].graph
    ports = {value.name: value for value in graph.inputs}
    index = next(node for node in graph if node.inputs[0] is ports["positions"])
    index.replace_input_with(0, ports["past_length"])
    assert "past_length" in refused(models, manifest, Shapes(None, TARGET))


def test_a_mask_of_more_than_padding(bundles: Bundles) -> None:
    models, manifest = load(bundles("bart"))
    graph = models["encoder"].graph
    choice = next(node for node in graph if node.op_type == "Where")
    unseen = ir.tensor(np.float32(-1.0), name="weak")
    weak = ir.Value(name="weak", const_value=unseen, type=ir.TensorType(unseen.dtype))
    graph.register_initializer(weak)
    choice.replace_input_with(2, weak)
    assert "padding" in refused(models, manifest)


@pytest.mark.parametrize(
    ("shapes", "word"),
    [
        (Shapes(None, TARGET), "--max-source"),
        (Shapes(1 << 20, TARGET), "--max-source"),
        (Shapes(SOURCE, 21), "--max-target"),
        (Shapes(SOURCE, 1), "--max-target"),
        (Shapes(SOURCE, TARGET, unroll=TARGET), "--unroll"),
        (Shapes(None, TARGET, chunk=0), "--chunk"),
        (Shapes(None, TARGET, chunk=TARGET), "--chunk"),
    ],
)
def test_lengths_that_cannot_be(bundles: Bundles, shapes: Shapes, word: str) -> None:
    family = "opt" if word == "--chunk" else "bart"
    assert refused(*load(bundles(family)), shapes).startswith(word)


def test_decoders_in_parts(bundles: Bundles) -> None:
    """Only the encoder of such a bundle can be lowered."""
    models, manifest = load(bundles("t5", stages="all"))
    assert "--stages" in refused(models, manifest)
    static = lower_static(models, manifest, USUAL, TARGETS["qnn"], frozenset({"encoder"}))
    assert [*static.models] == ["encoder"]
