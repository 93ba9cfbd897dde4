"""What a way to quantize matrices is: codes, bits, and how far the result is from the original."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from edgedec.quantize.codebook import CodebookTensor
from edgedec.quantize.pool import Pool
from edgedec.quantize.statistics import Statistics

Array = NDArray[np.float32]
Grouping = Literal["contiguous", "distribution", "auto"]


@dataclass(frozen=True)
class Settings:
    """How to quantize; what a method has no use for, it ignores.

    Attributes:
        groups: codebooks per matrix.
        grouping: which rows share one: runs of rows, rows of like distribution (their order is
            stored), or for each matrix what is better.
        damping: what is added to the diagonal of the second moments, as a part of its mean.
        rounds: at most so many times codebooks, scales and codes are fitted in turn.
        sweeps: passes of coordinate descent over the codes in each round.
        joint: also learn codes and levels together by gradients, and keep the better result.
        seed: of whatever is random.
    """

    groups: int = 4
    grouping: Grouping = "contiguous"
    damping: float = 0.1
    rounds: int = 4
    sweeps: int = 2
    joint: bool = False
    seed: int = 0


@dataclass(frozen=True, eq=False)
class Quantized:
    """A quantized matrix ``[N, K]``.

    Attributes:
        tensor: its codes, in the form that our operators take: levels are such that packing them
            loses nothing. None for forms that only serve comparisons.
        values: float32 ``[N, K]`` that the codes stand for, where ``tensor`` is None.
        bits_per_weight: codes, levels, scales and row order, as they are stored.
        trace: the objective after every step, from the initialisation on, as a part of what the
            target has: tr((W'-W*) H (W'-W*)^T) / tr(W* H W*^T). It never rises. Empty for methods
            that do not look at it.
    """

    tensor: CodebookTensor | None
    values: Array | None
    bits_per_weight: float
    trace: tuple[float, ...] = ()

    def dequantize(self) -> Array:
        """The matrix as float32 ``[N, K]``."""
        if self.tensor is not None:
            return self.tensor.dequantize()
        assert self.values is not None
        return self.values


@dataclass(frozen=True)
class Method:
    """A way to quantize matrices that share their inputs.

    Attributes:
        name: what ``--method`` takes.
        summary: what it does, in a line.
        bits: what it can do.
        calibrated: whether it looks at the statistics of inputs; otherwise it needs no text.
        stored: whether results have codes; the others only serve comparisons.
        sequential: whether it wants inputs as the already quantized part of the model computes
            them, and their drift.
        function: called with the matrices ``[N, K]``, the statistics of their common inputs, bits,
            settings and threads; one result per matrix.
    """

    name: str
    summary: str
    bits: tuple[int, ...]
    calibrated: bool
    stored: bool
    sequential: bool
    function: Callable[[Sequence[Array], Statistics, int, Settings, Pool], list[Quantized]]
