"""What a program is fed with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray


class Inputs(Protocol):
    """What all graphs of a program are fed for one run of it."""

    def feeds(self, inputs: Sequence[ir.Value]) -> Mapping[str, NDArray[Any]]:
        """Arrays by name for a graph's inputs; those that another graph computes left out."""

    def mask(self, inputs: Sequence[ir.Value]) -> NDArray[np.bool_] | None:
        """Which positions of the side that a graph reads are tokens; None where all count."""


@dataclass(frozen=True, eq=False)
class GivenInputs:
    """Arrays that were given for a graph's inputs, by name; all that is in them counts."""

    arrays: Mapping[str, NDArray[Any]]

    def feeds(self, inputs: Sequence[ir.Value]) -> Mapping[str, NDArray[Any]]:
        """As they are."""
        return {str(value.name): self.arrays[str(value.name)] for value in inputs}

    def mask(self, inputs: Sequence[ir.Value]) -> None:
        """None: nothing is padding."""
