"""Adapting tiny checkpoints: what is learned, what is written, and going on after a stop."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from tests.adapt.checkpoints import LAYERS, write_llama, write_pairs, write_t5

from edgedec.adapt.options import AdaptOptions
from edgedec.adapt.pipeline import AdaptReport, adapt
from edgedec.export import export_checkpoint
from edgedec.export.checkpoint import open_checkpoint
from edgedec.export.families import depth_of, open_model
from edgedec.runtime.bundle import open_bundle

torch = pytest.importorskip("torch")
torch.set_num_threads(1)

DEPTHS = (
    "skipdecode:min=1,max=3,length=6",
    "unified:layers=2",
    "d3:alpha=0.7",
    "lora-drop:cycle=3",
    "first:layers=3",
    "early-exit:measure=meta,threshold=0.6",
    "early-exit:exits=1,3",
    "layerskip:exit=2",
    "free:exit=1",
)
CASES = [("t5", depth) for depth in DEPTHS] + [("llama", depth) for depth in DEPTHS[3:6]]


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pairs(tmp_path_factory.mktemp("text") / "pairs.tsv")


@pytest.fixture(scope="module")
def t5(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_t5(tmp_path_factory.mktemp("t5") / "base")


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_llama(tmp_path_factory.mktemp("llama") / "base")


def options(text: Path, depth: str, steps: int = 12, **others: object) -> AdaptOptions:
    facts = {"rank": 4, "batch_tokens": 256, "lr": 1e-2, "device": "cpu", **others}
    return AdaptOptions(depth=depth, text=text, steps=steps, **facts)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def adapted(
    t5: Path, llama: Path, text: Path, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str, str], AdaptReport]:
    """Adapt a base to a policy, once."""
    folder = tmp_path_factory.mktemp("adapted")
    made: dict[tuple[str, str], AdaptReport] = {}

    def run(kind: str, depth: str) -> AdaptReport:
        if (kind, depth) not in made:
            base = {"t5": t5, "llama": llama}[kind]
            out = folder / f"{kind}-{len(made)}"
            made[kind, depth] = adapt(base, out, options(text, depth))
        return made[kind, depth]

    return run


@pytest.mark.parametrize(("kind", "depth"), CASES)
def test_the_loss_falls_and_the_folder_says_what_for(
    adapted: Callable[[str, str], AdaptReport], kind: str, depth: str
) -> None:
    report = adapted(kind, depth)
    assert report.after.loss < report.before.loss
    assert report.after.tokens == report.before.tokens > 0
    folder = Path(report.folder)
    checkpoint = open_checkpoint(folder)
    spec, _ = open_model(checkpoint.config, checkpoint.tensors)
    facts = depth_of(checkpoint.config, checkpoint.tensors, spec)
    name = depth.partition(":")[0]
    assert set(facts.defaults) == {name}
    assert (facts.lora_drop is not None) == (name == "lora-drop")
    assert (facts.routers is not None) == (name == "first")
    assert (facts.meta is not None) == ("meta" in depth)
    assert (checkpoint.lora is not None) == (name != "lora-drop" and "meta" not in depth)
    assert (folder / "LICENSE").read_text() == "none\n"
    assert not [path for path in folder.parent.iterdir() if path.name.startswith(".")]


@pytest.mark.parametrize(
    ("kind", "depth"), [c for c in CASES if c[1].startswith(("skipdecode", "lora-drop", "first"))]
)
def test_export_reads_it_for_its_policy(
    adapted: Callable[[str, str], AdaptReport], kind: str, depth: str, tmp_path: Path
) -> None:
    folder = adapted(kind, depth).folder
    name = depth.partition(":")[0]
    manifest = open_bundle(export_checkpoint(folder, tmp_path / "bundle", depth=name)).manifest
    assert name in manifest.policies
    assert manifest.verified is not None
    if name == "lora-drop":
        dropped = {s.first for s in manifest.stages if "low-rank" in s.variants}
        assert dropped
        assert manifest.policies[name].get("cycle") == 3
    if name == "first":
        assert manifest.routed == (1, 2)


def test_the_base_stays_as_it_is(t5: Path, adapted: Callable[[str, str], AdaptReport]) -> None:
    from safetensors.numpy import load_file

    before = load_file(t5 / "model.safetensors")
    after = load_file(Path(adapted("t5", DEPTHS[3]).folder) / "model.safetensors")
    assert all(np.array_equal(after[name], value) for name, value in before.items())
    assert all(after[name].dtype == value.dtype for name, value in before.items())
    added = after.keys() - before.keys()
    assert added == {
        f"decoder.block.{i}.lora_adapter.{part}.weight" for i in (1, 2, 3) for part in "AB"
    }


def test_what_is_adapted_can_be_adapted_again(
    adapted: Callable[[str, str], AdaptReport], text: Path, tmp_path: Path
) -> None:
    first = Path(adapted("t5", DEPTHS[0]).folder)
    report = adapt(first, tmp_path / "both", options(text, "early-exit:measure=meta"))
    checkpoint = open_checkpoint(report.folder)
    merged = open_checkpoint(first).tensors
    for name, tensor in merged.items():
        assert np.array_equal(checkpoint.tensors[name].read(), tensor.read())
    depth = checkpoint.config["edgedec"]["depth"]
    assert set(depth) == {"skipdecode", "early-exit"}


@pytest.mark.parametrize("depth", ["skipdecode:min=1,max=3,length=6", "first:layers=3"])
def test_a_stopped_run_goes_on_to_the_same_result(
    t5: Path, text: Path, tmp_path: Path, depth: str
) -> None:
    whole = adapt(t5, tmp_path / "whole", options(text, depth, steps=9))
    calls = iter(range(100))
    with pytest.raises(KeyboardInterrupt):
        adapt(
            t5, tmp_path / "parts", options(text, depth, steps=9), stopped=lambda: next(calls) == 3
        )
    assert not (tmp_path / "parts").exists()
    resumed = adapt(t5, tmp_path / "parts", options(text, depth, steps=9, resume=True))
    assert resumed.after == whole.after
    for name in ("model.safetensors", "adapter_model.safetensors", "config.json"):
        assert (tmp_path / "parts" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    assert {path.name for path in tmp_path.iterdir()} == {"whole", "parts"}


def test_targets_that_are_missing_are_written(
    t5: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgedec.adapt.written.LONGEST", 6)
    text = write_pairs(tmp_path / "words.txt", targets=False)
    report = adapt(t5, tmp_path / "out", options(text, "unified:layers=2", steps=2))
    assert report.written
    record = json.loads((tmp_path / "out" / "adapt.json").read_text())
    assert record["result"]["written"] is True
    assert record["options"]["depth"] == "unified:layers=2"
    assert record["result"]["before"]["tokens"] >= LAYERS
