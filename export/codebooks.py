"""Put codes into a model's graphs, and say what came out."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray

from edgedec.devices.base import CodebookDevice
from edgedec.devices.matrices import PackedMatrix
from edgedec.export.learn import Key
from edgedec.export.route import Graphs
from edgedec.kernels.codebook_matmul import (
    BLOCK_COLUMNS,
    Compute,
    quantize_inputs,
    to_bfloat16,
)
from edgedec.kernels.operator import DOMAIN
from edgedec.quantize.codebook import CodebookTensor
from edgedec.quantize.matrices import Matrix
from edgedec.runtime.bundle import Bundle
from edgedec.runtime.manifest import CodebookMatrix, CodebookPart, Codebooks, Rounding

Array = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Lowered:
    """A model whose graphs hold codes.

    Attributes:
        scheme: name of the weight format.
        method: what chose the codes.
        compute: how products are computed where the library is.
        portable: whether everything but the matrices stayed in standard operators.
        matrices: component -> its matrices.
    """

    scheme: str
    method: str
    compute: Compute
    portable: bool
    matrices: Mapping[str, Sequence[PackedMatrix]]

    def values(self, component: str, names: Collection[str]) -> dict[str, Array]:
        """What the codes of some of a component's matrices stand for, by name."""
        found: dict[str, Array] = {}
        for matrix in self.matrices[component]:
            if any(part.name in names for part in matrix.parts):
                ends = np.cumsum([part.rows for part in matrix.parts])[:-1]
                parts = np.split(matrix.packed.dequantize(), ends)
                found |= {p.name: v for p, v in zip(matrix.parts, parts, strict=True)}
        return found

    def block(self, rounding: Rounding | None) -> Codebooks:
        """What the manifest says of it."""
        return Codebooks(
            scheme=self.scheme,
            compute=self.compute,
            portable=self.portable,
            rounding=rounding,
            method=self.method,
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
    graphs: Graphs,
    device: CodebookDevice,
    tensors: Mapping[Key, CodebookTensor],
    compute: Compute,
    *,
    scheme: str,
    method: str,
    portable: bool,
    full: Mapping[str, str] | None = None,
) -> Lowered:
    """Let a device put codes into a model's graphs, in place.

    Args:
        graphs: with floating-point weights.
        device: that will run them.
        tensors: component and initializer -> its codes; equal ends of a model have the same object.
        compute: how products are computed.
        scheme: the format's name.
        method: what chose the codes.
        portable: leave everything but the matrices in standard operators.
        full: component -> the one under whose name its matrices are in ``tensors``, where these
            differ.
    """
    full = {name: name for name in graphs} | dict(full or {})
    keys = {
        id(value): (full[name], str(value.name))
        for name, model in graphs.items()
        for value in model.graph.initializers.values()
    }

    def quantize(matrix: Matrix) -> CodebookTensor:
        return tensors[keys[id(matrix.stored)]]

    matrices = device.lower(graphs, quantize, compute=compute, portable=portable)
    return Lowered(scheme, method, compute, portable, matrices)


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
            write_in_fp32(bundle.path(component.file), files[name])
            components[name] = replace(component, file=files[name].name)
        yield replace(bundle, manifest=replace(bundle.manifest, components=components))
    finally:
        for path in files.values():
            path.unlink(missing_ok=True)


def write_in_fp32(graph: Path, out: Path) -> None:
    """Write a graph again, into the same folder, with products that don't round."""
    model = onnx.load(graph, load_external_data=False)
    for node in model.graph.node:
        for attribute in node.attribute:
            if (node.domain, attribute.name) == (DOMAIN, "compute"):
                attribute.s = b"fp32"
    out.write_bytes(model.SerializeToString())


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
