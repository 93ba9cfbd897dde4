"""Graphs that depth policies run beside full stages, against the model in NumPy."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.depth.models import CUTS, EVERYTHING, LAYERS, STACKS, VOCAB, Made, make

from edgedec.devices.base import get_device
from edgedec.errors import BundleError, CheckFailedError, InputError
from edgedec.export.graphs import decoder_stages, parse_stages
from edgedec.export.quantized import quantize_source
from edgedec.export.replay import Action, Fed, Replayed, replay
from edgedec.export.verify_depth import verify_depth, verify_variants
from edgedec.quantize.options import QuantizeOptions
from edgedec.runtime.bundle import Bundle, open_bundle
from edgedec.runtime.components import Components
from edgedec.runtime.contract import check_encoder
from edgedec.runtime.decoder import Decoding
from edgedec.runtime.depth.layout import Needs
from edgedec.runtime.encoder import Encoder, Memory
from edgedec.runtime.manifest import Stage
from edgedec.runtime.session import host_array

MODULE = re.compile(r"(encoder|decoder|head|meta|router)(\.[A-Za-z0-9_]+)*")
SOURCE = [3, 5, 8, 13]
TOLERANCE = 1e-4
FULL: tuple[Action, ...] = ("full", "full", "full", "full")
ACTIONS: tuple[Action, ...] = ("full", "fill", "low-rank", "skip")


@pytest.fixture(scope="module", params=STACKS)
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Made:
    """A bundle with everything, of each kind."""
    return make(request.param, tmp_path_factory.mktemp("depth") / request.param)


@pytest.fixture(scope="module")
def qwen(tmp_path_factory: pytest.TempPathFactory) -> Made:
    return make("qwen", tmp_path_factory.mktemp("qwen") / "bundle", meta="mlp")


def session(bundle: Bundle, name: str) -> Any:
    path = bundle.path(bundle.manifest.components[name].file)
    return get_device("cpu").open(path, threads=1, shared=True)


@cache
def components_of(made: Made) -> tuple[Components, Memory | None]:
    """The decoder's graphs, and what the encoder says of `SOURCE`."""
    manifest = made.bundle.manifest
    components = Components(manifest, lambda name: session(made.bundle, name))
    if manifest.encoder is None:
        return components, None
    encoder = Encoder(session(made.bundle, "encoder"), manifest.interface, with_mean=True)
    return components, encoder.encode([SOURCE], 0)


def start(made: Made) -> tuple[Decoding, list[int] | None]:
    """A row to decode with the bundle's graphs, and its source."""
    components, memory = components_of(made)
    return Decoding(components, memory, 1, anchors=True), None if memory is None else SOURCE


def same_caches(decoding: Decoding, expected: Replayed) -> None:
    for layer in range(LAYERS):
        length = len(expected.keys[layer])
        assert decoding.cache.lengths[layer].tolist() == [length]
        view = decoding.cache.view(layer, length)
        key, value = (host_array("past", part) for part in view)
        np.testing.assert_allclose(key[0], expected.keys[layer], atol=TOLERANCE)
        np.testing.assert_allclose(value[0], expected.values[layer], atol=TOLERANCE)


@settings(max_examples=15)
@given(
    prompt=st.lists(st.integers(0, VOCAB - 1), min_size=1, max_size=4),
    plan=st.lists(
        st.tuples(st.integers(0, VOCAB - 1), *[st.sampled_from(ACTIONS)] * (len(CUTS) - 1)),
        max_size=5,
    ),
)
def test_caches_and_states_are_those_of_the_reference(
    made: Made, prompt: list[int], plan: list[tuple[Any, ...]]
) -> None:
    """Whatever each stage does with each token."""
    decoding, source = start(made)
    stages = decoding.components.stages
    decoding.feed(np.array([prompt]))
    for index in range(len(stages)):
        decoding.run(index)
    row = [Fed(token, FULL) for token in prompt]
    for token, *chosen in plan:
        decoding.feed(np.array([[token]]))
        actions: list[Action] = []
        for index, (stage, action) in enumerate(zip(stages, ["full", *chosen], strict=True)):
            if action != "skip":
                decoding.run(index, action)
            actions += [action] * (stage.last - stage.first)
        row.append(Fed(token, tuple(actions)))
    expected = replay(made.reference, source, row)
    same_caches(decoding, expected)
    logits = decoding.read(want_logits=True).logits
    assert logits is not None
    wanted = made.reference.head(expected.states[None, -1:, -1])
    np.testing.assert_allclose(logits[:, -1:], wanted, atol=TOLERANCE)


