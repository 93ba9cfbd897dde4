"""What every way from a checkpoint to graphs has to deliver."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from edgedec.runtime.bundle import Bundle
from edgedec.runtime.generation import GenerationConfig
from edgedec.runtime.manifest import Interface, Stage

Ids = NDArray[np.int64]
Logits = Callable[[Ids | None, Ids | None, Ids], NDArray[np.float32]]
"""``(source [B, S], its mask, target [B, T]) -> logits [B, T, vocab]``; a decoder-only model has
no source."""


Graphs = Mapping[str, ir.Model]
"""Component name -> model; the contract is in ``docs/bundle.md``."""


@dataclass(frozen=True, eq=False)
class Exported:
    """A model, ready to be written.

    Attributes:
        graphs: its components.
        model: what is known of the model, for tools.
        interface: what the runtime must know.
        stages: the decoder, in order.
        generation: how the checkpoint wants to be decoded.
        tokenizer: folder with the tokenizer's files.
        reference: another implementation of the model, to hold the graphs against.
        check: how many source and target tokens that takes.
        check_depth: holds what only depth policies use against the same, within a fraction of the
            largest value; None where there is nothing of that kind.
        policies: depth policies that it was made for, with their parameters.
        routed: layers that have a router.
    """

    graphs: Graphs
    model: dict[str, Any]
    interface: Interface
    stages: tuple[Stage, ...]
    generation: GenerationConfig
    tokenizer: Path
    reference: Logits
    check: tuple[int, int] = (9, 9)
    check_depth: Callable[[Bundle, float], None] | None = None
    policies: Mapping[str, dict[str, Any]] = field(default_factory=lambda: {"full": {}})
    routed: tuple[int, ...] = ()
