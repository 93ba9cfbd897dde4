"""What calibration knows of a matrix: the second moments of its inputs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Square = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Statistics:
    """Second moments over calibration tokens of the inputs that some matrices share.

    X ``[tokens, K]`` are these inputs in the floating-point model, X' in one whose earlier matrices
    are quantized already.

    Attributes:
        tokens: how many tokens were summed.
        plain: X^T X / tokens, float32 ``[K, K]``.
        inputs: X'^T X' / tokens; the same object as ``plain`` where nothing earlier is quantized.
        drift: X'^T (X - X') / tokens; None where X' is X.
    """

    tokens: int
    plain: Square
    inputs: Square
    drift: Square | None
