"""TensorRT-RTX's own parser and builder take resident graphs; no engine is executed here."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from tests.depth.models import make
from tests.export import tiny
from tests.gpu.resident import LIMITS

from edgedec.builtin import resolve_bundle
from edgedec.devices.gpu.build import build_engine
from edgedec.devices.gpu.lowering import resident_graph, save_resident
from edgedec.export import export_checkpoint
from edgedec.runtime.bundle import Bundle, open_bundle
from edgedec.runtime.manifest import Limits

tensorrt_rtx = pytest.importorskip("tensorrt_rtx", reason="there is no wheel of it here")

SHAPED = Limits(rows=4, source=64, target=128)
T5_SMALL = {
    "d_model": 512,
    "d_kv": 64,
    "num_heads": 8,
    "num_layers": 1,
    "num_decoder_layers": 1,
    "relative_attention_num_buckets": 32,
    "relative_attention_max_distance": 128,
}
LLAMA = {
    "hidden_size": 256,
    "num_hidden_layers": 1,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
}
SHAPES: dict[str, tuple[str, Mapping[str, int], str]] = {
    "t5-small": ("t5", T5_SMALL, "d_ff"),
    "llama": ("llama", LLAMA, "intermediate_size"),
}
"""Name -> family, shape with fewer layers, and what the hidden units are called."""
SIZES = (1536, 2000), (2048, 3000)
"""Hidden units and tokens of a smaller and a larger model. Tables of fewer tokens have 8 bits, and
blocks of fewer units other kernels."""
TOLERANCE = 0.15
"""Of an engine's growth beside that of the weights: kernels are chosen by size, too."""


def engine(bundle: Bundle, component: str, limits: Limits, folder: Path) -> tuple[int, int]:
    """Build a component's engine; bytes of it, and of the weights of its graph."""
    resident = resident_graph(bundle, component, limits, "native")
    folder.mkdir(parents=True)
    path = save_resident(resident, folder)
    # It refuses whatever the parser drops ("Unused Input").
    built = build_engine(tensorrt_rtx, path, resident.profiles, plugin=False)
    return len(built), (folder / "weights.bin").stat().st_size


def test_g2p(tmp_path: Path) -> None:
    bundle = open_bundle(resolve_bundle("g2p"))
    for component in bundle.manifest.components:
        size, weights = engine(bundle, component, SHAPED, tmp_path / component)
        assert size > weights


@pytest.mark.parametrize("name", SHAPES)
def test_engines_keep_codes(name: str, tmp_path: Path) -> None:
    """What engines of a larger model weigh more is the codes, tables and scales that it has more.

    The rest of an engine is kernels, of which it has as many for any size.
    """
    family, shape, hidden = SHAPES[name]
    made = []
    for units, tokens in SIZES:
        config = {**shape, hidden: units, "vocab_size": tokens}
        folder = tmp_path / str(units)
        bundle = coded(family, config, folder)
        made.append(engine(bundle, "decoder", SHAPED, folder / "engine"))
    engines, weights = (after - before for before, after in zip(*made, strict=True))
    assert abs(engines - weights) < TOLERANCE * weights


def test_parts_for_depth_policies(tmp_path: Path) -> None:
    bundle = make("t5", tmp_path / "bundle", cuts=(0, 1)).bundle
    stages = {"encoder", *(stage.component for stage in bundle.manifest.stages[1:])}
    for component in bundle.manifest.components.keys() - stages:
        engine(bundle, component, LIMITS, tmp_path / component)


def test_caches_are_updated_in_place(tmp_path: Path) -> None:
    bundle = open_bundle(tiny_bundle("llama", tmp_path))
    resident = resident_graph(bundle, "decoder", LIMITS, "native")
    network, _builder, _parser = parse(save_resident(resident, tmp_path))
    layers = [network.get_layer(i) for i in range(network.num_layers)]
    updates = [x for x in layers if x.type == tensorrt_rtx.LayerType.KV_CACHE_UPDATE]
    found = {x.get_input(0).name: x.get_output(0).name for x in updates}
    caches = [f"{i}.self.{part}" for i in range(tiny.LAYERS) for part in ("key", "value")]
    assert found == {f"past.{cache}": f"present.{cache}" for cache in caches}


def coded(family: str, config: Mapping[str, int], folder: Path) -> Bundle:
    """A random checkpoint of some shape with codes of 4 bits."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(tiny.CONFIGS, family, {**tiny.CONFIGS[family], **config})
        checkpoint = tiny.write(folder / "checkpoint", family)
    out = folder / "bundle"
    return open_bundle(
        export_checkpoint(checkpoint, out, quant="cb4", method="kmeans", verify=False)
    )


def tiny_bundle(family: str, folder: Path) -> Path:
    """A few kilobytes of a model."""
    return export_checkpoint(tiny.write(folder / "tiny", family), folder / "out", verify=False)


def parse(path: Path) -> tuple[Any, ...]:
    """A graph as TensorRT-RTX reads it, and what must live as long."""
    builder = tensorrt_rtx.Builder(tensorrt_rtx.Logger(tensorrt_rtx.Logger.ERROR))
    network = builder.create_network(0)
    parser = tensorrt_rtx.OnnxParser(network, tensorrt_rtx.Logger(tensorrt_rtx.Logger.ERROR))
    assert parser.parse_from_file(str(path))
    return network, builder, parser
