"""The study's models: equal sizes, harmless numbers, graphs that agree with the reference."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from edgedec.errors import InputError
from edgedec.export.reference import Reference
from edgedec.export.verify import TOLERANCE, verify
from edgedec.runtime.bundle import open_bundle, verify_files
from edgedec.runtime.generator import Generator
from edgedec.study import bundles
from edgedec.study.bundles import SEED, bundle
from edgedec.study.shapes import (
    ARCHITECTURES,
    CLOSE,
    SHAPES,
    Architecture,
    Shape,
    decoder_only,
    encoder_decoder,
    parameters,
    spec_of,
    tensors,
)
from edgedec.study.weights import random_weights

Bundles = dict[tuple[str, str], Path]
TINY = SHAPES["tiny"]


@pytest.mark.parametrize("shape", SHAPES.values(), ids=lambda shape: shape.name)
def test_both_models_have_the_same_blocks_and_as_many_parameters(shape: Shape) -> None:
    both, alone = encoder_decoder(shape), decoder_only(shape)
    assert both.encoder is not None
    assert alone.encoder is None
    for stack in (both.encoder, alone.decoder):
        assert replace(stack, layers=1) == replace(both.decoder, layers=1)
    assert parameters(alone) == pytest.approx(parameters(both), rel=CLOSE)
    # One layer more or less would be further off.
    miss = abs(parameters(alone) - parameters(both))
    for layers in (alone.decoder.layers - 1, alone.decoder.layers + 1):
        other = replace(alone, decoder=replace(alone.decoder, layers=layers))
        assert abs(parameters(other) - parameters(both)) > miss


def test_the_paper_has_332_million_parameters() -> None:
    assert parameters(encoder_decoder(SHAPES["paper"])) == 332_042_240
    assert decoder_only(SHAPES["paper"]).decoder.layers == 31


def test_a_shape_without_a_partner_is_refused() -> None:
    with pytest.raises(ValueError, match="within 1%"):
        decoder_only(replace(TINY, encoder_layers=2, decoder_layers=1))


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_bundles_hold_all_parameters(tiny: Bundles, architecture: Architecture) -> None:
    spec = spec_of(TINY, architecture)
    for quant in ("none", "cb4"):
        opened = open_bundle(tiny[architecture, quant])
        verify_files(opened)
        # Beside weights: the rotary frequencies, and the table of masked and not masked.
        tables = TINY.head_dim // 2 + 2
        assert opened.manifest.parameters == parameters(spec) + tables
        assert opened.manifest.interface.architecture == architecture
        assert "tokenizer.json" not in opened.manifest.files


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_graphs_agree_with_the_reference(tiny: Bundles, architecture: Architecture) -> None:
    spec = spec_of(TINY, architecture)
    reference = Reference(spec, random_weights(spec, SEED))
    found = verify(
        open_bundle(tiny[architecture, "none"]), reference.logits, TOLERANCE["fp32"], (40, 12)
    )
    assert 0.1 < found.logit_range < 1000  # neither dead nor exploding


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_weights_are_normal_numbers(architecture: Architecture) -> None:
    spec = spec_of(TINY, architecture)
    weights = random_weights(spec, 1)
    for name, shape in tensors(spec).items():
        values = weights[name].read()
        assert values.shape == shape
        assert np.isfinite(values).all()
        assert not ((values != 0) & (np.abs(values) < np.finfo(np.float32).tiny)).any()
        assert np.array_equal(values, random_weights(spec, 1)[name].read())
        assert not np.array_equal(values, random_weights(spec, 2)[name].read())
    assert weights["decoder.0.mlp.up.weight"].read().std() == pytest.approx(64**-0.5, rel=0.05)


def test_weights_in_common_are_equal() -> None:
    both, alone = (random_weights(spec_of(TINY, a), SEED) for a in ARCHITECTURES)
    same = both["decoder.3.self_attn.k.weight"].read()
    assert np.array_equal(same, alone["decoder.3.self_attn.k.weight"].read())


def test_a_large_model_keeps_the_size_of_its_signal() -> None:
    """The residual stream of the paper's depth, at a width that a test can afford."""
    deep = replace(TINY, encoder_layers=20, decoder_layers=10, vocab_size=64, d_ff=128)
    spec = encoder_decoder(deep)
    reference = Reference(spec, random_weights(spec, SEED))
    ids = np.random.default_rng(0).integers(2, 64, (1, 24))
    states, _ = reference.remember(ids, np.ones_like(ids))
    assert np.isfinite(states).all()
    assert states.std() == pytest.approx(1, abs=0.2)


def test_a_bundle_is_made_once(tiny: Bundles) -> None:
    notes: list[str] = []
    again = bundle(TINY, "decoder-only", "cb4", note=notes.append, progress=lambda *_: None)
    assert again == tiny["decoder-only", "cb4"]
    assert not notes


def test_nothing_is_left_beside_the_bundles(tiny: Bundles) -> None:
    home = tiny["decoder-only", "none"].parent
    assert {path.name for path in home.iterdir()} >= {path.name for path in tiny.values()}
    assert not [path for path in home.iterdir() if path.name.startswith(".")]


def test_codes_need_no_floating_point_bundle(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("EDGEDEC_CACHE", str(tmp_path / "new"))
    made = bundle(TINY, "decoder-only", "int8", note=lambda _: None, progress=lambda *_: None)
    assert [path.name for path in made.parent.iterdir()] == [made.name]
    tokens = Generator(open_bundle(made), threads=1).generate(
        [[5, 6, 7]], max_new_tokens=3, eos_token_ids=[]
    )
    assert len(tokens[0].tokens) == 3


def test_a_full_disk_is_said_before_the_work(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("EDGEDEC_CACHE", str(tmp_path))
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=1000))
    with pytest.raises(InputError, match="make room"):
        bundle(SHAPES["paper"], "decoder-only", "none", note=print, progress=lambda *_: None)
    assert not any((tmp_path / "study").iterdir())


def test_an_interrupted_export_leaves_nothing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setenv("EDGEDEC_CACHE", str(tmp_path))
    for quant in ("none", "cb4"):
        with pytest.raises(KeyboardInterrupt):
            bundle(TINY, "decoder-only", quant, note=lambda _: None, progress=stop)
        assert not any((tmp_path / "study").iterdir())


def test_unknown_formats_are_refused() -> None:
    with pytest.raises(InputError, match="none, cb4"):
        bundle(TINY, "decoder-only", "cb5", note=print, progress=lambda *_: None)


def test_tied_tensors_are_stored_once(tiny: Bundles) -> None:
    folder = tiny["encoder-decoder", "none"]
    places = set()
    for name in ("encoder", "decoder"):
        graph = onnx.load(folder / f"{name}.onnx", load_external_data=False).graph
        for tensor in graph.initializer:
            if tuple(tensor.dims) == (TINY.vocab_size, TINY.d_model):
                places.add(json.dumps([[e.key, e.value] for e in tensor.external_data]))
            elif tensor.data_location != onnx.TensorProto.EXTERNAL:
                assert np.isfinite(numpy_helper.to_array(tensor)).all()
    assert len(places) == 1


def test_the_cache_key_follows_the_model() -> None:
    specs = [spec_of(shape, a) for shape in SHAPES.values() for a in ARCHITECTURES]
    assert len({bundles._key(spec) for spec in specs}) == len(specs)
