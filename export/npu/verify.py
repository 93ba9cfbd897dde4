"""Compare graphs of fixed shapes, on the NPU and on the CPU, with the floating-point model.

Operators of NPUs can return wrong numbers without an error, so what counts is what comes out: how
often the same token is chosen, and how far the logits are from those of the same graphs on the CPU.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from edgedec.devices.socs import DEFAULT_SOC, SOCS, Soc
from edgedec.export.bundle import Progress
from edgedec.export.feeding import (
    Predicted,
    Tokens,
    equal,
    predictions,
    relative_error,
    start_of,
)
from edgedec.export.npu.options import NpuOptions
from edgedec.export.passages import Passage, first_tokens
from edgedec.export.places import Place
from edgedec.runtime.bundle import Bundle
from edgedec.runtime.generator import Generator
from edgedec.runtime.manifest import Agreement

TOKENS = 512
"""Chosen tokens that are compared on the CPU at most: one of them is 0.2 %."""
SIMULATED = 64
"""The first of these, which are compared on the NPU: a simulator takes up to 0.9 s for a token of a
model of 4 million weights. A number, not a time, so that the outcome is the same every time."""


@dataclass(frozen=True, eq=False)
class OnDevice:
    """What one device chose.

    Attributes:
        device: as ``--device`` takes it, for the part that runs there.
        tokens: for each of the first passages, of which the last may be cut.
        error: worst difference of logits from the same graphs on the CPU, relative to the range
            of these; None where the graphs give none.
    """

    device: str
    tokens: Sequence[Tokens]
    error: float | None


@dataclass(frozen=True, eq=False)
class Compared:
    """What several chose on the same passages.

    Attributes:
        passages: what they were fed.
        exact: for each the tokens that the floating-point model chose.
        cpu: those of the graphs of fixed shapes on the CPU.
        devices: and on NPUs or their simulators; one at least.
    """

    passages: Sequence[Passage]
    exact: Sequence[Tokens]
    cpu: Sequence[Tokens]
    devices: Sequence[OnDevice]

    def agreement(self, text: str) -> Agreement:
        """The figures, for the manifest: of several devices those of the worst."""
        socs = [found.device.partition(":")[2] for found in self.devices]
        errors = [found.error for found in self.devices if found.error is not None]
        return Agreement(
            text=text,
            inputs=len(self.passages),
            tokens=_count(self.exact),
            soc=",".join(filter(None, socs)) or None,
            device=min(equal(found.tokens, self.exact) for found in self.devices),
            cpu=equal(self.cpu, self.exact),
            device_cpu=min(equal(found.tokens, self.cpu) for found in self.devices),
            device_tokens=_count(self.devices[0].tokens),
            device_error=max(errors, default=None),
        )

    @property
    def worst_device(self) -> OnDevice:
        """The one that differs most from the same graphs on the CPU."""
        return min(self.devices, key=lambda found: (equal(found.tokens, self.cpu), _error(found)))

    def worst(self) -> tuple[Passage, float]:
        """The passage with the smallest share of equal tokens anywhere, and that."""
        shares = [
            (float(np.mean(a == b[: len(a)])), place)
            for found in (self.cpu, *(found.tokens for found in self.devices))
            for place, (a, b) in enumerate(zip(found, self.exact, strict=False))
        ]
        share, place = min(shares)
        return self.passages[place], share


def devices_of(options: NpuOptions) -> tuple[str, ...]:
    """Where to verify: one chip of every version of the HTP that was asked for."""
    if options.place.device != "qnn":
        return (options.place.device,)
    chips: dict[int, Soc] = {}
    for soc in [soc for item in options.socs for soc in item] or [SOCS[DEFAULT_SOC]]:
        chips.setdefault(soc.arch, soc)
    return tuple(f"qnn:{soc.name}" for soc in chips.values())


def compare(
    exact: Generator,
    static: Bundle,
    place: Place,
    devices: Sequence[str],
    passages: Sequence[Passage],
    progress: Progress,
) -> Compared:
    """Let all run over the same passages.

    Args:
        exact: of the floating-point model.
        static: graphs of fixed shapes, as far as the model has some.
        place: which parts these are; the others stay on the CPU.
        devices: where they shall run, as `devices_of` names them.
        passages: what they are fed; the first of them serve.
        progress: told what is running, and which fraction of it is done.

    Raises:
        DeviceError: a device is not available here, or does not run a graph.
    """
    assert static.manifest.static is not None
    decoder = static.manifest.static.decoder
    scored = SIMULATED if decoder is None or decoder.unroll == 1 else 0
    chosen = first_tokens(passages, TOKENS)
    few = first_tokens(chosen, SIMULATED)

    def run(generator: Generator, what: str, fed: Sequence[Passage], scored: int = 0) -> Predicted:
        told = partial(progress, f"verifying: {what}")
        return predictions(start_of(generator), fed, told, scored=scored)

    cpu = run(Generator(static, device="cpu"), "the graphs on the CPU", chosen, scored)
    floating = run(exact, "floating point", chosen)
    found = []
    for device in devices:
        generator = Generator(static, device=place.on(device))
        there = run(generator, device, few, scored)
        found.append(OnDevice(device, there.tokens, relative_error(there.logits, cpu.logits)))
    return Compared(chosen, floating.tokens, cpu.tokens, found)


def _count(tokens: Sequence[Tokens]) -> int:
    return sum(map(len, tokens))


def _error(found: OnDevice) -> float:
    return 0.0 if found.error is None else -found.error
