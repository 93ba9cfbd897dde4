"""What is picked of a text, and how files of text are read."""

from __future__ import annotations

import gzip
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgedec.errors import InputError
from edgedec.quantize.text.samples import EXCERPT, WINDOW, pick_samples
from edgedec.quantize.text.text_files import TextPair, builtin_text, read_pairs

line = st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=20)


def letters(text: str) -> list[int]:
    return [ord(c) for c in text]


def write(folder: Path, name: str, text: str | bytes) -> Path:
    path = folder / name
    data = text if isinstance(text, bytes) else text.encode()
    path.write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
    return path


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_formats(tmp_path: Path, suffix: str) -> None:
    plain = write(tmp_path, f"a.txt{suffix}", "\ufeffone two\r\n\n  three\t\n")
    assert read_pairs(plain) == [TextPair("one two", None), TextPair("three", None)]
    pairs = write(tmp_path, f"a.tsv{suffix}", "ein Haus\ta house\nzwei\ttwo\n")
    assert read_pairs(pairs) == [TextPair("ein Haus", "a house"), TextPair("zwei", "two")]
    entries = [{"source": "a", "target": "b\tc\n"}, {"text": "d"}, {"source": "e", "id": 3}]
    rows = write(tmp_path, f"a.jsonl{suffix}", "\n".join(map(json.dumps, entries)))
    assert read_pairs(rows) == [
        TextPair("a", "b\tc\n"),
        TextPair("d", None),
        TextPair("e", None),
    ]


@pytest.mark.parametrize(
    ("name", "text", "wrong"),
    [
        ("a.tsv", "a\tb\n\nc\n", "line 3 of .*a.tsv is not a source, a tab and a target"),
        ("a.tsv", "a\tb\nc\td\te\n", "line 2 of"),
        ("a.jsonl", '{"text": "a"}\n{"text"\n', "line 2 of .* is not JSON"),
        ("a.jsonl", '"a"', "line 1 of .* needs a text"),
        ("a.jsonl", '{"source": 3}', "line 1 of .* needs a text"),
        ("a.jsonl", '{"source": "a", "target": ["b"]}', "line 1 of .* needs a text"),
        ("a.jsonl", '{"source": " "}', "line 1 of .* needs a text"),
        ("a.jsonl", "[" * 100_000, "line 1 of .* is not JSON"),
        ("a.txt", b"a\nb\xff\n", "line 2 of .* is not UTF-8"),
        ("a.txt", " \n\n", "has no text in it"),
        ("b.txt", "a", "b.txt cannot be read"),
    ],
)
def test_bad_files(tmp_path: Path, name: str, text: str | bytes, wrong: str) -> None:
    write(tmp_path, "a" + name[1:], text)
    with pytest.raises(InputError, match=wrong):
        read_pairs(tmp_path / name)


ARCHIVES = {
    "none": b"not gzip",
    "cut": gzip.compress(b"a" * 99, mtime=0)[:-9],
    "empty": b"\x1f\x8b\x08\0",
}


@pytest.mark.parametrize("data", ARCHIVES.values(), ids=ARCHIVES)
def test_damaged_archives(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "a.txt.gz").write_bytes(data)
    with pytest.raises(InputError, match=r"a\.txt\.gz cannot be read"):
        read_pairs(tmp_path / "a.txt.gz")


def test_a_large_file_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgedec.quantize.text.text_files.LARGEST", 1 << 20)
    with pytest.raises(InputError, match="more than 1 MB"):
        read_pairs(write(tmp_path, "a.txt.gz", b"a" * 2_000_000))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=60), st.sampled_from(["a.txt", "a.tsv", "a.jsonl"]))
def test_any_bytes_are_read_or_refused(tmp_path: Path, data: bytes, name: str) -> None:
    (tmp_path / name).write_bytes(data)
    try:
        found = read_pairs(tmp_path / name)
    except InputError:
        return
    assert found
    assert all(pair.source.strip() for pair in found)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(line, st.none() | line), min_size=1))
def test_json_lines_come_back(tmp_path: Path, entries: Sequence[tuple[str, str | None]]) -> None:
    kept = [TextPair(s, t) for s, t in entries if s.strip() and (t is None or t.strip())]
    rows = [json.dumps(vars(pair), ensure_ascii=False) for pair in kept]
    path = write(tmp_path, "a.jsonl", "\n".join(rows))
    if kept:
        assert read_pairs(path) == kept


def test_windows_come_from_all_over() -> None:
    text = " ".join(f"{n:06}" for n in range(20_000))
    pairs = [TextPair(text, None)]
    found = pick_samples(pairs, letters, encoder_decoder=False, tokens=8192)
    assert found == pick_samples(pairs, letters, encoder_decoder=False, tokens=8192)
    assert found != pick_samples(pairs, letters, encoder_decoder=False, tokens=8192, seed=1)
    assert 8192 - WINDOW < sum(s.tokens for s in found) <= 8192
    assert all(s.source is None and 1 < s.tokens <= WINDOW for s in found)
    places = [text.index("".join(map(chr, s.target or ()))) for s in found]
    assert places == sorted(places)
    assert len({place // EXCERPT for place in places}) > 3


@given(st.lists(line.filter(str.strip), min_size=1, max_size=30), st.integers(1, 2000))
def test_windows_are_pieces_of_the_text(lines: list[str], tokens: int) -> None:
    pairs = [TextPair(text, None) for text in lines]
    found = pick_samples(pairs, letters, encoder_decoder=False, tokens=tokens)
    whole = "\n".join(lines)
    assert all("".join(map(chr, s.target or ())) in whole for s in found)
    assert sum(s.tokens for s in found) <= tokens
    if len(whole) > 1 and tokens > 1:
        assert found


@given(st.lists(st.tuples(line, st.none() | line)), st.integers(1, 100), st.integers(1, 15))
def test_pairs_are_picked_whole(
    texts: list[tuple[str, str | None]], tokens: int, longest: int
) -> None:
    pairs = [TextPair(*both) for both in texts]
    found = pick_samples(pairs, letters, encoder_decoder=True, tokens=tokens, longest=longest)
    assert sum(s.tokens for s in found) <= tokens
    assert all(0 < s.tokens <= longest for s in found)
    every = [
        (tuple(letters(p.source)), None if p.target is None else tuple(letters(p.target)))
        for p in pairs
    ]
    assert all((s.source, s.target) in every for s in found)
    if tokens >= 20 * len(pairs):
        assert [(s.source, s.target) for s in found] == [
            both for both in every if 0 < max(len(both[0]), len(both[1] or ())) <= longest
        ]


def test_the_builtin_text() -> None:
    lines = [pair.source for pair in builtin_text()]
    assert 55_000 < sum(map(len, lines)) < 70_000
    assert all(text.isascii() and text == text.strip() for text in lines)
    assert np.unique(lines).size == len(lines)
