"""Which part of a model shall run on which device."""

from __future__ import annotations

from dataclasses import dataclass

from edgedec.devices.base import DEVICES, RESIDENT, STATIC
from edgedec.devices.parts import PARTS, parse_devices
from edgedec.errors import InputError

CPU = "cpu"


@dataclass(frozen=True)
class Place:
    """An NPU or a GPU, and the parts of the model that it runs; the CPU runs the others."""

    device: str
    parts: frozenset[str]

    def on(self, device: str) -> str:
        """What ``--device`` takes to run these parts there, and others where they were lowered for.

        Args:
            device: with an option or without, such as ``qnn:sm8650``.
        """
        return ",".join(f"{part}={device}" for part in sorted(self.parts))

    def device_of(self, encoder: bool) -> str:
        """The device of the encoder, or of a component of the decoder."""
        return self.device if PARTS[not encoder] in self.parts else CPU


def place(device: str) -> Place | None:
    """What a text of ``--device`` says; a part that it leaves out runs on the CPU.

    Returns:
        None where the CPU runs everything.

    Raises:
        InputError: an unknown device, one with an option, or two that are not the CPU.
    """
    chosen = parse_devices(device)
    for name in chosen.values():
        plain, colon, _ = name.partition(":")
        if colon and plain in DEVICES:
            why = (
                "the form of its graphs is chosen when they run"
                if plain in RESIDENT
                else "name chips with --soc"
            )
            raise InputError(f"--device {device}: an export takes {plain!r} alone; {why}.")
        if name not in DEVICES:
            raise InputError(f"--device {device}: choose among {', '.join(DEVICES)}.")
    found = sorted(set(chosen.values()) & (STATIC | RESIDENT))
    if not found:
        return None
    if len(found) > 1:
        raise InputError(
            f"--device {device}: a bundle is for one NPU or GPU; let the CPU run the other part."
        )
    return Place(found[0], frozenset(part for part, name in chosen.items() if name == found[0]))


def place_in(device: str, *, encodes: bool) -> Place:
    """The same for a model, which may have no encoder.

    Args:
        device: names an NPU or a GPU.
        encodes: whether it has one.

    Raises:
        InputError: the model has no part that is to run there.
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
