"""Open the components of a bundle, each on its device."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from edgedec.errors import DeviceError, InputError, MissingDeviceError
from edgedec.runtime.bundle import Bundle
from edgedec.runtime.manifest import Limits, Manifest
from edgedec.runtime.model import Model, open_model
from edgedec.runtime.resident.arena import Arena
from edgedec.runtime.resident.limits import limits_of
from edgedec.runtime.session import Session
from edgedec.runtime.spans import Spans

if TYPE_CHECKING:
    from edgedec.devices.base import Device, ResidentDevice

AUTO = "auto"
"""In a device's place: the first that works here."""


class Opener:
    """Opens components by their names.

    Args:
        bundle: a checked bundle.
        device: ``DEVICE`` for all, or ``encoder=DEVICE,decoder=DEVICE``; what it leaves out, and
            None leaves out everything, stays where the bundle was lowered for.
        threads: threads to compute with, None for the device's choice.
        spans: are told of every run.
        records: folder that gets ONNX Runtime's records of every operator; None for none.
        allow_fallback: what a device cannot run may run on the CPU.

    Attributes:
        sessions: what was opened so far.
        limits: how far the graphs of devices with resident memory reach.

    Raises:
        BundleError: it was lowered for a device that there is not.
        InputError: ``device`` names no device, or no part of this model.
    """

    def __init__(
        self,
        bundle: Bundle,
        device: str | None,
        *,
        threads: int | None,
        spans: Spans,
        records: Path | None,
        allow_fallback: bool,
    ) -> None:
        from edgedec.devices.base import get_device, is_resident, resident_device
        from edgedec.devices.parts import devices_of, parse_devices

        self.sessions: list[Session] = []
        self.limits: Limits = limits_of(bundle.manifest)
        self._bundle = bundle
        self._threads = threads
        self._spans = spans
        self._records = records
        self._chosen = {} if device is None else parse_devices(device)
        self._devices: dict[str, Device] = {}
        self._resident: dict[str, ResidentDevice] = {}
        texts = devices_of(bundle.manifest, self._chosen)
        resident = {t: resident_device(t) for t in dict.fromkeys(texts.values()) if is_resident(t)}
        others = {
            text: get_device(text, allow_fallback=allow_fallback)
            for text in dict.fromkeys(texts.values())
            if text not in resident
        }
        for name, text in texts.items():
            if text in resident:
                self._resident[name] = resident[text]
            else:
                self._devices[name] = others[text]

    def arena(self, component: str) -> Arena | None:
        """The memory of the device that a component runs on; None where that is the host's.

        Raises:
            MissingDeviceError: the device is not available here.
        """
        device = self._resident.get(component)
        return None if device is None else device.arena()

    def open(self, component: str) -> Session:
        """Open a component.

        Raises:
            BundleError: the runtime refuses its graph.
            DeviceError: its device cannot run it.
        """
        manifest = self._bundle.manifest
        # By number: names are the bundle's, and no part of a path.
        kept = None if self._records is None else self._records / str(len(self.sessions))
        try:
            session = (
                self._open_resident(component, kept)
                if component in self._resident
                else self._open(component, kept)
            )
        except MissingDeviceError as error:
            compiled = manifest.components[component].contexts
            if compiled or _part(manifest, component) in self._chosen:
                raise
            raise MissingDeviceError(
                f"{str(error).rstrip('.')}; or run the bundle on the CPU: --device cpu."
            ) from error
        session.component = component
        session.spans = self._spans
        self.sessions.append(session)
        return session

    def _open(self, component: str, records: Path | None) -> Session:
        manifest, device = self._bundle.manifest, self._devices[component]
        _check_static(manifest, component, device.name)
        path = self._bundle.path(device.file(manifest.components[component]))
        # Threads of the only graph that runs step after step may wait for the next one.
        alone = len(manifest.stages) == 1 and component == manifest.stages[0].component
        return device.open(path, threads=self._threads, shared=not alone, records=records)

    def _open_resident(self, component: str, records: Path | None) -> Session:
        from edgedec.runtime.static.parts import is_static

        bundle, device = self._bundle, self._resident[component]
        if is_static(bundle.manifest, component):
            raise DeviceError(
                f"{bundle.manifest.components[component].file} has fixed shapes, and {device.name} "
                "takes graphs of any length: export the checkpoint again, without the NPU's "
                "--device."
            )
        return device.open_resident(
            bundle, component, self.limits, threads=self._threads, records=records
        )


def open_on(
    bundle: Bundle,
    device: str | None,
    *,
    threads: int | None,
    spans: Spans,
    records: Path | None,
    allow_fallback: bool,
) -> tuple[Opener, Model]:
    """Open a bundle's model; arguments and errors as of `Opener`.

    With ``auto`` in a device's place, the first one of `edgedec.devices.auto` that opens the whole
    model; each that does not is logged with its reason.
    """
    from edgedec.devices.parts import parse_devices

    def begin(text: str | None) -> Opener:
        return Opener(
            bundle,
            text,
            threads=threads,
            spans=spans,
            records=records,
            allow_fallback=allow_fallback,
        )

    def finish(opener: Opener) -> tuple[Opener, Model]:
        # Records are of single runs.
        return opener, open_model(bundle, opener, ahead=records is None)

    chosen = {} if device is None else parse_devices(device)
    if AUTO not in chosen.values():
        return finish(begin(device))
    from edgedec.devices.auto import first_that_works
    from edgedec.devices.base import is_resident

    def with_one(found: str) -> tuple[Opener, Model]:
        texts = {part: found if text == AUTO else text for part, text in chosen.items()}
        opener = begin(",".join(f"{part}={text}" for part, text in texts.items()))
        try:
            return finish(opener)
        except InputError as error:
            if not is_resident(found):
                raise
            # Nothing was asked for yet, so it is the device's memory that is short.
            raise DeviceError(str(error)) from error

    return first_that_works(with_one)


def _part(manifest: Manifest, component: str) -> str:
    return "encoder" if component == manifest.encoder else "decoder"


def _check_static(manifest: Manifest, component: str, device: str) -> None:
    """Refuse to give a graph to a device that takes fixed shapes only, and this one has none."""
    from edgedec.devices.base import STATIC
    from edgedec.runtime.static.parts import is_static

    if device not in STATIC or is_static(manifest, component):
        return
    file = manifest.components[component].file
    part = _part(manifest, component)
    mixed = f", or run with --device {'cpu' if manifest.static is None else f'{part}=cpu'}"
    raise DeviceError(
        f"{file} takes inputs of any length, and {device} runs graphs of fixed shapes only: export "
        f"with --device {device}{mixed}."
    )
