"""Tables of depth policies: which points are kept, how a bundle gets them, what `auto` picks."""

from __future__ import annotations

import shutil
import stat
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import edgedec
from edgedec.builtin import resolve_bundle
from edgedec.errors import BundleError, InputError
from edgedec.export import depth_table
from edgedec.export.depth_grid import GRIDS, candidates
from edgedec.export.depth_table import (
    Inputs,
    Measured,
    front,
    make_table,
    measure_depths,
    metric_names,
    read_inputs,
    relative,
    write_table,
)
from edgedec.runtime.bundle import open_bundle
from edgedec.runtime.depth.options import POLICIES, make_policy
from edgedec.runtime.manifest import DepthPoint, DepthTable

TABLE = DepthTable(
    text="words.txt",
    inputs=2,
    measure="agreement",
    machine="a processor",
    threads=1,
    points=(
        DepthPoint("ngram:drafts=3", 0.9, 3.0, 0.5, 2.0),
        DepthPoint("full", 1.0, 4.0, 1.0, 1.0),
    ),
)
WORDS = ["deployment", "encyclopedia", "language", "model", "decoder", "processor"]


def point(quality: float, milliseconds: float, depth: str = "ngram") -> Measured:
    return Measured(DepthPoint(depth, quality, 4.0, milliseconds, 1.0), None, quality, None, 10)


@pytest.fixture
def copy(staged_g2p: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(staged_g2p, tmp_path / "copy"))


# Few values, so that ties are common.
values = st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0])


@given(st.lists(st.tuples(values, values), min_size=1, max_size=12))
def test_the_front_is_what_nothing_beats(pairs: list[tuple[float, float]]) -> None:
    points = front([point(quality, 1 + time) for quality, time in pairs])
    assert [(p.point.quality, p.point.milliseconds - 1) for p in points] == pairs
    assert points[0].on_front, "full depth is what the others are measured by"
    for i, a in enumerate(points[1:], 1):
        beaten = any(
            b.point.quality >= a.point.quality
            and b.point.milliseconds <= a.point.milliseconds
            and (
                b.point.quality > a.point.quality
                or b.point.milliseconds < a.point.milliseconds
                or j < i
            )
            for j, b in enumerate(points)
        )
        assert a.on_front != beaten, (i, pairs)


def test_a_table_has_the_front_best_last() -> None:
    points = front(
        [
            point(1.0, 4.0, "full"),
            point(0.5, 1.0, "first"),
            point(0.9, 3.0, "d3"),
            point(0.8, 3.5, "unified"),  # slower than one that is better
            point(1.0, 3.2, "ngram"),
        ]
    )
    table = make_table(points, Inputs("a\x1b.txt", [[1], [2]]), "agreement", 1)
    assert [p.depth for p in table.points] == ["first", "d3", "full", "ngram"]
    assert (table.text, table.inputs, table.threads) == ("a?.txt", 2, 1)


@pytest.mark.parametrize(
    ("name", "score", "full", "expected"),
    [("bleu", 20, 25, 0.8), ("chrf", 30, 25, 1.2), ("wer", 28, 10, 0.8), ("wer", 130, 10, 0.0)],
)
def test_quality_is_a_fraction_of_full_depth(
    name: str, score: float, full: float, expected: float
) -> None:
    assert relative(metric_names()[name], score, full) == pytest.approx(expected)


def test_nothing_right_at_full_depth_is_no_measure() -> None:
    with pytest.raises(InputError, match="WER says that nothing is right"):
        relative(metric_names()["wer"], 90, 100)


def test_writing_keeps_everything_else(copy: Path) -> None:
    (copy / "edgedec.json").chmod(0o640)
    before, listing = open_bundle(copy).manifest, sorted(copy.iterdir())
    write_table(copy, TABLE)
    assert open_bundle(copy).manifest == replace(before, depth=TABLE)
    assert sorted(copy.iterdir()) == listing
    assert stat.S_IMODE((copy / "edgedec.json").stat().st_mode) == 0o640
    write_table(copy, replace(TABLE, text="others.txt"))
    assert open_bundle(copy).manifest.depth == replace(TABLE, text="others.txt")


