"""Who takes part, as data."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from typing import TYPE_CHECKING

from gpus.lanes import HostLane, Lane, Product
from gpus.points import Place, Point

CODES = tuple(
    f"cb{bits} {tactic}{' bf16' if dtype == 'bf16' else ''}"
    for dtype, tactic, bits in product(("fp16", "bf16"), ("gemv", "gemm"), (4, 3, 2, 8))
)
"""Ours: bits, kernel, and the type of x where it is not float16."""
STREAMS = ("copy", "read")
"""What the GPU's memory gives."""
BASELINES = ("cublas fp16", "torch int4", "triton fp16")
NAMES = (*STREAMS, *BASELINES, *CODES)
DEFAULT = tuple(name for name in NAMES if not name.endswith("bf16"))
if TYPE_CHECKING:
    from gpus.codes import Form

Make = Callable[[Point], Product]


TOLERANCES = {"fp16": 2e-3, "bf16": 1e-2}
"""The largest norm of a difference by the norm of the result, which is rounded to such a type."""


def tolerance(name: str) -> float:
    """How far a contestant may be from NumPy."""
    return TOLERANCES["bf16" if name.endswith(("bf16", "int4")) else "fp16"]


def contestant(name: str, place: Place) -> tuple[Lane, Make]:
    """A contestant's stream, and what makes its products.

    Raises:
        MissingDependencyError: a package that it needs is not installed.
        MissingDeviceError: there is no GPU.
    """
    if name in CODES:
        from edgedec.devices.gpu.arena import arena
        from gpus.codes import CodesProduct, DriverLane

        memory, form = arena(), form_of(name)
        return DriverLane(memory), lambda point: CodesProduct(point, place, form, memory)
    from gpus import torch_products as others

    makers: dict[str, Callable[[Point, Place], Product]] = {
        "copy": others.copying,
        "read": others.reading,
        "cublas fp16": others.cublas,
        "torch int4": others.int4,
        "triton fp16": others.plain_triton,
    }
    lane = HostLane() if place.device == "cpu" else others.TorchLane()
    return lane, lambda point: makers[name](point, place)


def form_of(name: str, tables: int = 1) -> Form:
    """Which kernel one of `CODES` is."""
    from gpus.codes import Form

    bits, tactic, *dtype = name.removeprefix("cb").split()
    return Form(tactic, int(bits), *dtype, tables=tables)  # type: ignore[arg-type]
