"""Compile the operator library with the C++ compiler of the system.

setup.py does it while edgedec is installed and `make native` after the sources changed. Where there
was no compiler at that time, ``python -m edgedec.kernels.cpu.build`` adds the library to an
installed edgedec. The library links to nothing of Python or ONNX Runtime, so this is a list of
compiler calls; it uses the standard library only, because setup.py runs before edgedec can be
imported.

Every source is compiled for the oldest processor of its kind, except the files below: what they
contain is called only after the processor was asked whether it can.
"""

from __future__ import annotations

import argparse
import importlib
import logging
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Protocol

SOURCES = Path(__file__).resolve().parent
LIBRARY = {"darwin": "libedgedec_ops.dylib", "win32": "edgedec_ops.dll"}.get(
    sys.platform, "libedgedec_ops.so"
)
"""File name of the library; it lies beside ``edgedec/kernels/__init__.py``."""

_AVX512 = ("-mavx2", "-mfma", "-mavx512f", "-mavx512bw", "-mavx512vl", "-mavx512dq", "-mavx512vnni")
X86 = {
    "isa_avx2": ("-mavx2", "-mfma"),
    "isa_avxvnni": ("-mavx2", "-mfma", "-mavxvnni"),
    "isa_avx512": _AVX512,
    "isa_avx512vbmi": (*_AVX512, "-mavx512vbmi"),
}
# The sources spell these instructions out, in those before them, where the compiler lacks the flag.
DISPENSABLE = ("-mavxvnni", "-mavx512vbmi")
ARM = {"isa_neon": ("-march=armv8.2-a+dotprod",)}
# Intrinsics need no option there; with it the compiler writes the short encodings.
MSVC = {
    "isa_avx2": ("/arch:AVX2",),
    "isa_avxvnni": ("/arch:AVX2",),
    "isa_avx512": ("/arch:AVX512",),
    "isa_avx512vbmi": ("/arch:AVX512",),
}

# Results are the same to the bit whatever the processor, so nothing may fuse a product and a sum.
COMPILE = (
    *("-std=c++17", "-O3", "-fPIC", "-fvisibility=hidden", "-ffunction-sections"),
    *("-ffp-contract=off", "-fno-math-errno", "-Wall", "-Wextra"),
    "-Wno-uninitialized",  # GCC 12 finds that everywhere in its own AVX-512 headers
)
LINK_LINUX = ("-shared", "-Wl,--gc-sections", f"-Wl,--version-script={SOURCES / 'exports.map'}")
# The C++ library goes inside: the machine's own may be older. "-s": no names for debuggers.
LINK_ALONE = ("-static-libstdc++", "-static-libgcc", "-Wl,--no-undefined", "-s")
LINK_MACOS = (
    *("-dynamiclib", "-Wl,-dead_strip", "-Wl,-exported_symbol,_RegisterCustomOps"),
    *("-Wl,-x", f"-Wl,-install_name,@rpath/{LIBRARY}"),
)
COMPILE_MSVC = (
    *("/nologo", "/c", "/TP", "/std:c++17", "/O2", "/EHsc", "/MT", "/utf-8", "/permissive-"),
    *("/Zc:__cplusplus", "/DNOMINMAX", "/W3"),
    "/fp:strict",  # the others may fuse a product and a sum, depending on the compiler's version
)
LINK_MSVC = ("/nologo", "/DLL", "/MANIFEST:NO", "/OPT:REF")
SANITIZE = (
    *(
        "-fsanitize=address,undefined",
        "-fno-sanitize-recover=all",
        "-fno-omit-frame-pointer",
        "-g1",
    ),
    # Optimized, and with checks in place of calls, this takes the compiler minutes per file.
    *("-O0", "--param", "asan-instrumentation-with-call-threshold=0"),
)

logger = logging.getLogger("edgedec.build")


class BuildError(Exception):
    """There is no compiler, or it refuses; the message says which and why."""


class Compiler(Protocol):
    """Writes command lines."""

    suffix: ClassVar[str]

    def compile(self, source: Path, output: Path) -> list[str]:
        """The command that compiles one source file."""

    def link(self, objects: Sequence[Path], output: Path) -> list[str]:
        """The command that links objects into a shared library."""


