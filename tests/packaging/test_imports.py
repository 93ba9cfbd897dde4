"""Importing edgedec is cheap and clean, and its folders leak nowhere."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

HEAVY = ("torch", "transformers", "onnxscript", "onnx", "onnxruntime", "numpy", "rich")


def python(code: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run `code` in a fresh interpreter, as `python -c` does: with `cwd` on sys.path."""
    env = {key: value for key, value in os.environ.items() if key != "PYTHONSAFEPATH"}
    return subprocess.run(
        [sys.executable, "-c", code],
        cwd=cwd,
        env=env | environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def loaded(code: str, cwd: Path) -> set[str]:
    done = python(f"{code}\nimport sys\nprint(*sys.modules)", cwd)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split())


def test_import_edgedec_loads_nothing_heavy(tmp_path: Path) -> None:
    assert not loaded("import edgedec", tmp_path).intersection(HEAVY)


def test_import_export_and_load_bring_neither_torch_nor_transformers(tmp_path: Path) -> None:
    modules = loaded("import edgedec\nedgedec.export, edgedec.load", tmp_path)
    assert not modules.intersection({"torch", "transformers", "onnxscript"})


def test_exporting_and_running_never_import_torch(tmp_path: Path) -> None:
    verbs = [["export", "g2p", "-o", "bundle"], ["run", "bundle", "deployment"]]
    for verb in verbs:
        modules = loaded(
            f"from edgedec.cli import cli\ncli.main({verb}, standalone_mode=False)", tmp_path
        )
        assert not modules.intersection({"torch", "transformers", "optimum"})
    # the last was `run`, which knows nothing of building graphs either
    assert not modules.intersection({"onnx", "onnx_ir", "onnxscript", "edgedec.export", "rich"})


def test_help_loads_nothing_heavy(tmp_path: Path) -> None:
    code = "from edgedec.cli import cli\ncli.main(['--help'], standalone_mode=False)"
    assert not loaded(code, tmp_path).intersection(HEAVY)


@pytest.mark.skipif(os.name == "nt", reason="needs POSIX resource usage")
def test_help_answers_within_200_ms(tmp_path: Path) -> None:
    """Processor time: on an idle machine that is the time it takes, on a busy one the fair part."""
    import resource

    def used() -> float:
        usage = resource.getrusage(resource.RUSAGE_CHILDREN)
        return usage.ru_utime + usage.ru_stime

    times = []
    for _ in range(10):
        begin = used()
        subprocess.run(
            [sys.executable, "-m", "edgedec", "--help"],
            cwd=tmp_path,
            capture_output=True,
            check=True,
        )
        times.append(used() - begin)
        if times[-1] < 0.2:
            break
    assert min(times) < 0.2, [round(seconds, 3) for seconds in times]


@pytest.mark.parametrize("name", ["export", "runtime", "quantize", "kernels", "devices"])
def test_folders_are_no_top_level_modules(name: str, tmp_path: Path) -> None:
    done = python(f"import {name}; print({name}.__file__)", tmp_path)
    assert done.returncode != 0 or "edgedec" not in done.stdout


@pytest.mark.parametrize("name", ["export", "runtime", "quantize", "kernels", "devices"])
def test_folders_import_from_anywhere(name: str, tmp_path: Path) -> None:
    done = python(f"import edgedec.{name} as module; print(module.__name__)", tmp_path)
    assert done.stdout.strip() == f"edgedec.{name}", done.stderr


def test_bare_kernels_in_the_repository_is_the_other_distribution(
    root: Path, tmp_path: Path
) -> None:
    package = tmp_path / "kernels"
    package.mkdir()
    (package / "__init__.py").write_text("WHO = 'the other one'\nfrom kernels.part import PART\n")
    (package / "part.py").write_text("PART = 1\n")
    code = (
        "import kernels, edgedec.kernels\n"
        "print(kernels.WHO, kernels.PART, kernels.__spec__.name, edgedec.kernels.__name__)"
    )
    done = python(code, root, PYTHONPATH=str(tmp_path))
    assert done.stdout.strip() == "the other one 1 kernels edgedec.kernels", done.stderr


def test_bare_kernels_without_that_distribution_is_not_found(root: Path) -> None:
    code = """
try:
    import kernels
except ModuleNotFoundError as error:
    print(error.name)
import importlib.util
import edgedec.kernels
print(edgedec.kernels.__name__)
"""
    done = python(code, root)
    assert done.stdout.split() == ["kernels", "edgedec.kernels"], done.stderr


def test_unknown_attribute_is_an_attribute_error(tmp_path: Path) -> None:
    done = python("import edgedec; edgedec.nonsense", tmp_path)
    assert "AttributeError: module 'edgedec' has no attribute 'nonsense'" in done.stderr


def test_version_and_errors(tmp_path: Path) -> None:
    code = (
        "import edgedec\n"
        "assert issubclass(edgedec.BundleError, edgedec.EdgedecError)\n"
        "assert edgedec.DeviceError.exit_code == 3\n"
        "assert set(edgedec.__all__) == set(dir(edgedec))\n"
        "print(edgedec.__version__)"
    )
    done = python(code, tmp_path)
    assert done.stdout.count(".") == 2, done.stderr
