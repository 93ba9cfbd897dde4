"""Inputs and options that no model can serve: one sentence, exit code 2."""

from __future__ import annotations

import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

import edgedec
from edgedec.cli import cli
from edgedec.errors import InputError
from edgedec.runtime.generator import Generator


@pytest.fixture(scope="module")
def generator(exported: Path) -> Generator:
    return edgedec.load(exported, threads=1)


@pytest.fixture(scope="module")
def llama(decoder_only: Path) -> Generator:
    return edgedec.load(decoder_only, threads=1)


WRONG: dict[str, tuple[Any, str]] = {
    "nothing": (None, "not NoneType"),
    "a number": (7.5, "not float"),
    "one id": (7, "not int"),
    "bytes": (b"abc", "not bytes"),
    "a mapping": ({"text": "a"}, "not dict"),
    "an array of no dimension": (np.array(3), "not ndarray"),
    "a batch of bytes": ([b"abc"], "not bytes"),
    "text after ids": ([3, "a"], "not str"),
    "ids after text": (["a", 3], "not int"),
    "no ids": ([[]], "is empty"),
    "one of them empty": ([[3], []], "is empty"),
    "a flag": ([True, 3], "not bool"),
    "NumPy's flag": ([[np.True_]], "not bool"),
    "a fraction": ([[3.0]], "not float"),
    "NumPy's fractions": (np.ones((2, 2), np.float32), "not float32"),
    "a negative id": ([3, -1], "outside of the vocabulary"),
    "an id too large": ([[3], [32]], "outside of the vocabulary"),
    "a huge id": ([10**30], "outside of the vocabulary"),
    "nested too deep": ([[[3]]], "not list"),
    "half a character": ("a\ud800", "lone surrogate"),
    "half a character in a batch": (["a", "\udfff"], "lone surrogate"),
}


@pytest.mark.parametrize("kind", WRONG)
def test_wrong_inputs(generator: Generator, kind: str) -> None:
    inputs, words = WRONG[kind]
    with pytest.raises(InputError, match=words):
        generator.generate(inputs)
    with pytest.raises(InputError):
        next(generator.stream(inputs))


def test_inputs_that_are_unusual_but_right(generator: Generator) -> None:
    expected = generator.generate([[3, 4, 1]])
    same: list[Any] = [
        (3, 4, 1),
        np.array([3, 4, 1]),
        np.array([[3, 4, 1]], np.uint8),
        ["ab"],
        "AB",
    ]
    for inputs in same:
        assert generator.generate(inputs) == expected
    assert generator.generate([]) == []
    assert generator.generate(iter(["ab"])) == expected  # type: ignore[arg-type]
    assert len(generator.generate(["", "\n", "\0", "\U0001f600" * 9])) == 4


@pytest.mark.parametrize("piece", [1, 2, 5])
@pytest.mark.parametrize(
    "options", [{}, {"num_beams": 3}, {"min_new_tokens": 3}, {"temperature": 1.5, "seed": 1}]
)
def test_prompts_in_pieces(
    llama: Generator, monkeypatch: pytest.MonkeyPatch, piece: int, options: dict[str, Any]
) -> None:
    """However prompts of unequal lengths are cut, their continuation is the same."""
    prompts = [[3, 5, 7, 9, 11, 4, 6], [8], [2, 3, 4], [9, 8, 7, 6, 5]]
    whole = llama.generate(prompts, max_new_tokens=6, **options)
    monkeypatch.setattr("edgedec.runtime.generator.PREFILL", piece)
    pieces = llama.generate(prompts, max_new_tokens=6, **options)
    assert [r.tokens for r in pieces] == [r.tokens for r in whole]


def test_texts_without_a_tokenizer(llama: Generator) -> None:
    with pytest.raises(InputError, match="has no tokenizer: give lists of token ids"):
        llama.generate("abc")
    assert llama.generate([3, 4], max_new_tokens=2)[0].text is None


def test_prompts_longer_than_the_model(llama: Generator) -> None:
    """24 positions: a prompt of 23 leaves one."""
    assert len(llama.generate([[3] * 23])[0].tokens) == 1
    assert len(llama.generate([[3] * 4, [3] * 23])[1].tokens) == 1
    for length in (24, 25, 10_000):
        with pytest.raises(InputError, match="shorten the prompt"):
            llama.generate([[4], [3] * length])


