"""Which values graphs of fixed shapes compute with, observed on text."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any, cast

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from edgedec.devices.npu.lower import StaticModel
from edgedec.devices.npu.precision import Range, Ranges, observe
from edgedec.devices.options import session_options
from edgedec.export.bundle import Progress
from edgedec.export.feeding import predictions, start_of
from edgedec.export.passages import Passage, first_tokens
from edgedec.runtime.bundle import Bundle
from edgedec.runtime.encoder import Memory
from edgedec.runtime.generator import Generator
from edgedec.runtime.session import Array, Binding, OnnxSession, Session, host_array
from edgedec.runtime.static.bias import read_bias
from edgedec.runtime.static.components import open_static
from edgedec.runtime.static.decoding import StaticDecoding
from edgedec.runtime.static.encoder import StaticEncoder
from edgedec.runtime.static.memory import StaticMemory

TOKENS = 1024
"""Tokens that graphs are observed at: the least and greatest values hardly move with more."""


class Observed(OnnxSession):
    """A graph that also returns all that it computes, of which its runner need not know.

    Args:
        name: its file, for messages.
        inference: an ``onnxruntime.InferenceSession``.
        outputs: what its runner knows.
        ranges: are told of every value that goes in and comes out.
    """

    def __init__(self, name: str, inference: Any, outputs: Sequence[str], ranges: Ranges) -> None:
        super().__init__(name, inference)
        self._ranges = ranges
        self._every = list(self.outputs)
        self.outputs = {name: self.outputs[name] for name in outputs}

    def bind(self, inputs: Mapping[str, Array], outputs: Mapping[str, Array]) -> Binding:
        """As every session does."""
        read = {name: host_array(name, inputs[name]) for name in self.inputs}
        written = {name: host_array(name, array) for name, array in outputs.items()}
        return _ObservedRun(self._inference, read, written, self._every, self._ranges)


class _ObservedRun(Binding):
    """A run whose values are looked at."""

    def __init__(
        self,
        inference: Any,
        inputs: Mapping[str, NDArray[Any]],
        outputs: Mapping[str, NDArray[Any]],
        every: list[str],
        ranges: Ranges,
    ) -> None:
        self._inference, self._inputs, self._outputs = inference, inputs, outputs
        self._every, self._ranges = every, ranges

    def run(self) -> float:
        began = perf_counter()
        values = self._inference.run(self._every, dict(self._inputs))
        found = dict(zip(self._every, values, strict=True))
        for name, array in self._outputs.items():
            np.copyto(array, found[name])
        self._ranges.update({**self._inputs, **found})
        return perf_counter() - began


def observe_ranges(
    exact: Generator,
    model: StaticModel,
    written: Bundle,
    passages: Sequence[Passage],
    progress: Progress,
) -> dict[str, dict[str, Range]]:
    """Run graphs over text, and see which values they compute with.

    Args:
        exact: of the floating-point model, which encodes where the encoder's graph is its own.
        model: graphs of fixed shapes in float32.
        written: the same, with their weights in files beside which some more are written.
        passages: what is fed; the first of them serve.
        progress: told the fraction that is done.

    Returns:
        Component -> value -> the least and the greatest.
    """
    ranges = {name: Ranges() for name in model.models}

    def observed(component: str) -> Session:
        graph = model.models[component]
        known = [str(value.name) for value in graph.graph.outputs]
        path = written.path(f"{component}.observed.onnx")
        path.write_bytes(ir.serde.serialize_model(observe(graph)).SerializeToString())
        return Observed(path.name, _open(path), known, ranges[component])

    encode = _encoding(exact, written, observed)
    chosen = first_tokens(passages, TOKENS)
    told = partial(progress, "calibrating")
    if model.static.decoder is None:
        for done, passage in enumerate(chosen):
            encode(passage.source)
            told((done + 1) / len(chosen))
    else:
        components = open_static(written, observed)
        predictions(lambda source: StaticDecoding(components, encode(source), 1), chosen, told)
    return {name: found.found() for name, found in ranges.items()}


def _encoding(
    exact: Generator, written: Bundle, observed: Callable[[str], Session]
) -> Callable[[tuple[int, ...] | None], Memory | StaticMemory | None]:
    """What gives the decoder its memory: the encoder of fixed shapes, or the model's own."""
    manifest = written.manifest
    static = manifest.static
    if manifest.encoder is None or static is None or static.encoder is None:
        # Of a bundle as docs/bundle.md has it, which the model is here.
        return lambda source: cast("Memory | None", start_of(exact)(source).memory)
    table = static.encoder.bias
    bias = read_bias(written.path(table.file), table)
    encoder = StaticEncoder(observed(manifest.encoder), manifest.interface, static, bias)
    return lambda source: encoder.encode([source or ()], manifest.generation.pad_token_id or 0)


def _open(path: Path) -> Any:
    import onnxruntime

    options = session_options(None, shared=True, records=None)
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
