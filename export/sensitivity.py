"""Which matrices need how many bits: what fewer of them do to the model's predictions."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from edgedec.devices.passes.fuse import group_linears
from edgedec.devices.passes.linear import Linear
from edgedec.errors import InputError
from edgedec.export.bundle import Progress
from edgedec.export.learn import Choice, Key, of_table, values_key
from edgedec.export.model import Model
from edgedec.quantize.baselines.kmeans import GROUP_ROWS, kmeans
from edgedec.quantize.baselines.nearest import round_to_nearest
from edgedec.quantize.budget import Unit, choose_bits
from edgedec.quantize.calibration.calibrate import moments, score
from edgedec.quantize.calibration.segments import Program
from edgedec.quantize.codebook import BLOCK_ROWS, CodebookTensor
from edgedec.quantize.fitting.objective import relative_error
from edgedec.quantize.matrices import Matrix
from edgedec.quantize.method import Array, Method, Settings
from edgedec.quantize.methods import METHODS
from edgedec.quantize.options import END_BITS, QuantizeOptions
from edgedec.quantize.pool import Pool
from edgedec.quantize.scheme import SMALL_TABLE
from edgedec.quantize.size import packed_bits
from edgedec.quantize.statistics import Statistics
from edgedec.quantize.text.batches import Batch

PROBE = 3
"""Bits at which the loss is measured: enough to be seen, not so few that losses stop adding up."""
TOKENS = 2048
"""Tokens of the calibration text that it is measured on."""
TOGETHER = 16
"""Changes that are measured side by side."""

Change = Callable[[Matrix], Array | None]
"""New values ``[rows, columns]`` of a matrix, or None where it stays as it is."""


@dataclass(eq=False)
class _Candidates:
    """Matrices that will have the same bits: those of one product node, or an equal table and head.

    Attributes:
        matrices: equal ones among them each by itself.
        bits: what they may have.
        weights: stored weights.
        error: bits -> squared output error, relative to the outputs.
        stored: bits -> stored bits of all weights.
        loss: nats per token that `PROBE` bits for these matrices alone cost.
    """

    matrices: list[Matrix]
    bits: tuple[int, ...]
    weights: int = 0
    error: dict[int, float] = field(default_factory=dict)
    stored: dict[int, float] = field(default_factory=dict)
    loss: float = 0.0

    def unit(self) -> Unit:
        """What `choose_bits` wants: losses grow as squared errors do, from the measured one."""
        probe = self.error[PROBE]
        return Unit(
            weights=self.weights,
            bits_per_weight={bits: self.stored[bits] / self.weights for bits in self.bits},
            loss={
                bits: self.loss * self.error[bits] / probe if probe else 0.0 for bits in self.bits
            },
        )


def mixed_choices(
    model: Model, options: QuantizeOptions, method: Method, progress: Progress
) -> dict[Key, Choice]:
    """Bits for every matrix, so that their mean keeps within the budget.

    What b bits for a matrix cost is estimated as KL(float || only this matrix quantized), measured
    with `PROBE` bits, times the ratio of the squared output errors with b and with `PROBE` bits.
    The codes for this are k-means'.

    Raises:
        InputError: the budget is below what the fewest bits take.
    """
    assert options.budget is not None
    candidates = _candidates(model, options, method)
    _measure_errors(model, candidates, options.settings, progress)
    losses = measure_losses(
        model.program,
        model.calibration.batches,
        [_only(candidate) for candidate in candidates],
        model.pool,
        model.scratch,
        progress,
    )
    for candidate, loss in zip(candidates, losses, strict=True):
        candidate.loss = loss
    try:
        chosen = choose_bits([c.unit() for c in candidates], options.budget)
    except ValueError as error:
        raise InputError(f"--budget {options.budget:g}: {error}.") from error
    eight = METHODS["rtn"]
    return {
        model.keys[id(matrix)]: Choice(bits, eight if bits == 8 else method)
        for candidate, bits in zip(candidates, chosen, strict=True)
        for matrix in candidate.matrices
    }


def _candidates(model: Model, options: QuantizeOptions, method: Method) -> list[_Candidates]:
    possible = tuple(sorted({*method.bits, 8}))
    ends: dict[bytes, _Candidates] = {}
    found: list[_Candidates] = []
    for sites in model.sites.values():
        linears = [site for site in sites if isinstance(site, Linear)]
        tables = [site.matrix for site in sites if not isinstance(site, Linear)]
        groups = [[linear.matrix for linear in group] for group in group_linears(linears)]
        for group in [*([table] for table in tables), *groups]:
            if group[0].role == "linear":
                found.append(_Candidates(group, possible))
                continue
            key = values_key(group[0])
            if key not in ends:
                ends[key] = _Candidates([], _end_bits(group[0], options, possible))
                found.append(ends[key])
            ends[key].matrices += group
    return found


def _end_bits(
    matrix: Matrix, options: QuantizeOptions, possible: tuple[int, ...]
) -> tuple[int, ...]:
    if options.embedding_bits is not None:
        return (options.embedding_bits,)
    few = (8,) if matrix.rows < SMALL_TABLE else END_BITS
    return tuple(bits for bits in few if bits in possible)


def _measure_errors(
    model: Model, candidates: Sequence[_Candidates], settings: Settings, progress: Progress
) -> None:
    owner = {id(m): c for c in candidates for m in c.matrices}
    total = max(1, sum(m.rows * m.columns for c in candidates for m in c.matrices))
    done = 0
    seen: set[Key] = set()

    def receive(matrices: Sequence[Matrix], statistics: Statistics | None) -> None:
        nonlocal done
        for matrix in matrices:
            candidate = owner[id(matrix)]
            # an equal table and head count once, as what is read first
            if model.keys[id(matrix)] in seen or (matrix.role != "linear" and candidate.weights):
                continue
            seen.add(model.keys[id(matrix)])
            plain = (statistics or of_table(matrix.columns, None)).plain
            weight = matrix.read()
            candidate.weights += weight.size
            for bits in {*candidate.bits, PROBE}:
                tensor = _quick(weight, bits)
                error = relative_error(tensor.dequantize(), weight, plain)
                size = _most_bits(matrix, bits, settings)
                candidate.error[bits] = candidate.error.get(bits, 0.0) + error**2
                candidate.stored[bits] = candidate.stored.get(bits, 0.0) + size * weight.size
            done += weight.size
            progress("measuring errors", done / total)

    for candidate in candidates:
        for matrix in candidate.matrices:
            if matrix.role == "embedding":
                receive([matrix], None)
    moments(model.program, model.calibration.batches, model.pool, receive, scratch=model.scratch)


def _most_bits(matrix: Matrix, bits: int, settings: Settings) -> float:
    """Stored bits per weight that no method needs more of."""
    books = max(settings.groups, -(-matrix.rows // GROUP_ROWS)) if bits < 8 else 1
    ordered = bits < 8 and settings.grouping != "contiguous"
    shape = matrix.rows, matrix.columns
    return packed_bits(shape, bits, min(books, -(-matrix.rows // BLOCK_ROWS)), ordered=ordered)


def measure_losses(
    program: Program,
    batches: Sequence[Batch],
    changes: Sequence[Change],
    pool: Pool,
    scratch: Path,
    progress: Progress,
) -> list[float]:
    """KL(original || changed) of each change alone on the first `TOKENS` tokens, in nats per token.

    Args:
        program: the original.
        batches: the text.
        changes: each gives the new values ``[rows, columns]`` of a matrix, or None where it stays.
        pool: threads.
        scratch: a folder for values that are too large to keep in memory.
        progress: told what is being done, and which fraction of it is.
    """
    some = list(_first(batches))
    losses: list[float] = []
    for begin in range(0, len(changes), TOGETHER):
        progress("measuring losses", begin / len(changes))
        values = {str(i): c for i, c in enumerate(changes[begin : begin + TOGETHER])}
        found = score(program, some, values, pool, scratch=scratch)
        losses += [max(0.0, found[name].kl) for name in values]
    progress("measuring losses", 1.0)
    return losses


def _only(candidate: _Candidates) -> Change:
    these = {id(matrix) for matrix in candidate.matrices}

    def values(matrix: Matrix) -> Array | None:
        return _quick(matrix.read(), PROBE).dequantize() if id(matrix) in these else None

    return values


def _first(batches: Sequence[Batch]) -> Iterator[Batch]:
    """As many as have `TOKENS` tokens."""
    tokens = 0
    for batch in batches:
        if tokens >= TOKENS:
            return
        tokens += int(batch.target_mask.sum())
        yield batch


def _quick(weight: Array, bits: int) -> CodebookTensor:
    return round_to_nearest(weight) if bits == 8 else kmeans(weight, bits)