def test_a_failure_leaves_the_old_manifest(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before, listing = (copy / "edgedec.json").read_bytes(), sorted(copy.iterdir())

    def fail(path: Path, data: bytes) -> None:
        path.write_bytes(data[:100])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(depth_table, "write_file", fail)
    with pytest.raises(InputError, match="cannot be replaced: No space left"):
        write_table(copy, TABLE)
    assert (copy / "edgedec.json").read_bytes() == before
    assert sorted(copy.iterdir()) == listing


def test_a_damaged_bundle_is_not_written_to(copy: Path) -> None:
    (copy / "weights.bin").write_bytes(b"short")
    with pytest.raises(BundleError, match=r"weights\.bin"):
        write_table(copy, TABLE)


def test_a_table_that_could_not_be_read_again_is_not_written(copy: Path) -> None:
    before = (copy / "edgedec.json").read_bytes()
    with pytest.raises(BundleError, match="cannot be printed"):
        write_table(copy, replace(TABLE, text="two\nlines"))
    assert (copy / "edgedec.json").read_bytes() == before


def test_every_policy_has_a_grid() -> None:
    assert set(GRIDS) == set(POLICIES) - {"full"}


def test_candidates(staged_g2p: Path) -> None:
    manifest = open_bundle(staged_g2p).manifest
    found, left_out = candidates(manifest)
    texts = [candidate.depth for candidate in found]
    assert len({candidate.policy for candidate in found}) == len(found)
    assert all(make_policy(c.depth, manifest) == c.policy for c in found)
    assert {"skipdecode:min=1,max=3,length=16", "layerskip:exit=1", "ngram"} <= set(texts)
    assert "full" not in texts
    assert {"first", "lora-drop"} <= set(left_out)
    assert "routers" in left_out["first"]
    some, _ = candidates(manifest, ["layerskip:exit=1,drafts=3", "full", "unified"])
    assert some[0].depth == "layerskip:exit=1,drafts=3"
    assert {candidate.policy.name for candidate in some[1:]} == {"unified"}


def test_a_bundles_own_parameters_stay_in_the_text(staged_g2p: Path) -> None:
    recorded = {"full": {}, "layerskip": {"exit": 2, "drafts": 7}}
    manifest = replace(open_bundle(staged_g2p).manifest, policies=recorded)
    found, _ = candidates(manifest, ["layerskip:drafts=4", "layerskip"])
    assert all(make_policy(c.depth, manifest) == c.policy for c in found)


@pytest.mark.parametrize(
    ("depth", "reason"),
    [("first", "no routers"), ("lora-drop:cycle=2", "low-rank"), ("nonsense", "no such policy")],
)
def test_a_policy_that_was_asked_for_is_refused(staged_g2p: Path, depth: str, reason: str) -> None:
    with pytest.raises(InputError, match=reason):
        candidates(open_bundle(staged_g2p).manifest, [depth])


def test_inputs_come_from_all_over_the_text(staged_g2p: Path, tmp_path: Path) -> None:
    text = tmp_path / "words.txt"
    text.write_text("".join(f"{letter * 3}\n" for letter in "abcdefghij"))
    inputs = read_inputs(text, open_bundle(staged_g2p), 5, "agreement")
    assert (inputs.text, len(inputs.sources), inputs.targets) == ("words.txt", 5, [])
    every = read_inputs(text, open_bundle(staged_g2p), 100, "agreement")
    assert inputs.sources == every.sources[::2]
    with pytest.raises(InputError, match="has no targets, which --metric wer needs"):
        read_inputs(text, open_bundle(staged_g2p), 5, "wer")


def test_measuring_full_depth_against_itself(staged_g2p: Path, tmp_path: Path) -> None:
    text = tmp_path / "words.txt"
    text.write_text("\n".join(WORDS))
    generator = edgedec.load(staged_g2p, threads=1)
    inputs = read_inputs(text, generator.bundle, 6, "agreement")
    manifest = generator.bundle.manifest
    found, _ = candidates(manifest, ["unified:layers=4", "skipdecode:min=1,max=1"])
    heard: list[float] = []
    full, same, shallow = measure_depths(
        generator,
        found,
        inputs,
        rounds=2,
        progress=lambda _, fraction: heard.append(fraction),
        left_out=lambda *_: pytest.fail("nothing to leave out"),
        max_new_tokens=20,
    )
    assert (full.point.quality, full.point.layers, full.point.speedup) == (1.0, 4.0, 1.0)
    assert (same.point.quality, same.point.layers, same.exact_match) == (1.0, 4.0, 1.0)
    assert shallow.point.quality < 1
    assert shallow.point.layers < 4
    assert full.point.milliseconds > 0
    assert heard == sorted(heard)
    assert heard[-1] == 1.0


def test_auto_picks_what_was_measured(tmp_path: Path) -> None:
    bundle = Path(shutil.copytree(resolve_bundle("g2p"), tmp_path / "g2p"))
    with pytest.raises(InputError, match="no depth table"):
        edgedec.load(bundle, depth="auto:quality=0.9")
    write_table(bundle, TABLE)
    manifest = open_bundle(bundle).manifest
    assert make_policy("auto:quality=0.9", manifest) == make_policy("ngram:drafts=3", manifest)
    assert make_policy("auto:quality=0.95", manifest) == make_policy("full", manifest)
    generator = edgedec.load(bundle, threads=1, depth="auto:quality=0.9")
    expected = edgedec.load("g2p", threads=1).generate(WORDS)
    assert [r.tokens for r in generator.generate(WORDS)] == [r.tokens for r in expected]
    assert generator.statistics.drafted > 0
    with pytest.raises(InputError, match=r"reaches quality=1\.5"):
        make_policy("auto:quality=1.5", manifest)
