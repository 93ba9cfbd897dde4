"""The bindings of TensorRT's versions, fetched once from the package index."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock
from tests.gpu.conformance import stub

VERSIONS = {"11.4": "11.4.0.106", "10.16": "10.16.1.11"}
HERE = Path(__file__).parent


def bindings(version: str, config: pytest.Config) -> Path:
    """A folder with the bindings of a version and the libraries that they need.

    It stays in pytest's cache (``.pytest_cache/d``), or in the folder of temporary files where
    there is none. Skips where it cannot be made.
    """
    if sys.platform != "linux":
        pytest.skip("the stub of TensorRT's libraries is for Linux")
    if stub.compiler() is None:
        pytest.skip("no C compiler for a stub of TensorRT's libraries")
    cache = getattr(config, "cache", None)
    parent = cache.mkdir("tensorrt") if cache else Path(tempfile.gettempdir(), "edgedec-tensorrt")
    parent.mkdir(parents=True, exist_ok=True)
    release = VERSIONS[version]
    folder: Path = parent / f"{release}-{sys.implementation.cache_tag}"
    with FileLock(f"{folder}.lock"):
        if not folder.is_dir():
            _fetch(release, folder)
    return folder


def _fetch(release: str, folder: Path) -> None:
    partial = folder.with_name(f"{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    wheel = f"tensorrt-cu13-bindings=={release}"
    pip = [sys.executable, "-m", "pip", "install", "--quiet"]
    try:
        done = subprocess.run(
            [*pip, "--no-deps", "--only-binary=:all:", "--target", partial, wheel],
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
        )
    except subprocess.TimeoutExpired:
        pytest.skip(f"no {wheel} from a package index here within 300 s")
    if done.returncode:
        lines = done.stderr.strip().splitlines() or ["pip says nothing"]
        pytest.skip(f"no {wheel} from a package index here: {lines[-1][:200]}")
    stub.build(partial, int(release.split(".", maxsplit=1)[0]))
    partial.rename(folder)


def run(folder: Path, program: str, *arguments: str, stdin: Any = None) -> Any:
    """What a program of this folder prints, as JSON, with ``import tensorrt`` from a folder.

    Args:
        folder: of `bindings`.
        program: name of a file beside this one.
        arguments: of the program.
        stdin: what it reads, given to it as JSON.
    """
    return _run([HERE / "stub.py", folder, HERE / program, *arguments], stdin)


def run_here(program: str, *arguments: str, stdin: Any = None) -> Any:
    """The same with what is installed in this environment."""
    return _run([HERE / program, *arguments], stdin)


def _run(command: list[Any], stdin: Any) -> Any:
    done = subprocess.run(
        [sys.executable, *command],
        input=json.dumps(stdin),
        env={**os.environ, "PYTHONWARNINGS": "ignore"},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def installed(module: str) -> bool:
    """Whether a module can be imported here."""
    return importlib.util.find_spec(module) is not None
