"""Finding the operator library, and saying once what follows from its absence."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from pathlib import Path

import onnxruntime
import pytest

from edgedec.errors import InputError
from edgedec.kernels import library
from edgedec.kernels.cpu import build
from edgedec.kernels.cpu.build import LIBRARY


class Options:
    """Session options that record what is registered, or refuse it."""

    def __init__(self, error: str | None = None) -> None:
        self.error = error
        self.registered: list[str] = []

    def register_custom_ops_library(self, path: str) -> None:
        if self.error is not None:
            raise RuntimeError(self.error)
        self.registered.append(path)


@pytest.fixture(autouse=True)
def _first_of_the_process(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(onnxruntime, "__version__", "1.31.1")
    library._warn.cache_clear()
    yield
    library._warn.cache_clear()


@pytest.fixture
def compiled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "library.so"
    path.touch()
    monkeypatch.setenv("EDGEDEC_LIBRARY", str(path))
    return path


def test_registers(compiled: Path, caplog: pytest.LogCaptureFixture) -> None:
    options = Options()
    assert library.register(options) is None
    assert options.registered == [str(compiled)]
    assert not caplog.records


def test_a_missing_library_is_one_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.delenv("EDGEDEC_LIBRARY", raising=False)
    monkeypatch.setattr(library, "__file__", str(tmp_path / "library.py"))
    assert library.library_path() is None
    with caplog.at_level(logging.WARNING, "edgedec"):
        refusals = {library.register(Options()) for _ in range(3)}
    (refusal,) = refusals
    assert refusal is not None
    assert f"installed without its operator library {LIBRARY}" in refusal
    assert library.REBUILD in refusal
    (record,) = caplog.records
    assert record.name == "edgedec"
    assert refusal in record.getMessage()


def test_the_builder_means_the_same_file() -> None:
    assert library.LIBRARY == build.LIBRARY


def test_a_named_file_that_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGEDEC_LIBRARY", str(tmp_path / "none.so"))
    refusal = library.register(Options())
    assert refusal == f"EDGEDEC_LIBRARY names {tmp_path / 'none.so'}, which is no file."


def test_a_refused_library_is_one_sentence(compiled: Path) -> None:
    refusal = library.register(Options("wrong architecture\nand a stack of calls"))
    assert refusal == f"ONNX Runtime 1.31.1 refuses {compiled}: wrong architecture"


@pytest.mark.usefixtures("compiled")
def test_an_instruction_set_that_was_asked_for_and_is_not_there() -> None:
    with pytest.raises(InputError, match=r"^EDGEDEC_ISA=mmx cannot run here; there is: scalar\.$"):
        library.register(Options("2 : edgedec: EDGEDEC_ISA=mmx cannot run here; there is: scalar"))


@pytest.mark.parametrize("version", ["1.24.0", "1.32.9", "1.30.0+cpu"])
def test_versions_in_range(version: str) -> None:
    assert library.refused(version) is None


@pytest.mark.parametrize("version", ["1.23.2", "1.33.0", "2.24.0", "0.1", "unknown"])
def test_versions_out_of_range(
    version: str, compiled: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(onnxruntime, "__version__", version)
    options = Options()
    refusal = library.register(options)
    assert refusal is not None
    assert f"ONNX Runtime 1.24 to 1.32, and this is {version}" in refusal
    assert not options.registered


def test_the_library_lies_beside_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("EDGEDEC_LIBRARY", raising=False)
    path = library.library_path()
    assert path is None or path.parent == Path(library.__file__).parent


def test_the_sources_know_the_same_versions(root: Path) -> None:
    text = (root / "kernels" / "cpu" / "library.cc").read_text(encoding="utf-8")
    found = re.search(r"kOldest = (\d+), kNewest = (\d+);", text)
    assert found is not None
    assert [(1, int(minor)) for minor in found.groups()] == [library.OLDEST, library.NEWEST]
