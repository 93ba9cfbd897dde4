"""A folder with environments, checkpoints and converted models."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from comparison.programs import CTRANSLATE2, Home, Program

BENCHMARKS = Path(__file__).parent.parent


@dataclass(frozen=True)
class Workplace:
    """Everything that ``peers.py`` writes goes into ``folder``."""

    folder: Path

    def install(self, home: Home) -> str | None:
        """Make an environment, or complete the one that is there; None, or why that failed."""
        folder = self._folder(home)
        if not folder.exists():
            subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        for package in home.packages:
            failure = _run(
                [self.tool(home, "python"), "-m", "pip", "install", "-q", package],
                {**os.environ, **home.variables},
            )
            if failure is not None:
                shutil.rmtree(folder, ignore_errors=True)  # or `run` would take it for installed
                return failure
        return None

    def tool(self, home: Home | None, name: str) -> str:
        """A program of an environment."""
        folder = Path(sys.executable).parent if home is None else self._folder(home) / "bin"
        return str(folder / name)

    def checkpoint(self, shape: str) -> Path:
        """The random checkpoint of a shape, written once by an environment with transformers 4."""
        folder = self.folder / shape
        if not (folder / "tokenizer.json").exists():
            script = BENCHMARKS / "converters" / "random_t5.py"
            python = self.tool(CTRANSLATE2, "python")
            subprocess.run([python, script, shape, folder], check=True)
        return folder

    def prepare(self, program: Program, checkpoint: Path, *, again: bool) -> str | None:
        """Convert the checkpoint, where that is not done yet; None, or why that failed."""
        model = self.model(program, checkpoint)
        if program.home is not None and not self._folder(program.home).exists():
            return "it is not installed (peers.py setup)"
        if model.exists() and not again:
            return None
        command = [
            part.format(checkpoint=checkpoint, model=model, converters=BENCHMARKS / "converters")
            for part in program.prepare
        ]
        failure = _run(
            [self.tool(program.home, command[0]), *command[1:]],
            {**os.environ, "HF_HUB_OFFLINE": "1"},
        )
        if failure is not None:  # no half converted model for the next time
            shutil.rmtree(model, ignore_errors=True)
        return failure

    def model(self, program: Program, checkpoint: Path) -> Path:
        """Where a program's converted model is."""
        return checkpoint.with_name(checkpoint.name + program.suffix)

    def model_bytes(self, program: Program, checkpoint: Path) -> int:
        """Size of the files that a program needs."""
        model = self.model(program, checkpoint)
        if model.is_file():
            return model.stat().st_size
        return sum(p.stat().st_size for pattern in program.files for p in model.glob(pattern))

    def _folder(self, home: Home) -> Path:
        return self.folder / f"venv-{home.name}"


def _run(command: list[str], variables: dict[str, str]) -> str | None:
    """Run a command; None, or the last line that it wrote before it failed."""
    done = subprocess.run(command, capture_output=True, text=True, env=variables, check=False)
    if done.returncode == 0:
        return None
    lines = [*done.stdout.splitlines(), *done.stderr.splitlines()]
    return next((line for line in reversed(lines) if line.strip()), f"exit {done.returncode}")
