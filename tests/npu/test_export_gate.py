"""The check of exports for NPUs: what is compared where, and what is not written because of it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from click.testing import CliRunner
from tests.npu.exports import (
    COMPARED,
    LENGTHS,
    SIMULATED,
    agreement_of,
    manifest_of,
    take_few_tokens,
    tokens,
)

from edgedec.cli import cli
from edgedec.devices.npu.lower import StaticModel
from edgedec.devices.qnn import Qnn
from edgedec.errors import CheckFailedError, DeviceError
from edgedec.export import export_checkpoint
from edgedec.export.feeding import NO_NUMBER, predictions, relative_error, start_of
from edgedec.export.npu import pipeline, texts
from edgedec.export.npu.gate import ROUNDING, refuse_difference
from edgedec.export.npu.options import NpuOptions
from edgedec.export.npu.verify import Compared, OnDevice, devices_of
from edgedec.export.passages import Passage
from edgedec.export.places import Place, place
from edgedec.runtime.bundle import open_bundle
from edgedec.runtime.generator import Generator

QNN = Place("qnn", frozenset({"encoder", "decoder"}))


@pytest.fixture(autouse=True)
def few_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    take_few_tokens(monkeypatch)


def test_the_simulator_agrees(simulator: Qnn, plain: Path, tmp_path: Path) -> None:
    """Also in what ``--json`` prints."""
    out = tmp_path / "b"
    asked = ["export", str(plain), "-o", str(out), "--device", "qnn", "--json"]
    lengths = ["--max-source", "8", "--max-target", "12"]
    result = CliRunner().invoke(cli, [*asked, *lengths])
    assert result.exit_code == 0, result.output
    found = agreement_of(out)
    assert json.loads(result.stdout)["agreement"] == vars(found)
    assert (found.soc, found.text) == (simulator.target.name, texts.RANDOM)
    assert (found.tokens, found.device_tokens) == (COMPARED, SIMULATED)
    assert found.device == found.cpu == found.device_cpu == 1
    assert found.device_error is not None
    assert 0 < found.device_error < 0.05
    assert tokens(out) == tokens(plain)


def test_several_steps_give_no_logits(simulator: Qnn, plain: Path, tmp_path: Path) -> None:
    del simulator
    out = export_checkpoint(plain, tmp_path / "b", device="qnn", quant="w8a16", unroll=2, **LENGTHS)
    found = agreement_of(out)
    assert (found.device_tokens, found.device_error) == (SIMULATED, None)
    assert tokens(out) == tokens(plain)


@pytest.mark.parametrize("device", ["encoder=qnn,decoder=cpu", "decoder=qnn,encoder=cpu"])
def test_one_part_of_a_bundle_with_codes(
    simulator: Qnn, coded: Path, tmp_path: Path, device: str
) -> None:
    out = export_checkpoint(coded, tmp_path / "b", device=device, max_source=8, kv="u8")
    manifest = manifest_of(out)
    lowered = {name for name, c in manifest.components.items() if c.device == "qnn"}
    assert lowered == {device.partition("=")[0]}
    (kept,) = manifest.components.keys() - lowered
    assert manifest.codebooks is not None
    assert set(manifest.codebooks.matrices) == {kept}
    assert manifest.static is not None
    assert manifest.static.grids
    assert 0 < max(manifest.static.projection.values()) < 1e-3
    found = agreement_of(out)
    assert (found.soc, found.device_tokens) == (simulator.target.name, SIMULATED)
    assert 0 < (found.device_error or 0) < ROUNDING
    assert tokens(out, "cpu") == tokens(coded)


def test_contexts_are_all_that_is_left(simulator: Qnn, plain: Path, tmp_path: Path) -> None:
    """And the graphs were verified as each of the chips computes, with a part on the CPU too."""
    asked: dict[str, Any] = {"device": "encoder=qnn,decoder=cpu", "quant": "fp16", "max_source": 8}
    out = export_checkpoint(plain, tmp_path / "b", soc="sm8550,sm8650", **asked)
    manifest = manifest_of(out)
    contexts = manifest.components["encoder"].contexts
    assert list(contexts) == ["sm8550", "sm8650"]
    assert {path.name for path in out.glob("*.onnx")} == {*contexts.values(), "decoder.onnx"}
    assert agreement_of(out).soc == "sm8550,sm8650"
    assert tokens(out, f"encoder=qnn:{simulator.target.name}") == tokens(plain)
    with pytest.raises(DeviceError, match="compiled for sm8550, sm8650 and cannot run on the CPU"):
        tokens(out, "cpu")


def test_what_differs_is_refused(
    simulator: Qnn, plain: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Graphs whose head came out with the wrong sign."""
    del simulator
    lower = pipeline.__dict__["lower_static"]

    def broken(*arguments: Any) -> StaticModel:
        model: StaticModel = lower(*arguments)
        stored = model.models["decoder"].graph.initializers["head.weight"]
        assert stored.const_value is not None
        stored.const_value = ir.tensor(-stored.const_value.numpy(), name=stored.name)
        return model

    monkeypatch.setattr(pipeline, "lower_static", broken)
    asked: dict[str, Any] = {"device": "decoder=qnn", "quant": "fp16", **LENGTHS}
    said = rf"at 0\.\d+ of {SIMULATED} places on qnn:sm8650 and at 0\.\d+ of {COMPARED} on the CPU"
    with pytest.raises(CheckFailedError, match=rf"{said}, and --min-agreement.*worst input: '"):
        export_checkpoint(plain, tmp_path / "b", **asked)
    assert list(tmp_path.iterdir()) == []
    out = export_checkpoint(plain, tmp_path / "b", min_agreement=0.0, **asked)
    assert agreement_of(out).cpu < 0.97