@dataclass(frozen=True)
class Gnu:
    """GCC or clang.

    Attributes:
        command: the compiler and what every call of it begins with.
        machine: what it compiles for, in the words of ``-dumpmachine``: "x86_64-linux-gnu".
        flags: what every call has after our own flags.
        link_flags: more for the linker.
        without: which of `DISPENSABLE` it lacks.
        sanitize: stop at the first mistake with memory or arithmetic. Slower, and a program that
            loads the library must have loaded the sanitizers before.
    """

    command: tuple[str, ...]
    machine: str
    flags: tuple[str, ...] = ()
    link_flags: tuple[str, ...] = ()
    without: tuple[str, ...] = ()
    sanitize: bool = False
    suffix: ClassVar[str] = ".o"

    def compile(self, source: Path, output: Path) -> list[str]:
        """The command that compiles one source file."""
        sanitize = SANITIZE if self.sanitize else ()
        own = (*COMPILE, *self._processor(source.stem), *sanitize, *self.flags)
        return [*self.command, *own, "-c", str(source), "-o", str(output)]

    def link(self, objects: Sequence[Path], output: Path) -> list[str]:
        """The command that links objects into a shared library."""
        if "apple" in self.machine:
            own = LINK_MACOS
        else:
            own = (*LINK_LINUX, *(SANITIZE if self.sanitize else LINK_ALONE))
        given = (*self.flags, *map(str, objects), *self.link_flags)
        return [*self.command, *own, *given, "-o", str(output)]

    def _processor(self, stem: str) -> Iterable[str]:
        x86 = [flag for flag in X86.get(stem, ()) if flag not in self.without]
        arm = ARM.get(stem, ())
        if "apple" in self.machine:  # one call may compile for both
            named = [("-Xarch_x86_64", flag) for flag in x86]
            named += [("-Xarch_arm64", flag) for flag in arm]
            return [word for pair in named for word in pair]
        if self.machine.startswith(("x86_64", "amd64")):
            return x86
        return arm if self.machine.startswith(("aarch64", "arm64")) else ()


@dataclass(frozen=True)
class Msvc:
    """Visual C++.

    Attributes:
        compiler: path of cl.exe.
        linker: path of link.exe.
        includes: folders of headers.
        libraries: folders of libraries.
    """

    compiler: str
    linker: str
    includes: tuple[str, ...] = ()
    libraries: tuple[str, ...] = ()
    suffix: ClassVar[str] = ".obj"

    def compile(self, source: Path, output: Path) -> list[str]:
        """The command that compiles one source file."""
        includes = [f"/I{folder}" for folder in self.includes]
        isa = MSVC.get(source.stem, ())
        return [self.compiler, *COMPILE_MSVC, *includes, *isa, f"/Fo{output}", str(source)]

    def link(self, objects: Sequence[Path], output: Path) -> list[str]:
        """The command that links objects into a DLL; its import library, unused, goes to them."""
        folders = [f"/LIBPATH:{folder}" for folder in self.libraries]
        out = [f"/OUT:{output}", f"/IMPLIB:{objects[0].with_name('edgedec_ops.lib')}"]
        return [self.linker, *LINK_MSVC, *folders, *out, *map(str, objects)]


def find_compiler() -> Compiler:
    """The compiler of this system.

    ``CXX`` names another one, ``CXXFLAGS``, ``LDFLAGS`` and ``ARCHFLAGS`` (macOS) add to its
    command lines; on Windows it is the newest Visual C++ that setuptools finds.

    Raises:
        BuildError: there is none.
    """
    if sys.platform == "win32":
        return _find_msvc()
    named = _words("CXX")
    candidates = named[:1] or ("c++", "g++", "clang++")
    path = next(filter(None, map(shutil.which, candidates)), None)
    if path is None:
        raise BuildError(f"there is no C++ compiler here (looked for {', '.join(candidates)})")
    command = (path, *named[1:], *_words("ARCHFLAGS"))
    machine = _run([*command, "-dumpmachine"]).strip()
    found = Gnu(command, machine, flags=_words("CXXFLAGS"), link_flags=_words("LDFLAGS"))
    if not machine.startswith("x86_64-"):
        return found
    return replace(found, without=tuple(flag for flag in DISPENSABLE if not _knows(command, flag)))


def sources() -> list[Path]:
    """The sources of the library, in an order that starts the slowest, isa_scalar.cc, early."""
    return sorted(SOURCES.glob("*.cc"), reverse=True)


