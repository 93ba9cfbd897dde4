"""What quantizing did to a model: facts for tables, plots and ``quantization.json``."""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass, replace
from statistics import fmean
from typing import Any

import numpy as np

from edgedec.quantize.codebook import BLOCK_ROWS, CodebookTensor, seven_bits
from edgedec.quantize.matrices import Matrix, Role
from edgedec.quantize.method import Quantized, Settings
from edgedec.runtime.schema import decode, encode

SCHEMA_VERSION = 1
REPORT = "quantization.json"
"""The report's name in a bundle."""
INTEGERS = re.compile(r"\[\n\s+(-?\d+(?:,\s+-?\d+)*)\n\s+\]")
"""A list of integers with a line for each, in JSON: strings there contain no line ends."""
NEIGHBOURS = 8
"""Of the 256 levels of 8-bit codes, so many are counted together."""


@dataclass(frozen=True)
class Text:
    """A text that was measured on.

    Attributes:
        name: of the file, without its folder.
        samples: lines or windows that were used.
        tokens: of these, padding not counted.
    """

    name: str
    samples: int
    tokens: int


@dataclass(frozen=True)
class CodebookUse:
    """How many weights of a matrix have which level of one of its codebooks.

    Attributes:
        levels: ascending integers; times a row's scale they are weights. The largest magnitude is
            63; levels of 8-bit codes reach 127, and each stands for `NEIGHBOURS`.
        counts: weights that have them.
    """

    levels: tuple[int, ...]
    counts: tuple[int, ...]


@dataclass(frozen=True)
class MatrixReport:
    """A quantized matrix.

    Attributes:
        name: of its module, and ``.weight``.
        role: what it is for.
        rows: outputs of its product, or entries of a table.
        columns: inputs of its product, or the width of an entry.
        bits: of its codes.
        method: what chose them.
        bytes: of codes, levels, scales and row order, as they are stored, without padding.
        output_error: how far its outputs are from the floating-point ones on the calibration text,
            as a part of these (both root mean square), given the floating-point model's inputs.
        objective_start: what was minimised, at the start; None where nothing was.
        objective_end: the same at the end, never larger.
        seconds: that choosing the codes took; None where it was not measured.
        codebooks: how its levels are used; empty for forms that only serve comparisons.
    """

    name: str
    role: Role
    rows: int
    columns: int
    bits: int
    method: str
    bytes: int
    output_error: float
    objective_start: float | None
    objective_end: float | None
    seconds: float | None
    codebooks: tuple[CodebookUse, ...]

    @property
    def weights(self) -> int:
        """How many there are."""
        return self.rows * self.columns

    @property
    def bits_per_weight(self) -> float:
        """Stored bits per weight."""
        return 8 * self.bytes / self.weights


@dataclass(frozen=True)
class Agreement:
    """How close the quantized model is to the floating-point one on a text.

    Attributes:
        text: on which.
        kl: mean of KL(floating-point || quantized) over the predictions, in nats per token.
        agreement: part of the predictions whose likeliest token is the same.
        loss_before: mean cross-entropy of the text in the floating-point model, in nats per token;
            None where there is no text to predict (targets that the model made itself).
        loss_after: the same in the quantized model.
    """

    text: Text
    kl: float
    agreement: float
    loss_before: float | None
    loss_after: float | None


@dataclass(frozen=True)
class OutputChange:
    """How far an output of the quantized model is from the floating-point one's.

    Attributes:
        name: of the output.
        error: root mean square of the difference by that of the original; of integers and truth
            values the part that differs.
    """

    name: str
    error: float


@dataclass(frozen=True)
class Score:
    """A metric of generated text.

    Attributes:
        name: such as ``chrF``.
        value: in percent.
        lower_is_better: whether it counts errors.
    """

    name: str
    value: float
    lower_is_better: bool


@dataclass(frozen=True)
class Task:
    """Generated text against references, before and after: the same metrics in the same order.

    Attributes:
        name: of the file with the references.
        samples: how many were generated.
        before: by the floating-point model.
        after: by the quantized one.
    """

    name: str
    samples: int
    before: tuple[Score, ...]
    after: tuple[Score, ...]


@dataclass(frozen=True)
class Totals:
    """Sums over all matrices.

    Attributes:
        matrices: how many there are.
        weights: in all of them.
        bytes: as stored: codes, levels, scales and row order.
        float32_bytes: that the weights take without codes.
        bits_per_weight: stored bits per weight.
        output_error: mean over matrices.
        objective_start: sum over the matrices that have one; None where none has.
        objective_end: the same at the end.
    """

    matrices: int
    weights: int
    bytes: int
    float32_bytes: int
    bits_per_weight: float
    output_error: float
    objective_start: float | None
    objective_end: float | None


