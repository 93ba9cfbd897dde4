"""The matrices of codes that a bundle's nodes read."""

from __future__ import annotations

from collections.abc import Mapping

import onnx_ir as ir

from edgedec.devices.passes.match import attribute, constant
from edgedec.devices.passes.refusal import RefusalError
from edgedec.kernels.operator import DOMAIN
from edgedec.kernels.packing import Packed
from edgedec.runtime.manifest import CodebookMatrix

Matrices = Mapping[str, CodebookMatrix]
"""Path of the node that reads a matrix -> the matrix, as a manifest lists a component's."""
PRODUCT, ROWS = (DOMAIN, "CodebookMatMul"), (DOMAIN, "CodebookGather")
_ORDER = {PRODUCT: 6, ROWS: 5}
"""Which input holds the order of a matrix's rows; it is the last one."""


def reads_codes(node: ir.Node) -> bool:
    """Whether a node is a product with codes, or picks rows of them."""
    return (node.domain, node.op_type) in _ORDER


def matrix_of(node: ir.Node, matrices: Matrices) -> CodebookMatrix:
    """What the manifest says of the matrix that a node reads.

    Raises:
        RefusalError: it says nothing.
    """
    found = matrices.get(str(node.name))
    if found is None:
        raise RefusalError(node, "the manifest does not list its matrix")
    return found


def packed_of(node: ir.Node, matrix: CodebookMatrix) -> Packed:
    """The codes that a node reads.

    Raises:
        RefusalError: they are computed, or damaged.
    """
    at = _ORDER[node.domain, node.op_type]
    stored = [constant(value) for value in node.inputs[1:]]
    if len(stored) < 4 or any(array is None for array in stored[:4]):
        raise RefusalError(node, "its codes are no constants")
    codes, levels, row_scale, groups = stored[:4]
    order = stored[at - 1] if len(stored) >= at else None
    try:
        return Packed(
            codes,  # type: ignore[arg-type]
            levels,  # type: ignore[arg-type]
            row_scale,  # type: ignore[arg-type]
            groups,  # type: ignore[arg-type]
            bits=int(attribute(node, "bits")),
            columns=matrix.columns,
            row_order=order,
        )
    except ValueError as error:
        raise RefusalError(node, f"its codes are damaged: {error}") from error
