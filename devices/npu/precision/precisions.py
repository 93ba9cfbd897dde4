"""Ways to store a static graph's numbers: what each of them is, as data."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal

from edgedec.devices.npu.precision.weights import Weight
from edgedec.errors import InputError

Kv = Literal["fp16", "u8", "s16"]
"""How keys and values travel: float16, uint8 with a zero point, or int16 without one."""
BLOCKS = (32, 16)
"""Weights that share a scale, along a product's inputs, where a format has such blocks: the first
number of them that divides the inputs."""
SCALE_BITS = 32
"""Of a scale that DequantizeLinear reads: float32."""
HALF_BITS = 16
"""Of all other scales: float16."""
LEVEL_BITS = 8
"""Of a block's scale where it is a whole multiple of its output's scale (``lpbq``)."""


@dataclass(frozen=True)
class Precision:
    """One way to store numbers.

    Attributes:
        name: as ``--quant`` takes it.
        bits: of one weight.
        blocks: whether products' weights have a scale per block of inputs; else they have one per
            output.
        calibrated: whether activations are integers too, so that their ranges must be known.
        kv: how keys and values may travel; the first is the default.
    """

    name: str
    bits: int
    blocks: bool
    calibrated: bool
    kv: tuple[Kv, ...]

    def needs_ranges(self, kv: str) -> bool:
        """Whether ranges must be observed: integers among the activations, or as a cache."""
        return self.calibrated or kv != "fp16"


PRECISIONS = {
    precision.name: precision
    for precision in (
        Precision("fp16", 16, blocks=False, calibrated=False, kv=("fp16", "u8")),
        Precision("nbits8", 8, blocks=True, calibrated=False, kv=("fp16", "u8")),
        Precision("nbits4", 4, blocks=True, calibrated=False, kv=("fp16", "u8")),
        Precision("w8a16", 8, blocks=False, calibrated=True, kv=("u8", "s16")),
        Precision("w4a16", 4, blocks=False, calibrated=True, kv=("u8", "s16")),
        Precision("lpbq", 4, blocks=True, calibrated=True, kv=("u8", "s16")),
    )
}


def get_precision(name: str, kv: str | None = None) -> Precision:
    """A precision by name.

    Raises:
        InputError: there is none of that name, or its keys and values cannot be stored as ``kv``.
    """
    found = PRECISIONS.get(name)
    if found is None:
        raise InputError(f"{name!r} is no precision: choose one of {', '.join(PRECISIONS)}.")
    if kv is not None and kv not in found.kv:
        raise InputError(
            f"keys and values of {name} cannot be {kv!r}: choose one of {', '.join(found.kv)}."
        )
    return found


def block_size(columns: int) -> int:
    """How many of a product's inputs share a scale, 0 where no size of blocks fills them."""
    return next((size for size in BLOCKS if columns % size == 0), 0)


def weight_bits(precision: Precision, weight: Weight, eight: Collection[str] = ()) -> int:
    """Bits of one code of a weight; ``eight`` names those that have 8 whatever the precision.

    What does not divide into blocks stays float16, and pairs of 4 bits need an even width.
    """
    bits = 8 if precision.bits < 8 and weight.name in eight else precision.bits
    if weight.role == "embedding":
        return 8 if bits == 4 and weight.columns % 2 else bits
    weight_only = precision.blocks and not precision.calibrated
    return 16 if weight_only and not block_size(weight.columns) else bits


def bits_per_weight(precision: str, weight: Weight, eight: Collection[str] = ()) -> float:
    """Bits per weight of a matrix with its scales and zero points, as a graph stores it."""
    spec = get_precision(precision)
    bits = weight_bits(spec, weight, eight)
    if bits == 16:
        return 16.0
    if weight.role == "embedding":
        return bits + HALF_BITS / weight.columns
    block = block_size(weight.columns)
    if spec.blocks and not spec.calibrated:
        return bits + HALF_BITS / block
    if spec.blocks and bits == 4 and block:
        return bits + (LEVEL_BITS + bits) / block + (SCALE_BITS + LEVEL_BITS) / weight.columns
    return bits + (SCALE_BITS + bits) / weight.columns
