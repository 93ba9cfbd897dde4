"""Lower a bundle's graphs to fixed shapes, the form that NPUs run."""

from __future__ import annotations

from collections.abc import Mapping

import onnx_ir as ir

from edgedec.devices.npu.model import DECODER, ENCODER, TARGETS, Shapes, StaticModel, Target
from edgedec.runtime.manifest import Manifest

__all__ = ["TARGETS", "Shapes", "StaticModel", "Target", "lower_static"]


def lower_static(
    models: Mapping[str, ir.Model],
    manifest: Manifest,
    shapes: Shapes,
    target: Target,
    parts: frozenset[str] = frozenset((ENCODER, DECODER)),
) -> StaticModel:
    """Graphs of fixed shapes in float32 (docs/npu.md)."""
    raise NotImplementedError
