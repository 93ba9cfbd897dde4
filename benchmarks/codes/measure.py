"""Quantize a model in many ways at once, and measure each.

All ways share the original model's activations: one walk over the calibration text and one over
the evaluation text serve them all. Products are computed in float32, and embeddings and heads have
8 bits, so that the weights of the layers alone make the difference.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from codes.cases import Case
from edgedec.export.bundle import Progress
from edgedec.export.calibration import Calibration, read_calibration
from edgedec.export.changed import changed_bundle
from edgedec.export.floats import float_graphs
from edgedec.export.learn import Quantizer, find_sites
from edgedec.export.model import Model, open_model
from edgedec.export.quantized import scheme_of, uniform_choices
from edgedec.export.workplace import float_bundle
from edgedec.quantize.calibration.calibrate import Learner, calibrate, moments, score
from edgedec.quantize.calibration.scores import Divergence
from edgedec.quantize.fitting.objective import relative_error
from edgedec.quantize.matrices import Matrix
from edgedec.quantize.method import Settings
from edgedec.quantize.methods import METHODS
from edgedec.quantize.options import QuantizeOptions
from edgedec.quantize.pool import Pool
from edgedec.quantize.statistics import Statistics
from edgedec.runtime.bundle import Bundle
from edgedec.runtime.generator import Generator

FLOAT = "float32"
PLAIN = ", plain"
"""Ends the name of a sequential method that is shown the original model's inputs only."""


@dataclass(frozen=True)
class Measured:
    """One way to quantize a model.

    Attributes:
        case: which model.
        method: its name, with `PLAIN` where a sequential method was not sequential.
        bits: of the codes.
        bits_per_weight: of the matrices in layers, with tables, scales and row order.
        output_error: mean over these matrices of the relative error of their outputs, given the
            inputs that they have in the original model on the evaluation text.
        kl: of the evaluation text's predictions, in nats per token.
        agreement: part of them whose likeliest token is the same.
        perplexity: of the evaluation text; None where the model wrote its targets itself.
        perplexity_ratio: to the original's.
        scores: of what it generates, in percent by name.
        seconds: that choosing the codes took.
    """

    case: str
    method: str
    bits: int
    bits_per_weight: float
    output_error: float
    kl: float
    agreement: float
    perplexity: float | None
    perplexity_ratio: float | None
    scores: Mapping[str, float]
    seconds: float


class Subject:
    """A case's model, exported and calibrated; a context manager.

    Args:
        case: what to measure.
        tokens: of the calibration text.
        evaluation_tokens: of the evaluation text.
        settings: of the methods.
        threads: to compute with.
        progress: told what is being done.
    """

    def __init__(
        self,
        case: Case,
        tokens: int,
        evaluation_tokens: int,
        settings: Settings,
        threads: int,
        progress: Progress,
    ) -> None:
        self.case, self._settings, self._progress = case, settings, progress
        self._scratch = tempfile.TemporaryDirectory(prefix="edgedec-jlcm-")
        folder = Path(self._scratch.name)
        options = QuantizeOptions(
            calibration=case.calibration, tokens=tokens, settings=settings, verify=False
        )
        self._pool = Pool(threads)
        bundle = float_bundle(str(case.checkpoint), folder, options, progress)
        graphs = float_graphs(bundle, self._settings)
        sites = find_sites(graphs)
        self._model: Model = open_model(
            bundle, graphs, sites, options, self._pool, folder, progress
        )
        self._evaluation: Calibration = read_calibration(
            bundle,
            case.evaluation,
            evaluation_tokens,
            settings.seed,
            lambda: Generator(bundle, threads=threads),
            progress,
        )

    def __enter__(self) -> Subject:  # noqa: PYI034 - Self came with Python 3.11
        return self

    def __exit__(self, *error: object) -> None:
        self._pool.__exit__(None, None, None)
        self._scratch.cleanup()

    def original(self) -> Measured:
        """The model as it is."""
        model, name = self._model, FLOAT
        found = score(model.program, self._evaluation.batches, {name: lambda _: None}, self._pool)[
            name
        ]
        return self._measured(name, 32, 32.0, 0.0, found, self._scores(model.bundle), 0.0)

    def quantized(self, bits: int, methods: Sequence[str]) -> Iterator[Measured]:
        """Each method that can do with so many bits, sequential ones both ways."""
        model = self._model
        options = QuantizeOptions(bits=bits, embedding_bits=8, settings=self._settings)
        ways = {
            name if sequential == METHODS[name].sequential else name + PLAIN: (name, sequential)
            for name in methods
            if bits in METHODS[name].bits
            for sequential in sorted({METHODS[name].sequential, False}, reverse=True)
        }
        quantizers = {}
        for way, (name, _) in ways.items():
            choices = uniform_choices(model.sites, scheme_of(options), METHODS[name])
            quantizers[way] = Quantizer(model.keys, choices, self._settings, {}, self._pool, None)
        calibrate(
            model.program,
            model.calibration.batches,
            {way: Learner(quantizers[way], ways[way][1]) for way in ways},
            self._pool,
            scratch=model.scratch,
            progress=lambda part: self._progress(f"{self.case.name}, {bits} bits", part),
        )
        values = {
            way: lambda m, q=quantizer: q.found[model.keys[id(m)]].dequantize()
            for way, quantizer in quantizers.items()
        }
        found = score(
            model.program, self._evaluation.batches, values, self._pool, scratch=model.scratch
        )
        errors = self._errors(quantizers)
        for way, quantizer in quantizers.items():
            layers = [r for r in quantizer.reports.values() if r.role == "linear"]
            scores: Mapping[str, float] = {}
            if self.case.task is not None:
                with changed_bundle(self._model, quantizer, self._settings) as bundle:
                    scores = self._scores(bundle)
            yield self._measured(
                way,
                bits,
                8 * sum(r.bytes for r in layers) / sum(r.weights for r in layers),
                fmean(errors[way]),
                found[way],
                scores,
                sum(r.seconds or 0.0 for r in layers),
            )

    def _errors(self, quantizers: Mapping[str, Quantizer]) -> dict[str, list[float]]:
        """Errors of the outputs of every matrix in the layers."""
        errors: dict[str, list[float]] = {way: [] for way in quantizers}

        def receive(matrices: Sequence[Matrix], statistics: Statistics) -> None:
            for matrix in [m for m in matrices if m.role == "linear"]:
                weight = matrix.read()
                for way, quantizer in quantizers.items():
                    values = quantizer.found[self._model.keys[id(matrix)]].dequantize()
                    errors[way].append(relative_error(values, weight, statistics.plain))

        moments(
            self._model.program,
            self._evaluation.batches,
            self._pool,
            receive,
            wanted=lambda m: m.role == "linear",
            scratch=self._model.scratch,
        )
        return errors

    def _measured(
        self,
        method: str,
        bits: int,
        bits_per_weight: float,
        output_error: float,
        found: Divergence,
        scores: Mapping[str, float],
        seconds: float,
    ) -> Measured:
        known = not self._evaluation.written
        return Measured(
            case=self.case.name,
            method=method,
            bits=bits,
            bits_per_weight=bits_per_weight,
            output_error=output_error,
            kl=found.kl,
            agreement=found.agreement,
            perplexity=math.exp(found.loss_after) if known else None,
            perplexity_ratio=math.exp(found.loss_after - found.loss_before) if known else None,
            scores=scores,
            seconds=seconds,
        )

    def _scores(self, bundle: Bundle) -> dict[str, float]:
        if self.case.task is None:
            return {}
        return self.case.task.run(Generator(bundle, threads=self._pool.threads))
