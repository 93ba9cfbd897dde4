"""Check the graphs of depth policies: variants of stages, classifier, routers."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgedec.devices.base import get_device
from edgedec.errors import CheckFailedError
from edgedec.export.reference import Array, Reference
from edgedec.export.replay import Fed, Replayed, replay
from edgedec.export.verify import TOLERANCE
from edgedec.runtime.bundle import Bundle
from edgedec.runtime.components import Components
from edgedec.runtime.decoder import Decoding
from edgedec.runtime.depth.plan import Variant
from edgedec.runtime.encoder import Encoder, Memory
from edgedec.runtime.session import Session, empty, host_array

SOURCE, PROMPT, STEPS = 5, 3, 4
"""Tokens of the source; of the target in one pass, and then one by one, by turns in every variant
that a stage has."""
SIZES = {"batch": 1, "new": 2, "capacity": 8, "source": SOURCE}
"""Lengths of axes where single graphs are tried."""
VARIANTS: tuple[Variant, ...] = ("fill", "low-rank")


def verify_depth(bundle: Bundle, reference: Reference, tolerance: float) -> None:
    """Compare everything that only depth policies use with the reference, on random tokens.

    Args:
        bundle: what was written, with floating-point weights.
        reference: the model in NumPy, with adapters, routers and classifier.
        tolerance: largest accepted difference, as a fraction of the largest value.

    Raises:
        CheckFailedError: a graph differs by more; with its name.
    """
    manifest = bundle.manifest
    open_component = _opener(bundle)
    check = _Check(tolerance)
    if any(stage.variants for stage in manifest.stages):
        _verify_variants(Components(manifest, open_component), bundle, reference, check)
    states = np.random.default_rng(1).standard_normal((1, 2, manifest.interface.d_model))
    hidden = states.astype(np.float32)
    if manifest.meta is not None:
        found = _run(open_component(manifest.meta), {"hidden": hidden})["confidence"]
        check(manifest.meta, "confidence", found, reference.confidence(hidden))
    if manifest.router is not None:
        router = open_component(manifest.router)
        for layer in manifest.routed:
            found = _run(router, {"hidden": hidden, "layer": np.array([layer])})["score"]
            check(manifest.router, "scores", found, reference.router(layer, hidden))


def verify_variants(bundle: Bundle) -> None:
    """Compare every variant with its stage in what both compute, whatever the weights are.

    Of one input, both write the same keys and values of the first layer.

    Raises:
        CheckFailedError: they don't; with the variant's name.
    """
    open_component = _opener(bundle)
    check = _Check(TOLERANCE["fp32"])
    for stage in bundle.manifest.stages:
        if not stage.variants:
            continue
        full = _run(open_component(stage.component), {})
        for name in stage.variants.values():
            found = _run(open_component(name), {})
            for part in ("key", "value"):
                present = f"present.{stage.first}.self.{part}"
                check(name, f"{part}s", found[present], full[present])
            if not all(np.isfinite(array).all() for array in found.values()):
                raise _failed(f"{name} gives numbers that are not finite")


@dataclass(frozen=True)
class _Check:
    tolerance: float

    def __call__(self, component: str, what: str, actual: Array, expected: Array) -> None:
        reach = float(np.abs(expected).max(initial=0.0))
        difference = float(np.abs(actual - expected).max(initial=0.0))
        if not difference <= self.tolerance * reach:
            raise _failed(
                f"{component} differs from the reference by {difference:.3g} in {what} up to "
                f"{reach:.3g}"
            )


def _failed(what: str) -> CheckFailedError:
    return CheckFailedError(
        f"{what}: the bundle was not written; please report this checkpoint (--no-verify writes it "
        "all the same)."
    )


def _opener(bundle: Bundle) -> Callable[[str], Session]:
    device = get_device("cpu")

    def open_component(name: str) -> Session:
        path = bundle.path(bundle.manifest.components[name].file)
        return device.open(path, threads=1, shared=True)

    return open_component


def _verify_variants(
    components: Components, bundle: Bundle, reference: Reference, check: _Check
) -> None:
    rng = np.random.default_rng(0)
    manifest = bundle.manifest
    memory, source = None, None
    if manifest.encoder is not None:
        source = rng.integers(manifest.interface.vocab_size, size=SOURCE).tolist()
        memory = _encode(bundle, source)
        if memory.mean is not None:
            ids = np.array([source])
            states, _ = reference.remember(ids, np.ones_like(ids))
            check(manifest.encoder, "mean", memory.mean, states.mean(1))
    row, states, decoding = _rehearse(components, memory, rng)
    _compare(components, check, row, states, decoding, replay(reference, source, row))


def _encode(bundle: Bundle, source: list[int]) -> Memory:
    manifest = bundle.manifest
    assert manifest.encoder is not None
    session = _opener(bundle)(manifest.encoder)
    encoder = Encoder(session, manifest.interface, with_mean=manifest.router is not None)
    return encoder.encode([source], 0)


def _rehearse(
    components: Components, memory: Memory | None, rng: np.random.Generator
) -> tuple[list[Fed], Array, Decoding]:
    """Feed random tokens, after the prompt in another variant every time.

    Returns:
        What was fed; the states ``[tokens, stages, d_model]`` behind every stage; the caches.
    """
    io, stages = components.interface, components.stages
    tokens = rng.integers(io.vocab_size, size=min(PROMPT + STEPS, io.max_target or PROMPT + STEPS))
    decoding = Decoding(components, memory, 1, anchors=True)
    choices: list[tuple[Variant, ...]] = [
        ("full", *(v for v in VARIANTS if v in stage.variants)) for stage in stages
    ]
    row: list[Fed] = []
    states = empty(len(tokens), len(stages), io.d_model)
    first = min(PROMPT, len(tokens))
    for begin, end in [(0, first), *((t, t + 1) for t in range(first, len(tokens)))]:
        decoding.feed(tokens[None, begin:end])
        actions: list[Variant] = []
        for index, stage in enumerate(stages):
            some = choices[index]
            action = some[(begin + index) % len(some)] if begin else "full"
            decoding.run(index, action)
            states[begin:end, index] = decoding.states[0]
            actions += [action] * (stage.last - stage.first)
        row += [Fed(int(token), tuple(actions)) for token in tokens[begin:end]]
    return row, states, decoding


def _compare(
    components: Components,
    check: _Check,
    row: list[Fed],
    states: Array,
    decoding: Decoding,
    expected: Replayed,
) -> None:
    """Go through it in the order of computation: the first graph that differs is to blame."""
    for t, fed in enumerate(row):
        for index, stage in enumerate(components.stages):
            name = {"full": stage.component, **stage.variants}[fed.actions[stage.first]]
            for layer in range(stage.first, stage.last):
                view = decoding.cache.view(layer, t + 1)
                keys, values = (host_array("past", part)[0, t] for part in view)
                check(name, "keys", keys, expected.keys[layer][t])
                check(name, "values", values, expected.values[layer][t])
            check(name, "hidden states", states[t, index], expected.states[t, stage.last])


def _run(session: Session, given: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """All outputs of a graph, for what is given and else for numbers that depend on names only."""
    past = 3
    inputs: dict[str, NDArray[Any]] = {
        "past_length": np.array([past]),
        "positions": past + np.arange(SIZES["new"])[None],
        **given,
    }
    arrays = {
        name: inputs[name] if name in inputs else _numbers(name, _sizes(port.shape))
        for name, port in session.inputs.items()
    }
    outputs = {name: empty(*_sizes(port.shape)) for name, port in session.outputs.items()}
    session.bind(arrays, outputs).run()
    return outputs


def _numbers(name: str, sizes: list[int]) -> Array:
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    return rng.standard_normal(sizes, np.float32)


def _sizes(shape: tuple[str | int | None, ...]) -> list[int]:
    return [axis if isinstance(axis, int) else SIZES[str(axis)] for axis in shape]
