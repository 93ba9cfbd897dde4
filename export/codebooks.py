"""Store weights as codes: quantize matrix by matrix, lower the graphs, say what came out."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
from numpy.typing import NDArray

from edgedec.devices.base import Device
from edgedec.devices.matrices import PackedMatrix
from edgedec.errors import CheckpointError
from edgedec.export.bundle import Progress
from edgedec.export.route import Array, Coded, CodedMatrix
from edgedec.kernels.codebook_matmul import (
    BLOCK_COLUMNS,
    Compute,
    quantize_inputs,
    to_bfloat16,
)
from edgedec.kernels.operator import DOMAIN
from edgedec.kernels.packing import Packed
from edgedec.quantize.codebook import CodebookTensor
from edgedec.quantize.matrices import Matrix
from edgedec.quantize.scheme import SCHEMES, Scheme, quantize
from edgedec.runtime.bundle import Bundle
from edgedec.runtime.manifest import CodebookMatrix, CodebookPart, Codebooks, Rounding

QUANTIZING = "quantizing"


@dataclass(frozen=True, eq=False)
class Lowered:
    """A model whose graphs hold codes.

    Attributes:
        scheme: name of the weight format.
        compute: how products are computed where the library is.
        portable: whether everything but the matrices stayed in standard operators.
        matrices: component -> its matrices.
    """

    scheme: str
    compute: Compute
    portable: bool
    matrices: Mapping[str, Sequence[PackedMatrix]]

    def coded(self, compute: Compute) -> Coded:
        """The same for another implementation, whose products compute in such a way."""
        matrices = []
        for matrix in (m for component in self.matrices.values() for m in component):
            first = 0
            for part in matrix.parts:
                last = first + part.rows
                stored = partial(_rows, matrix.packed, first, last)
                matrices.append(CodedMatrix(part.name, part.read, stored))
                first = last
        return Coded(tuple(matrices), ROUNDED[compute])

    def block(self, rounding: Rounding | None) -> Codebooks:
        """What the manifest says of it."""
        return Codebooks(
            scheme=self.scheme,
            compute=self.compute,
            portable=self.portable,
            rounding=rounding,
            matrices={
                name: {
                    matrix.name: CodebookMatrix(
                        rows=matrix.packed.rows,
                        columns=matrix.packed.columns,
                        bits=matrix.packed.bits,
                        codebooks=len(matrix.packed.levels),
                        parts=tuple(CodebookPart(part.name, part.rows) for part in matrix.parts),
                    )
                    for matrix in component
                }
                for name, component in self.matrices.items()
            },
        )


def lower(
    graphs: Mapping[str, ir.Model],
    device: Device,
    scheme: str,
    compute: Compute,
    *,
    portable: bool,
    progress: Progress,
) -> Lowered:
    """Let a device put codes into a model's graphs, in place.

    Matrices are read, quantized and packed one after another: of the checkpoint's floating-point
    values no more than one matrix is in memory at a time.
    """
    progress(QUANTIZING, 0.0)
    quantizer = _Quantizer(SCHEMES[scheme], _weights(graphs), progress)
    matrices = device.lower(graphs, quantizer, compute=compute, portable=portable)
    progress(QUANTIZING, 1.0)
    return Lowered(scheme, compute, portable, matrices)


@contextmanager
def in_fp32(bundle: Bundle) -> Iterator[Bundle]:
    """The same bundle with products that don't round; its graphs exist inside of the block only.

    They lie beside the bundle's own, because that is where graphs look for their weights.
    """
    files: dict[str, Path] = {}
    try:
        components = {}
        for name, component in bundle.manifest.components.items():
            files[name] = bundle.path(f"{name}.fp32.onnx")
            model = onnx.load(bundle.path(component.file), load_external_data=False)
            for node in model.graph.node:
                for attribute in node.attribute:
                    if (node.domain, attribute.name) == (DOMAIN, "compute"):
                        attribute.s = b"fp32"
            files[name].write_bytes(model.SerializeToString())
            components[name] = replace(component, file=files[name].name)
        yield replace(bundle, manifest=replace(bundle.manifest, components=components))
    finally:
        for path in files.values():
            path.unlink(missing_ok=True)


class _Quantizer:
    """Turns matrices into codes, equal ends of a model into the same ones."""

    def __init__(self, scheme: Scheme, total: int, progress: Progress) -> None:
        self._scheme, self._total, self._progress = scheme, total, progress
        self._done = 0
        self._ends: dict[bytes, CodebookTensor] = {}

    def __call__(self, matrix: Matrix) -> CodebookTensor:
        values = matrix.read()
        self._done += values.size
        self._progress(QUANTIZING, min(self._done / self._total, 1.0))
        try:
            if matrix.role == "linear":
                return quantize(values, self._scheme)
            key = hashlib.sha256(values.data).digest()
            if key not in self._ends:
                self._ends[key] = quantize(values, self._scheme, embedding=True)
            return self._ends[key]
        except ValueError as error:
            raise CheckpointError(f"{matrix.name!r} cannot be quantized: {error}.") from error


def _weights(graphs: Mapping[str, ir.Model]) -> int:
    """About how many weights there are to quantize, for showing progress."""
    tensors = [v.const_value for m in graphs.values() for v in m.graph.initializers.values()]
    sizes = [tensor.size for tensor in tensors if tensor is not None and len(tensor.shape) == 2]
    return max(1, sum(sizes))


def _rows(packed: Packed, first: int, last: int) -> Array:
    return packed.dequantize()[first:last]


def _as_it_is(x: Array) -> Array:
    return x


def _bfloat16(x: Array) -> Array:
    return to_bfloat16(np.ascontiguousarray(x))


def _int8(x: Array, width: int | None = None) -> Array:
    """Inputs ``[..., K]`` rounded to int8 times a scale per row, or per ``width`` inputs of it."""
    flat = x.reshape(-1, x.shape[-1])
    width = width or flat.shape[1]
    blocks: list[NDArray[np.float32]] = []
    for start in range(0, flat.shape[1], width):
        codes, scale = quantize_inputs(flat[:, start : start + width])
        blocks.append(codes * scale)
    return np.concatenate(blocks, axis=1).reshape(x.shape)


ROUNDED: dict[Compute, Callable[[Array], Array]] = {
    "int8": _int8,
    "int8-block": partial(_int8, width=BLOCK_COLUMNS),
    "bf16": _bfloat16,
    "fp32": _as_it_is,
}
"""What products make of their inputs, by compute mode."""
