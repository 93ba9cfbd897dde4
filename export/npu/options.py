"""What an export for an NPU is asked for, and what a model makes of it."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from pathlib import Path

from edgedec.devices.npu.lower import Shapes
from edgedec.devices.npu.precision import PRECISIONS
from edgedec.devices.socs import Soc, find_socs
from edgedec.errors import InputError
from edgedec.export.places import Place
from edgedec.runtime.generation import GenerationConfig
from edgedec.runtime.manifest import BiasTable, Manifest, StaticDecoder
from edgedec.runtime.static.options import check_scores

DEFAULT = "nbits8"
"""The precision that needs no calibration and loses nothing that could be measured."""
SOURCE = TARGET = 128
"""Tokens of a source and of a target, where the model allows more and nobody asks for others."""
CONTEXT = 512
"""Tokens of a prompt with its continuation, likewise."""
CHUNK = 32
"""Prompt tokens that one run takes."""
LONGEST = 1 << 16
"""Tokens: graphs of fixed shapes attend over all of them at every step."""
MOST_STEPS = 64
"""Greedy steps of one run: every one is a copy of all nodes of the decoder."""
LOW_BITS, LOW, HIGH = 4, 0.9, 0.97
"""Bits per weight from which on fewer equal tokens are to be expected; the least agreement that a
bundle is written with, for so few bits and for more."""


@dataclass(frozen=True)
class NpuOptions:
    """How to make a bundle for an NPU.

    Attributes:
        device: as ``--device`` takes it, with
        place: what that says.
        precision: key of `PRECISIONS`.
        kv: how keys and values are stored; None: what suits the precision.
        max_source, max_target, chunk: lengths in tokens; None: what suits the model.
        unroll: greedy steps of one run.
        soc: systems on chip to compile for, such as ``sm8650,sm8550+sm8750``; None: do not.
        share_contexts: let the contexts of a chip share their weights.
        min_agreement: least share of equal tokens; None: what suits the precision.
        budget: mean bits per weight; weights that suffer most from fewer get 8. None: none do.
        calibration: text to calibrate and to verify on.
        verify: whether to verify.
        force: whether to replace an existing bundle.
        revision, tokenizer, via, base: how to read a checkpoint.

    Raises:
        InputError: options that exclude each other, or are out of range.
        DeviceError: a system on chip that is not known.
    """

    device: str
    place: Place
    precision: str = DEFAULT
    kv: str | None = None
    max_source: int | None = None
    max_target: int | None = None
    chunk: int | None = None
    unroll: int = 1
    soc: str | None = None
    share_contexts: bool = False
    min_agreement: float | None = None
    budget: float | None = None
    calibration: Path | None = None
    verify: bool = True
    force: bool = False
    revision: str | None = None
    tokenizer: str | None = None
    via: str | None = None
    base: str | None = None
    stages: None = None
    depth: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.precision not in PRECISIONS:
            raise InputError(
                f"--quant {self.precision} is for the CPU; with --device {self.device} choose one "
                f"of {', '.join(PRECISIONS)}."
            )
        precision = PRECISIONS[self.precision]
        if self.kv not in (None, *precision.kv):
            raise InputError(
                f"--kv {self.kv}: with --quant {self.precision} keys and values are stored as "
                f"{' or '.join(precision.kv)}."
            )
        _check_ranges(self)
        if self.budget is not None and precision.bits != LOW_BITS:
            raise InputError(
                f"--budget is for weights of {LOW_BITS} bits, of which it lets some have 8; "
                f"--quant {self.precision} leaves no choice."
            )
        if self.budget is not None and not LOW_BITS <= self.budget <= 32:
            raise InputError(
                f"--budget {self.budget:g}: give mean bits per weight of {LOW_BITS} or more."
            )
        if self.soc is not None and self.place.device != "qnn":
            raise InputError(f"--soc {self.soc} is for --device qnn, not {self.device}.")
        if self.share_contexts and self.soc is None:
            raise InputError("--share-contexts is for contexts: name the chips with --soc.")
        if self.min_agreement is not None and not self.verify:
            raise InputError("--min-agreement and --no-verify contradict each other: give one.")
        _check_text(self)
        _check_socs(self)

    @property
    def socs(self) -> tuple[tuple[Soc, ...], ...]:
        """The systems on chip to compile for; those of one item share a binary."""
        return () if self.soc is None else tuple(map(find_socs, _items(self.soc)))

    @property
    def least(self) -> float:
        """The least share of equal tokens that a bundle is written with."""
        if self.min_agreement is not None:
            return self.min_agreement
        return LOW if PRECISIONS[self.precision].bits <= LOW_BITS else HIGH

    @property
    def stored(self) -> str:
        """How keys and values are stored."""
        return self.kv or PRECISIONS[self.precision].kv[0]


def shapes_of(manifest: Manifest, options: NpuOptions) -> Shapes:
    """The lengths that graphs are fixed to.

    Args:
        manifest: of the model.
        options: with lengths, or without.

    Raises:
        InputError: lengths that the model does not have, or cannot do.
    """
    io = manifest.interface
    encodes = manifest.encoder is not None
    if "decoder" not in options.place.parts:
        for option, value, usual in (
            ("max-target", options.max_target, None),
            ("unroll", options.unroll, 1),
        ):
            if value != usual:
                raise InputError(
                    f"--{option} {value} is for the decoder, which --device {options.device} "
                    "leaves on the CPU."
                )
    misplaced = ("chunk", options.chunk) if encodes else ("max-source", options.max_source)
    if misplaced[1] is not None:
        why = "its decoder reads no prompts" if encodes else "it has no encoder; use --max-target"
        raise InputError(f"--{misplaced[0]} {misplaced[1]} is not for this model: {why}.")
    target = _length(
        "max-target", options.max_target, io.max_target, TARGET if encodes else CONTEXT
    )
    if target < 2:
        raise InputError("the model takes a single token and has nothing to decode.")
    if options.unroll > target:
        raise InputError(
            f"--unroll {options.unroll} makes more steps than a target has tokens: give at most "
            f"{target}, or raise --max-target."
        )
    if encodes:
        source = _length("max-source", options.max_source, io.max_source, SOURCE)
        return Shapes(source, target, unroll=options.unroll)
    if options.chunk is not None and options.chunk >= target:
        raise InputError(
            f"--chunk {options.chunk} is no part of --max-target {target}: give fewer."
        )
    return Shapes(None, target, options.chunk or min(CHUNK, target - 1), options.unroll)


def check_unroll(manifest: Manifest, options: NpuOptions) -> None:
    """Refuse several steps in one run where the checkpoint's own way to generate needs scores.

    Args:
        manifest: of the model.
        options: how many steps.

    Raises:
        InputError: with the settings that need them.
    """
    io, config = manifest.interface, manifest.generation
    decoder = StaticDecoder(None, 1, options.unroll, None, None, BiasTable("", 1, 1))

    def needs_scores(config: GenerationConfig) -> bool:
        try:
            check_scores(config, io, decoder)
        except InputError:
            return True
        return False

    if not needs_scores(config):
        return
    plain = GenerationConfig(eos_token_ids=config.eos_token_ids)
    found = []
    for setting in fields(config):
        value = getattr(config, setting.name)
        if needs_scores(replace(plain, **{setting.name: value})):
            found.append(f"{setting.name} {value}")
    raise InputError(
        f"--unroll {options.unroll} makes graphs without scores, and the checkpoint's "
        f"generation_config.json sets what needs them ({', '.join(found)}): leave out --unroll."
    )


def _length(option: str, given: int | None, limit: int | None, usual: int) -> int:
    if given is None:
        return usual if limit is None else min(usual, limit)
    if limit is not None and given > limit:
        raise InputError(f"--{option} {given:,}: the model takes {limit:,}; give that or fewer.")
    return given


def _items(soc: str) -> list[str]:
    return [item.strip() for item in soc.split(",")]


def _check_ranges(options: NpuOptions) -> None:
    for option, value, least, most in (
        ("max-source", options.max_source, 1, LONGEST),
        ("max-target", options.max_target, 2, LONGEST),
        ("chunk", options.chunk, 1, LONGEST),
        ("unroll", options.unroll, 1, MOST_STEPS),
        ("min-agreement", options.min_agreement, 0, 1),
    ):
        if value is not None and not least <= value <= most:
            raise InputError(f"--{option} {value}: give {least:,} to {most:,}.")


def _check_text(options: NpuOptions) -> None:
    calibrated = PRECISIONS[options.precision].needs_ranges(options.stored)
    if options.calibration is None or options.verify or calibrated or options.budget is not None:
        return
    raise InputError(
        f"--calib {options.calibration}: with --quant {options.precision} and --no-verify nothing "
        "is calibrated; leave it out."
    )


def _check_socs(options: NpuOptions) -> None:
    if options.soc is None:
        return
    if len(set(_items(options.soc))) != len(_items(options.soc)):
        raise InputError(f"--soc {options.soc} names a chip twice: name it once.")
    precision = PRECISIONS[options.precision]
    old = [soc.name for item in options.socs for soc in item if not soc.blocks]
    if old and precision.blocks and not precision.calibrated:
        raise InputError(
            f"--soc {old[0]} has no products with scales per block, which --quant "
            f"{options.precision} needs: choose --quant w8a16, or another chip."
        )