def compile_all(compiler: Compiler, files: Iterable[Path], folder: Path) -> list[Path]:
    """Compile sources at the same time, one compiler per core; return the objects.

    An object in `folder` is kept when it is newer than its source and all headers, and came from
    the same command.

    Args:
        compiler: what to compile with.
        files: C++ files of different names.
        folder: where the objects go; made if missing.

    Raises:
        BuildError: a source does not compile.
    """
    folder.mkdir(parents=True, exist_ok=True)
    changed = max(path.stat().st_mtime for path in SOURCES.rglob("*.h"))

    def one(source: Path) -> Path:
        target = folder / f"{source.stem}{compiler.suffix}"
        note = target.with_suffix(".command")
        command = shlex.join(compiler.compile(source, target))
        newest = max(changed, source.stat().st_mtime)
        if target.exists() and target.stat().st_mtime > newest and _text(note) == command:
            return target
        # Under another name first: someone else may be reading or writing the same object. And as
        # old as what the compiler read, which may be edited meanwhile.
        began = time.time()
        unfinished = target.with_name(f"{source.stem}-{os.getpid()}{compiler.suffix}")
        said = _run(compiler.compile(source, unfinished))
        if said.strip():
            logger.info(said.strip())
        os.utime(unfinished, (began, began))
        unfinished.replace(target)
        note.write_text(command, encoding="utf-8")
        return target

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return list(pool.map(one, files))


def build(output: Path, objects: Path, compiler: Compiler | None = None) -> None:
    """Compile the library.

    Args:
        output: the library's file; replaced at once when everything went well, else left alone.
        objects: folder for what the compiler writes; a later call takes from it what is still good.
        compiler: what to compile with, None for what the system has.

    Raises:
        BuildError: there is no compiler, or it refuses.
    """
    compiler = compiler or find_compiler()
    compiled = compile_all(compiler, sources(), objects)
    output.parent.mkdir(parents=True, exist_ok=True)
    unfinished = output.with_name(f"{output.name}.{os.getpid()}")
    try:
        _run(compiler.link(compiled, unfinished))
        unfinished.replace(output)
    finally:
        unfinished.unlink(missing_ok=True)
    logger.info("built %s (%d kB)", output, output.stat().st_size // 1000)


def main(arguments: Sequence[str] | None = None) -> int:
    """Compile from the command line; return the exit status."""
    parser = argparse.ArgumentParser(description="Compile edgedec's operator library.")
    parser.add_argument(
        "--output", type=Path, default=SOURCES.parent / LIBRARY, help="default: %(default)s"
    )
    parser.add_argument("--objects", type=Path, help="folder of objects, to compile less next time")
    parser.add_argument(
        "--sanitize", action="store_true", help="with AddressSanitizer and UBSan (GCC, clang)"
    )
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        compiler = find_compiler()
        if options.sanitize and isinstance(compiler, Gnu):
            compiler = replace(compiler, sanitize=True)
        with tempfile.TemporaryDirectory() as temporary:
            build(options.output, options.objects or Path(temporary), compiler)
    except BuildError as error:
        logger.error("edgedec's operator library was not built: %s", error)
        return 1
    return 0


def _find_msvc() -> Msvc:
    try:
        importlib.import_module("setuptools")  # brings distutils to Pythons that come without it
        distutils: Any = importlib.import_module("distutils.ccompiler")
        found = distutils.new_compiler(compiler="msvc")
        found.initialize()
    except Exception as error:
        raise BuildError(f"setuptools finds no Visual C++ here ({error})") from error
    return Msvc(found.cc, found.linker, tuple(found.include_dirs), tuple(found.library_dirs))


def _words(variable: str) -> tuple[str, ...]:
    return tuple(shlex.split(os.environ.get(variable, "")))


def _knows(command: Sequence[str], flag: str) -> bool:
    """Whether a compiler accepts an option."""
    try:
        _run([*command, flag, "-fsyntax-only", "-x", "c++", os.devnull])
    except BuildError:
        return False
    return True


def _run(command: Sequence[str]) -> str:
    """What a command printed.

    Raises:
        BuildError: it failed.
    """
    try:
        done = subprocess.run(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            errors="replace", check=False,
        )  # fmt: skip
    except OSError as error:
        raise BuildError(f"{command[0]} cannot be run: {error.strerror}") from error
    if done.returncode:
        raise BuildError(
            f"{shlex.join(command)} failed: {done.stdout.strip() or 'it says nothing'}"
        )
    return done.stdout


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8") if path.exists() else ""


if __name__ == "__main__":
    sys.exit(main())
