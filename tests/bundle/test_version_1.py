"""A bundle written by the first edgedec of format version 1 loads and runs as it did then.

A failure here means that users' bundles have stopped working: change the reader, not the data.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

import edgedec
from edgedec.runtime.bundle import open_bundle, verify_files
from edgedec.runtime.generator import Generator


@pytest.fixture(scope="module")
def data(root: Path) -> Path:
    return root / "tests" / "data"


@pytest.fixture(scope="module")
def expected(data: Path) -> Any:
    return json.loads((data / "bundle-v1.json").read_text())


@pytest.fixture(scope="module")
def generator(data: Path) -> Generator:
    return edgedec.load(data / "bundle-v1", threads=1)


def test_it_is_whole_and_small(data: Path) -> None:
    bundle = open_bundle(data / "bundle-v1")
    verify_files(bundle)
    assert bundle.manifest.schema_version == 1
    assert sum(path.stat().st_size for path in (data / "bundle-v1").iterdir()) < 60_000


@pytest.mark.parametrize("request_number", range(5))
def test_it_generates_the_same(generator: Generator, expected: Any, request_number: int) -> None:
    request = expected["expected"][request_number]
    found = generator.generate(expected["inputs"], **request["options"])
    for result, wanted in zip(found, request["results"], strict=True):
        assert result.tokens == wanted["tokens"]
        assert result.text == wanted["text"]
        assert result.finish_reason == wanted["reason"]
        assert result.score == (
            None if wanted["score"] is None else pytest.approx(wanted["score"], abs=1e-3)
        )


def test_it_may_be_read_only_and_elsewhere(data: Path, expected: Any, tmp_path: Path) -> None:
    bundle = Path(shutil.copytree(data / "bundle-v1", tmp_path / "copy"))
    for path in (*bundle.iterdir(), bundle):
        path.chmod(0o555 if path.is_dir() else 0o444)
    try:
        results = edgedec.load(bundle, threads=1).generate(expected["inputs"])
    finally:
        bundle.chmod(0o755)
    wanted = expected["expected"][0]["results"]
    assert [r.tokens for r in results] == [r["tokens"] for r in wanted]
