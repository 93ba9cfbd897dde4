"""Bundles with codebook weights: their graphs, their files, and what their manifest says."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
from numpy.typing import NDArray
from onnx import helper, numpy_helper
from safetensors.numpy import load_file

import edgedec
from edgedec.errors import CheckFailedError, CheckpointError, InputError
from edgedec.export import codebooks, export_checkpoint, quantized, verify
from edgedec.export.bundle import save_graphs
from edgedec.kernels.library import library_path, refused
from edgedec.kernels.packing import Packed
from edgedec.runtime.bundle import open_bundle
from edgedec.runtime.manifest import Codebooks, Manifest
from edgedec.runtime.operators import ATTRIBUTES

HAS_LIBRARY = library_path() is not None and refused(onnxruntime.__version__) is None
needs_library = pytest.mark.skipif(not HAS_LIBRARY, reason="needs the operator library")
MATRICES = {"CodebookMatMul", "CodebookGather"}
NAMES = ["coded", "coded_staged", "coded_portable", "coded_decoder_only"]
Victim = Any  # of conftest.py, which cannot be imported


@pytest.fixture(scope="module", params=NAMES)
def bundle(request: pytest.FixtureRequest) -> Path:
    folder: Path = request.getfixturevalue(request.param)
    return folder


@pytest.fixture(params=[True, False] if HAS_LIBRARY else [False])
def library(request: pytest.FixtureRequest) -> bool:
    """Whether our operators run by the library; otherwise their function bodies do."""
    if not request.param:
        request.getfixturevalue("no_library")
    return bool(request.param)


def manifest_of(bundle: Path) -> tuple[Manifest, Codebooks]:
    manifest = open_bundle(bundle).manifest
    assert manifest.codebooks is not None
    return manifest, manifest.codebooks


def graphs(bundle: Path) -> Iterator[tuple[str, onnx.ModelProto]]:
    """Every graph with the component that it is, weights included."""
    for name, component in manifest_of(bundle)[0].components.items():
        yield name, onnx.load(bundle / component.file)


def attributes(node: onnx.NodeProto) -> dict[str, Any]:
    return {a.name: helper.get_attribute_value(a) for a in node.attribute}


def packed(node: onnx.NodeProto, constants: Mapping[str, NDArray[Any]], columns: int) -> Packed:
    """The matrix that a node of a bundle reads."""
    weight, levels, row_scale, group = (constants[name] for name in node.input[1:5])
    bits = attributes(node)["bits"]
    return Packed(weight, levels, row_scale, group, bits, columns)


def test_operators(bundle: Path) -> None:
    """Ours with their bodies, in files of one version; nothing is left of what they replaced."""
    portable = manifest_of(bundle)[1].portable
    for name, model in graphs(bundle):
        assert {o.domain: o.version for o in model.opset_import} == {"": 24, "edgedec": 1}
        ours = {node.op_type for node in model.graph.node if node.domain == "edgedec"}
        assert ours <= set(ATTRIBUTES)
        assert {f.name for f in model.functions} == ours
        standard = {node.op_type for node in model.graph.node if not node.domain}
        assert not standard & {"MatMul", "Gemm", "If", "Loop", "Scan"}
        if portable:
            assert ours <= MATRICES
            assert name == "head" or {"Attention", "RMSNormalization"} <= standard
        else:
            assert not standard & {"Attention", "TensorScatter", "Clip", "Transpose", "ArgMax"}
        constants = {t.name for t in model.graph.initializer}
        used = {name for node in model.graph.node for name in node.input}
        assert constants <= used
        assert {value.name for value in model.graph.input} <= used | {"input_ids"}


def test_valid(bundle: Path) -> None:
    for name in manifest_of(bundle)[0].components:
        path = bundle / f"{name}.onnx"
        onnx.checker.check_model(str(path), full_check=True)
        onnx.shape_inference.infer_shapes(onnx.load(path), check_type=True, strict_mode=True)


def test_manifest_and_graphs_agree(bundle: Path) -> None:
    manifest, block = manifest_of(bundle)
    assert {c.precision for c in manifest.components.values()} == {block.scheme}
    assert set(block.matrices) == set(manifest.components)
    for name, model in graphs(bundle):
        constants = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
        readers = [n for n in model.graph.node if n.op_type in MATRICES]
        assert {node.name for node in readers} == set(block.matrices[name])
        for node in readers:
            matrix = block.matrices[name][node.name]
            found = packed(node, constants, matrix.columns)
            assert (found.rows, found.bits) == (matrix.rows, matrix.bits)
            assert len(found.levels) == matrix.codebooks
            given = attributes(node)
            if node.op_type == "CodebookMatMul":
                assert given["compute"].decode() == block.compute
                assert [n for n in given["splits"] if n] == [part.rows for part in matrix.parts]


ERROR = {"cb4": 0.16, "cb3": 0.3, "cb2": 0.5, "int8": 0.012}
"""Norm of what a code is off, relative to the weights: 4, 3, 2 and 8 bits of normal numbers."""


def test_codes_stand_for_the_checkpoint(coded: Path, checkpoint: Path) -> None:
    """Names of parts, their order within a matrix, and what the rows hold."""
    stored = load_file(checkpoint / "model.safetensors")
    theirs = {
        "decoder.0.self_attn.k.weight": "decoder.block.0.layer.0.SelfAttention.k.weight",
        "decoder.1.cross_attn.v.weight": "decoder.block.1.layer.1.EncDecAttention.v.weight",
        "encoder.0.mlp.down.weight": "encoder.block.0.layer.1.DenseReluDense.wo.weight",
        "head.weight": "shared.weight",
        "encoder.embed.weight": "shared.weight",
    }
    block = manifest_of(coded)[1]
    seen = set()
    for name, model in graphs(coded):
        constants = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
        for node in model.graph.node:
            matrix = block.matrices[name].get(node.name)
            if matrix is None:
                continue
            values = packed(node, constants, matrix.columns).dequantize()
            first = 0
            for part in matrix.parts:
                wanted = stored.get(theirs.get(part.name, ""))
                if wanted is not None:
                    found = values[first : first + part.rows]
                    error = np.linalg.norm(found - wanted) / np.linalg.norm(wanted)
                    assert error < ERROR["int8" if matrix.bits == 8 else "cb4"], part.name
                    seen.add(part.name)
                first += part.rows
    assert seen == set(theirs)


def test_tied_weights_once(coded: Path, coded_staged: Path, exported: Path) -> None:
    """Embeddings of both stacks and the head: one tensor, in one initializer per graph."""
    for bundle in (coded, coded_staged):
        data = (bundle / "weights.bin").read_bytes()
        for _, model in graphs(bundle):
            for tensor in model.graph.initializer:
                if tensor.name.endswith("embed.codes"):
                    assert data.count(tensor.raw_data) == 1
    decoder = dict(graphs(coded))["decoder"]
    readers = [n for n in decoder.graph.node if n.name in {"decoder.embed", "head"}]
    assert len(readers) == 2
    assert list(readers[0].input[1:5]) == list(readers[1].input[1:5])
    assert manifest_of(coded)[0].parameters == open_bundle(exported).manifest.parameters


def test_same_bytes(coded: Path, checkpoint: Path, tmp_path: Path) -> None:
    """But for how the check was computed, also where there is no library."""
    moved = tmp_path / checkpoint.name
    shutil.copytree(checkpoint, moved)
    again = export_checkpoint(moved, tmp_path / "again", quant="cb4", method="kmeans")
    for path in coded.iterdir():
        assert path.read_bytes() == (again / path.name).read_bytes(), path.name
    assert {path.name for path in again.iterdir()} == {path.name for path in coded.iterdir()}


INPUTS: list[str | list[int]] = ["hello, world", "a", [3, 4, 5, 6, 7, 8, 1]]


def answers(bundle: Path, **options: Any) -> list[list[int]]:
    generator = edgedec.load(bundle, threads=1)
    return [r.tokens for r in generator.generate(INPUTS, max_new_tokens=8, **options)]


def test_every_way_to_run_agrees(
    checkpoint: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """Fused and standard attention, one graph and several, by the library and by function bodies.

    With products in float32: a rounded input that lies between two values decides over tokens.
    """
    export = partial(
        export_checkpoint, checkpoint, quant="cb3", method="kmeans", compute="fp32", verify=False
    )
    bundles = [
        export(out=tmp_path / "fused"),
        export(out=tmp_path / "standard", portable=True),
        export(out=tmp_path / "staged", stages="all"),
    ]
    expected = [answers(bundles[0], num_beams=beams) for beams in (1, 4)]
    assert len({token for row in expected[0] for token in row}) > 3
    for hide in (False, True):
        if hide:
            request.getfixturevalue("no_library")
        for bundle in bundles:
            assert [answers(bundle, num_beams=beams) for beams in (1, 4)] == expected


def test_what_the_check_measured(bundle: Path) -> None:
    manifest, block = manifest_of(bundle)
    assert manifest.verified is not None
    assert manifest.verified.max_abs_difference <= 2e-5 * manifest.verified.logit_range
    if block.compute == "fp32" or not HAS_LIBRARY:
        assert block.rounding is None
    else:
        assert block.rounding is not None
        assert block.rounding.effect > 0
        assert block.rounding.max_abs_difference <= 3 * block.rounding.effect


def test_without_the_check(checkpoint: Path, tmp_path: Path) -> None:
    bundle = export_checkpoint(checkpoint, tmp_path / "b", quant="int8", verify=False)
    manifest, block = manifest_of(bundle)
    assert (manifest.verified, block.rounding) == (None, None)


def test_wrong_graphs_are_not_written(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, library: bool
) -> None:
    """Wherever the mistake: in attention, or in a product's weights."""
    save = save_graphs

    def change(name: str) -> None:
        def changed(models: Mapping[str, ir.Model], *rest: Any) -> Any:
            for node in models["decoder"].graph:
                if node.op_type == "DecodeAttention" and name == "origin":
                    node.attributes["origin"] = ir.AttrInt64("origin", 2)
                if node.op_type == "CodebookMatMul" and name == "levels":
                    assert node.inputs[2] is not None
                    assert node.inputs[2].const_value is not None
                    levels = node.inputs[2].const_value.numpy()[:, ::-1].copy()
                    node.inputs[2].const_value = ir.tensor(levels, name=node.inputs[2].name)
                    break
            return save(models, *rest)

        monkeypatch.setattr(quantized, "save_graphs", changed)

    for name in ("origin", "levels"):
        change(name)
        with pytest.raises(CheckFailedError, match="differ from the reference by"):
            export_checkpoint(
                checkpoint, tmp_path / name, quant="cb4", method="kmeans", stages=None
            )
        assert not list(tmp_path.glob(f"*{name}*"))


