"""What cannot be lowered ends in a sentence that says what to do."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from tests.npu.lowering import SOURCE, TARGET, Bundles, load, tiny_bundles

from edgedec.devices.npu.lower import TARGETS, Shapes, lower_static
from edgedec.errors import InputError
from edgedec.runtime.manifest import Manifest

USUAL = Shapes(SOURCE, TARGET)


@pytest.fixture(scope="session")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> Bundles:
    """Bundles of tiny models; do not change them."""
    return tiny_bundles(tmp_path_factory)


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
