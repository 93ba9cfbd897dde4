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
FAILED: dict[str, str] = {}
"""Release -> why it could not be fetched: where there is no network, asking again takes long."""


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
        if not folder.is_dir() and release not in FAILED:
            reason = _fetch(release, folder)
            if reason is not None:
                FAILED[release] = (
                    f"no bindings of TensorRT {release} from a package index: {reason}"
                )
    if release in FAILED:
        pytest.skip(FAILED[release])
    return folder


def _fetch(release: str, folder: Path) -> str | None:
    """Make the folder of a release; returns why that is impossible."""
    partial = folder.with_name(f"{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--retries", "1"]
    wheel = ["--no-deps", "--only-binary=:all:", f"tensorrt-cu13-bindings=={release}"]
    try:
        done = subprocess.run(
            [*pip, "--target", partial, *wheel],
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
        )
    except subprocess.TimeoutExpired:
        return "it takes more than 300 s"
    if done.returncode:
        return (done.stderr.strip().splitlines() or ["pip says nothing"])[-1][:200]
    stub.build(partial, int(release.split(".", maxsplit=1)[0]))
    partial.rename(folder)
    return None


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