@needs_library
def test_a_wrong_rounding_is_not_written(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(codebooks.ROUNDED, "int8", lambda x: np.trunc(4 * x) / 4)
    monkeypatch.setattr(verify, "ROUNDING_TOLERANCE", 0.1)
    out = tmp_path / "b"
    with pytest.raises(CheckFailedError, match="a reference that rounds as they do"):
        export_checkpoint(checkpoint, out, quant="cb4", method="kmeans")
    assert not out.exists()


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"quant": "cb5"}, "choose one of cb4, cb3, cb2, int8"),
        ({"quant": "none"}, "choose one of"),
        ({"quant": "cb4", "compute": "int4"}, "choose one of int8, int8-block, bf16, fp32"),
        ({"quant": "cb4", "dtype": "bf16"}, "give one of the two"),
        ({"compute": "int8"}, "add --quant"),
    ],
)
def test_options_that_do_not_fit(
    checkpoint: Path, tmp_path: Path, options: dict[str, str], sentence: str
) -> None:
    with pytest.raises(InputError, match=sentence):
        export_checkpoint(checkpoint, tmp_path / "b", **options)  # type: ignore[arg-type]


def test_weights_that_cannot_be_quantized(checkpoint: Path, tmp_path: Path) -> None:
    from safetensors.numpy import save_file

    broken = Path(shutil.copytree(checkpoint, tmp_path / "huge"))
    stored = load_file(broken / "model.safetensors")
    stored["shared.weight"][3, 5] = 1e35
    save_file(stored, broken / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"'encoder\.embed\.weight' cannot be quantized"):
        export_checkpoint(broken, tmp_path / "b", quant="cb4", method="kmeans")


