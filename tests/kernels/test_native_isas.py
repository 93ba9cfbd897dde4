"""Every instruction set gives the bits of the scalar routines: natively, sanitized, emulated.

`native/compare.cc` runs every routine on random shapes by every instruction set that its processor
has and by the scalar one, and fails at the first difference. It is linked to the same objects as
the library. Processors that this machine is not are emulated, among them x86 ones that lack AVX or
AVX-512: on those, too, no file but the `isa_*.cc` may contain an instruction that is missing there.
"""

from __future__ import annotations

import platform
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from edgedec.kernels.cpu.build import (
    DISPENSABLE,
    SANITIZE,
    SOURCES,
    BuildError,
    Compiler,
    Gnu,
    build,
    compile_all,
    find_compiler,
    sources,
)

ALONE = ("-static",)  # an emulator finds no shared libraries of another processor
FEW = "50"  # of the problems that are compared, where each takes long
LIMIT = 600

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def compiler() -> Gnu:
    """The compiler of this machine, GCC or clang."""
    try:
        found: Compiler = find_compiler()
    except BuildError as error:
        pytest.skip(str(error))
    if not isinstance(found, Gnu):
        pytest.skip("compare.cc is compiled by GCC and clang only")
    return found


@pytest.fixture(scope="module")
def native(compiler: Gnu, root: Path) -> Path:
    """compare.cc for this machine; the library's objects may be there already."""
    return program(compiler, root / "build" / "native")


def program(
    compiler: Gnu, folder: Path, *, link: tuple[str, ...] = (), define: tuple[str, ...] = ()
) -> Path:
    """Compile compare.cc and what it calls; return the program."""
    objects = compile_all(compiler, sources(), folder)
    own = replace(compiler, flags=(*compiler.flags, f"-I{SOURCES}", *define))
    objects += compile_all(own, [Path(__file__).with_name("native") / "compare.cc"], folder)
    output = folder / "compare"
    run(*compiler.command, *link, *objects, "-pthread", "-o", output)
    return output


def run(*command: str | Path) -> str:
    """What a command that must succeed printed."""
    done = subprocess.run(
        [str(part) for part in command],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=LIMIT,
        check=False,
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}"
    return done.stdout


def tool(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is missing (Debian: apt install g++-aarch64-linux-gnu qemu-user)")
    return found


def test_this_machine(native: Path) -> None:
    run(native)


def test_files_with_flags_of_their_own_share_nothing(native: Path) -> None:
    """No symbol that the linker may take from there for a caller on a lesser processor."""
    objects = sorted(native.parent.glob("isa_*.o"))
    assert len(objects) > 1
    shared = []
    for path in objects:
        lines = run(tool("nm"), "--defined-only", path).splitlines()
        shared += [(path.name, line) for line in lines if line.split()[-2] in {"W", "V", "u"}]
    assert not shared


def test_this_machine_with_sanitizers_and_what_it_may_lack(compiler: Gnu, root: Path) -> None:
    """AVX-VNNI and VBMI are spelled out here, so that their files run where AVX2 and AVX-512 do."""
    plain = replace(compiler, sanitize=True, without=DISPENSABLE)
    folder = root / "build" / "sanitize-plain"
    run(program(plain, folder, link=SANITIZE, define=("-DEDGEDEC_EMULATED=1",)), FEW)


@pytest.mark.parametrize("processor", ["Nehalem", "Haswell"])
def test_x86_processors_of_the_past(native: Path, processor: str) -> None:
    """SSE 4.2 only; AVX2 and FMA."""
    if platform.machine() not in {"x86_64", "AMD64"}:
        pytest.skip("emulates x86 on x86 only")
    run(tool("qemu-x86_64"), "-cpu", processor, native, FEW)


@pytest.fixture(scope="module")
def cross() -> Gnu:
    """The compiler for 64-bit ARM, told to spend half the time on it."""
    return Gnu((tool("aarch64-linux-gnu-g++"),), "aarch64-linux-gnu", flags=("-O1",))


@pytest.fixture(scope="module")
def arm(cross: Gnu, root: Path) -> Path:
    """compare.cc for 64-bit ARM."""
    tool("qemu-aarch64")
    return program(cross, root / "build" / "aarch64", link=ALONE)


@pytest.mark.parametrize("processor", ["max", "cortex-a53"])
def test_arm(arm: Path, processor: str) -> None:
    """With the dot-product instructions of ARMv8.2, and without."""
    run(tool("qemu-aarch64"), "-cpu", processor, arm, FEW)


def test_the_library_links_for_arm(cross: Gnu, arm: Path, tmp_path: Path) -> None:
    build(tmp_path / "libedgedec_ops.so", arm.parent, cross)
    said = run(tool("aarch64-linux-gnu-nm"), "-D", "--defined-only", tmp_path / "libedgedec_ops.so")
    assert [line.split()[-1] for line in said.splitlines()] == ["RegisterCustomOps"]