@dataclass(frozen=True)
class QuantizationReport:
    """A quantized model.

    Attributes:
        source: the checkpoint: hub id or folder name.
        method: what was asked for; 8-bit matrices are rounded whatever it says.
        bits: ``2``, ``3``, ``4``, ``8`` or ``mixed``.
        budget: that was given with ``mixed``.
        sequential: whether later matrices made up for what earlier ones lost.
        settings: of the method.
        calibration: the text that the statistics come from; of a bare ONNX model arrays: samples
            are archives, tokens the most inputs that a product read. None without.
        matrices: in the order in which the model uses them; a tied embedding and head once.
        agreements: the calibration text first, then what ``--eval`` names; none of a bare ONNX
            model.
        task: generated text; None without pairs to compare with.
        seconds: that all of it took; None where it was not measured.
        outputs: of a bare ONNX model on the calibration arrays, with products in float32.
    """

    source: str
    method: str
    bits: str
    budget: float | None
    sequential: bool
    settings: Settings
    calibration: Text | None
    matrices: tuple[MatrixReport, ...]
    agreements: tuple[Agreement, ...]
    task: Task | None
    seconds: float | None
    outputs: tuple[OutputChange, ...] = ()

    def totals(self) -> Totals:
        """Sums over all matrices, of which there must be one."""
        weights = sum(m.weights for m in self.matrices)
        size = sum(m.bytes for m in self.matrices)
        starts = [m.objective_start for m in self.matrices if m.objective_start is not None]
        ends = [m.objective_end for m in self.matrices if m.objective_end is not None]
        return Totals(
            matrices=len(self.matrices),
            weights=weights,
            bytes=size,
            float32_bytes=4 * weights,
            bits_per_weight=8 * size / weights,
            output_error=fmean(m.output_error for m in self.matrices),
            objective_start=sum(starts) if starts else None,
            objective_end=sum(ends) if ends else None,
        )

    def without_times(self) -> QuantizationReport:
        """The same but for what differs from run to run: what goes into a bundle."""
        matrices = tuple(replace(matrix, seconds=None) for matrix in self.matrices)
        return replace(self, matrices=matrices, seconds=None)


@dataclass(frozen=True)
class Compared:
    """One method among those of a `Comparison`.

    Attributes:
        method: its name, or ``float32``, the model as it was.
        stored: whether a bundle can hold its result.
        bits_per_weight: of all quantized matrices together.
        output_error: mean over matrices, as in `MatrixReport`.
        agreement: with the floating-point model.
        scores: of generated text; empty without pairs to compare with.
        seconds: that quantizing took; None where nothing was quantized.
    """

    method: str
    stored: bool
    bits_per_weight: float
    output_error: float
    agreement: Agreement
    scores: tuple[Score, ...]
    seconds: float | None


@dataclass(frozen=True)
class Comparison:
    """Several methods on one model.

    Attributes:
        source: the checkpoint: hub id or folder name.
        bits: that all of them had.
        calibration: the text that the statistics come from.
        rows: the model as it was (``float32``), then the methods.
    """

    source: str
    bits: int
    calibration: Text
    rows: tuple[Compared, ...]


def matrix_report(
    matrix: Matrix,
    quantized: Quantized,
    method: str,
    bits: int,
    output_error: float,
    seconds: float | None,
) -> MatrixReport:
    """Say what became of a matrix.

    Args:
        matrix: the original.
        quantized: what stands for it.
        method: that made it.
        bits: of its codes.
        output_error: as in `MatrixReport`.
        seconds: that it took.
    """
    tensor, trace = quantized.tensor, quantized.trace
    size = quantized.bits_per_weight * matrix.rows * matrix.columns / 8
    return MatrixReport(
        name=matrix.name,
        role=matrix.role,
        rows=matrix.rows,
        columns=matrix.columns,
        bits=bits,
        method=method,
        bytes=math.ceil(round(size, 2)),  # whole but for what division has lost
        output_error=output_error,
        objective_start=trace[0] if trace else None,
        objective_end=trace[-1] if trace else None,
        seconds=seconds,
        codebooks=() if tensor is None else codebook_use(tensor),
    )


def codebook_use(tensor: CodebookTensor) -> tuple[CodebookUse, ...]:
    """Count the weights at each level of each codebook."""
    groups, size = tensor.codebooks.shape
    counts = np.zeros((groups, size), np.int64)
    for start in range(0, len(tensor.codes), BLOCK_ROWS):
        # All rows of a block have the same codebook.
        codes = tensor.codes[start : start + BLOCK_ROWS]
        counts[tensor.group_of_row[start]] += np.bincount(codes.ravel(), minlength=size)
    if tensor.bits == 8:
        middles = np.arange(-128, 128, NEIGHBOURS) + NEIGHBOURS // 2
        return tuple(_use(middles, row.reshape(-1, NEIGHBOURS).sum(axis=1)) for row in counts)
    levels, _ = seven_bits(tensor.codebooks)
    return tuple(_use(level, count) for level, count in zip(levels, counts, strict=True))


def _use(levels: np.ndarray[Any, Any], counts: np.ndarray[Any, Any]) -> CodebookUse:
    order = np.argsort(levels, kind="stable")
    return CodebookUse(tuple(levels[order].tolist()), tuple(counts[order].tolist()))


def to_json(report: QuantizationReport | Comparison) -> str:
    """Write a report as JSON, figures with six digits; a comparison's has ``rows``."""
    value: dict[str, Any] = {"schema_version": SCHEMA_VERSION}
    if isinstance(report, QuantizationReport):
        value["totals"] = encode(report.totals())
    value |= encode(report)
    text = json.dumps(_rounded(value), indent=2, ensure_ascii=False, allow_nan=False)
    return INTEGERS.sub(lambda match: f"[{' '.join(match[1].split())}]", text) + "\n"


def from_json(text: str) -> QuantizationReport:
    """Read what `to_json` wrote of a quantized model.

    Raises:
        ValueError: no such report, or one of another version.
    """
    value = json.loads(text)
    if not isinstance(value, dict) or value.pop("schema_version", None) != SCHEMA_VERSION:
        raise ValueError(f"no report of version {SCHEMA_VERSION}")
    value.pop("totals", None)
    return decode(QuantizationReport, value)


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return float(f"{value:.6g}")
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    return [_rounded(item) for item in value] if isinstance(value, list) else value