def test_progress(checkpoint: Path, tmp_path: Path) -> None:
    seen: list[tuple[str, float]] = []
    export_checkpoint(
        checkpoint,
        tmp_path / "b",
        quant="cb2",
        method="kmeans",
        verify=False,
        progress=lambda what, fraction: seen.append((what, fraction)),
    )
    steps = [fraction for what, fraction in seen if what == "quantizing"]
    assert (steps[0], steps[-1]) == (0.0, 1.0)
    assert steps == sorted(steps)
    assert len(steps) > 10


def edit(op_type: str, change: Callable[[onnx.NodeProto], object]) -> Callable[[Any], None]:
    def apply(model: onnx.ModelProto) -> None:
        change(next(node for node in model.graph.node if node.op_type == op_type))

    return apply


def put(name: str, value: Any) -> Callable[[onnx.NodeProto], None]:
    def change(node: onnx.NodeProto) -> None:
        (old,) = [a for a in node.attribute if a.name == name]
        node.attribute.remove(old)
        node.attribute.append(helper.make_attribute(name, value))

    return change


def swap_input(index: int, other: int) -> Callable[[onnx.NodeProto], None]:
    def change(node: onnx.NodeProto) -> None:
        node.input[index] = node.input[other]

    return change


def cut_codes(model: onnx.ModelProto) -> None:
    codes = next(t for t in model.graph.initializer if t.name.endswith(".codes"))
    codes.dims[0] += 1