def test_waiting_positions_end_in_the_same_caches(made: Made) -> None:
    """Three tokens wait before the second stage; a fourth takes them along."""
    decoding, source = start(made)
    tokens = [4, 9, 2, 7, 11]
    decoding.feed(np.array([tokens[:1]]))
    for index in range(3):
        decoding.run(index)
    for token in tokens[1:4]:
        decoding.feed(np.array([[token]]))
        decoding.run(0)
        decoding.wait()
    decoding.feed(np.array([tokens[4:]]))
    for index in range(3):
        decoding.run(index)
    row = [Fed(token, FULL) for token in tokens]
    same_caches(decoding, replay(made.reference, source, row))


def test_the_check_of_an_export_passes(made: Made) -> None:
    verify_depth(made.bundle, made.reference, TOLERANCE)
    verify_variants(made.bundle)


@pytest.mark.parametrize(
    ("tensor", "component"),
    [
        ("decoder.1.lora_adapter.B.weight", "decoder.1-3.low-rank"),
        ("decoder.3.lora_adapter.A.weight", "decoder.3-4.low-rank"),
        ("decoder.2.self_attn.k.lora_B.weight", "decoder.1-3"),
        ("meta.2.weight", "meta"),
        ("router.3.weight", "router"),
        ("router.3.bias", "router"),
    ],
)
def test_a_wrong_tensor_is_found(qwen: Made, tensor: str, component: str) -> None:
    """The reference's is changed instead of the bundle's."""
    good = qwen.weights[tensor]
    qwen.weights.put(tensor, good.map(lambda values: 1.1 * values))
    try:
        with pytest.raises(CheckFailedError, match=f"^{component} differs"):
            verify_depth(qwen.bundle, qwen.reference, TOLERANCE)
    finally:
        qwen.weights.put(tensor, good)


def test_layers_without_a_router_say_1(qwen: Made) -> None:
    hidden = np.random.default_rng(0).standard_normal((2, 3, 32)).astype(np.float32)
    score = np.empty((2, 3), np.float32)
    router = session(qwen.bundle, "router")
    router.bind({"hidden": hidden, "layer": np.array([2])}, {"score": score}).run()
    np.testing.assert_array_equal(score, np.ones((2, 3), np.float32))


def places(bundle: Bundle) -> dict[str, dict[str, tuple[str, ...]]]:
    """Component -> large tensor -> where it is stored."""
    found = {}
    for name, component in bundle.manifest.components.items():
        graph = onnx.load(bundle.path(component.file), load_external_data=False).graph
        found[name] = {
            tensor.name: tuple(entry.value for entry in tensor.external_data)
            for tensor in graph.initializer
            if tensor.external_data
        }
    return found


def coded(made: Made, out: Path, options: Mapping[str, Any]) -> Bundle:
    quantize_source(
        made.bundle.folder,
        out,
        QuantizeOptions(**options),
        lambda _what, _fraction: None,
        report=False,
    )
    return open_bundle(out)


@pytest.mark.parametrize("options", [{"method": "kmeans", "bits": 2}, {"bits": 8}], ids=str)
def test_variants_share_the_codes_of_their_stages(
    qwen: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: dict[str, Any]
) -> None:
    monkeypatch.setattr("edgedec.export.bundle.INLINE_LIMIT", 64)
    bundle = coded(qwen, tmp_path / "coded", options)
    alone = make("qwen", tmp_path / "alone", Needs())
    plain = coded(alone, tmp_path / "plain", options)
    stored = places(bundle)
    for stage in bundle.manifest.stages[1:]:
        for variant in stage.variants.values():
            codes = {n: place for n, place in stored[variant].items() if n.endswith("kv.codes")}
            assert len(codes) == stage.last - stage.first
            assert codes.items() <= stored[stage.component].items()
    assert bundle.manifest.codebooks is not None
    matrices = bundle.manifest.codebooks.matrices
    assert {"decoder.3.self_attn.q", "decoder.3.self_attn.kv"} <= matrices["decoder.3-4"].keys()
    assert [*matrices["decoder.3-4.fill"]] == ["decoder.3.self_attn.kv"]
    assert [*matrices["decoder.3-4.low-rank"]] == ["decoder.3.self_attn.kv"]
    assert not matrices["meta"]
    assert not matrices["router"]
    assert plain.manifest.codebooks is not None
    assert "decoder.3.self_attn.qkv" in plain.manifest.codebooks.matrices["decoder.3-4"]


