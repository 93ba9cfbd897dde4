"""Steps from an installed package to a decoded text, each tried on this machine's GPU.

Every step needs less than the one before it proves, so the first that fails says what is wrong.
`edgedec devices --doctor` climbs in a process of its own: what a driver or TensorRT cannot bear
ends that process, and the step that it was at is known.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from tempfile import TemporaryDirectory
from time import perf_counter

from edgedec.devices.finding import Finding
from edgedec.devices.gpu import rungs
from edgedec.devices.gpu.ground import Ground
from edgedec.errors import EdgedecError, MissingDependencyError, MissingDeviceError

COMMANDS = ("pip ", "python ")
"""How the part of an error after its last colon begins where it is a command."""


@dataclass(frozen=True)
class Rung:
    """A step.

    Attributes:
        name: of it, for others' ``needs``.
        title: what it tries.
        climb: does it; returns what it found, or raises.
        needs: steps that must have succeeded.
    """

    name: str
    title: str
    climb: Callable[[Ground], str]
    needs: tuple[str, ...] = ()


LIBRARY = Rung("library", "the package and its version", rungs.library)
DRIVER = Rung("driver", "NVIDIA's driver and a GPU", rungs.driver)
ENGINE = ("library", "driver")
PROFILES = Rung(
    "profiles", "one graph for one new position and for several", rungs.profiles, ENGINE
)
CACHE = Rung("cache", "two steps that write a cache in place", rungs.cache, ("profiles",))
RECORDED = Rung("graph", "a step recorded as a CUDA graph", rungs.recorded, ("cache",))
NATIVE = Rung("native", "a product with codes in standard operators", rungs.native, ENGINE)
LADDERS: Mapping[str, tuple[Rung, ...]] = {
    "tensorrt": (
        LIBRARY,
        DRIVER,
        Rung("kernels", "the shipped kernels, without TensorRT", rungs.kernels, ("driver",)),
        Rung("plugin", "a product with codes by the plugin", rungs.plugin, ENGINE),
        Rung("plugins", "the plugin for every size of codes", rungs.plugins, ("plugin",)),
        NATIVE,
        PROFILES,
        CACHE,
        RECORDED,
        Rung("words", "words of the built-in model", rungs.words, ("cache",)),
        Rung("coded", "the same with codes, by the plugin", rungs.coded, ("cache", "plugin")),
        Rung(
            "standard",
            "the same with codes, in standard operators",
            rungs.standard,
            ("cache", "native"),
        ),
    ),
    "tensorrt-rtx": (
        LIBRARY,
        Rung("builder", "engines built, which needs no GPU", rungs.builder, ("library",)),
        DRIVER,
        NATIVE,
        PROFILES,
        CACHE,
        RECORDED,
        Rung("words", "words of the built-in model", rungs.words, ("cache",)),
        Rung("coded", "the same with codes", rungs.coded, ("cache", "native")),
    ),
    "cuda": (
        Rung("library", "ONNX Runtime and its CUDA provider", rungs.provider),
        DRIVER,
        Rung("blocks", "a product with codes by MatMulNBits", rungs.blocks, ENGINE),
        PROFILES,
        CACHE,
        Rung("words", "words of the built-in model", rungs.words, ("cache",)),
        Rung("coded", "the same with codes", rungs.coded, ("cache",)),
    ),
}
"""Device -> its steps, in the order in which they are tried."""


def climb(device: str, begin: Callable[[str], object] = lambda _: None) -> Iterator[Finding]:
    """Try every step of a device.

    Args:
        device: key of `LADDERS`.
        begin: is told of every step that begins, by its name.

    Yields:
        What each step found: ``ok``, ``missing`` or ``failed``, and ``not reached`` where a step
        that it needs did not succeed.
    """
    done: set[str] = set()
    with TemporaryDirectory() as folder:
        ground = Ground(device, folder)
        for rung in LADDERS[device]:
            lacking = [name for name in rung.needs if name not in done]
            if lacking:
                yield unreached(rung)
                continue
            begin(rung.name)
            found = _try(rung, ground)
            if found.state == "ok":
                done.add(rung.name)
            yield found


def unreached(rung: Rung) -> Finding:
    """What is known of a step that was not tried."""
    return Finding("not reached", rung.title, step=rung.name)


def _try(rung: Rung, ground: Ground) -> Finding:
    began = perf_counter()
    try:
        what = rung.climb(ground)
    except Exception as error:  # noqa: BLE001 - whatever a driver does belongs into the report
        return _failure(rung, error, perf_counter() - began)
    return Finding("ok", what, step=rung.name, seconds=perf_counter() - began)


def _failure(rung: Rung, error: Exception, seconds: float) -> Finding:
    missing = isinstance(error, MissingDependencyError | MissingDeviceError)
    text = str(error).strip() or type(error).__name__
    if not isinstance(error, EdgedecError):
        text = f"{type(error).__name__}: {text.splitlines()[0][:300]}"
    what, _, command = text.rpartition(": ")
    if not what or not command.startswith(COMMANDS):
        what, command = text, ""
    return Finding(
        "missing" if missing else "failed",
        f"{rung.title}: {what.rstrip('.')}",
        command.rstrip(".") or None,
        step=rung.name,
        seconds=seconds,
    )


def main(arguments: Sequence[str]) -> int:
    """Climb the ladder of the device that is named first; a line of JSON for every event."""
    with TemporaryDirectory() as folder:
        # Engines must be built, not found, and leave nothing behind.
        os.environ["EDGEDEC_CACHE"] = folder
        for found in climb(arguments[0], lambda name: _say({"begin": name})):
            _say({"found": asdict(found)})
    return 0


def _say(event: Mapping[str, object]) -> None:
    sys.stdout.write(json.dumps(event) + "\n")
    sys.stdout.flush()  # the process may end in the next moment


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
