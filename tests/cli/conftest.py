"""A generator that needs no model, and the command line with it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from click.testing import CliRunner, Result

import edgedec
from edgedec.cli import cli
from edgedec.errors import InputError


@dataclass(frozen=True)
class Answer:
    text: str | None
    tokens: list[int]
    score: float | None = None
    finish_reason: str = "stop"


@dataclass(frozen=True)
class Piece:
    text: str
    token: int


@dataclass
class FakeGenerator:
    """Answers each text with the same text in capitals, `|` becoming a line end."""

    calls: list[tuple[list[Any], dict[str, Any]]] = field(default_factory=list)
    first_rows: list[int] = field(default_factory=list)
    files: tuple[str, ...] = ("tokenizer.json",)

    @property
    def bundle(self) -> SimpleNamespace:
        """What `edgedec run` looks up in the manifest."""
        return SimpleNamespace(manifest=SimpleNamespace(files=self.files))

    def generate(
        self,
        inputs: Sequence[str | list[int]],
        *,
        batch_size: int,
        first_row: int,
        **options: Any,
    ) -> list[Answer]:
        if inputs:
            assert batch_size == len(inputs)
            self.first_rows.append(first_row)
            self.calls.append((list(inputs), options))
        return [self._answer(item) for item in inputs]

    def stream(self, item: str | list[int], **options: Any) -> Iterator[Piece]:
        self.calls.append(([item], options))
        answer = self._answer(item)
        for index, token in enumerate(answer.tokens):
            yield Piece((answer.text or " " * 99)[index], token)

    def _answer(self, item: str | list[int]) -> Answer:
        if isinstance(item, str):
            if "boom" in item:
                raise InputError("The model refuses\nthis input.")
            if "crash" in item:
                raise RuntimeError("a defect")
            return Answer(item.upper().replace("|", "\n"), [ord(letter) for letter in item], -0.5)
        return Answer(None, [*item, 1], None, "length")


@pytest.fixture
def generator(monkeypatch: pytest.MonkeyPatch) -> FakeGenerator:
    """The generator that `edgedec run` gets for any bundle."""
    fake = FakeGenerator()
    monkeypatch.setattr(edgedec, "load", lambda *_, **__: fake, raising=False)
    return fake


@pytest.fixture
def bundle(tmp_path: Path) -> str:
    """A folder that looks like a bundle to the command line."""
    folder = tmp_path / "bundle"
    folder.mkdir()
    (folder / "edgedec.json").write_text("{}")
    return str(folder)


Invoke = Callable[..., Result]


@pytest.fixture
def invoke() -> Invoke:
    """Run the command line in this process."""

    def run(*arguments: str, stdin: str | bytes | None = None) -> Result:
        return CliRunner().invoke(cli, arguments, input=stdin)

    return run
