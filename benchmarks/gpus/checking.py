"""The kernels that are shipped, on shapes that fill no tile, against NumPy."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from edgedec.devices.gpu.arena import CudaArena
from gpus.codes import CodesProduct, Form
from gpus.contestants import CODES, form_of, tolerance
from gpus.points import Place, Point

ROWS = (1, 2, 7, 16, 33)
SHAPES = ((64, 32), (50, 100), (257, 1000), (1024, 4096))
"""N and K."""
TABLES = (1, 3)
FEW = Place("cuda", 0)
"""Two copies: nothing is timed."""


def check(arena: CudaArena) -> Iterator[dict[str, Any]]:
    """For each kernel the largest error of all products, and whether all are near enough."""
    for name in CODES:
        errors = [
            _error(arena, Point(rows, n, k), form_of(name, tables))
            for n, k in SHAPES
            for tables in TABLES
            for rows in ROWS
        ]
        right = all(error <= tolerance(name) for error in errors)  # NaN is not
        worst = max(errors, key=lambda e: float("inf") if e != e else e)  # noqa: PLR0124
        yield {"kernel": name, "products": len(errors), "error": worst, "right": right}


def _error(arena: CudaArena, point: Point, form: Form) -> float:
    product = CodesProduct(point, FEW, form, arena)
    product.launch(product.copies - 1)
    return product.error()
