"""What graphs of fixed shapes read and write, and the tables beside them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.export.tiny import VOCAB
from tests.npu.lowering import CHUNK, SOURCE, TARGET, Bundles, load, lower, tiny_bundles

from edgedec.devices.npu.bias import by_distance
from edgedec.devices.npu.lower import TARGETS, Shapes, lower_static


@pytest.fixture(scope="session")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> Bundles:
    """Bundles of tiny models; do not change them."""
    return tiny_bundles(tmp_path_factory)


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
