"""Which device runs which part of a model: the text of ``--device``."""

from __future__ import annotations

from collections.abc import Mapping

from edgedec.devices.base import DEVICES
from edgedec.errors import BundleError, InputError
from edgedec.runtime.manifest import MANIFEST, Manifest

PARTS = ("encoder", "decoder")
"""The decoder's are its stages with all variants, its head, and what reads prompts."""


def parse_devices(text: str) -> dict[str, str]:
    """Take ``DEVICE`` or ``encoder=DEVICE,decoder=DEVICE`` apart.

    Returns:
        Part -> device as `edgedec.devices.base.get_device` takes it; parts that the text leaves
        out are missing.

    Raises:
        InputError: no such part, one given twice, or one without a device.
    """
    if "=" not in text:
        return dict.fromkeys(PARTS, text.strip())
    found: dict[str, str] = {}
    for item in text.split(","):
        part, _, device = (word.strip() for word in item.partition("="))
        if part not in PARTS or not device:
            raise InputError(
                f"--device {text!r}: write a device, or encoder=DEVICE,decoder=DEVICE."
            )
        if part in found:
            raise InputError(f"--device {text!r} names the {part}'s device twice: name it once.")
        found[part] = device
    return found


def split_devices(text: str) -> tuple[str, ...]:
    """The items of a list of what `parse_devices` takes, each once.

    A part's device joins the item before it, unless that has one of the same part:
    ``cpu,encoder=qnn,decoder=cpu`` are two items.
    """
    found: list[dict[str, str]] = []
    for item in text.split(","):
        part, equals, device = (word.strip() for word in item.partition("="))
        if equals and found and "" not in found[-1] and part not in found[-1]:
            found[-1][part] = device
        else:
            found.append({part: device} if equals else {"": part})
    texts = (",".join(f"{k}={v}" if k else v for k, v in item.items()) for item in found)
    return tuple(dict.fromkeys(texts))


def devices_of(manifest: Manifest, chosen: Mapping[str, str] | None = None) -> dict[str, str]:
    """The device of every component.

    Args:
        manifest: of the bundle.
        chosen: part -> device; what it leaves out stays where it was lowered for.

    Raises:
        InputError: the model has no part of those that were chosen.
        BundleError: a component stays on a device that there is not.
    """
    chosen = {} if chosen is None else chosen
    if manifest.encoder is None and chosen.keys() == {"encoder"}:
        raise InputError("--device encoder=...: this model has no encoder; name a device alone.")
    found = {}
    for name, component in manifest.components.items():
        part = PARTS[name != manifest.encoder]
        if part not in chosen and component.device not in DEVICES:
            raise BundleError(
                f"{MANIFEST}: the component {name!r} is for the device {component.device!r}, which "
                "this edgedec does not know: upgrade edgedec (pip install -U edgedec), or name "
                "another device with --device."
            )
        found[name] = chosen.get(part, component.device)
    return found


def default_devices(manifest: Manifest) -> str:
    """What `parse_devices` takes for the devices that a bundle was lowered for."""
    components = manifest.components
    decoder = components[manifest.stages[0].component].device
    encoder = decoder if manifest.encoder is None else components[manifest.encoder].device
    return decoder if encoder == decoder else f"encoder={encoder},decoder={decoder}"
