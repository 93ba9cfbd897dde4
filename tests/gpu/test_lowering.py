"""Resident graphs compute what a bundle's graphs compute: every family, part and length."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.depth.models import STACKS, Made, make
from tests.export.tiny import LAYERS, tensors, write
from tests.gpu.resident import LIMITS, Pair, Run

from edgedec.devices.gpu.lowering import Profile, resident_graph
from edgedec.errors import DeviceError
from edgedec.export import export_checkpoint
from edgedec.runtime.bundle import Bundle, open_bundle
from edgedec.runtime.manifest import Limits
from edgedec.runtime.resident.limits import PASS

TOLERANCE = 8e-3
"""Of the greatest number: products round to 11 bits, several times one after the other."""


@pytest.fixture(scope="module", params=STACKS)
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Made:
    """A model in stages with every variant, routers, a classifier and LoRA branches."""
    return make(request.param, tmp_path_factory.mktemp("made") / "bundle")


@pytest.fixture(scope="module")
def pairs(made: Made, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Pair]:
    """Every component in the forms for ONNX Runtime."""
    folder = tmp_path_factory.mktemp("pairs")
    return {
        name: Pair(made.bundle, name, "cuda", folder / name)
        for name in made.bundle.manifest.components
    }


@st.composite
def runs(draw: st.DrawFn) -> Run:
    """Rows of different lengths, one new token or many."""
    rows = draw(st.integers(1, 4))
    new = draw(st.one_of(st.just(1), st.integers(2, LIMITS.target)))
    past = draw(st.lists(st.integers(0, LIMITS.target - new), min_size=rows, max_size=rows))
    source = draw(st.lists(st.integers(1, 12), min_size=rows, max_size=rows))
    return Run(past, new, source, draw(st.integers(0, 99)))


@settings(max_examples=8, deadline=None)
@given(run=runs())
def test_same_numbers(pairs: dict[str, Pair], run: Run) -> None:
    for component, pair in pairs.items():
        found = pair.differences(run)
        assert max(found.values()) < TOLERANCE, (component, found)


def test_ports(made: Made, pairs: dict[str, Pair]) -> None:
    manifest = made.bundle.manifest
    stack = made.reference.spec.decoder
    for stage in manifest.stages:
        for component in (stage.component, *stage.variants.values()):
            ports = pairs[component].ports()
            for layer in range(stage.first, stage.last):
                shape = ["batch", stack.kv_heads, LIMITS.target, stack.head_dim]
                for part in ("key", "value"):
                    assert ports[f"past.{layer}.self.{part}"] == ("tensor(float16)", shape)
                    assert ports[f"present.{layer}.self.{part}"] == ("tensor(float16)", shape)
    if manifest.encoder is not None:
        ports = pairs[manifest.encoder].ports()
        shape = ["batch", "source", stack.kv_width]
        assert ports["cross.0.key"] == ("tensor(float16)", shape)
        assert ports["cross.mask"] == ("tensor(float)", ["batch", 1, 1, "source"])
    # other numbers of a graph that others read stay as a bundle has them
    assert pairs["meta"].ports()["confidence"][0] == "tensor(float)"


@settings(max_examples=30, deadline=None)
@given(run=runs())
def test_every_run_fits_one_profile(pairs: dict[str, Pair], run: Run) -> None:
    for pair in pairs.values():
        shapes = {name: array.shape for name, array in pair.feeds(run).items()}
        fits = [_fits(profile, shapes) for profile in pair.resident.profiles]
        # one new token has kernels of its own; the encoder's first profile is its only one
        assert sum(fits) == 1
        assert fits.index(True) == (run.new > 1 and len(fits) > 1)


def test_long_caches_are_filled_in_several_runs(tmp_path: Path) -> None:
    """Scores of attention over all of a long cache at once would be gigabytes."""
    bundle = export(write(tmp_path / "checkpoint", "t5"))
    limits = Limits(rows=2, source=12, target=3 * PASS)
    single, several = resident_graph(bundle, "decoder", limits, "native").profiles
    assert single["input_ids"][2] == (2, 1)
    assert several["input_ids"][2] == (2, PASS)
    assert several["past.0.self.key"][2][2] == 3 * PASS


def _fits(profile: Profile, shapes: Mapping[str, tuple[int, ...]]) -> bool:
    return profile.keys() == shapes.keys() and all(
        low <= length <= high
        for name, shape in shapes.items()
        for low, length, high in zip(profile[name][0], shape, profile[name][2], strict=True)
    )


@pytest.fixture(scope="module", params=["t5", "qwen2", "opt", "marian"])
def whole(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Pair:
    """A decoder with its head inside."""
    folder = tmp_path_factory.mktemp("whole")
    bundle = export(write(folder / "checkpoint", request.param))
    return Pair(bundle, "decoder", "native", folder / "pair")


def export(checkpoint: Path) -> Bundle:
    """A checkpoint as a bundle beside it."""
    return open_bundle(export_checkpoint(checkpoint, checkpoint.parent / "bundle", verify=False))


def test_whole_decoder(whole: Pair) -> None:
    for run in (Run([3, 0, 5], 1, [5, 2, 9]), Run([0, 2, 4], 6, [4, 12, 1])):
        found = whole.differences(run)
        assert max(found.values()) < TOLERANCE, found


def test_next_inputs(whole: Pair) -> None:
    run = Run([3, 0, 5], 2, [5, 2, 9])
    found = whole.added(run)
    assert found["next.past_length"].tolist() == [5, 2, 7]
    assert ("next.positions" in found) == ("positions" in whole.ports())
    if "next.positions" in found:
        assert found["next.positions"].tolist() == [[4, 5], [1, 2], [6, 7]]


def test_large_sums_stay_finite(tmp_path: Path) -> None:
    """Second feed-forward products may reach beyond float16, and T5's do."""
    blocks = {n: 300 * a for n, a in tensors("t5").items() if "DenseReluDense" in n}
    bundle = export(write(tmp_path / "checkpoint", "t5", blocks))
    pair = Pair(bundle, "decoder", "native", tmp_path / "pair")
    assert max(pair.differences(Run([0], 4, [5])).values()) < TOLERANCE
    second = [n for n in pair.resident.model.graph if (n.name or "").endswith("mlp.down.bfloat16")]
    assert len(second) == LAYERS


def test_attention_of_unknown_form_is_refused(tmp_path: Path) -> None:
    bundle = export(write(tmp_path / "checkpoint", "t5"))
    path = bundle.path("decoder.onnx")
    model = ir.load(path)
    ir.external_data.load_to_model(model)
    node = next(node for node in model.graph if node.op_type == "Attention")
    node.attributes.add(ir.AttrInt64("is_causal", 1))
    ir.save(model, path)
    with pytest.raises(DeviceError, match=r"node 'decoder.0.self_attn.*--device decoder=cpu"):
        resident_graph(bundle, "decoder", LIMITS, "native")
