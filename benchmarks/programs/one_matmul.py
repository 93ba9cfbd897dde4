"""One matrix product in ONNX Runtime: the weight in one of several formats, in a cache or not.

A session has many nodes of the same product, so that what a run costs besides does not count. They
share one weight (``hot``); or each has its own: as many bytes as no cache holds (``cold``), or as
many weights as a small model has (``model``), whatever bytes that is in this format.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from protocol import answer

from edgedec.kernels.library import register
from edgedec.kernels.operator import DOMAIN, VERSION
from edgedec.kernels.packing import INT8_LEVELS, pack
from edgedec.quantize.codebook import CodebookTensor

Arrays = dict[str, NDArray[Any]]
HOT_NODES = 16
MODEL_WEIGHTS = 24_000_000
"""About a T5-small decoder without its head."""


@dataclass(frozen=True)
class Task:
    """A format, a shape (``inputs`` K, ``outputs`` N), threads, and the bytes of "cold"."""

    format: str
    inputs: int
    outputs: int
    threads: int
    cold_bytes: int


@dataclass(frozen=True)
class Format:
    """How a weight is stored and multiplied.

    ``arrays(rng, K, N)`` are its initializers; ``nodes(names, y, K, N)`` compute ``y`` from ``x``
    with them.
    """

    arrays: Callable[[np.random.Generator, int, int], Arrays]
    nodes: Callable[[Mapping[str, str], str, int, int], list[onnx.NodeProto]]


def _float_arrays(rng: np.random.Generator, k: int, n: int) -> Arrays:
    return {"w": rng.standard_normal((k, n), np.float32)}


def _float_nodes(names: Mapping[str, str], y: str, k: int, n: int) -> list[onnx.NodeProto]:  # noqa: ARG001
    return [helper.make_node("MatMul", ["x", names["w"]], [y])]


def _nbits_arrays(rng: np.random.Generator, k: int, n: int) -> Arrays:
    return {
        "w": rng.integers(0, 256, (n, k // 32, 16), np.uint8),
        "scale": np.full((n, k // 32), 0.01, np.float32),
    }


def _nbits_nodes(names: Mapping[str, str], y: str, k: int, n: int) -> list[onnx.NodeProto]:
    node = helper.make_node(
        "MatMulNBits",
        ["x", names["w"], names["scale"]],
        [y],
        domain="com.microsoft",
        K=k,
        N=n,
        bits=4,
        block_size=32,
        accuracy_level=4,
    )
    return [node]


def _int8_arrays(rng: np.random.Generator, k: int, n: int) -> Arrays:
    return {
        "w": rng.integers(-127, 128, (k, n), np.int8),
        "zero": np.zeros((), np.int8),
        "scale": np.full((), 0.01, np.float32),
    }


def _int8_nodes(names: Mapping[str, str], y: str, k: int, n: int) -> list[onnx.NodeProto]:  # noqa: ARG001
    """As ONNX Runtime's dynamic quantization writes it; it fuses this into one operator."""
    make = helper.make_node
    q, scale, zero, integer, number, both = (f"{y}.{part}" for part in "qszinb")
    return [
        make("DynamicQuantizeLinear", ["x"], [q, scale, zero]),
        make("MatMulInteger", [q, names["w"], zero, names["zero"]], [integer]),
        make("Cast", [integer], [number], to=TensorProto.FLOAT),
        make("Mul", [scale, names["scale"]], [both]),
        make("Mul", [number, both], [y]),
    ]


def _codebook(bits: int) -> Format:
    def arrays(rng: np.random.Generator, k: int, n: int) -> Arrays:
        lowest = 1 if bits == 8 else 0  # 8-bit code 0 pads
        packed = pack(
            CodebookTensor(
                codes=rng.integers(lowest, 1 << bits, (n, k), np.uint8),
                codebooks=INT8_LEVELS[None].astype(np.float32)
                if bits == 8
                else np.sort(rng.standard_normal((1, 1 << bits), np.float32)),
                row_scale=np.full(n, 0.01, np.float32),
                group_of_row=np.zeros(n, np.uint16),
                bits=bits,
            )
        )
        return {
            "w": packed.weight,
            "levels": packed.levels,
            "scale": packed.row_scale,
            "groups": packed.group_of_block,
        }

    def nodes(names: Mapping[str, str], y: str, k: int, n: int) -> list[onnx.NodeProto]:  # noqa: ARG001
        node = helper.make_node(
            "CodebookMatMul",
            ["x", *(names[part] for part in ("w", "levels", "scale", "groups"))],
            [y, "", ""],
            domain=DOMAIN,
            bits=bits,
            compute="int8",
            splits=[n, 0, 0],
        )
        return [node]

    return Format(arrays, nodes)


