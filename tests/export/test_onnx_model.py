"""`quantize_onnx`: models that no exporter of ours made, from end to end."""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.parser
import onnx_ir as ir
import onnxruntime
import pytest
from numpy.typing import NDArray
from onnx import numpy_helper

from edgedec.errors import CheckFailedError, CheckpointError, InputError
from edgedec.export import onnx_graph, onnx_model
from edgedec.export.onnx_model import quantize_onnx
from edgedec.kernels.library import library_path, register
from edgedec.kernels.operator import DOMAIN
from edgedec.quantize.method import Settings
from edgedec.quantize.options import QuantizeOptions
from edgedec.quantize.reporting.report import QuantizationReport, from_json, to_json

Arrays = dict[str, NDArray[Any]]
Shapes = Mapping[str, tuple[int, ...]]
BATCHES = 3
MLP = """main (float[B, 24] x) => (float[B, 16] y) {
    a = MatMul (x, a_w)
    b = Add (a, a_b)
    c = Relu (b)
    y = Gemm <transB=1> (c, y_w, y_b)
}"""
MLP_SHAPES: Shapes = {
    "a_w": (24, 40),
    "a_b": (40,),
    "y_w": (16, 40),
    "y_b": (16,),
}
CONV = """main (float[B, 3, 8, 8] image) => (float[B, 12] y, int64[B] best) {
    a = Conv <kernel_shape=[3, 3], strides=[2, 2]> (image, kernel)
    b = Relu (a)
    c = Flatten (b)
    d = MatMul (c, d_w)
    y = Tanh (d)
    best = ArgMax <axis=-1, keepdims=0> (y)
}"""
CONV_SHAPES: Shapes = {"kernel": (5, 3, 3, 3), "d_w": (45, 12)}
TWO = """main (float[B, T, 16] x, float[16] shift) => (float[B, T, 24] hidden, float[B, T, 9] y) {
    moved = Add (x, shift)
    hidden = MatMul (moved, first)
    narrow = MatMul (hidden, second)
    y = Sigmoid (narrow)
}"""
TWO_SHAPES: Shapes = {"first": (16, 24), "second": (24, 9)}
TABLE = """main (int64[B, T] input_ids, bool[B, T] known) => (float[B, T, 30] logits) {
    a = Gather (table, input_ids)
    axes = Constant <value_ints=[-1]> ()
    mask = Unsqueeze (known, axes)
    nothing = Constant <value = float {0.0}> ()
    b = Where (mask, a, nothing)
    c = MatMul (b, c_w)
    e = Add (b, c)
    logits = MatMul (e, head)
}"""
TABLE_SHAPES: Shapes = {"table": (30, 16), "c_w": (16, 16), "head": (16, 30)}
MODELS: dict[str, tuple[str, Shapes, int]] = {
    "mlp": (MLP, MLP_SHAPES, 2),
    "conv": (CONV, CONV_SHAPES, 1),
    "two outputs": (TWO, TWO_SHAPES, 2),
    "table": (TABLE, TABLE_SHAPES, 3),
}


def write(
    path: Path,
    text: str,
    shapes: Shapes,
    opset: int = 24,
    ir_version: int = 8,
) -> Path:
    """A model with random weights."""
    proto = onnx.parser.parse_model(
        f'<ir_version: {ir_version}, opset_import: ["": {opset}]> {text}'
    )
    rng = np.random.default_rng(0)
    for name, shape in shapes.items():
        values = (rng.normal(size=shape) / shape[-1] ** 0.5).astype(np.float32)
        proto.graph.initializer.append(numpy_helper.from_array(values, name))
    onnx.checker.check_model(proto)
    path.parent.mkdir(exist_ok=True)
    onnx.save(proto, path)
    return path


def arrays(path: Path, seed: int) -> Arrays:
    """Random inputs of a model, B and T 6 and 5."""
    rng = np.random.default_rng(seed)
    found: Arrays = {}
    for value in onnx.load(path, load_external_data=False).graph.input:
        kind = value.type.tensor_type
        shape = [d.dim_value or {"B": 6, "T": 5}[d.dim_param] for d in kind.shape.dim]
        if kind.elem_type == onnx.TensorProto.INT64:
            found[value.name] = rng.integers(0, 30, shape)
        elif kind.elem_type == onnx.TensorProto.BOOL:
            found[value.name] = rng.random(shape) < 0.8
        else:
            found[value.name] = rng.normal(size=shape).astype(np.float32)
    return found


