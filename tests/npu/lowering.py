"""Graphs of fixed shapes, fed as docs/bundle.md says, by NumPy alone: what a host has to do."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import onnxruntime
import pytest
from numpy.typing import NDArray
from tests.export.tiny import write

from edgedec.devices.npu.lower import TARGETS, Shapes, StaticModel, lower_static
from edgedec.export import export_checkpoint
from edgedec.runtime.bundle import open_bundle
from edgedec.runtime.manifest import Manifest

Array = NDArray[Any]
Run = Callable[[Mapping[str, Array]], dict[str, Array]]
Bundles = Callable[..., Path]
MASKED = -40.0
SOURCE, TARGET, CHUNK = 12, 20, 4
"""Lengths of most graphs here."""


def tiny_bundles(folders: pytest.TempPathFactory) -> Bundles:
    """What gives bundles of tiny models by family and options of the export, each made once."""

    @functools.cache
    def bundle(family: str, **options: Any) -> Path:
        folder = folders.mktemp(family)
        export_checkpoint(write(folder / "checkpoint", family), folder / "bundle", **options)
        return folder / "bundle"

    return bundle


def load(folder: Path) -> tuple[dict[str, ir.Model], Manifest]:
    """The graphs of a bundle by component, and its manifest."""
    bundle = open_bundle(folder)
    components = bundle.manifest.components
    graphs = {name: ir.load(bundle.path(item.file)) for name, item in components.items()}
    return graphs, bundle.manifest


def lower(
    folder: Path,
    source: int | None,
    target: int,
    *,
    chunk: int = 1,
    unroll: int = 1,
    device: str = "qnn",
    parts: Sequence[str] = ("encoder", "decoder"),
) -> StaticModel:
    """A bundle's graphs with fixed shapes."""
    models, manifest = load(folder)
    shapes = Shapes(source, target, chunk, unroll)
    return lower_static(models, manifest, shapes, TARGETS[device], frozenset(parts))


