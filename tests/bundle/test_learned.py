"""Bundles with learned codes: what their reports say, of the bytes that they hold."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import numpy_helper

import edgedec
from edgedec.errors import BundleError, InputError
from edgedec.export import export_checkpoint
from edgedec.export.floats import float_graphs
from edgedec.export.learn import find_sites, keys_of
from edgedec.export.model import open_model
from edgedec.export.quantized import quantize_source
from edgedec.export.workplace import workplace
from edgedec.kernels.packing import Packed
from edgedec.quantize.calibration.calibrate import moments
from edgedec.quantize.fitting.objective import relative_error
from edgedec.quantize.matrices import Matrix
from edgedec.quantize.method import Grouping, Settings
from edgedec.quantize.options import QuantizeOptions
from edgedec.quantize.pool import Pool
from edgedec.quantize.reporting.report import QuantizationReport
from edgedec.quantize.statistics import Statistics
from edgedec.runtime.bundle import Bundle, open_bundle

Array = NDArray[np.float32]


@pytest.fixture
def text(tmp_path: Path) -> Path:
    path = tmp_path / "pairs.tsv"
    words = ["abc", "stressed", "on", "xyz", "gate, mat", "quick brown fox", "hello!"]
    path.write_text("".join(f"{word}\t{word[::-1]}\n" for word in words))
    return path


def quantize(source: Path, out: Path, text: Path, **options: Any) -> QuantizationReport:
    how = QuantizeOptions(**{"calibration": text, "tokens": 96, "threads": 2, **options})
    report = quantize_source(source, out, how, lambda _what, _fraction: None)
    assert report is not None
    return report


def stored_matrices(bundle: Bundle) -> dict[tuple[str, str], Array]:
    """(component, matrix) -> what a bundle's codes stand for, read from its files."""
    block = bundle.manifest.codebooks
    assert block is not None
    found: dict[tuple[str, str], Array] = {}
    for component, matrices in block.matrices.items():
        model = onnx.load(bundle.path(bundle.manifest.components[component].file))
        constants = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
        nodes = {node.name: node for node in model.graph.node}
        for name, matrix in matrices.items():
            names = nodes[name].input[1:]
            arrays = [constants[i] for i in names if i in constants]
            weight, levels, scale, group = arrays[:4]
            # Behind a bias that may be none; where any matrix of a graph has one, all have.
            order = next((a for a in arrays[4:] if a.dtype == np.int32), None)
            packed = Packed(weight, levels, scale, group, matrix.bits, matrix.columns, order)
            ends = np.cumsum([part.rows for part in matrix.parts])[:-1]
            parts = np.split(packed.dequantize(), ends)
            found |= {
                (component, part.name): values
                for part, values in zip(matrix.parts, parts, strict=True)
            }
    return found


@pytest.mark.parametrize("grouping", ["contiguous", "distribution"])
@pytest.mark.parametrize("bits", [2, 4])
def test_errors_are_those_of_the_bytes(
    exported: Path, tmp_path: Path, text: Path, bits: int, grouping: Grouping
) -> None:
    """Computed again from the packed codes, on moments of the floating-point model's inputs."""
    settings = Settings(grouping=grouping)
    report = quantize(exported, tmp_path / "b", text, bits=bits, settings=settings)
    stored = stored_matrices(open_bundle(tmp_path / "b"))
    source = open_bundle(exported)
    graphs = float_graphs(source, settings)
    sites = find_sites(graphs)
    keys = keys_of(sites)
    options = QuantizeOptions(calibration=text, tokens=96)
    errors: dict[str, list[float]] = {}

    def receive(matrices: Sequence[Matrix], statistics: Statistics) -> None:
        for matrix in matrices:
            values = stored[keys[id(matrix)]]
            error = relative_error(values, matrix.read(), statistics.plain)
            errors.setdefault(matrix.name, []).append(error)

    with Pool(1) as pool:
        model = open_model(source, graphs, sites, options, pool, tmp_path, lambda *_: None)
        moments(model.program, model.calibration.batches, pool, receive)
    linear = [matrix for matrix in report.matrices if matrix.role == "linear"]
    assert len(linear) > 15
    for matrix in linear:
        assert matrix.bits == bits
        assert min(abs(e - matrix.output_error) for e in errors[matrix.name]) < 1e-5
    for matrix in report.matrices:
        if matrix.objective_start is not None:
            assert matrix.objective_end is not None
            assert matrix.objective_end <= matrix.objective_start


def test_threads_change_nothing(exported: Path, tmp_path: Path, text: Path) -> None:
    for threads in (1, 3):
        quantize(exported, tmp_path / str(threads), text, bits=3, threads=threads, verify=False)
    files = [sorted((tmp_path / n).iterdir()) for n in ("1", "3")]
    assert [path.name for path in files[0]] == [path.name for path in files[1]]
    for one, other in zip(*files, strict=True):
        assert one.read_bytes() == other.read_bytes(), one.name


def test_a_checkpoint_and_its_bundle_give_the_same(
    checkpoint: Path, exported: Path, tmp_path: Path, text: Path
) -> None:
    for name, source in (("one", checkpoint), ("two", exported)):
        quantize(source, tmp_path / name, text, bits=2)
    for path in (tmp_path / "one").iterdir():
        assert path.read_bytes() == (tmp_path / "two" / path.name).read_bytes(), path.name


def test_weights_of_16_bits_are_read_as_they_are(
    checkpoint: Path, tmp_path: Path, text: Path
) -> None:
    narrow = export_checkpoint(checkpoint, tmp_path / "bf16", dtype="bf16", stages="all")
    quantize(narrow, tmp_path / "b", text, bits=4)
    bundle = open_bundle(tmp_path / "b")
    assert [stage.component for stage in bundle.manifest.stages] == ["decoder.0-1", "decoder.1-2"]
    assert edgedec.load(tmp_path / "b").generate("hello", max_new_tokens=3)[0].tokens


