"""What the manifest of a bundle of fixed shapes may not say."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edgedec.errors import BundleError


def change(section: str, **values: Any) -> Callable[[dict[str, Any]], object]:
    def edit(manifest: dict[str, Any]) -> None:
        place = manifest
        for key in section.split("."):
            place = place[key]
        place.update(values)

    return edit


CONTRADICTIONS: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "no heads": (change("static", kv_heads=0), r"a size in 'static' .* \(kv_heads\)"),
    "heads that do not divide": (
        change("static", kv_heads=3),
        r"a size in 'static' .* \(kv_heads\)",
    ),
    "a huge cache": (
        change("static.decoder", past=1 << 40),
        r"a size in 'static' .* \(decoder\.past, decoder\.bias\.reach\)",
    ),
    "a short table": (change("static.decoder.bias", reach=4), r"\(decoder\.bias\.reach\)"),
    "a table of another size": (change("static.decoder.bias", heads=3), "not of its size"),
    "a table that is not listed": (change("static.encoder.bias", file="x.bin"), "not listed"),
    "a longer source": (change("interface", max_source=10), "longer inputs or outputs"),
    "any target": (change("interface", max_target=None), "longer inputs or outputs"),
    "two sources": (change("static.encoder", source=8), "contradict each other"),
    "no source": (change("static.decoder", source=None), "contradict each other"),
    "a chunk alone": (change("static.decoder", chunk=1), "'prefill' and 'chunk'"),
    "a prefill that is the decoder": (
        change("static.decoder", chunk=1, prefill="decoder"),
        "one component is named twice",
    ),
    "a prefill that is not there": (change("static.decoder", chunk=1, prefill="x"), "not listed"),
    "nothing": (change("static", encoder=None, decoder=None), "neither an encoder nor a decoder"),
    "a scale of 0": (change("static", grids={"x": {"scale": 0.0, "zero_point": 0}}), "a grid"),
    "a context that is not listed": (
        change("components.decoder", contexts={"sm8650": "x.onnx"}),
        "compiled graph",
    ),
    "a context for a path": (
        change("components.decoder", contexts={"../x": "decoder.onnx"}),
        "compiled graphs of decoder cannot be",
    ),
    "a share above 1": (
        change(
            "static",
            agreement={
                "text": "t",
                "inputs": 1,
                "tokens": 1,
                "soc": None,
                "device": None,
                "cpu": 1.5,
                "device_cpu": None,
            },
        ),
        "'agreement' cannot be",
    ),
    # these fit each other, but not the graphs
    "another cache": (change("static.decoder", past=10), "longer inputs or outputs"),
    "fewer heads": (change("static", kv_heads=1), "does not belong to this bundle's manifest"),
    "several steps": (change("static.decoder", unroll=2), "does not belong|a size in"),
    "a grid of floats": (
        change("static", grids={"past.0.self.key": {"scale": 0.1, "zero_point": 0}}),
        "does not belong",
    ),
}


@pytest.mark.parametrize("name", CONTRADICTIONS)
def test_manifests(fixed_victim: Any, name: str) -> None:
    edit, words = CONTRADICTIONS[name]
    fixed_victim.manifest(edit)
    assert re.search(words, fixed_victim.complaint())


def test_a_standard_bundle_that_says_it_is_fixed(victim: Any, fixed: Path) -> None:
    """Memory of fixed sizes would be bound to graphs that write more."""
    static = json.loads((fixed / "edgedec.json").read_text())
    for name in ("encoder.bias.bin", "decoder.bias.bin"):
        (victim / name).write_bytes((fixed / name).read_bytes())

    def edit(manifest: dict[str, Any]) -> None:
        manifest["static"], manifest["interface"] = static["static"], static["interface"]
        manifest["files"] |= {k: v for k, v in static["files"].items() if k.endswith(".bias.bin")}

    victim.manifest(edit)
    assert "does not belong to this bundle's manifest" in victim.complaint()


def test_a_table_of_no_numbers(fixed_victim: Any) -> None:
    path = fixed_victim / "decoder.bias.bin"
    path.write_bytes(b"\xff" * path.stat().st_size)
    fixed_victim.rehash()
    assert "is no table of biases" in fixed_victim.complaint(BundleError)