PASSAGES = [Passage((5,), (0,), (1, 2, 3)), Passage((6,), (0,), (4, 5, 6, 7))]
EXACT = [np.array([1, 2, 3]), np.array([4, 5, 6, 7])]


def compared(cpu: int, device: int, error: float | None) -> Compared:
    """Several choices of which so many are wrong."""

    def wrong(many: int) -> list[Any]:
        flat = np.concatenate(EXACT)
        flat[:many] = 99
        return [flat[:3], flat[3:]]

    good, bad = (
        OnDevice("qnn:sm8550", wrong(0), 0.001),
        OnDevice("qnn:sm8650", wrong(device), error),
    )
    return Compared(PASSAGES, EXACT, wrong(cpu), [good, bad])


def refuse(some: Compared, **options: Any) -> str:
    """The sentence, empty where nothing is refused."""
    asked = NpuOptions("qnn", QNN, **options)
    try:
        refuse_difference(some, some.agreement("t"), asked, lambda p: str(p.read), lambda: ["both"])
    except CheckFailedError as error:
        return str(error)
    return ""


def test_both_shares_and_the_logits_have_to_do() -> None:
    assert refuse(compared(0, 0, ROUNDING / 2)) == ""
    assert "1.000 of 7 places on qnn:sm8650 and at 0.857 of 7 on" in refuse(compared(1, 0, 0.1))
    sentence = refuse(compared(0, 1, 0.1))
    assert "0.857 of 7 places on qnn:sm8650 and at 1.000 of 7 on the CPU, and --min-" in sentence
    assert "; both; worst input: (5,), 0.667" in sentence
    sentence = refuse(compared(0, 0, 0.9))
    assert "qnn:sm8650 computes other numbers, of which rounding would explain" in sentence
    assert "differ by up to 0.9 of their range" in sentence
    assert refuse(compared(0, 0, None)) == ""
    assert refuse(compared(7, 7, 0.9), min_agreement=0.0) == ""


def test_figures_are_those_of_the_worst_chip() -> None:
    found = compared(0, 2, 0.3).agreement("t")
    assert (found.soc, found.cpu, found.device_error) == ("sm8550,sm8650", 1, 0.3)
    assert found.device == found.device_cpu == 5 / 7


def test_shares_are_of_the_tokens_that_were_simulated() -> None:
    some = compared(0, 0, None)
    few = replace(some, devices=[OnDevice("openvino", [EXACT[0], np.array([4, 9])], None)])
    found = few.agreement("t")
    assert (found.soc, found.device, found.device_tokens, found.tokens) == (None, 0.8, 5, 7)
    assert few.worst() == (PASSAGES[1], 0.5)


def test_a_chip_of_every_kind() -> None:
    assert devices_of(NpuOptions("qnn", QNN)) == ("qnn:sm8650",)
    several = NpuOptions("qnn", QNN, soc="sm8550,sc8380xp,sm8650+sm8550,sm8750")
    assert devices_of(several) == ("qnn:sm8550", "qnn:sm8650", "qnn:sm8750")
    openvino = place("encoder=openvino")
    assert openvino is not None
    assert devices_of(NpuOptions("encoder=openvino", openvino)) == ("openvino",)


def test_errors_are_relative_to_the_range() -> None:
    wanted = np.array([-1.0, 0.0, 3.0], np.float32)
    other = np.array([-1.0, 0.5, 3.2], np.float32)
    assert relative_error([wanted, other], [wanted, wanted]) == pytest.approx(0.125)
    assert relative_error([], []) is None
    assert relative_error([np.array([np.nan, 0, 0], np.float32)], [wanted]) == NO_NUMBER
    assert relative_error([wanted], [np.zeros(3, np.float32)]) == NO_NUMBER


def test_what_is_fed_and_told(plain: Path) -> None:
    """The bar goes on with every token, and only the logits that were asked for are kept."""
    fractions: list[float] = []
    fed = [Passage((10, 11), (0,), (5, 6, 7)), Passage((12,), (0,), (8, 9))]
    generator = Generator(open_bundle(plain), threads=1)
    found = predictions(start_of(generator), fed, fractions.append, scored=4)
    assert fractions == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])
    assert [len(chosen) for chosen in found.tokens] == [3, 2]
    best = [int(np.argmax(logits)) for logits in found.logits]
    assert best == np.concatenate(found.tokens)[:4].tolist()
