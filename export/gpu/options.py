"""What an export for a GPU is asked for, and what a model makes of it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from edgedec.errors import InputError
from edgedec.export.places import Place
from edgedec.runtime.manifest import Limits, Manifest
from edgedec.runtime.resident.limits import limits_of

LONGEST = 1 << 16
"""Rows, and tokens: a cache has memory for all of them."""
LEAST = 0.97
"""Share of equal tokens that a bundle is written with: float16 changes next to none."""


@dataclass(frozen=True)
class GpuOptions:
    """How to make a bundle for a GPU, beside how to make a bundle.

    Attributes:
        device: as ``--device`` takes it, with
        place: what that says.
        max_rows, max_source, max_target: how far its graphs reach; None: what suits the model.
        min_agreement: least share of equal tokens; None: what suits float16.
        engines: folder for engines and their descriptions; None: they are made where they run.
        verify: whether to check the graphs.
        force: whether to replace existing engines.

    Raises:
        InputError: options that exclude each other, or are out of range.
    """

    device: str
    place: Place
    max_rows: int | None = None
    max_source: int | None = None
    max_target: int | None = None
    min_agreement: float | None = None
    engines: Path | None = None
    verify: bool = True
    force: bool = False

    def __post_init__(self) -> None:
        for option, value, least, most in (
            ("max-rows", self.max_rows, 1, LONGEST),
            ("max-source", self.max_source, 1, LONGEST),
            ("max-target", self.max_target, 2, LONGEST),
            ("min-agreement", self.min_agreement, 0, 1),
        ):
            if value is not None and not least <= value <= most:
                raise InputError(f"--{option} {value}: give {least:,} to {most:,}.")
        if self.min_agreement is not None and not self.verify:
            raise InputError("--min-agreement and --no-verify contradict each other: give one.")
        if self.engines is not None and self.place.device == "cuda":
            raise InputError(
                f"--engines {str(self.engines)!r} is for TensorRT: with --device cuda ONNX Runtime "
                "runs the graphs themselves; leave it out, or export for tensorrt or tensorrt-rtx."
            )
        if self.max_target is not None and "decoder" not in self.place.parts:
            raise InputError(
                f"--max-target {self.max_target} is for the decoder, which --device {self.device} "
                "leaves on the CPU: leave it out."
            )

    @property
    def least(self) -> float:
        """The least share of equal tokens that a bundle is written with."""
        return LEAST if self.min_agreement is None else self.min_agreement


def asked_limits(manifest: Manifest, options: GpuOptions) -> Limits:
    """How far the graphs of a model shall reach.

    Args:
        manifest: of the model, which may have limits already.
        options: with numbers, or without.

    Raises:
        InputError: more than the model takes.
    """
    io = manifest.interface
    found = limits_of(manifest)
    if found.source is None and options.max_source is not None:
        raise InputError(
            f"--max-source {options.max_source} is not for this model: it has no encoder; use "
            "--max-target."
        )
    for option, given, most in (
        ("max-source", options.max_source, io.max_source),
        ("max-target", options.max_target, io.max_target),
    ):
        if given is not None and most is not None and given > most:
            raise InputError(f"--{option} {given:,}: the model takes {most:,}; give that or fewer.")
    asked = {
        "rows": options.max_rows,
        "source": options.max_source,
        "target": options.max_target,
    }
    return replace(found, **{name: n for name, n in asked.items() if n is not None})
