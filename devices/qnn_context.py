"""Compile graphs for SoCs ahead of time: context binaries, which a phone loads in milliseconds."""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from edgedec.devices.qnn_library import load
from edgedec.devices.socs import find_socs
from edgedec.errors import DeviceError

logger = logging.getLogger(__name__)
# Where a file of the working directory could hide a package, `-m` shall not look for any.
SAFE_PATH = ("-P",) if sys.version_info >= (3, 11) else ()


@dataclass(frozen=True)
class Request:
    """What the compiling process is to do.

    Attributes:
        graphs: an ``.onnx`` file each, and
        outs: the file to compile it to.
        socs: names of SoCs; several share one binary.
    """

    graphs: tuple[str, ...]
    outs: tuple[str, ...]
    socs: tuple[str, ...]


def compile_context(
    graph: Path, out: Path, soc: str | Sequence[str], *, share: Mapping[Path, Path] | None = None
) -> list[Path]:
    """Compile a graph for a SoC, load the result and compare its outputs bit for bit.

    Binaries for several SoCs, and those that several graphs share, cannot be loaded on the
    simulator: they are written as QNN made them, untested. The bytes of a binary depend on the
    graph, the SoC and QNN's version only.

    Args:
        graph: an ``.onnx`` file of fixed shapes.
        out: ``.onnx`` file to write. The binary beside it has its name with ``_qnn.bin``.
        soc: a name, or several (also joined by ``+``) for one binary that serves them all.
        share: further graphs whose weights go into the same binary -> file to write for each.

    Returns:
        The files written: one for each graph, and the binary.

    Raises:
        DeviceError: the wheel is missing, QNN cannot prepare a graph for the SoC, crashes on it,
            or computes something else once the result is loaded.
    """
    socs = find_socs(soc if isinstance(soc, str) else "+".join(soc))
    load()
    pairs = {graph: out, **(share or {})}
    if len(pairs) > 1 and len(socs) > 1:
        raise DeviceError(
            "QNN cannot share weights between graphs in a binary for several SoCs: name one SoC, "
            "or do without sharing."
        )
    with tempfile.TemporaryDirectory(dir=out.parent) as name:
        folder = Path(name)
        made = [folder / path.name for path in pairs.values()]
        _compile(
            Request(
                graphs=tuple(str(path.resolve()) for path in pairs),
                outs=tuple(map(str, made)),
                socs=tuple(soc.name for soc in socs),
            )
        )
        (binary,) = folder.glob("*.bin")
        written = [*pairs.values(), out.with_name(binary.name)]
        for source, target in zip([*made, binary], written, strict=True):
            source.replace(target)
    return written


def _compile(request: Request) -> None:
    """Let a process of its own do it: a crash ends that, and its memory is given back.

    A process's first context is also the same every time, and those after it are not.
    """
    command = [sys.executable, *SAFE_PATH, "-m", "edgedec.devices.qnn_compile"]
    done = subprocess.run(
        [*command, json.dumps(asdict(request))],
        capture_output=True,
        text=True,
        errors="replace",
        env={**os.environ, "PYTHONUTF8": "1"},
        check=False,
    )
    if done.stderr.strip():
        logger.debug("the process that compiles said:\n%s", done.stderr.strip())
    try:
        answer = json.loads(done.stdout.splitlines()[-1])["error"]
    except (IndexError, ValueError, KeyError, TypeError):
        raise DeviceError(_why(done, request)) from None
    if answer is not None:
        raise DeviceError(answer)


def _why(done: subprocess.CompletedProcess[str], request: Request) -> str:
    names = ", ".join(Path(graph).name for graph in request.graphs)
    code = done.returncode
    if code == -getattr(signal, "SIGKILL", 9):
        return (
            f"the process that compiles {names} was killed, most likely because memory ran out: "
            "compile on a machine with more, or export a smaller model."
        )
    how = f"with exit code {code}"
    if code < 0:
        how = f"by {signal.strsignal(-code) or f'signal {-code}'}"
    last = (done.stderr.strip().splitlines() or ["it said nothing"])[-1][:300]
    return (
        f"the process that compiles {names} for {'+'.join(request.socs)} ended {how} ({last}): "
        "export for another --soc or with another --quant."
    )