def save(path: Path, values: Arrays) -> None:
    np.savez(path, **values)  # type: ignore[arg-type] # of which numpy believes one to be a flag


def calibration(path: Path) -> Path:
    """A folder of archives beside a model."""
    folder = path.parent / "calib"
    folder.mkdir(exist_ok=True)
    for seed in range(BATCHES):
        save(folder / f"{seed}.npz", arrays(path, seed))
    return folder


def run(path: Path, feeds: Arrays, *, library: bool) -> list[NDArray[Any]]:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    if library:
        assert register(options) is None
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    outputs: list[NDArray[Any]] = session.run(None, feeds)
    return outputs


def quiet(_what: str, _fraction: float) -> None:
    pass


def quantize(source: Path, out: Path, **options: Any) -> QuantizationReport:
    return quantize_onnx(source, out, QuantizeOptions(threads=1, **options), quiet)


def operators(path: Path) -> list[str]:
    return [n.op_type for n in onnx.load(path).graph.node if n.domain == DOMAIN]


def error(found: NDArray[Any], wanted: NDArray[Any]) -> float:
    return float(np.sqrt(((found - wanted) ** 2).mean() / (wanted**2).mean()))


@pytest.fixture
def mlp(tmp_path: Path) -> Path:
    return write(tmp_path / "in" / "mlp.onnx", MLP, MLP_SHAPES)


@pytest.mark.parametrize("opset", [17, 24])
@pytest.mark.parametrize("name", MODELS)
def test_any_runtime_computes_what_the_report_says(name: str, opset: int, tmp_path: Path) -> None:
    text, shapes, count = MODELS[name]
    source = write(tmp_path / "in" / "m.onnx", text, shapes, opset)
    before = source.read_bytes()
    out = tmp_path / "out.onnx"
    report = quantize(source, out, bits=4, calibration=calibration(source), compute="fp32")
    assert source.read_bytes() == before
    assert len(operators(out)) == len(report.matrices) == count
    onnx.checker.check_model(out)
    feeds = [arrays(source, seed) for seed in range(BATCHES)]
    for library in [False, True] if library_path() else [False]:
        wanted = [run(source, given, library=False) for given in feeds]
        found = [run(out, given, library=library) for given in feeds]
        for i, output in enumerate(report.outputs):
            one, other = (np.concatenate([outputs[i] for outputs in of]) for of in (found, wanted))
            if one.dtype == np.float32:
                assert 0 < output.error < 0.3
                assert error(one, other) == pytest.approx(output.error, rel=1e-3)
            else:
                assert output.error == (one != other).mean()
    assert from_json(to_json(report)).outputs[0].name == report.outputs[0].name
    assert report.calibration is not None
    assert (report.calibration.name, report.calibration.samples) == ("calib", BATCHES)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in", "out.onnx"]


def test_later_matrices_make_up_for_earlier_ones(tmp_path: Path) -> None:
    source = write(tmp_path / "m.onnx", MLP, MLP_SHAPES)
    calib = calibration(source)
    alone, sequential = (
        quantize(source, tmp_path / f"{s}.onnx", bits=2, calibration=calib, sequential=s).outputs[0]
        for s in (False, True)
    )
    assert sequential.error < alone.error


@pytest.mark.parametrize("compute", ["int8", "int8-block", "bf16"])
def test_products_that_round(compute: str, mlp: Path, tmp_path: Path) -> None:
    out = tmp_path / "o.onnx"
    quantize(mlp, out, bits=8, calibration=calibration(mlp), compute=compute)
    (node, *_) = [n for n in onnx.load(out).graph.node if n.domain == DOMAIN]
    assert {a.name: a for a in node.attribute}["compute"].s == compute.encode()
    (found,), (wanted,) = (run(p, arrays(mlp, 9), library=p is out and bool(library_path()))
                           for p in (out, mlp))  # fmt: skip
    assert error(found, wanted) < 0.05