REFUSED: dict[str, tuple[Callable[[Any], None], str]] = {
    "bits": (edit("CodebookMatMul", put("bits", 5)), "bits = 5"),
    "compute": (edit("CodebookMatMul", put("compute", "fp8")), "compute = fp8"),
    "splits": (edit("CodebookMatMul", put("splits", [1 << 40, 0, 0])), "splits"),
    "width": (edit("CodebookGather", put("K", 0)), "K = 0"),
    "heads": (edit("DecodeAttention", put("q_num_heads", 0)), "q_num_heads = 0"),
    "scale": (edit("MemoryAttention", put("scale", float("inf"))), "scale = inf"),
    "origin": (edit("DecodeAttention", put("origin", -1)), "origin = -1"),
    "attribute": (edit("CodebookGather", lambda n: n.attribute.pop()), "CodebookGather lacks"),
    "operator": (edit("CodebookGather", lambda n: setattr(n, "op_type", "Evil")), "no operator"),
    "function": (lambda m: m.functions.extend([m.functions[0]]), "there twice"),
    "codes": (cut_codes, "decoder.onnx"),
}
ERRORS: dict[str, Callable[[Any], None]] = {
    "other bits than the codes have": edit("CodebookMatMul", put("bits", 8)),
    "splits that are not its rows": edit("CodebookMatMul", put("splits", [16, 0, 0])),
    "a width that is not its own": edit("CodebookGather", put("K", 1 << 20)),
    "more heads than channels": edit("DecodeAttention", put("q_num_heads", 64)),
    "levels of another type": edit("CodebookMatMul", swap_input(2, 1)),
    "weights of another shape": edit("CodebookMatMul", swap_input(3, 4)),
    "a mask of another shape": edit("MemoryAttention", swap_input(3, 0)),
    "a cache that is no cache": edit("DecodeAttention", swap_input(3, 0)),
    "no inputs": edit("MemoryAttention", lambda node: node.ClearField("input")),
    "no outputs": edit("DecodeAttention", lambda node: node.ClearField("output")),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_refused_before_a_runtime_sees_it(coded_victim: Victim, kind: str) -> None:
    change, words = REFUSED[kind]
    coded_victim.graph("decoder.onnx", change)
    assert words in coded_victim.complaint()


@pytest.mark.parametrize("kind", ERRORS)
def test_errors_of_operators_are_sentences(coded_victim: Victim, kind: str, library: bool) -> None:
    coded_victim.graph("decoder.onnx", ERRORS[kind])
    assert "decoder.onnx" in coded_victim.complaint()
