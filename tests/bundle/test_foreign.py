"""ONNX Runtime's own operators: what bundles may contain of them, and who checks their sizes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest
from onnx import helper

import edgedec
from edgedec.errors import BundleError
from edgedec.runtime import bundle as bundle_module
from edgedec.runtime.bundle import open_bundle

Graph = onnx.ModelProto
Change = Callable[[Graph], object]


def product(model: Graph) -> onnx.NodeProto:
    found: onnx.NodeProto = next(n for n in model.graph.node if n.op_type == "MatMulNBits")
    return found


def attribute(name: str, value: Any) -> Change:
    """Give the first product an attribute."""

    def edit(model: Graph) -> None:
        node = product(model)
        kept = [a for a in node.attribute if a.name != name]
        del node.attribute[:]
        node.attribute.extend(kept)
        if value is not None:
            node.attribute.append(helper.make_attribute(name, value))

    return edit


def weights(model: Graph, index: int) -> onnx.TensorProto:
    """The stored tensor behind an input of the first product."""
    name = product(model).input[index]
    sources = {node.output[0]: node.input[0] for node in model.graph.node if node.op_type == "Cast"}
    name = sources.get(name, name)
    found: onnx.TensorProto = next(t for t in model.graph.initializer if t.name == name)
    return found


def dims(index: int, axis: int, length: int) -> Change:
    def edit(model: Graph) -> None:
        weights(model, index).dims[axis] = length

    return edit


def other_operator(model: Graph) -> None:
    model.graph.node.append(helper.make_node("FusedGemm", ["x"], ["y"], domain="com.microsoft"))


def computed(index: int) -> Change:
    """Let an input of the product be the result of a node."""

    def edit(model: Graph) -> None:
        node = product(model)
        model.graph.node.insert(0, helper.make_node("Neg", [node.input[index]], ["computed"]))
        node.input[index] = "computed"

    return edit


CHANGES: dict[str, tuple[Change, str]] = {
    "more columns": (attribute("K", 1 << 20), "is not a matrix of"),
    "more rows": (attribute("N", 1 << 20), "is not a matrix of"),
    "no rows": (attribute("N", 0), "N = 0"),
    "a negative K": (attribute("K", -1), "K = -1"),
    "other bits": (attribute("bits", 4), "is not a matrix of"),
    "impossible bits": (attribute("bits", 3), "bits = 3"),
    "larger blocks": (attribute("block_size", 64), "is not a matrix of"),
    "odd blocks": (attribute("block_size", 24), "block_size = 24"),
    "no blocks": (attribute("block_size", 0), "block_size = 0"),
    "a missing attribute": (attribute("K", None), "lacks 'K'"),
    "an unknown attribute": (attribute("evil", 1), "unknown attribute 'evil'"),
    "a real number for bits": (attribute("bits", 8.0), "bits = 8.0"),
    "fewer codes": (dims(1, 0, 1), "is not a matrix of"),
    "fewer scales": (dims(2, 0, 1), "scales"),
    "scales of another type": (
        lambda m: setattr(weights(m, 2), "data_type", onnx.TensorProto.INT8),
        "scales",
    ),
    "codes of another type": (
        lambda m: setattr(weights(m, 1), "data_type", onnx.TensorProto.INT8),
        "is not a matrix of",
    ),
    "computed codes": (computed(1), "is not a matrix of"),
    "computed scales": (computed(2), "scales"),
    "zero points": (lambda m: product(m).input.append(product(m).input[1]), "4 inputs"),
    "weights twice": (
        lambda m: m.graph.initializer.append(weights(m, 1)),
        "is there twice",
    ),
    "another operator": (other_operator, "'FusedGemm' of 'com.microsoft'"),
    "blocks of fewer than nothing": (
        lambda m: m.graph.node.append(
            helper.make_node("DequantizeLinear", ["x", "s"], ["y"], block_size=-5)
        ),
        "block_size = -5",
    ),
}


@pytest.mark.parametrize("name", CHANGES)
def test_products_in_blocks(blocks_victim: Any, name: str) -> None:
    edit, words = CHANGES[name]
    blocks_victim.graph("decoder.onnx", edit)
    assert words in blocks_victim.complaint()


def test_products_in_blocks_run(fixed_blocks: Path, fixed: Path) -> None:
    inputs = [[3, 9, 4, 1], [7, 1]]
    found, plain = (
        [r.tokens for r in edgedec.load(folder, threads=1).generate(inputs, max_new_tokens=4)]
        for folder in (fixed_blocks, fixed)
    )
    assert [len(row) for row in found] == [len(row) for row in plain]


def compiled(**changes: Any) -> Graph:
    """A graph that stands for a compiled one."""
    given = {
        "ep_cache_context": "decoder.sm8650_qnn.bin",
        "embed_mode": 0,
        "main_context": 1,
        "source": "QNNExecutionProvider",
        "ep_sdk_version": "v2.51.0",
        **changes,
    }
    node = helper.make_node("EPContext", ["x"], ["y"], domain="com.microsoft", **given)
    x, y = (helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1]) for name in "xy")
    return helper.make_model(
        helper.make_graph([node], "g", [x], [y]),
        opset_imports=[helper.make_opsetid("", 23), helper.make_opsetid("com.microsoft", 1)],
        ir_version=11,
    )


def add_context(victim: Any, graph: Graph) -> None:
    """Let the decoder be compiled."""
    (victim / "decoder.sm8650.onnx").write_bytes(graph.SerializeToString())
    (victim / "decoder.sm8650_qnn.bin").write_bytes(b"a program")

    def edit(manifest: dict[str, Any]) -> None:
        file = "decoder.sm8650.onnx"
        manifest["components"]["decoder"] |= {"file": file, "contexts": {"sm8650": file}}
        for name in (file, "decoder.sm8650_qnn.bin"):
            manifest["files"][name] = {"bytes": 0, "sha256": ""}

    victim.manifest(edit)
    victim.rehash()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"ep_cache_context": "../evil.bin"}, "ep_cache_context = ../evil.bin"),
        ({"ep_cache_context": "/etc/passwd"}, "ep_cache_context = /etc/passwd"),
        ({"ep_cache_context": "other.bin"}, "'other.bin', which is no file of the bundle"),
        ({"embed_mode": 1}, "embed_mode = 1"),
        ({"source": "Evil"}, "source = Evil"),
        ({"notes": "x"}, "unknown attribute 'notes'"),
    ],
)
def test_compiled_graphs(fixed_victim: Any, changes: dict[str, Any], words: str) -> None:
    add_context(fixed_victim, compiled(**changes))
    assert words in fixed_victim.complaint()


def test_compiled_graphs_are_hashed_whatever_their_size(
    fixed_victim: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_context(fixed_victim, compiled())
    monkeypatch.setattr(bundle_module, "HASHED_AT_OPEN", 1)
    opened = open_bundle(fixed_victim.folder)
    assert opened.manifest.components["decoder"].contexts
    (fixed_victim / "decoder.sm8650_qnn.bin").write_bytes(b"a Program")
    with pytest.raises(BundleError, match="is not the file that was exported"):
        open_bundle(fixed_victim.folder)


def test_every_context_is_checked(fixed_victim: Any) -> None:
    """Not only that which the device here opens."""
    add_context(fixed_victim, compiled())
    other = compiled(embed_mode=1).SerializeToString()
    (fixed_victim / "decoder.sm8750.onnx").write_bytes(other)

    def edit(manifest: dict[str, Any]) -> None:
        file = "decoder.sm8750.onnx"
        manifest["components"]["decoder"]["contexts"]["sm8750"] = file
        manifest["files"][file] = {"bytes": 0, "sha256": ""}

    fixed_victim.manifest(edit)
    fixed_victim.rehash()
    with pytest.raises(BundleError, match=r"decoder\.sm8750\.onnx cannot be used \(EPContext"):
        open_bundle(fixed_victim.folder)
    contexts = json.loads((fixed_victim / "edgedec.json").read_text())["components"]["decoder"]
    assert len(contexts["contexts"]) == 2
