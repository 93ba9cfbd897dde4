"""What lowering to fixed shapes is told, and what it gives."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from edgedec.runtime.manifest import Static

ENCODER, DECODER, PREFILL = "encoder", "decoder", "prefill"
"""Names of the components that are lowered."""
MASKED = -40.0
"""Added to a score that must not count, and the least that is ever added: activations of 16 bits
share one grid with it."""


@dataclass(frozen=True)
class Shapes:
    """The lengths that graphs are fixed to.

    Attributes:
        source: tokens of a source; None for a decoder-only model.
        target: tokens that a target may have. Caches hold one position less.
        chunk: prompt tokens that one run of a decoder-only model takes; 1 makes no graph for it.
        unroll: greedy steps that one run of the decoder makes.
    """

    source: int | None
    target: int
    chunk: int = 1
    unroll: int = 1

    @property
    def past(self) -> int:
        """Positions that caches hold."""
        return self.target - 1


@dataclass(frozen=True)
class Target:
    """What a device's compiler takes.

    Attributes:
        name: of the device, as ``--device`` has it.
        opset: version of the standard operators.
        rms_norm: whether it knows RMSNormalization; else that becomes simpler operators.
    """

    name: str
    opset: int
    rms_norm: bool


TARGETS = {
    target.name: target
    for target in (Target("qnn", 23, rms_norm=True), Target("openvino", 21, rms_norm=False))
}


@dataclass(eq=False)
class StaticModel:
    """A model's graphs of fixed shapes, which passes change in place.

    Attributes:
        models: ``encoder``, ``decoder``, ``prefill`` -> graph, as far as it was asked for.
        static: what the manifest says about them.
        tables: file name -> bias table, as `BiasTable` describes it.
        coded: initializer -> bits per code, for matrices that were codes in the bundle.
    """

    models: dict[str, ir.Model]
    static: Static
    tables: dict[str, NDArray[np.float32]]
    coded: dict[str, int] = field(default_factory=dict)
