"""Which part of a model shall run on which device."""

from __future__ import annotations

from dataclasses import dataclass

from edgedec.devices.base import DEVICES, STATIC
from edgedec.devices.parts import PARTS, parse_devices
from edgedec.errors import InputError

CPU = "cpu"


@dataclass(frozen=True)
class Place:
    """The NPU's name, and the parts of the model that it runs; the CPU runs the others."""

    device: str
    parts: frozenset[str]

    def on(self, device: str) -> str:
        """What ``--device`` takes to run these parts there, and others where they were lowered for.

        Args:
            device: the NPU, with a chip or without, such as ``qnn:sm8650``.
        """
        return ",".join(f"{part}={device}" for part in sorted(self.parts))


def place(device: str) -> Place | None:
    """What a text of ``--device`` says; a part that it leaves out runs on the CPU.

    Returns:
        None where the CPU runs everything.

    Raises:
        InputError: an unknown device, one with an option, or two NPUs.
    """
    chosen = parse_devices(device)
    for name in chosen.values():
        plain, colon, _ = name.partition(":")
        if colon and plain in DEVICES:
            raise InputError(
                f"--device {device}: an export takes {plain!r} alone; name chips with --soc."
            )
        if name not in DEVICES:
            raise InputError(f"--device {device}: choose among {', '.join(DEVICES)}.")
    npus = sorted(set(chosen.values()) & STATIC)
    if not npus:
        return None
    if len(npus) > 1:
        raise InputError(
            f"--device {device}: a bundle is for one NPU; let the CPU run the other part."
        )
    return Place(npus[0], frozenset(part for part, name in chosen.items() if name == npus[0]))


def place_in(device: str, *, encodes: bool) -> Place:
    """The same for a model, which may have no encoder.

    Args:
        device: names an NPU.
        encodes: whether it has one.

    Raises:
        InputError: the model has no part that is to run on the NPU.
    """
    found = place(device)
    assert found is not None
    if encodes:
        return found
    if "=" in device and PARTS[0] in parse_devices(device):
        raise InputError(
            f"--device {device}: this model has no encoder; write --device {found.device}."
        )
    return Place(found.device, frozenset(PARTS[1:]))