FORMATS = {
    "fp32": Format(_float_arrays, _float_nodes),
    "nbits4": Format(_nbits_arrays, _nbits_nodes),
    "int8": Format(_int8_arrays, _int8_nodes),
    **{f"cb{bits}": _codebook(bits) for bits in (4, 3, 2, 8)},
}


class Product:
    """A session of ``nodes`` equal products and the memory that it is bound to."""

    def __init__(self, task: Task, place: str) -> None:
        arrays = FORMATS[task.format].arrays(np.random.default_rng(0), task.inputs, task.outputs)
        self.bytes = sum(array.nbytes for array in arrays.values())
        counts = {
            "hot": HOT_NODES,
            "cold": max(2, -(-task.cold_bytes // self.bytes)),
            "model": max(2, -(-MODEL_WEIGHTS // (task.inputs * task.outputs))),
        }
        self.nodes = counts[place]
        model = _model(task, arrays, self.nodes, shared=place == "hot")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = task.threads
        options.log_severity_level = 4
        if task.format.startswith("cb"):
            refusal = register(options)
            if refusal is not None:
                sys.exit(refusal)
        self._session = onnxruntime.InferenceSession(
            model,
            options,
            providers=["CPUExecutionProvider"],
            # All nodes read one x: it would be quantized once for all of them, and shared weights
            # would make them one node.
            disabled_optimizers=["CommonSubexpressionElimination"],
        )
        self._task = task
        self._rows = 0

    def seconds(self, rows: int, budget: float) -> float:
        """Seconds of one product with ``rows`` rows, over about ``budget`` seconds."""
        if rows != self._rows:
            self._bind(rows)
        self._session.run_with_iobinding(self._binding)
        runs, begin = 0, time.perf_counter()
        while time.perf_counter() < begin + budget:
            self._session.run_with_iobinding(self._binding)
            runs += 1
        return (time.perf_counter() - begin) / runs / self.nodes

    def _bind(self, rows: int) -> None:
        self._rows, self._binding = rows, self._session.io_binding()
        rng = np.random.default_rng(1)
        self._x = rng.standard_normal((rows, self._task.inputs), np.float32)
        # All write to the same memory, as the nodes of a model that reuses its buffers do.
        self._y = np.empty((rows, self._task.outputs), np.float32)
        bind = self._binding
        bind.bind_input("x", "cpu", 0, np.float32, self._x.shape, self._x.ctypes.data)
        for i in range(self.nodes):
            bind.bind_output(f"y{i}", "cpu", 0, np.float32, self._y.shape, self._y.ctypes.data)


def _model(task: Task, arrays: Arrays, count: int, *, shared: bool) -> bytes:
    nodes, weights = [], []
    for i in range(count):
        copy = "" if shared else str(i)
        if i == 0 or not shared:
            # ONNX Runtime keeps equal weights once, after packing them: each copy is shifted.
            own = {**arrays, "w": np.roll(arrays["w"].reshape(-1), i).reshape(arrays["w"].shape)}
            weights += [numpy_helper.from_array(a, part + copy) for part, a in own.items()]
        names = {part: part + copy for part in arrays}
        nodes += FORMATS[task.format].nodes(names, f"y{i}", task.inputs, task.outputs)
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes,
        "products",
        [value("x", TensorProto.FLOAT, ["rows", task.inputs])],
        [value(f"y{i}", TensorProto.FLOAT, ["rows", task.outputs]) for i in range(count)],
        weights,
    )
    versions = {"": 24, DOMAIN: VERSION, "com.microsoft": 1}
    sets = [helper.make_opsetid(*pair) for pair in versions.items()]
    model = helper.make_model(graph, opset_imports=sets, ir_version=11)
    content: bytes = model.SerializeToString()
    return content


def main(task: Task) -> None:
    """Answer requests ``{"rows", "place", "budget"}`` with microseconds per product."""
    products: dict[str, Product] = {}
    answer({"version": onnxruntime.__version__})
    for line in sys.stdin:
        request = json.loads(line)
        place = request["place"]
        if place not in products:
            products[place] = Product(task, place)
        seconds = products[place].seconds(request["rows"], request["budget"])
        answer({"us": 1e6 * seconds, "bytes": products[place].bytes})


if __name__ == "__main__":
    main(Task(**json.loads(sys.argv[1])))