def test_sources_longer_than_the_model(exported: Path, tmp_path: Path) -> None:
    """The limit is in the manifest; T5 itself has none."""
    import json
    import shutil

    bundle = Path(shutil.copytree(exported, tmp_path / "limited"))
    manifest = json.loads((bundle / "edgedec.json").read_text())
    manifest["interface"].update(max_source=6, max_target=5)
    (bundle / "edgedec.json").write_text(json.dumps(manifest))
    generator = edgedec.load(bundle, threads=1)
    assert len(generator.generate([3] * 6, min_new_tokens=4)[0].tokens) == 4
    with pytest.raises(InputError, match="has 7 tokens, the model takes 6"):
        generator.generate([[3] * 7, [3]])


@pytest.mark.parametrize(
    "option",
    [
        {"num_beams": 10**9},
        {"num_beams": 0},
        {"max_new_tokens": 10**12},
        {"max_new_tokens": 0},
        {"max_length": 1},
        {"min_new_tokens": 9, "max_new_tokens": 8},
        {"top_k": 10**30},
        {"eos_token_ids": [10**30]},
        {"decoder_start_token_id": 10**9},
        {"decoder_start_token_id": None},
        {"forced_bos_token_id": 32},
        {"suppress_tokens": list(range(32))},
        {"temperature": float("nan")},
        {"unknown": 1},
        {"num_beams": 2, "do_sample": True},
        {"batch_size": 0},
    ],
    ids=str,
)
def test_options_out_of_range(generator: Generator, option: dict[str, Any]) -> None:
    with pytest.raises(edgedec.EdgedecError) as caught:
        generator.generate("abc", **option)
    assert len(str(caught.value)) < 500


def test_room_is_taken_when_it_is_needed(exported: Path) -> None:
    """A limit of two thousand million tokens costs nothing before they are generated."""
    generator = edgedec.load(exported, threads=1)
    chunks = generator.stream("abc", max_new_tokens=2**31 - 1, min_new_tokens=100)
    for _ in range(80):
        next(chunks)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    next(chunks)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 1 << 20


SCRIPT = """
import resource, sys
import edgedec.cli
resource.setrlimit(resource.RLIMIT_AS, (4 << 30, 4 << 30))
edgedec.cli.main()
"""


def test_more_than_there_is_memory(exported: Path) -> None:
    """20,000 tokens attend to each other: more than the process may have."""
    command = [sys.executable, "-c", SCRIPT, "run", str(exported), "a" * 20_000, "--threads", "1"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1), done.stderr
    assert "memory" in done.stderr


def test_more_memory_than_the_machine_has(exported: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where allocations are granted that do not exist, the process would be killed."""
    generator = edgedec.load(exported, threads=1)
    monkeypatch.setattr("edgedec.runtime.memory.available_bytes", lambda: 1_000_000)
    assert generator.generate("a" * 50, max_new_tokens=1)
    with pytest.raises(InputError, match=r"501 tokens, 1 input.* 0.0 GB are available: split"):
        generator.generate("a" * 500, max_new_tokens=1)


def test_memory_that_runs_out_elsewhere(exported: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise MemoryError

    monkeypatch.setattr(edgedec, "load", fail)
    result = CliRunner().invoke(cli, ["run", str(exported), "a"])
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith("Error: There is not enough memory")


@pytest.mark.parametrize(
    "arguments",
    [
        ["", "--json"],
        ["3 4", "--ids", "--num-beams", "1000000000"],
        ["3 4", "--ids", "--max-new-tokens", "1000000000000"],
        ["3 4", "--ids", "--max-new-tokens", "1" * 40],
        ["3 99", "--ids"],
        ["3 -4", "--ids"],
        ["3 " + "9" * 40, "--ids"],
        ["3 4.5", "--ids"],
        ["3 " + "9" * 5000, "--ids"],
    ],
    ids=range(9),
)
def test_command_line(exported: Path, arguments: list[str]) -> None:
    result = CliRunner().invoke(cli, ["run", str(exported), *arguments])
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith("Error: ")
    assert result.stderr.count("\n") == 1


@given(st.text(max_size=40))
def test_any_text(generator: Generator, text: str) -> None:
    (result,) = generator.generate(text, max_new_tokens=2)
    assert 1 <= len(result.tokens) <= 2


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3) | st.binary(),
        lambda inner: st.lists(inner, max_size=3),
        max_leaves=6,
    )
)
def test_anything(generator: Generator, inputs: Any) -> None:
    try:
        results = generator.generate(inputs, max_new_tokens=1)
    except InputError:
        return
    assert all(len(result.tokens) == 1 for result in results)
