"""From a checkpoint and a text to an adapted checkpoint."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from importlib.metadata import version
from os import PathLike, fspath
from pathlib import Path
from typing import Any

from edgedec.adapt.batches import Batches
from edgedec.adapt.lora import total
from edgedec.adapt.measure import Measured, measure
from edgedec.adapt.objective import Setup, check_trainable, objective_for
from edgedec.adapt.options import AdaptOptions
from edgedec.adapt.texts import read_texts, with_targets
from edgedec.adapt.training import Length, Training
from edgedec.adapt.twin import Twin
from edgedec.adapt.work import STATE, result, same_run, workplace
from edgedec.adapt.writer import write_checkpoint
from edgedec.adapt.written import write_targets
from edgedec.errors import CheckpointError, DeviceError, InputError, MissingDependencyError
from edgedec.export.checkpoint import Checkpoint, open_checkpoint
from edgedec.export.families import family_of, open_model
from edgedec.export.tokenizer import convert_tokenizer
from edgedec.quantize.text.samples import Sample
from edgedec.quantize.text.text_files import read_pairs
from edgedec.runtime.depth.options import describe, parse_depth, policy_from
from edgedec.runtime.depth.plan import Policy
from edgedec.runtime.generation import GenerationConfig
from edgedec.runtime.text import Tokenizer

logger = logging.getLogger(__name__)
STEPS = 1000
"""Of training, where the options say nothing."""

Progress = Callable[[str, float], None]
"""Told what is being done, and which fraction of it is."""


@dataclass(frozen=True)
class AdaptReport:
    """What a run did.

    Attributes:
        folder: the checkpoint that was written.
        depth: the policy it is for.
        steps: of training, in
        seconds: so many seconds.
        parameters: numbers that were trained.
        before: the untrained model under the policy, on held-out samples, and
        after: the trained one.
        written: whether the model wrote targets itself.
    """

    folder: str
    depth: str
    steps: int
    seconds: float
    parameters: int
    before: Measured
    after: Measured
    written: bool

    def to_json(self) -> dict[str, Any]:
        """As JSON types."""
        return asdict(self)


def adapt(
    checkpoint: str | PathLike[str],
    out: str | PathLike[str],
    options: AdaptOptions,
    progress: Progress = lambda _what, _done: None,
    stopped: Callable[[], bool] = lambda: False,
) -> AdaptReport:
    """Train what a depth policy needs, and write a checkpoint with it.

    Args:
        checkpoint: a Hugging Face folder, a hub id, or Mu's ``.pt`` file.
        out: the folder to create.
        options: see `AdaptOptions`.
        progress: told what is being done.
        stopped: asked after every step; once it says so the state is kept and the run ends.

    Raises:
        KeyboardInterrupt: it was stopped; ``resume`` goes on.
        EdgedecError: a checkpoint, a text or options that cannot be used.
        MissingDependencyError: torch is not installed.
        DeviceError: there is no such device.
    """
    require_torch()
    policy = policy_from(*parse_depth(options.depth))
    target = Path(out)
    opened = open_checkpoint(fspath(checkpoint))
    spec, weights = open_model(opened.config, opened.tensors)
    check_trainable(policy, spec.decoder.layers)
    twin = Twin(spec, weights, device_of(options.device))
    permuted = family_of(opened.config).permuted
    setup = Setup(
        twin,
        policy,
        options.rank,
        options.scale,
        options.seed,
        with_lora=options.lora,
        left_alone=frozenset(permuted),
    )
    with (
        threads(options.threads),
        workplace(target, resume=options.resume, force=options.force) as work,
    ):
        objective = objective_for(setup)
        same_run(work, _facts(options, opened), resume=options.resume)
        data = _read(opened, twin, options, progress)
        before = measure(twin, objective, data.held_out)
        length = Length(
            options.steps if options.steps or options.minutes else STEPS, options.minutes
        )
        training = Training(twin, objective, data.train, length, options.lr)
        if options.resume:
            training.load(work / STATE)
        training.run(
            work / STATE, lambda done, loss: progress(f"adapting, loss {loss:.4f}", done), stopped
        )
        after = measure(twin, objective, data.held_out)
        report = AdaptReport(
            folder=str(target),
            depth=describe(policy),
            steps=training.step,
            seconds=round(training.seconds, 1),
            parameters=total(t for t in objective.trainable().values() if t.requires_grad),
            before=before,
            after=after,
            written=data.written,
        )
        with result(target) as folder:
            record = _record(options, opened, policy, report)
            write_checkpoint(folder, opened, weights, policy, objective.trained(), record)
    return report


def require_torch() -> None:
    """Raise MissingDependencyError where torch is not installed."""
    try:
        import torch  # noqa: F401
    except ImportError as error:
        raise MissingDependencyError(
            "edgedec adapt trains with torch: pip install 'edgedec[torch]'."
        ) from error


def device_of(name: str) -> str:
    """The torch device for ``cpu``, ``cuda`` or ``auto``; raises DeviceError."""
    import torch

    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and not torch.cuda.is_available():
        raise DeviceError("torch sees no CUDA device here: use --device cpu.")
    return name


class threads:  # noqa: N801 - used as a function is
    """Let torch compute with so many threads for a while; None leaves it alone."""

    def __init__(self, count: int | None) -> None:
        self._count = count
        self._before = 0

    def __enter__(self) -> None:
        """Change the number."""
        import torch

        self._before = torch.get_num_threads()
        if self._count is not None:
            torch.set_num_threads(self._count)

    def __exit__(self, *_: object) -> None:
        """Change it back."""
        import torch

        torch.set_num_threads(self._before)


@dataclass(frozen=True, eq=False)
class _Data:
    train: Batches
    held_out: Batches
    written: bool


def _read(checkpoint: Checkpoint, twin: Twin, options: AdaptOptions, progress: Progress) -> _Data:
    """The text in batches; the model writes the targets that it does not have."""
    spec, name = twin.spec, checkpoint.source.id
    files = convert_tokenizer(checkpoint.folder, checkpoint.config)
    if files is None:
        raise InputError(f"{name!r} has no tokenizer to read a text with: add its files.")
    encodes = spec.encoder is not None
    defaults = family_of(checkpoint.config).generation
    config = {**(defaults(checkpoint.config) if defaults else {}), **checkpoint.config}
    generation = GenerationConfig.from_huggingface(
        checkpoint.generation_config, config, encoder_decoder=encodes
    )
    start = generation.decoder_start_token_id
    if encodes and start is None:
        raise CheckpointError(f"{name!r} does not say which token its decoder begins with.")
    limits = [n for n in (spec.max_source, spec.max_target) if n is not None]
    ends = generation.eos_token_ids
    texts = read_texts(
        read_pairs(options.text),
        Tokenizer.from_bytes(files.tokenizer),
        encoder_decoder=encodes,
        vocab_size=spec.vocab_size,
        limit=min(limits) if limits else None,
        eos=ends[0] if ends else None,
        seed=options.seed,
    )
    written = encodes and any(s.target is None for s in (*texts.train, *texts.held_out))

    def complete(samples: Sequence[Sample]) -> Sequence[Sample]:
        if not written:
            return samples
        assert start is not None
        report = partial(progress, "writing targets")
        return with_targets(
            samples, lambda found: write_targets(twin, found, start=start, ends=ends, report=report)
        )

    def batches(samples: Sequence[Sample], seed: int) -> Batches:
        return Batches(
            samples,
            tokens=options.batch_tokens,
            pad=generation.pad_token_id or 0,
            start=start if encodes else None,
            seed=seed,
            device=twin.device,
        )

    train, held_out = complete(texts.train), complete(texts.held_out)
    try:
        return _Data(batches(train, options.seed), batches(held_out, options.seed), written)
    except ValueError as error:
        raise InputError(f"nothing of {options.text} can be used: give more text.") from error


def _facts(options: AdaptOptions, checkpoint: Checkpoint) -> dict[str, Any]:
    """What the result depends on."""
    try:
        text = hashlib.sha256(options.text.read_bytes()).hexdigest()
    except OSError as error:
        reason = error.strerror or error
        raise InputError(f"{options.text} cannot be read: {reason}.") from error
    return {**options.facts(), "text": text, "checkpoint": checkpoint.source.sha256}


def _record(
    options: AdaptOptions, checkpoint: Checkpoint, policy: Policy, report: AdaptReport
) -> dict[str, Any]:
    facts = report.to_json()
    del facts["folder"]
    return {
        "producer": f"edgedec {version('edgedec')}",
        "base": checkpoint.source.sha256,
        "options": {**options.facts(), "depth": describe(policy), "text": options.text.name},
        "result": facts,
    }