def runner(model: ir.Model) -> Run:
    """A graph in ONNX Runtime on the CPU."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    inline = model.clone()
    for value in inline.graph.initializers.values():
        assert value.const_value is not None
        value.const_value = ir.tensor(value.const_value.numpy(), name=value.name)
    session = onnxruntime.InferenceSession(
        ir.serde.serialize_model(inline).SerializeToString(),
        options,
        providers=["CPUExecutionProvider"],
    )
    names = [output.name for output in session.get_outputs()]
    return lambda feeds: dict(zip(names, session.run(None, dict(feeds)), strict=True))


def window(table: Array, distance: int, length: int) -> Array:
    """Biases ``[h, length]`` for keys from ``distance`` positions before the query on."""
    first = table.shape[1] // 2 - 1 - distance
    return table[:, first : first + length]


class Host:
    """Feeds a static model one sequence.

    Args:
        model: its graphs and tables.
        run: component -> what runs it.
    """

    def __init__(self, model: StaticModel, run: Mapping[str, Run]) -> None:
        self._model, self._run = model, run
        decoder = model.static.decoder
        assert decoder is not None
        self._decoder = decoder
        self._table = model.tables[decoder.bias.file]
        self._cross: dict[str, Array] = {}
        self.past: dict[str, Array] = {}
        self.length = 0
        for value in model.models["decoder"].graph.inputs:
            if str(value.name).startswith("past."):
                assert value.shape is not None
                self.past[str(value.name)] = np.zeros(value.shape.numpy(), np.float32)

    def encode(self, tokens: Sequence[int]) -> None:
        """Run the encoder for a source."""
        encoder = self._model.static.encoder
        assert encoder is not None
        size = encoder.source
        ids = np.zeros((1, size), np.int32)
        ids[0, : len(tokens)] = tokens
        padding = np.where(np.arange(size) < len(tokens), 0, MASKED).astype(np.float32)
        port = next(v for v in self._model.models["encoder"].graph.inputs if v.name == "self.bias")
        assert port.shape is not None
        rows = port.shape.numpy()[2]
        table = self._model.tables[encoder.bias.file]
        bias = np.stack([window(table, i, size) for i in range(rows)], 1) + padding
        feeds = {"input_ids": ids, "self.bias": np.maximum(bias, MASKED)[None]}
        self._cross = self._run["encoder"](feeds) | {"cross.bias": padding[None, None, None]}

    def feed(self, component: str, tokens: Sequence[int], count: int, at: int) -> dict[str, Array]:
        """Run the decoder or the prefill for tokens at the positions that follow.

        Args:
            component: which.
            tokens: to feed; a chunk may be padded.
            count: positions that the run adds.
            at: which of the tokens to score, where the graph asks.
        """
        t, past = self.length, self._decoder.past
        bias = np.empty((len(self._table), count, past + count), np.float32)
        for c in range(count):
            bias[:, c, :past] = window(self._table, t + c, past)
            bias[:, c, min(t, past) : past] = MASKED
            bias[:, c, past:] = window(self._table, c, count)
        offered = {
            "input_ids": np.array([tokens], np.int32),
            "positions": np.minimum(np.arange(t, t + count), past).astype(np.int32)[None],
            "self.bias": bias[None],
            "logit_positions": np.array([[at]], np.int32),
            **self.past,
            **self._cross,
        }
        names = [str(value.name) for value in self._model.models[component].graph.inputs]
        return self._run[component]({name: offered[name] for name in names})

    def accept(self, outputs: Mapping[str, Array], count: int) -> None:
        """Write the first rows of a run into the caches."""
        last = min(self.length + count, self._decoder.past)
        for name, cache in self.past.items():
            rows = outputs[name.replace("past", "new")][0, : last - self.length]
            heads = cache.shape[1]
            split = rows.reshape(len(rows), heads, rows.shape[1] // heads)
            if name.endswith(".key"):
                cache[0, :, :, self.length : last] = split.transpose(1, 2, 0)
            else:
                cache[0, :, self.length : last] = split.transpose(1, 0, 2)
        self.length += count

    def logits(self, tokens: Sequence[int]) -> Array:
        """Logits ``[T, V]`` of tokens that are fed one after the other."""
        found = []
        for token in tokens:
            outputs = self.feed("decoder", [token], 1, 0)
            self.accept(outputs, 1)
            assert outputs["next_token"][0, 0] == outputs["logits"].argmax()
            found.append(outputs["logits"][0, 0])
        return np.array(found)

    def prefill(self, tokens: Sequence[int]) -> Array:
        """Logits ``[V]`` of the last of tokens that are fed in chunks."""
        size = self._decoder.chunk
        assert size is not None
        for first in range(0, len(tokens), size):
            part = list(tokens[first : first + size])
            padded = part + [0] * (size - len(part))
            outputs = self.feed("prefill", padded, size, len(part) - 1)
            self.accept(outputs, len(part))
        logits: Array = outputs["logits"][0, 0]
        return logits

    def greedy(self, token: int, runs: int) -> list[int]:
        """What unrolled runs choose after a token, so many times several steps."""
        chosen: list[int] = []
        for _ in range(runs):
            outputs = self.feed("decoder", [token], self._decoder.unroll, 0)
            self.accept(outputs, self._decoder.unroll)
            chosen += outputs["next_token"][0].tolist()
            token = chosen[-1]
        return chosen


def host(model: StaticModel) -> Host:
    """A static model on the CPU."""
    return Host(model, {name: runner(graph) for name, graph in model.models.items()})


def dynamic_logits(folder: Path, source: Sequence[int] | None, tokens: Sequence[int]) -> Array:
    """Logits ``[T, V]`` of a bundle's own graphs, all tokens at once."""
    models, manifest = load(folder)
    run = {name: runner(model) for name, model in models.items()}
    count = len(tokens)
    feeds: dict[str, Array] = {}
    if source is not None:
        ids = np.array([source], np.int64)
        feeds = run["encoder"]({"input_ids": ids, "attention_mask": np.ones_like(ids)})
    width = manifest.interface.kv_width
    for i in range(manifest.interface.decoder_layers):
        for part in ("key", "value"):
            feeds[f"past.{i}.self.{part}"] = np.zeros((1, count, width), np.float32)
    places = np.arange(count)[None]
    feeds |= {
        "input_ids": np.array([tokens], np.int64),
        "past_length": np.zeros(1, np.int64),
        "positions": places,
        "logit_positions": places,
    }
    names = [str(value.name) for value in models["decoder"].graph.inputs]
    logits: Array = run["decoder"]({name: feeds[name] for name in names})["logits"][0]
    return logits
