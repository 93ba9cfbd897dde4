"""What every way from a checkpoint to graphs has to deliver."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from edgedec.runtime.generation import GenerationConfig
from edgedec.runtime.manifest import Interface, Stage

Array = NDArray[np.float32]
Ids = NDArray[np.int64]
Logits = Callable[[Ids | None, Ids | None, Ids], NDArray[np.float32]]
"""``(source [B, S], its mask, target [B, T]) -> logits [B, T, vocab]``; a decoder-only model has
no source."""


@dataclass(frozen=True, eq=False)
class CodedMatrix:
    """A matrix ``[rows, columns]``, as it was and as a bundle's codes have it.

    Attributes:
        name: the initializer that held it.
        original: reads what it was.
        stored: computes what the codes stand for.
    """

    name: str
    original: Callable[[], Array]
    stored: Callable[[], Array]


@dataclass(frozen=True, eq=False)
class Coded:
    """What a bundle's weights and products became, for another implementation to do the same.

    Attributes:
        matrices: those that became codes; every other tensor is as it was.
        rounded: what products with these matrices make of their inputs ``[..., columns]``.
    """

    matrices: tuple[CodedMatrix, ...]
    rounded: Callable[[Array], Array]


@dataclass(frozen=True, eq=False)
class Exported:
    """A model, ready to be written.

    Attributes:
        graphs: component name -> model; the contract is in ``docs/bundle.md``.
        model: what is known of the model, for tools.
        interface: what the runtime must know.
        stages: the decoder, in order.
        generation: how the checkpoint wants to be decoded.
        tokenizer: folder with the tokenizer's files.
        reference: another implementation of the model, to hold the graphs against: with the
            weights that the graphs were made of, or with what they are stored as.
        check: how many source and target tokens that takes.
    """

    graphs: Mapping[str, ir.Model]
    model: dict[str, Any]
    interface: Interface
    stages: tuple[Stage, ...]
    generation: GenerationConfig
    tokenizer: Path
    reference: Callable[[Coded | None], Logits]
    check: tuple[int, int] = (9, 9)
