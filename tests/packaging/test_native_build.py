"""The build of the operator library: command lines, compilers that fail, what is compiled again."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from edgedec.kernels.cpu import build
from edgedec.kernels.cpu.build import BuildError, Gnu, Msvc

SOURCE = """
#include "one.h"
extern "C" __attribute__((visibility("default"))) int RegisterCustomOps() { return ONE; }
"""


def flags(compiler: Gnu | Msvc, stem: str) -> set[str]:
    """What one source is compiled with and another is not."""
    plain = compiler.compile(Path("ort.cc"), Path("x"))
    return set(compiler.compile(Path(f"{stem}.cc"), Path("x"))) - set(plain) - {f"{stem}.cc"}


@pytest.mark.parametrize("stem", [*build.X86, *build.ARM, "isa_scalar", "weights"])
def test_instruction_sets_are_for_their_files_and_processors(stem: str) -> None:
    assert flags(Gnu(("g++",), "x86_64-linux-gnu"), stem) == set(build.X86.get(stem, ()))
    assert flags(Gnu(("g++",), "aarch64-linux-gnu"), stem) == set(build.ARM.get(stem, ()))
    assert not flags(Gnu(("g++",), "riscv64-linux-gnu"), stem)


def test_one_call_on_macos_may_compile_for_both() -> None:
    mac = Gnu(("clang++", "-arch", "arm64", "-arch", "x86_64"), "arm64-apple-darwin24")
    command = " ".join(mac.compile(Path("isa_avx2.cc"), Path("x")))
    assert "-Xarch_x86_64 -mavx2 -Xarch_x86_64 -mfma" in command
    assert "-Xarch_arm64 -march" in " ".join(mac.compile(Path("isa_neon.cc"), Path("x")))
    link = mac.link([Path("a.o")], Path("x"))
    assert "-Wl,-exported_symbol,_RegisterCustomOps" in link
    assert not [word for word in link if "version-script" in word or "static" in word]


def test_an_older_compiler_goes_without_the_newest_instructions() -> None:
    old = Gnu(("g++",), "x86_64-linux-gnu", without=("-mavxvnni",))
    assert flags(old, "isa_avxvnni") == {"-mavx2", "-mfma"}
    assert flags(old, "isa_avx2") == {"-mavx2", "-mfma"}


def test_visual_c() -> None:
    found = Msvc("cl.exe", "link.exe", includes=("C:/include",), libraries=("C:/lib",))
    command = found.compile(Path("isa_avx2.cc"), Path("isa_avx2.obj"))
    assert {"/std:c++17", "/TP", "/fp:strict", "/arch:AVX2", "/IC:/include"} <= set(command)
    assert not flags(found, "isa_scalar")
    link = found.link([Path("objects/a.obj")], Path("edgedec_ops.dll"))
    assert {"/DLL", "/OUT:edgedec_ops.dll", "/LIBPATH:C:/lib"} <= set(link)


@pytest.fixture
def sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A library of one source and one header; skipped where nothing can be compiled."""
    try:
        found = build.find_compiler()
    except BuildError as error:
        pytest.skip(str(error))
    if isinstance(found, Msvc):
        pytest.skip("the source is for GCC and clang")
    folder = tmp_path / "sources"
    folder.mkdir()
    (folder / "one.h").write_text("#define ONE 1\n")
    (folder / "library.cc").write_text(SOURCE)
    monkeypatch.setattr(build, "SOURCES", folder)
    return folder


def built(folder: Path) -> float:
    """Build the library; when its only object was written."""
    build.build(folder / build.LIBRARY, folder / "objects")
    return (folder / "objects" / "library.o").stat().st_mtime


def test_what_did_not_change_is_not_compiled_again(
    sources: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = built(tmp_path)
    assert built(tmp_path) == first
    later = first + 10
    os.utime(sources / "one.h", (later, later))
    second = built(tmp_path)
    assert second > first
    monkeypatch.setenv("CXXFLAGS", "-DMORE")
    assert built(tmp_path) > second


def test_a_source_that_does_not_compile_leaves_the_library_alone(
    sources: Path, tmp_path: Path
) -> None:
    built(tmp_path)
    before = (tmp_path / build.LIBRARY).read_bytes()
    (sources / "library.cc").write_text("nonsense\n" + SOURCE)
    with pytest.raises(BuildError, match=r"(?s)library\.cc.* failed: .*nonsense"):
        built(tmp_path)
    assert (tmp_path / build.LIBRARY).read_bytes() == before
    assert len(list(tmp_path.glob(f"*{build.LIBRARY}*"))) == 1


@pytest.mark.skipif(os.name == "nt", reason="CXX is not read on Windows")
def test_a_missing_compiler_is_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    assert build.main(["--output", str(tmp_path / "library")]) == 1
    assert "not built: there is no C++ compiler here (looked for no-such-compiler)" in caplog.text
    monkeypatch.delenv("CXX")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(BuildError, match="looked for c\\+\\+, g\\+\\+, clang\\+\\+"):
        build.find_compiler()
