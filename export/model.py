"""A floating-point model that is measured and quantized."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from edgedec.export.bundle import Progress
from edgedec.export.calibration import Calibration, own_text, read_calibration
from edgedec.export.evaluate import evaluate, read_task
from edgedec.export.learn import Key, Sites, keys_of
from edgedec.export.route import Graphs
from edgedec.quantize.calibration.scores import Divergence
from edgedec.quantize.calibration.segments import Program, cut
from edgedec.quantize.options import QuantizeOptions
from edgedec.quantize.pool import Pool
from edgedec.quantize.reporting.report import Agreement, Score
from edgedec.quantize.text.text_files import TextPair
from edgedec.runtime.bundle import Bundle
from edgedec.runtime.generator import Generator


@dataclass(frozen=True, eq=False)
class Model:
    """A floating-point model on its way to codes.

    Attributes:
        bundle: its files.
        program: its graphs in pieces.
        sites: what there is to quantize.
        keys: the keys of these matrices.
        calibration: the text that matrices are quantized for.
        evaluation: another one to measure on, None without.
        pairs: texts and what should be generated for them.
        pool: threads.
        scratch: a folder for what does not fit into memory.
    """

    bundle: Bundle
    program: Program
    sites: Sites
    keys: Mapping[int, Key]
    calibration: Calibration
    evaluation: Calibration | None
    pairs: Sequence[TextPair]
    pool: Pool
    scratch: Path


def open_model(
    bundle: Bundle,
    graphs: Graphs,
    sites: Sites,
    options: QuantizeOptions,
    pool: Pool,
    scratch: Path,
    progress: Progress,
) -> Model:
    """Cut a model's graphs into pieces, and read its texts."""
    generator = cache(lambda: Generator(bundle, device="cpu", threads=pool.threads))

    def read(path: Path | None) -> Calibration:
        seed = options.settings.seed
        return read_calibration(bundle, path, options.tokens, seed, generator, progress)

    calibration = read(options.calibration or own_text(bundle))
    evaluation = None if options.evaluation is None else read(options.evaluation)
    pairs: list[TextPair] = []
    if options.evaluation is not None and bundle.manifest.encoder is not None:
        pairs = read_task(options.evaluation)
    program = cut(graphs, sites)
    keys = keys_of(sites)
    return Model(bundle, program, sites, keys, calibration, evaluation, pairs, pool, scratch)


def agreement(text: Calibration, divergence: Divergence) -> Agreement:
    """What a report says of a divergence; what a model wrote itself has no loss."""
    return Agreement(
        text=text.text,
        kl=divergence.kl,
        agreement=divergence.agreement,
        loss_before=None if text.written else divergence.loss_before,
        loss_after=None if text.written else divergence.loss_after,
    )


def available_threads() -> int:
    """As many as there are cores for this process."""
    from edgedec.devices.options import available_cores

    return available_cores()


def task_scores(
    bundle: Bundle, pairs: Sequence[TextPair], pool: Pool, progress: Progress
) -> tuple[Score, ...]:
    """Metrics of what a bundle generates; none without pairs."""
    if not pairs:
        return ()
    return evaluate(Generator(bundle, device="cpu", threads=pool.threads), pairs, progress)
