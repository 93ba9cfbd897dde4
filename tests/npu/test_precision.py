"""Numbers of static graphs in 4, 8 and 16 bits: what they become, and that graphs compute so."""

from __future__ import annotations

import re

import numpy as np
import onnx_ir as ir
import pytest
from tests.npu.precisions import applied, computed, difference, observed, rounded, run
from tests.npu.small import feeds, static_model

from edgedec.devices.npu.precision import (
    PRECISIONS,
    apply_precision,
    bits_per_weight,
    weights_of,
)
from edgedec.errors import InputError

STYLES = ("t5", "bart")
WAYS = [(name, kv) for name, precision in PRECISIONS.items() for kv in precision.kv]


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize(("precision", "kv"), WAYS)
def test_graphs_compute_with_the_weights_that_rounding_leaves(
    style: str, precision: str, kv: str
) -> None:
    model, reference = applied(style, precision, kv), rounded(style, precision)
    # activations have 16 bits, caches 8 at least, over ranges that hold these inputs
    limit = {"fp16": 1e-3, "u8": 0.02, "s16": 2e-3}[kv]
    for component in model.models:
        wanted = {
            name: value.astype(np.float32)
            for name, value in run(reference.models[component], feeds(component, 3)).items()
        }
        assert difference(computed(model, component, 3), wanted) < limit


@pytest.mark.parametrize(("precision", "kv"), WAYS)
def test_ports_have_the_types_that_the_manifest_tells(precision: str, kv: str) -> None:
    model = applied("t5", precision, kv)
    wanted = {"fp16": ir.DataType.FLOAT16, "u8": ir.DataType.UINT8, "s16": ir.DataType.INT16}[kv]
    caches = set()
    for part in model.models.values():
        for port in (*part.graph.inputs, *part.graph.outputs):
            name = str(port.name)
            if re.match(r"(past|new|cross)\.\d", name):
                caches.add(name.replace("new.", "past."))
                assert port.dtype == wanted
            elif name.endswith("bias") or name == "logits":
                assert port.dtype == ir.DataType.FLOAT
            else:
                assert port.dtype == ir.DataType.INT32
    assert set(model.static.grids) == (caches if kv != "fp16" else set())


@pytest.mark.parametrize("precision", PRECISIONS)
def test_stored_bits_are_those_that_are_stated(precision: str) -> None:
    model, kv = static_model(), PRECISIONS[precision].kv[0]
    stated = sum(
        weight.rows * weight.columns * bits_per_weight(precision, weight)
        for weight in weights_of(model)
    )
    small = {
        value.name
        for part in model.models.values()
        for value in part.graph.initializers.values()
        if value.const_value is None or value.const_value.size < 64
    }
    apply_precision(model, precision, kv=kv, ranges=observed("t5"))
    found = {}
    for part in model.models.values():
        for value in part.graph.initializers.values():
            tensor = value.const_value
            assert tensor is not None
            name = str(value.name)
            if ".weight." in name and name[: name.index(".weight.") + 7] not in small:
                found[name] = tensor.nbytes * 8
    assert sum(found.values()) == pytest.approx(stated, rel=0.01)


def test_weights_are_told_by_role_and_are_one_in_all_graphs() -> None:
    model = static_model("t5")
    weights = {weight.name: weight for weight in weights_of(model)}
    assert len(weights) == 8 + 6 + 1 + 2 + 2  # products of both, the head, embeddings, cross
    assert {w.name for w in weights.values() if w.role == "embedding"} == {
        "encoder.embed.weight",
        "decoder.embed.weight",
    }
    assert [w.name for w in weights.values() if w.role == "head"] == ["head.weight"]
    head = weights["head.weight"]
    assert (head.rows, head.columns, head.transposed) == (40, 32, False)
    up = weights["decoder.0.mlp.up.weight"]
    assert (up.rows, up.columns, up.transposed) == (64, 32, True)
    assert up.path == "decoder.0.mlp.up"
    assert up.nodes == {"decoder": ("decoder.0.mlp.up",)}


def test_weights_of_a_fallback_keep_eight_bits() -> None:
    eight = ("head.weight", "decoder.embed.weight", "decoder.0.mlp.up.weight")
    model, reference = applied("t5", "nbits4", "fp16", eight), rounded("t5", "nbits4", eight)
    wanted = run(reference.models["decoder"], feeds("decoder", 5))
    assert difference(computed(model, "decoder", 5), wanted) < 1e-3
    assert model.static.eight == (
        "decoder/decoder.embed",
        "decoder/decoder.0.mlp.up",
        "decoder/head",
    )
    bits = [
        node.attributes["bits"].as_int()
        for node in model.models["decoder"].graph
        if node.op_type == "MatMulNBits"
    ]
    assert sorted(bits) == [4] * 7 + [8] * 2


@pytest.mark.parametrize("precision", ["nbits8", "w8a16"])
def test_the_loss_of_codes_is_told(precision: str) -> None:
    model = static_model("t5")
    model.coded = {"decoder.0.mlp.up.weight": 4}
    apply_precision(model, precision, kv=PRECISIONS[precision].kv[0], ranges=observed("t5"))
    assert list(model.static.projection) == ["decoder.0.mlp.up"]
    assert 0 < model.static.projection["decoder.0.mlp.up"] < 1e-3


@pytest.mark.parametrize("precision", ["nbits4", "w4a16", "lpbq"])
def test_codes_are_not_rounded_to_4_bits(precision: str) -> None:
    model = static_model("t5")
    model.coded = {"decoder.0.mlp.up.weight": 4}
    with pytest.raises(InputError, match=r"second loss.*export the checkpoint itself"):
        apply_precision(model, precision, kv="u8", ranges=observed("t5"))


@pytest.mark.parametrize(("precision", "kv"), [("nbits8", "u8"), ("w8a16", "s16")])
def test_a_range_that_was_not_seen_is_named(precision: str, kv: str) -> None:
    ranges = {name: dict(found) for name, found in observed("t5").items()}
    for found in ranges.values():
        for name in [name for name in found if "self.key" in name]:
            del found[name]
    # what the cache is made of was seen where all values are
    if precision == "w8a16":
        del ranges["decoder"]["decoder.0.self_attn.k.heads"]
        del ranges["decoder"]["decoder.0.self_attn.keys"]
    with pytest.raises(InputError, match=r"no text was run .* past\.0\.self\.key|'past\.0"):
        apply_precision(static_model("t5"), precision, kv=kv, ranges=ranges)


@pytest.mark.parametrize(
    ("precision", "kv", "message"),
    [("w8a8", "u8", "is no precision"), ("nbits4", "s16", "choose one of fp16, u8")],
)
def test_unknown_names_are_refused(precision: str, kv: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        apply_precision(static_model("t5"), precision, kv=kv)


@pytest.mark.parametrize("precision", ["fp16", "nbits8", "nbits4"])
def test_float16_does_not_take_what_it_cannot_hold(precision: str) -> None:
    model = static_model("t5")
    value = model.models["decoder"].graph.initializers["decoder.0.mlp.up.weight"]
    assert value.const_value is not None
    value.const_value = ir.tensor(value.const_value.numpy() * np.float32(1e6), name=value.name)
    with pytest.raises(InputError, match=r"decoder\.0\.mlp\.up\.weight has values beyond float16"):
        apply_precision(model, precision, kv="fp16")
