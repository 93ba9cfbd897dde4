"""Users who run `mypy --strict` on code that calls edgedec see its types."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

GOOD = """
from pathlib import Path

import edgedec
from edgedec.export.spec import ModelSpec

bundle: Path = edgedec.export("checkpoint", "out", stages="all", verify=False)
generator = edgedec.load(bundle, device="cpu", threads=1)
for result in generator.generate(["a", "b"], max_new_tokens=4):
    print(result.text, result.tokens)
version: str = edgedec.__version__


def facts(spec: ModelSpec) -> None:
    print(spec)


try:
    pass
except edgedec.EdgedecError as error:
    print(error.exit_code)
"""

WRONG = """
import edgedec

edgedec.export("checkpoint")
edgedec.export("checkpoint", "out", colour="red")
edgedec.load(3.5)
edgedec.nothing()
"""


@pytest.fixture(scope="module")
def messages(root: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """What mypy says of both files; one run with the repository's settings shares its cache."""
    folder = tmp_path_factory.mktemp("user")
    for name, code in (("good.py", GOOD), ("wrong.py", WRONG)):
        (folder / name).write_text(code)
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", folder / "good.py", folder / "wrong.py"],
        cwd=root,
        env={key: value for key, value in os.environ.items() if key != "PYTHONSAFEPATH"},
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout + done.stderr


def test_the_public_api_is_typed(messages: str) -> None:
    assert "wrong.py" in messages, messages
    assert "good.py" not in messages, messages


@pytest.mark.parametrize("line", [4, 5, 6, 7])
def test_wrong_calls_are_found(messages: str, line: int) -> None:
    assert f"wrong.py:{line}: error" in messages, messages
