"""Users who run `mypy --strict` on code that calls edgedec see its types."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

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


def mypy(code: str, folder: Path) -> str:
    file = folder / "user.py"
    file.write_text(code)
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--config-file", "", file.name],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        # what an installed, non-editable package gives: the sources below one folder
        env={"MYPYPATH": str(Path(__file__).resolve().parents[2] / "src"), "PATH": ""},
    )
    return done.stdout + done.stderr


def test_the_public_api_is_typed(tmp_path: Path) -> None:
    output = mypy(GOOD, tmp_path)
    assert "user.py" not in output, output


def test_wrong_calls_are_found(tmp_path: Path) -> None:
    output = mypy(WRONG, tmp_path)
    for line in (4, 5, 6, 7):
        assert f"user.py:{line}: error" in output, output