def test_wrong_codes_of_a_variant_are_found(qwen: Made, tmp_path: Path) -> None:
    bundle = coded(qwen, tmp_path / "coded", {"method": "kmeans"})
    verify_variants(bundle)
    component = bundle.manifest.components["decoder.3-4.fill"]
    path = bundle.path(component.file)
    model = onnx.load(path)
    scales = next(t for t in model.graph.initializer if t.name.endswith("kv.row_scale"))
    scales.CopyFrom(
        onnx.numpy_helper.from_array(1.1 * onnx.numpy_helper.to_array(scales), scales.name)
    )
    onnx.save(model, path)
    with pytest.raises(CheckFailedError, match=r"^decoder\.3-4\.fill differs"):
        verify_variants(bundle)


def test_anchors_are_the_layers_outputs_with_codes(tmp_path: Path) -> None:
    """Sums and norms are one node there; a decoder cut at every layer gives the same."""
    states = []
    for cuts in ((0, 1, 3), (0, 1, 2, 3)):
        made = make("t5", tmp_path / str(len(cuts)), cuts=cuts)
        options = {"method": "kmeans", "compute": "fp32", "verify": False}
        bundle = coded(made, tmp_path / f"{len(cuts)}-coded", options)
        decoding, _ = start(replace(made, bundle=bundle))
        decoding.feed(np.array([[4, 9]]))
        for index in range(len(cuts)):
            decoding.run(index)
        decoding.feed(np.array([[7]]))
        for index in range(len(cuts)):
            decoding.run(index, "low-rank" if index else "full")
        states.append(decoding.states.copy())
    np.testing.assert_allclose(states[0], states[1], atol=TOLERANCE)


def test_valid(made: Made) -> None:
    """By the checker and strict shape inference; node names are paths, and inputs are used."""
    for component in made.bundle.manifest.components.values():
        path = made.bundle.path(component.file)
        onnx.checker.check_model(str(path), full_check=True)
        model = onnx.load(path)
        onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True, data_prop=True)
        names = [node.name for node in model.graph.node]
        assert len(set(names)) == len(names)
        assert [name for name in names if not MODULE.fullmatch(name)] == []
        used = {name for node in model.graph.node for name in node.input}
        assert {value.name for value in model.graph.input} <= used


def opened(bundle: Bundle, **changes: Any) -> Components:
    manifest = replace(bundle.manifest, **changes)
    return Components(manifest, lambda name: session(bundle, name))


def with_variants(bundle: Bundle, variants: dict[str, str]) -> tuple[Stage, ...]:
    return tuple(
        replace(stage, variants=variants if stage.first == 1 else stage.variants)
        for stage in bundle.manifest.stages
    )


def test_graphs_that_do_not_fit_are_refused(qwen: Made) -> None:
    fill, low_rank = "decoder.1-3.fill", "decoder.1-3.low-rank"
    with pytest.raises(BundleError, match=r"has an output 'hidden\.1' that this edgedec"):
        opened(qwen.bundle, stages=with_variants(qwen.bundle, {"fill": fill}))
    swapped = with_variants(qwen.bundle, {"fill": low_rank, "low-rank": fill})
    components = opened(qwen.bundle, stages=swapped)
    with pytest.raises(BundleError, match=r"has an input 'anchor\.[12]' that this edgedec"):
        components.stage(1, "fill")
    with pytest.raises(BundleError, match=r"has no input 'anchor\.1'"):
        components.stage(1, "low-rank")
    mixed = opened(qwen.bundle, meta="router", router="meta")
    with pytest.raises(BundleError, match=r"has no output 'confidence'|has an input 'layer'"):
        _ = mixed.meta
    with pytest.raises(BundleError, match=r"has no input 'layer'"):
        _ = mixed.router


def test_a_mean_that_nobody_reads_is_refused(tmp_path: Path) -> None:
    t5 = make("t5", tmp_path / "t5").bundle
    check_encoder(session(t5, "encoder"), t5.manifest.interface, with_mean=True)
    with pytest.raises(BundleError, match=r"has an output 'source\.mean'"):
        check_encoder(session(t5, "encoder"), t5.manifest.interface)


def test_stages_that_cannot_have_variants_are_refused() -> None:
    stages = parse_stages("0,1,3", 4)
    for needs in (Needs(fill=frozenset({1})), Needs(low_rank=frozenset({2}))):
        with pytest.raises(InputError, match="layers 1 to 2 of this bundle are one stage"):
            decoder_stages(stages, needs)
    with pytest.raises(InputError, match="layer 0 always runs in full"):
        decoder_stages(stages, Needs(fill=frozenset({0})))
    found = decoder_stages(stages, EVERYTHING)
    assert [[*stage.variants] for stage in found] == [
        [],
        ["fill", "low-rank"],
        ["fill", "low-rank"],
    ]