@pytest.mark.parametrize("method", ["kmeans", "rtn", "nf4"])
def test_methods_without_text(method: str, mlp: Path, tmp_path: Path) -> None:
    out = tmp_path / "o.onnx"
    report = quantize(mlp, out, method=method)
    assert report.calibration is None
    assert (report.outputs, report.agreements) == ((), ())
    assert operators(out) == ["CodebookMatMul"] * 2
    (found,), (wanted,) = (run(p, arrays(mlp, 9), library=False) for p in (out, mlp))
    assert 0 < error(found, wanted) < 0.3


def test_rows_in_another_order(mlp: Path, tmp_path: Path) -> None:
    out = tmp_path / "o.onnx"
    settings = Settings(grouping="distribution", groups=2)
    report = quantize(mlp, out, calibration=calibration(mlp), settings=settings)
    assert any("row_order" in t.name for t in onnx.load(out).graph.initializer)
    assert report.outputs[0].error < 0.3


def test_what_was_finished_is_used_again(
    mlp: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, calib = tmp_path / "o.onnx", calibration(mlp)

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(onnx_model, "save_graph", interrupt)
        with pytest.raises(KeyboardInterrupt):
            quantize(mlp, out, calibration=calib)
    assert not out.exists()
    again = quantize(mlp, out, calibration=calib)
    assert {matrix.seconds for matrix in again.matrices} == {None}
    first = out.read_bytes()
    other = quantize(mlp, out, calibration=calib, force=True)
    assert None not in {matrix.seconds for matrix in other.matrices}
    assert out.read_bytes() == first
    assert not [p for p in tmp_path.iterdir() if p.name.startswith(".")]


def test_large_models_have_their_weights_beside_them(
    mlp: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    external = tmp_path / "external" / "m.onnx"
    external.parent.mkdir()
    onnx.save(
        onnx.load(mlp), external, save_as_external_data=True, location="w.bin", size_threshold=0
    )
    calib, small, large = calibration(mlp), tmp_path / "s.onnx", tmp_path / "l.onnx"
    quantize(external, small, calibration=calib)
    assert not onnx_graph.data_file(small).exists()
    monkeypatch.setattr(onnx_graph, "LARGEST", 1000)
    monkeypatch.setattr(onnx_graph, "INLINE_LIMIT", 200)
    quantize(external, large, calibration=calib)
    assert onnx_graph.data_file(large).stat().st_size > 500
    assert large.stat().st_size < small.stat().st_size
    (one,), (other,) = (run(p, arrays(mlp, 9), library=False) for p in (small, large))
    assert (one == other).all()
    monkeypatch.undo()
    with pytest.raises(InputError, match="exists"):
        quantize(external, large, calibration=calib)
    quantize(external, large, calibration=calib, force=True)
    assert large.read_bytes() == small.read_bytes()
    assert not onnx_graph.data_file(large).exists()


def test_graphs_as_others_write_them(tmp_path: Path) -> None:
    """Weights in Constant nodes, of old files among the inputs, shared, in both orientations."""
    text = """main (float[B, 16] x, float[16, 24] w) => (float[B, 16] y) {
        a = MatMul (x, w)
        b = Gemm <transB=1> (a, w)
        c = MatMul (b, w)
        d = Gemm <transB=1> (c, w)
        y = MatMul (d, v)
    }"""
    source = write(tmp_path / "m.onnx", text, {"w": (16, 24), "v": (16, 16)}, 11, 4)
    proto = onnx.load(source)
    (v,) = [t for t in proto.graph.initializer if t.name == "v"]
    proto.graph.initializer.remove(v)
    proto.graph.node.insert(0, onnx.helper.make_node("Constant", [], ["v"], value=v))
    onnx.save(proto, source)
    calib = tmp_path / "c.npz"
    np.savez(calib, x=np.random.default_rng(0).normal(size=(50, 16)).astype(np.float32))
    out = tmp_path / "o.onnx"
    report = quantize(source, out, bits=8, calibration=calib, compute="fp32")
    assert [m.name for m in report.matrices] == ["w", "w.transposed", "v"]
    assert operators(out) == ["CodebookMatMul"] * 5
    saved = onnx.load(out).graph
    assert [i.name for i in saved.input] == ["x"]
    assert sum(t.data_type == onnx.TensorProto.UINT8 for t in saved.initializer) == 3
    assert report.outputs[0].error < 0.1
    x = {"x": np.ones((2, 16), np.float32)}
    (found,) = run(out, x, library=False)
    np.testing.assert_allclose(found, run(source, x, library=False)[0], rtol=0.2, atol=0.1)


def test_local_functions_are_put_in_place(tmp_path: Path) -> None:
    source = tmp_path / "m.onnx"
    source.write_bytes(
        onnx.parser.parse_model(
            """<ir_version: 10, opset_import: ["": 21, "own": 1]>
            main (float[B, 16] x) => (float[B, 16] y) { y = own.twice (x, w) }
            <domain: "own", opset_import: ["": 21]>
            twice (a, b) => (d) { c = MatMul (a, b)
              d = MatMul (c, b) }"""
        ).SerializeToString()
    )
    proto = onnx.load(source)
    values = np.random.default_rng(0).normal(size=(16, 16)).astype(np.float32)
    proto.graph.initializer.append(numpy_helper.from_array(values, "w"))
    onnx.save(proto, source)
    out = tmp_path / "o.onnx"
    quantize(source, out, bits=4, calibration=calibration(source))
    assert operators(out) == ["CodebookMatMul"] * 2


def test_products_of_vectors_and_constants_and_unequal_names(tmp_path: Path) -> None:
    text = """main (float[16] x) => (float[16] y, float[16] fixed) {
        names = MatMul (x, w)
        sum = MatMul (one, w)
        y = Add (names, sum)
        fixed = Identity (sum)
    }"""
    source = write(tmp_path / "m.onnx", text, {"w": (16, 16), "one": (16,)})
    proto = onnx.load(source)
    proto.graph.node[0].name = "sum"  # a node with the name of another's value
    onnx.save(proto, source)
    out = tmp_path / "o.onnx"
    report = quantize(source, out, bits=4, calibration=calibration(source))
    assert operators(out) == ["CodebookMatMul"]
    assert report.outputs[1].error == 0
    assert run(out, arrays(source, 3), library=False)[0].shape == (16,)


def test_a_bias_that_adds_an_axis(tmp_path: Path) -> None:
    text = "main (float[16] x) => (float[1, 16] y) { a = MatMul (x, w)\n y = Add (a, b) }"
    source = write(tmp_path / "m.onnx", text, {"w": (16, 16), "b": (1, 16)})
    out = tmp_path / "o.onnx"
    quantize(source, out, bits=8, calibration=calibration(source))
    assert run(out, arrays(source, 3), library=False)[0].shape == (1, 16)


def test_sequences(tmp_path: Path) -> None:
    text = """main (float[B, 16] x) => (float[B, 16] y) {
        a = MatMul (x, w)
        s = SequenceConstruct (a, x)
        zero = Constant <value_int=0> ()
        b = SequenceAt (s, zero)
        y = MatMul (b, w)
    }"""
    source = write(tmp_path / "m.onnx", text, {"w": (16, 16)})
    with pytest.raises(InputError, match=r"sequences \(SequenceConstruct"):
        quantize(source, tmp_path / "o.onnx", calibration=calibration(source))
    quantize(source, tmp_path / "o.onnx", method="kmeans")


def test_control_flow(tmp_path: Path) -> None:
    text = """main (float[B, 16] x, bool ask) => (float[B, 16] y) {
        a = MatMul (x, w)
        y = If (ask) <then_branch = one () => (float[B, 16] p) { p = Relu (a) },
                      else_branch = two () => (float[B, 16] q) { q = MatMul (a, w) }>
    }"""
    source = write(tmp_path / "m.onnx", text, {"w": (16, 16)})
    out = tmp_path / "o.onnx"
    np.savez(tmp_path / "c.npz", x=np.ones((2, 16), np.float32), ask=np.array(True))
    with pytest.raises(InputError, match=r"control flow or sequences \(If"):
        quantize(source, out, calibration=tmp_path / "c.npz")
    quantize(source, out, method="kmeans")
    assert operators(out) == ["CodebookMatMul"]
    for ask in (True, False):
        x = {"x": np.eye(16, dtype=np.float32), "ask": np.array(ask)}
        assert error(run(out, x, library=False)[0], run(source, x, library=False)[0]) < 0.3


OPTIONS: list[tuple[dict[str, Any], str]] = [
    ({"evaluation": Path("e.txt")}, "--eval is for checkpoints"),
    ({"tokens": 5}, "--tokens is"),
    ({"stages": "all"}, "--stages is"),
    ({"revision": "v2"}, "--revision is"),
    ({"tokenizer": "t"}, "--tokenizer is"),
    ({"via": "optimum"}, "--via is"),
    ({"bits": "mixed", "budget": 3.2}, "--bits mixed looks at"),
    ({"method": "rtn-block32"}, "for --compare"),
    ({}, "name a .npz file"),
    ({"calibration": Path("none.npz")}, "there is no such file"),
]


@pytest.mark.parametrize(("options", "message"), OPTIONS)
def test_options_for_other_models(
    options: dict[str, Any], message: str, mlp: Path, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=message):
        quantize(mlp, tmp_path / "o.onnx", **options)
    assert [path.name for path in tmp_path.iterdir()] == ["in"]


def test_targets(mlp: Path, tmp_path: Path) -> None:
    for out, message in {
        mlp: "belongs to the model",
        tmp_path / "o.bin": "ends in .onnx",
        tmp_path / "in": "ends in .onnx",
    }.items():
        with pytest.raises(InputError, match=message):
            quantize(mlp, out, method="kmeans", force=True)
    out = tmp_path / "o.onnx"
    quantize(mlp, out, method="kmeans")
    with pytest.raises(InputError, match="codes already"):
        quantize(out, tmp_path / "p.onnx", method="kmeans")
    with pytest.raises(InputError, match="exists"):
        quantize(mlp, out, method="kmeans")


def damaged_weights(path: Path) -> None:
    onnx.save(onnx.load(path), path, save_as_external_data=True, location="w", size_threshold=0)
    (path.parent / "w").write_bytes(b"abc")


def too_new(path: Path) -> None:
    proto = onnx.load(path)
    proto.opset_import[0].version = 99
    onnx.save(proto, path)


def nan_weights(path: Path) -> None:
    proto = onnx.load(path)
    proto.graph.initializer[0].CopyFrom(
        numpy_helper.from_array(np.full((24, 40), np.nan, np.float32), "a_w")
    )
    onnx.save(proto, path)


DAMAGES: dict[str, Callable[[Path], object]] = {
    "text": lambda path: path.write_bytes(b"no model at all"),
    "nothing": lambda path: path.write_bytes(b""),
    "cut": lambda path: path.write_bytes(path.read_bytes()[:700]),
    "gone": lambda path: path.unlink(),
    "weights": damaged_weights,
    "opset": too_new,
    "nan": nan_weights,
}


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("method", ["jlcm", "kmeans"])
def test_damaged_models(damage: str, method: str, mlp: Path, tmp_path: Path) -> None:
    calib = calibration(mlp) if method == "jlcm" else None
    DAMAGES[damage](mlp)
    with pytest.raises((InputError, CheckpointError)) as caught:
        quantize(mlp, tmp_path / "o.onnx", method=method, calibration=calib)
    assert "\n" not in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["in"]


def good() -> Arrays:
    return {"x": np.ones((4, 24), np.float32)}


ARCHIVES: dict[str, tuple[Arrays, str]] = {
    "none": ({}, "no array for the model's input 'x'"),
    "more": ({**good(), "z": np.ones(2)}, "'z', which is no input"),
    "float64": ({"x": np.ones((4, 24))}, "'x' is float64, and the model wants float32"),
    "object": ({"x": np.array([{}, None])}, "write it with numpy.savez"),
    "text": ({"x": np.array(["a", "b"])}, "is <U1"),
    "rank": ({"x": np.ones(24, np.float32)}, r"shape \[24\], and the model wants \[\?, 24\]"),
    "length": ({"x": np.ones((4, 23), np.float32)}, r"shape \[4, 23\]"),
    "infinite": ({"x": np.full((4, 24), np.inf, np.float32)}, "not finite"),
    "fields": ({"x": np.zeros(4, [("a", "f4")])}, "'x' is"),
}


@pytest.mark.parametrize("kind", ARCHIVES)
def test_arrays_that_do_not_fit(kind: str, mlp: Path, tmp_path: Path) -> None:
    given, message = ARCHIVES[kind]
    calib = tmp_path / "in" / "bad.npz"
    save(calib, given)
    with pytest.raises(InputError, match=message) as caught:
        quantize(mlp, tmp_path / "o.onnx", calibration=calib)
    assert "bad.npz" in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["in"]


def huge(path: Path) -> None:
    """An array whose header promises more than there is."""
    header = b"{'descr': '<f4', 'fortran_order': False, 'shape': (1000000000000, 24), }"
    data = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x.npy", data)


def other_member(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x", b"not an array")


def empty_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


HOSTILE: dict[str, Callable[[Path], object]] = {
    "empty": lambda path: path.write_bytes(b""),
    "text": lambda path: path.write_text("x = 1"),
    "cut": lambda path: path.write_bytes(path.read_bytes()[:-40]),
    "flipped": lambda path: path.write_bytes(path.read_bytes().replace(b"\x80\x3f", b"\x00\x01")),
    "one array": lambda path: np.save(path.open("wb"), np.ones(3)),
    "huge": huge,
    "member": other_member,
    "folder": empty_folder,
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_hostile_archives(kind: str, mlp: Path, tmp_path: Path) -> None:
    calib = tmp_path / "in" / "bad.npz"
    save(calib, good())
    HOSTILE[kind](calib)
    with pytest.raises(InputError) as caught:
        quantize(mlp, tmp_path / "o.onnx", calibration=calib)
    assert "bad.npz" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_arrays_in_other_orders_of_bytes_are_taken(mlp: Path, tmp_path: Path) -> None:
    values = np.random.default_rng(0).normal(size=(24, 40))
    reports = []
    for i, array in enumerate((np.asarray(values.T, "<f4", "C"), np.asarray(values.T, ">f4", "F"))):
        np.savez(tmp_path / f"{i}.npz", x=array)
        reports.append(quantize(mlp, tmp_path / f"{i}.onnx", calibration=tmp_path / f"{i}.npz"))
    assert reports[0].outputs == reports[1].outputs


def test_a_wrong_shape_is_not_written(
    mlp: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def transposed(model: Any, path: Path) -> None:
        last = model.graph.outputs[0].producer()
        node = ir.node("Transpose", [last.outputs[0]], name="t")
        model.graph.append(node)
        last.outputs[0].name, node.outputs[0].name = "before", "y"
        model.graph.outputs[0] = node.outputs[0]
        onnx_graph.save_graph(model, path)

    monkeypatch.setattr(onnx_model, "save_graph", transposed)
    with pytest.raises(CheckFailedError, match=r"'y' has the shape \[16, 6\]"):
        quantize(mlp, tmp_path / "o.onnx", calibration=calibration(mlp))


def test_a_wrong_graph_is_not_written(
    mlp: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = onnx_graph.save_graph

    def wrong(model: Any, path: Path) -> None:
        (levels,) = [v for n, v in model.graph.initializers.items() if n == "a.row_scale"]
        levels.const_value = ir.tensor(levels.const_value.numpy() * 1.01)
        real(model, path)

    monkeypatch.setattr(onnx_model, "save_graph", wrong)
    out, calib = tmp_path / "o.onnx", calibration(mlp)
    with pytest.raises(CheckFailedError, match="output 'y' differs"):
        quantize(mlp, out, calibration=calib)
    assert not out.exists()
    quantize(mlp, out, calibration=calib, verify=False)
    assert out.exists()
