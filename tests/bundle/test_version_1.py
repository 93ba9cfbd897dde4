"""A bundle written by the first edgedec of format version 1 loads and runs as it did then.

A failure here means that users' bundles have stopped working: change the reader, not the data.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.conftest import hide_library

import edgedec
from edgedec.runtime.bundle import open_bundle, verify_files
from edgedec.runtime.generator import Generator


@pytest.fixture(scope="module")
def data(root: Path) -> Path:
    return root / "tests" / "data"


# Codebook weights run by the operator library, and where there is none by function bodies.
WAYS = {
    "bundle-v1": ("bundle-v1", False),
    "bundle-v1-codes": ("bundle-v1-codes", False),
    "bundle-v1-codes, function bodies": ("bundle-v1-codes", True),
}


@pytest.fixture(scope="module", params=WAYS)
def bundle(request: pytest.FixtureRequest, data: Path) -> Iterator[Path]:
    name, without_library = WAYS[request.param]
    with pytest.MonkeyPatch.context() as patch:
        if without_library:
            hide_library(patch)
        yield data / name


@pytest.fixture(scope="module")
def expected(bundle: Path) -> Any:
    return json.loads(bundle.with_name(f"{bundle.name}.json").read_text())


@pytest.fixture(scope="module")
def generator(bundle: Path) -> Generator:
    return edgedec.load(bundle, threads=1)


def test_it_is_whole_and_small(bundle: Path) -> None:
    opened = open_bundle(bundle)
    verify_files(opened)
    assert opened.manifest.schema_version == 1
    assert sum(path.stat().st_size for path in bundle.iterdir()) < 120_000


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


def test_it_may_be_read_only_and_elsewhere(bundle: Path, expected: Any, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(bundle, tmp_path / "copy"))
    for path in (*copy.iterdir(), copy):
        path.chmod(0o555 if path.is_dir() else 0o444)
    try:
        results = edgedec.load(copy, threads=1).generate(expected["inputs"])
    finally:
        copy.chmod(0o755)
    wanted = expected["expected"][0]["results"]
    assert [r.tokens for r in results] == [r["tokens"] for r in wanted]
