"""A component's graph and its resident graph side by side, on ONNX Runtime's CPU provider."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from tests.gpu.fakes.network import for_cpu

from edgedec.devices.gpu.lowering import Form, Resident, resident_graph, save_resident
from edgedec.runtime.bundle import Bundle
from edgedec.runtime.manifest import Limits

Array = NDArray[Any]
LIMITS = Limits(rows=4, source=12, target=16)


@dataclass(frozen=True)
class Run:
    """Lengths of one run.

    Attributes:
        past: positions in the cache, one number per row.
        new: tokens of a row.
        source: tokens of each row's source; the longest is S.
        seed: of all numbers.
    """

    past: Sequence[int]
    new: int
    source: Sequence[int]
    seed: int = 0


class Pair:
    """Both forms of one component."""

    def __init__(self, bundle: Bundle, component: str, form: Form, folder: Path) -> None:
        self.resident = resident_graph(bundle, component, LIMITS, form)
        self.interface = bundle.manifest.interface
        file = bundle.path(bundle.manifest.components[component].file)
        self._before = _original(str(file))
        self._after = session(on_cpu(self.resident, folder))

    def differences(self, run: Run) -> dict[str, float]:
        """Output -> greatest difference, relative to the output's greatest number.

        Of chosen tokens, that of their logits. Outputs that only the resident graph has are left
        out.
        """
        feeds = self.feeds(run)
        wide = {name: _flat(name, array) for name, array in feeds.items()}
        before, after = _run(self._before, wide), _run(self._after, feeds)
        known = np.arange(max(run.source)) < np.array(run.source)[:, None]
        found = {}
        for name, expected in before.items():
            result = _flat(name, after[name])
            assert result.shape == expected.shape
            if expected.dtype.kind == "i":
                # where two logits are as good as equal, 16 bits may choose the other one
                chosen = np.take_along_axis(before["logits"], result[..., None], -1)
                found[name] = _error(chosen, before["logits"].max(-1, keepdims=True))
            elif name.startswith("cross.") and name != "cross.mask":
                # what is computed of padding, nobody reads
                found[name] = _error(result[known], expected[known])
            else:
                found[name] = _error(result, expected)
        return found

    def added(self, run: Run) -> dict[str, Array]:
        """Outputs that only the resident graph has."""
        after = _run(self._after, self.feeds(run))
        names = {output.name for output in self._before.get_outputs()}
        return {name: array for name, array in after.items() if name not in names}

    def ports(self) -> dict[str, tuple[str, list[Any]]]:
        """Inputs and outputs of the resident graph: type and shape."""
        found = [*self._after.get_inputs(), *self._after.get_outputs()]
        return {port.name: (port.type, port.shape) for port in found}

    def feeds(self, run: Run) -> dict[str, Array]:
        """Numbers for every input of the resident graph."""
        rng = np.random.default_rng(run.seed)
        rows, longest = len(run.past), max(run.source)
        past = np.array(run.past, np.int64)
        seen = np.arange(longest) < np.array(run.source)[:, None]
        picked = rng.integers(0, run.new, (rows, min(run.new, 3)))
        given: dict[str, Array] = {
            "past_length": past,
            "positions": past[:, None] + np.arange(run.new),
            "logit_positions": picked,
            "attention_mask": seen.astype(np.int64),
            "cross.mask": np.where(seen, 0, -1e9).astype(np.float32)[:, None, None],
            "layer": np.array([rng.integers(0, self.interface.decoder_layers)]),
        }
        lengths = {"batch": rows, "new": run.new, "source": longest}
        feeds = {}
        for port in self._after.get_inputs():
            shape = [lengths.get(axis, axis) for axis in port.shape]
            if port.name in given:
                feeds[port.name] = given[port.name]
            elif port.name == "input_ids":
                feeds[port.name] = rng.integers(3, self.interface.vocab_size, shape)
            else:
                kind = np.float16 if port.type == "tensor(float16)" else np.float32
                feeds[port.name] = rng.standard_normal(shape).astype(kind)
        return feeds


def on_cpu(resident: Resident, folder: Path) -> bytes:
    """A graph of any form as the CPU provider takes it: bfloat16 is float32 there."""
    folder.mkdir(parents=True, exist_ok=True)
    model = onnx.load(save_resident(resident, folder))
    for node in model.graph.node:
        kept = [a for a in node.attribute if not a.name.startswith("TRT_")]
        del node.attribute[:]
        node.attribute.extend(kept)
    return for_cpu(model)


def session(graph: str | bytes) -> onnxruntime.InferenceSession:
    """A graph on one thread of the CPU."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = 1
    # Else ONNX Runtime rounds the inputs of products with dequantized matrices to 8 bits.
    options.add_session_config_entry("session.qdq_matmulnbits_accuracy_level", "1")
    return onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])


@lru_cache(maxsize=16)
def _original(file: str) -> onnxruntime.InferenceSession:
    """A bundle's graph; with codes it takes a while to open."""
    return session(file)


def _run(session: onnxruntime.InferenceSession, feeds: Mapping[str, Array]) -> dict[str, Array]:
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, dict(feeds)), strict=True))


def _error(result: Array, expected: Array) -> float:
    error = np.abs(result - expected).max(initial=0.0)
    return float(error / max(1e-3, np.abs(expected).max(initial=0.0)))


def _flat(name: str, array: Array) -> Array:
    """A cache or memory as the bundle's graphs have it: float32, heads beside each other."""
    if array.dtype == np.float16:
        array = array.astype(np.float32)
    if not name.startswith(("past.", "present.")) or array.ndim == 3:
        return array
    rows, heads, capacity, width = array.shape
    return array.transpose(0, 2, 1, 3).reshape(rows, capacity, heads * width)