def test_hidden_units_change_places_and_nothing_else(
    exported: Path, tmp_path: Path, text: Path
) -> None:
    """Eight bits hardly round: the models differ by as little as their weights do."""
    settings = Settings(grouping="distribution", groups=2)
    report = quantize(exported, tmp_path / "b", text, bits=8, compute="fp32", settings=settings)
    assert report.agreements[0].kl < 5e-3
    found = stored_matrices(open_bundle(tmp_path / "b"))["encoder", "encoder.0.mlp.up.weight"]
    plain = quantize(exported, tmp_path / "c", text, bits=8, compute="fp32")
    kept = stored_matrices(open_bundle(tmp_path / "c"))["encoder", "encoder.0.mlp.up.weight"]
    assert plain.agreements[0].kl < 5e-3
    assert not np.allclose(found, kept)
    rows = [np.sort(np.round(matrix, 4), axis=0) for matrix in (found, kept)]
    np.testing.assert_allclose(rows[0], rows[1], atol=1e-3)


def test_codes_are_not_quantized_again(
    coded: Path, exported: Path, tmp_path: Path, text: Path
) -> None:
    with pytest.raises(InputError, match="are codes already"):
        quantize(coded, tmp_path / "b", text)
    with pytest.raises(InputError, match="--stages says how to export a checkpoint"):
        quantize(exported, tmp_path / "b", text, stages="all")
    assert not list(tmp_path.glob("*b*"))


def test_no_tokenizer(decoder_only: Path, tmp_path: Path, text: Path) -> None:
    with pytest.raises(InputError, match="has no tokenizer"):
        quantize(decoder_only, tmp_path / "b", text)
    assert export_checkpoint(decoder_only, tmp_path / "b", quant="cb2", method="kmeans").is_dir()


def test_the_report_of_a_bundle(exported: Path, tmp_path: Path, text: Path) -> None:
    report = quantize(exported, tmp_path / "b", text, bits=3)
    manifest = open_bundle(tmp_path / "b").manifest
    assert manifest.codebooks is not None
    assert (manifest.codebooks.scheme, manifest.codebooks.method) == ("cb3", "jlcm")
    value = json.loads((tmp_path / "b" / "quantization.json").read_text())
    assert value["totals"]["bits_per_weight"] == pytest.approx(
        report.totals().bits_per_weight, rel=1e-5
    )
    assert "quantization.json" in manifest.files


def test_what_it_is_made_of_is_not_replaced(exported: Path, text: Path) -> None:
    for out in (exported, exported / "inside", exported.parent):
        with pytest.raises(InputError, match="would replace"):
            quantize(exported, out, text, force=True)
    assert open_bundle(exported).manifest.codebooks is None


def test_damaged_weights_get_no_fresh_checksum(exported: Path, tmp_path: Path, text: Path) -> None:
    broken = Path(shutil.copytree(exported, tmp_path / "broken"))
    data = bytearray((broken / "weights.bin").read_bytes())
    data[100] ^= 1
    (broken / "weights.bin").write_bytes(data)
    with pytest.raises(BundleError, match=r"weights\.bin"):
        quantize(broken, tmp_path / "b", text)
    assert not (tmp_path / "b").exists()


@pytest.mark.parametrize("content", ["a" * 5000, "é"])
def test_a_text_that_cannot_be_used(exported: Path, tmp_path: Path, content: str) -> None:
    path = tmp_path / "text.txt"
    path.write_text(content, "utf-8")
    if content == "é":
        quantize(exported, tmp_path / "b", path, method="kmeans")  # one unknown letter is a text
        return
    with pytest.raises(InputError, match=r"nothing of .*text\.txt.* can be used"):
        quantize(exported, tmp_path / "b", path)


def test_one_process_at_a_time(exported: Path, tmp_path: Path, text: Path) -> None:
    with (
        workplace(tmp_path / "b"),
        pytest.raises(InputError, match="another process is making"),
    ):
        quantize(exported, tmp_path / "b", text)
    quantize(exported, tmp_path / "b", text)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["b", "pairs.tsv"]


def test_mixed_bits_are_those_that_a_method_has(exported: Path, tmp_path: Path, text: Path) -> None:
    report = quantize(exported, tmp_path / "b", text, method="nf4", bits="mixed", budget=12.0)
    assert {matrix.bits for matrix in report.matrices} <= {4, 8}
    assert report.totals().bits_per_weight <= 12
    with pytest.raises(InputError, match=r"--budget 2\.5"):
        quantize(exported, tmp_path / "c", text, method="nf4", bits="mixed", budget=2.5)


def test_a_bundle_keeps_its_calibration_text(checkpoint: Path, tmp_path: Path) -> None:
    """So that it becomes what its checkpoint would have become."""
    with_text = Path(shutil.copytree(checkpoint, tmp_path / "with" / "model"))
    (with_text / "calibration.txt").write_text("hello\nworld\nsome, words\n")
    bundle = export_checkpoint(with_text, tmp_path / "floats" / "model")
    for name, source in (("one", with_text), ("two", bundle)):
        how = QuantizeOptions(bits=3, threads=1)
        report = quantize_source(source, tmp_path / name, how, lambda _what, _fraction: None)
        assert report is not None
        assert report.calibration is not None
        assert report.calibration.name == "calibration.txt"
        assert not (tmp_path / name / "calibration.txt").exists()
    assert (tmp_path / "one" / "weights.bin").read_bytes() == (
        tmp_path / "two" / "weights.bin"
    ).read_bytes()
