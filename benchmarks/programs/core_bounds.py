"""What one core can do at best: ``native/bounds.c``, compiled for an instruction set on the fly."""

from __future__ import annotations

import ctypes
import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from protocol import answer

SOURCE = Path(__file__).parent.parent / "native" / "bounds.c"
VNNI = ("-mavx512f", "-mavx512bw", "-mavx512vl", "-mavx512dq", "-mavx512vnni")
FLAGS: dict[str, tuple[str, ...]] = {
    "scalar": (),
    "avx2": ("-mavx2", "-mfma"),
    "avxvnni": ("-mavx2", "-mfma", "-mavxvnni"),
    "avx512": VNNI,
    "avx512vbmi": (*VNNI, "-mavx512vbmi"),
    "neon": ("-march=armv8.2-a+dotprod",),
}
"""Instruction sets by the library's names (operator KernelInfo)."""
AHEAD = (0, 512, 1024, 2048, 4096)
"""Bytes to prefetch ahead; the best counts."""
PASS = 1 << 25
"""Bytes per measurement, at least."""


@dataclass(frozen=True)
class Task:
    """Which instruction set."""

    isa: str


def compiled(isa: str) -> ctypes.CDLL:
    """The library; it is loaded before its folder goes."""
    with tempfile.TemporaryDirectory() as folder:
        library = Path(folder) / "bounds.so"
        compiler = os.environ.get("CC", "cc")
        options = ["-O3", "-shared", "-fPIC", *FLAGS[isa]]
        subprocess.run([compiler, *options, str(SOURCE), "-o", str(library)], check=True)
        bounds = ctypes.CDLL(str(library))
    for name in ("read_seconds", "lookup_seconds"):
        getattr(bounds, name).restype = ctypes.c_double
    return bounds


def main(task: Task) -> None:
    """Answer requests ``{"bytes"}`` with GB/s of reading that much again and again, and lookups."""
    bounds = compiled(task.isa)
    answer({})
    size, memory = 0, np.empty(0, np.uint8)
    for line in sys.stdin:
        request = json.loads(line)
        if request["bytes"] != size:
            size = request["bytes"]
            memory = np.ones(size // 256 * 256 + 64, np.uint8)
        start = memory.ctypes.data + -memory.ctypes.data % 64
        length = len(memory) - 64
        passes = max(2, PASS // length)
        args = (ctypes.c_void_p(start), ctypes.c_size_t(length))
        read = min(
            bounds.read_seconds(*args, ctypes.c_size_t(passes), ctypes.c_size_t(ahead))
            for ahead in AHEAD
        )
        lookup = bounds.lookup_seconds(ctypes.c_size_t(PASS))
        answer(
            {
                "read_gb_s": length * passes / read / 1e9,
                "lookup_gb_s": PASS / lookup / 1e9 if lookup > 0 else None,
            }
        )


if __name__ == "__main__":
    main(Task(**json.loads(sys.argv[1])))
