"""How a static graph's numbers are stored: 4, 8 or 16 bits, and on which grids."""

from edgedec.devices.npu.precision.apply import apply_precision, round_weight
from edgedec.devices.npu.precision.precisions import (
    PRECISIONS,
    Precision,
    bits_per_weight,
    get_precision,
    weight_bits,
)
from edgedec.devices.npu.precision.ranges import Range, Ranges, observe
from edgedec.devices.npu.precision.weights import Weight, weights_of

__all__ = [
    "PRECISIONS",
    "Precision",
    "Range",
    "Ranges",
    "Weight",
    "apply_precision",
    "bits_per_weight",
    "get_precision",
    "observe",
    "round_weight",
    "weight_bits",
    "weights_of",
]
