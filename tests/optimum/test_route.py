"""The route as users meet it: what it says when it cannot go on, and what it shares with others."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import edgedec
from edgedec.errors import CheckpointError, EdgedecError, InputError, MissingDependencyError
from edgedec.export.families import family_of

ROWS = [[5, 9, 14, 2], [7, 2], [30, 31, 32, 33, 34, 2]]


@pytest.fixture
def folder(tmp_path: Path) -> Callable[..., Path]:
    """A folder that passes for a checkpoint of some architecture."""
    import numpy as np
    from safetensors.numpy import save_file

    def make(**config: Any) -> Path:
        (tmp_path / "config.json").write_text(json.dumps(config), encoding="utf-8")
        save_file({"weight": np.zeros((2, 2), np.float32)}, tmp_path / "model.safetensors")
        return tmp_path

    return make


def test_without_optimum(
    folder: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in [m for m in sys.modules if m.partition(".")[0] == "optimum"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "optimum", None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'edgedec\[optimum\]'") as found:
        edgedec.export(folder(model_type="pegasus"), tmp_path / "out", via="optimum")
    assert found.value.exit_code == 3
    assert "environment" in str(found.value)
    assert not (tmp_path / "out").exists()


def test_stages_are_refused(folder: Callable[..., Path], tmp_path: Path) -> None:
    with pytest.raises(InputError, match="--stages"):
        edgedec.export(folder(model_type="t5"), tmp_path / "out", via="optimum", stages="all")


def test_other_routes_do_not_exist(folder: Callable[..., Path], tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such route"):
        edgedec.export(folder(model_type="t5"), tmp_path / "out", via="olive")


def test_unknown_architectures_are_told_of_the_route() -> None:
    with pytest.raises(CheckpointError, match="--via optimum"):
        family_of({"model_type": "pegasus"})


def test_longest_sequences() -> None:
    from edgedec.export.optimum import _limit

    bart = SimpleNamespace(max_position_embeddings=1024)
    led = SimpleNamespace(max_encoder_position_embeddings=16384, max_decoder_position_embeddings=9)
    longrope = SimpleNamespace(
        max_position_embeddings=131072,
        original_max_position_embeddings=4096,
        rope_scaling={"type": "longrope", "short_factor": [1.0], "long_factor": [2.0]},
    )
    assert _limit(bart, "encoder") == _limit(bart, "decoder") == 1024
    assert (_limit(led, "encoder"), _limit(led, "decoder")) == (16384, 9)
    assert _limit(longrope, "decoder") == 4096
    assert _limit(SimpleNamespace(), "decoder") is None


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        ({"model_type": "bert"}, "only feature-extraction"),
        ({"model_type": "whisper", "is_encoder_decoder": True}, "no text generation"),
        ({"model_type": "no-such-model"}, "no text generation"),
        ({}, "'None'"),
        ({"model_type": "bigbird_pegasus", "is_encoder_decoder": True}, "length of the source"),
        ({"model_type": "gpt2", "is_encoder_decoder": False}, "no tensor"),
    ],
)
def test_what_optimum_cannot_export(
    folder: Callable[..., Path], tmp_path: Path, config: dict[str, Any], reason: str
) -> None:
    pytest.importorskip("optimum.exporters.onnx", reason="needs optimum-onnx: make test-optimum")
    with pytest.raises(EdgedecError, match=reason) as found:
        edgedec.export(folder(**config), tmp_path / "out", via="optimum")
    assert "\n" not in str(found.value)
    assert not (tmp_path / "out").exists()


def test_a_family_and_optimum_agree(make_checkpoint: Callable[[str], Path], tmp_path: Path) -> None:
    pytest.importorskip("optimum.exporters.onnx", reason="needs optimum-onnx: make test-optimum")
    checkpoint = make_checkpoint("t5")
    edgedec.export(checkpoint, tmp_path / "family")
    edgedec.export(checkpoint, tmp_path / "optimum", via="optimum")
    edgedec.export(checkpoint, tmp_path / "again", via="optimum")
    family, optimum = (edgedec.load(tmp_path / name, threads=1) for name in ("family", "optimum"))
    for beams in (1, 3):
        first = family.generate(ROWS, max_new_tokens=30, num_beams=beams)
        second = optimum.generate(ROWS, max_new_tokens=30, num_beams=beams)
        assert [r.tokens for r in first] == [r.tokens for r in second]
    assert family.defaults == optimum.defaults
    for file in ("encoder.onnx", "decoder.onnx", "weights.bin", "edgedec.json"):
        same = [(tmp_path / name / file).read_bytes() for name in ("optimum", "again")]
        assert same[0] == same[1]


@pytest.mark.parametrize("dtype", ["fp16", "bf16"])
def test_narrow_weights(make_checkpoint: Callable[[str], Path], tmp_path: Path, dtype: str) -> None:
    pytest.importorskip("optimum.exporters.onnx", reason="needs optimum-onnx: make test-optimum")
    checkpoint = make_checkpoint("gpt2")
    edgedec.export(checkpoint, tmp_path / "out", via="optimum", dtype=dtype)
    weights = (tmp_path / "out" / "weights.bin").stat().st_size
    assert weights < 0.7 * (checkpoint / "model.safetensors").stat().st_size


def test_the_bundle_runs_without_any_of_it(
    make_checkpoint: Callable[[str], Path], tmp_path: Path
) -> None:
    pytest.importorskip("optimum.exporters.onnx", reason="needs optimum-onnx: make test-optimum")
    edgedec.export(make_checkpoint("pegasus"), tmp_path / "out", via="optimum")
    code = (
        "import sys\n"
        "for name in ('torch', 'transformers', 'optimum'): sys.modules[name] = None\n"
        f"import edgedec; g = edgedec.load({str(tmp_path / 'out')!r}, threads=1)\n"
        "print(len(g.generate([[5, 9, 2]], max_new_tokens=4, min_new_tokens=4)[0].tokens))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "4\n"
