"""Ratios of paired rounds and verdicts, against SciPy and against what was put in."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom
from tests.profiling.profiles import ENVIRONMENT, configuration, failed, profile, row

from edgedec.runtime.profiling.comparison import Comparison, Verdict, compare, judge
from edgedec.runtime.profiling.paired import CONFIDENCE, interval, ratio_of, rounds_needed
from edgedec.runtime.profiling.ratios import first_label, ratios
from edgedec.runtime.profiling.record import Profile, Row

RATIOS = st.lists(st.floats(0.1, 10), min_size=1, max_size=40)
LIMITS = st.floats(0, 0.5)
STRONG = (1.0, 1.01, 0.99, 1.02, 0.98)
"""Noise that forbids nothing."""


def times(factor: float, noise: Sequence[float] = STRONG, **options: Sequence[float]) -> Row:
    """A row with two requests in each of as many rounds as there is noise."""
    rounds = [[20 * factor * part, 20 * factor * part * 1.001] for part in noise]
    return row(rounds, **options)  # type: ignore[arg-type]


def of(comparison: Comparison, metric: str) -> Verdict:
    """The verdict on a metric of the only row."""
    (compared,) = comparison.rows
    return next(change.verdict for change in compared.changes if change.metric == metric)


# Intervals


@given(RATIOS)
def test_intervals_are_the_narrowest_that_the_binomial_allows(values: list[float]) -> None:
    low, high, coverage = interval(values)
    n, ordered = len(values), sorted(values)
    # Each end is wrong where fewer than k values lie on its side of the median.
    enough = [k for k in range(1, n // 2 + 1) if binom.cdf(k - 1, n, 0.5) <= 1 - CONFIDENCE]
    k = max(enough, default=1)
    assert (low, high) == (ordered[k - 1], ordered[n - k])
    assert coverage == pytest.approx(max(0, 1 - 2 * binom.cdf(k - 1, n, 0.5)), abs=1e-12)
    assert ratio_of(values).confidence == pytest.approx(1 - binom.cdf(k - 1, n, 0.5), abs=1e-12)


@pytest.mark.parametrize("rounds", [8, 9, 12])
def test_one_disturbed_round_of_eight_changes_no_verdict(rounds: int) -> None:
    noise = [(1.0, 1.01, 0.99)[number % 3] for number in range(rounds)]
    for disturbed in (5.0, 0.2):
        values = [*noise[1:], disturbed]
        assert judge(ratio_of(values), 0.05) == "not slower"
        assert judge(ratio_of([value * 1.2 for value in values]), 0.05) == "slower"


@given(RATIOS)
def test_the_median_lies_in_its_interval(values: list[float]) -> None:
    found = ratio_of(values)
    assert found.low <= found.median <= found.high
    assert found.median == pytest.approx(float(np.median(values)))
    assert found.trusted == (len(values) >= 5)


@pytest.mark.parametrize("n", [1, 2, 5, 8, 9, 30])
def test_intervals_cover_the_median_as_often_as_they_say(n: int) -> None:
    random = np.random.default_rng(n)
    draws = random.exponential(size=(4000, n))
    found = [interval(draw) for draw in draws.tolist()]
    covered = np.mean([low <= math.log(2) <= high for low, high, _ in found])
    assert covered == pytest.approx(found[0][2], abs=0.02)
    for above in (
        np.mean([low <= math.log(2) for low, _, _ in found]),
        np.mean([math.log(2) <= high for _, high, _ in found]),
    ):
        assert above == pytest.approx((1 + found[0][2]) / 2, abs=0.015)
        assert above > CONFIDENCE - 0.015 or n < 5


def test_many_rounds_are_no_trouble() -> None:
    low, high, coverage = interval([float(value) for value in range(1, 3001)])
    assert 1450 < low < 1500 < high < 1550
    assert 2 * CONFIDENCE - 1 <= coverage < 0.905


# Verdicts


@given(RATIOS, LIMITS)
def test_verdicts_say_where_the_interval_lies(values: list[float], fail_over: float) -> None:
    found, limit = ratio_of(values), 1 + fail_over
    verdict = judge(found, fail_over)
    if len(values) < 5:
        assert verdict == "undecided"
    elif verdict == "undecided":
        assert found.low <= limit < found.high
    else:
        assert (verdict == "slower") == (found.low > limit)
        assert (verdict == "faster") == (found.high < 1 / limit)
        assert (verdict == "not slower") == (1 / limit <= found.high <= limit)


@given(RATIOS, LIMITS, st.floats(1, 4))
def test_slowing_down_makes_no_verdict_better(
    values: list[float], fail_over: float, factor: float
) -> None:
    order = ["faster", "not slower", "undecided", "slower"]
    before = judge(ratio_of(values), fail_over)
    after = judge(ratio_of([value * factor for value in values]), fail_over)
    if len(values) >= 5:
        assert order.index(after) >= order.index(before)


@given(st.lists(st.floats(0.1, 10), min_size=5, max_size=12))
def test_what_is_the_same_is_the_same(rounds: list[float]) -> None:
    there = profile(row([[ms, ms * 1.1] for ms in rounds]))
    found = compare(there, there, 0.0)
    assert found.verdict == "not slower"
    assert {change.ratio.median for _, change in found.changes} == {1.0}
    assert not found.notes


@pytest.mark.parametrize(
    ("factor", "verdict"),
    [(1.0, "not slower"), (1.2, "slower"), (0.8, "faster"), (1.05, "undecided")],
)
def test_a_change_of_time_is_found(factor: float, verdict: Verdict) -> None:
    found = compare(profile(times(1)), profile(times(factor, STRONG[::-1])), 0.05)
    assert of(found, "e2e_ms") == of(found, "ttft_ms") == of(found, "tpot_ms") == verdict
    assert of(found, "peak_rss_mb") == "not slower"
    assert found.verdict == verdict
    assert found.slower == (verdict == "slower")


def test_what_may_be_much_faster_is_not_said_to_be_the_same() -> None:
    values = (0.5, 0.6, 0.7, 0.8, 0.99)
    assert judge(ratio_of(values), 0.05) == "not slower"
    assert judge(ratio_of([value * 0.9 for value in values]), 0.05) == "faster"


def test_memory_is_compared_too() -> None:
    old = profile(times(1, peak_rss_mb=[100, 100, 101, 100, 100]))
    new = profile(times(1, peak_rss_mb=[120, 121, 120, 120, 119]))
    found = compare(old, new, 0.05)
    assert of(found, "e2e_ms") == "not slower"
    assert of(found, "peak_rss_mb") == "slower"
    assert found.slower


def test_figures_are_medians_of_all_samples() -> None:
    old = profile(row([[10, 30], [20, 22], [21, 21], [21, 21], [21, 21]], steps=1))
    new = profile(row([[12, 36], [24, 26.4], [25.2, 25.2], [25.2, 25.2], [25.2, 25.2]], steps=1))
    change = next(c for _, c in compare(old, new, 0.05).changes if c.metric == "e2e_ms")
    assert (change.old, change.new) == (21, 25.2)
    assert change.ratio.values == pytest.approx([1.2] * 5)
    # one token: there is no time between tokens
    assert "tpot_ms" not in {c.metric for _, c in compare(old, new, 0.05).changes}


def test_few_rounds_carry_no_verdict_and_say_how_many_would() -> None:
    noise = STRONG[:3]
    found = compare(profile(times(1, noise)), profile(times(2, noise)), 0.05)
    change = next(c for _, c in found.changes if c.metric == "e2e_ms")
    assert (change.verdict, change.reason, change.rounds) == ("undecided", "few rounds", 5)


def test_noise_forbids_a_verdict_and_says_how_many_rounds_would_help() -> None:
    noise = (1.0, 1.1, 0.9, 1.05, 0.95)
    found = compare(profile(times(1)), profile(times(1.01, noise)), 0.05)
    change = next(c for _, c in found.changes if c.metric == "e2e_ms")
    assert (change.verdict, change.reason) == ("undecided", "noise")
    assert change.rounds is not None
    assert 5 < change.rounds < 100


@given(st.lists(st.floats(0.9, 1.1), min_size=2, max_size=20), st.floats(0.5, 2))
def test_more_noise_needs_more_rounds(values: list[float], limit: float) -> None:
    few = rounds_needed(ratio_of(values), limit) or math.inf
    center = float(np.median(values))
    noisier = ratio_of([center * (value / center) ** 2 for value in values])
    if len(values) % 2:  # else the median moves with the noise
        assert (rounds_needed(noisier, limit) or math.inf) >= few
    assert few >= 5


def test_at_the_limit_no_number_of_rounds_helps() -> None:
    assert rounds_needed(ratio_of([1.05, 1.0, 1.1]), 1.05) is None


# Simulations: what is promised to those who let a build fail


def simulated(rounds: int, slowdown: float, noise: float, runs: int = 400) -> list[Verdict]:
    """Verdicts on the end-to-end time at a limit of 5 %, each round with noise of its own."""
    random = np.random.default_rng(rounds)
    factors = np.exp(random.normal(0, noise, (runs, 2, rounds)))
    return [
        compare(profile(times(1, then)), profile(times(slowdown, now)), 0.05).verdict
        for then, now in factors.tolist()
    ]


def test_false_alarms_are_rare() -> None:
    verdicts = simulated(5, 1.0, 0.05)
    assert verdicts.count("slower") / len(verdicts) < 0.05
    assert "not slower" in verdicts  # it does say something


def test_slowdowns_are_found() -> None:
    verdicts = simulated(5, 1.2, 0.03)
    assert verdicts.count("slower") / len(verdicts) > 0.9


def test_at_its_limit_a_verdict_is_false_one_time_in_twenty_at_most() -> None:
    random = np.random.default_rng(0)
    edges: dict[Verdict, float] = {"slower": 1.05, "not slower": 1.05, "faster": 1 / 1.05}
    for rounds in (5, 8, 10, 20):
        for verdict, edge in edges.items():
            found = np.exp(random.normal(math.log(edge), 0.03, (2000, rounds)))
            verdicts = [judge(ratio_of(values), 0.05) for values in found.tolist()]
            # 0.05 and three deviations of such a share
            assert verdicts.count(verdict) / len(verdicts) < 0.065


def test_the_advised_number_of_rounds_mostly_brings_a_verdict() -> None:
    random = np.random.default_rng(1)
    known = ratio_of(np.exp(np.log(1.02) + 0.05 * np.array([-1.0, -0.5, 0, 0.5, 1.0])).tolist())
    spread = float(np.std(np.log(known.values), ddof=1))
    rounds = rounds_needed(known, 1.05)
    assert rounds is not None
    found = np.exp(random.normal(math.log(1.02), spread, (1000, rounds)))
    verdicts = [judge(ratio_of(values), 0.05) for values in found.tolist()]
    assert 0.7 < 1 - verdicts.count("undecided") / len(verdicts) < 0.95


# The machine


def test_a_slower_machine_is_not_a_slower_model() -> None:
    old = profile(times(1, yardstick_ms=[5.0] * 5))
    new = profile(times(1.12, yardstick_ms=[5.6] * 5))
    found = compare(old, new, 0.05)
    assert found.machine is not None
    assert found.machine.median == pytest.approx(1.12)
    assert of(found, "e2e_ms") == "undecided"
    assert {change.reason for _, change in found.changes} == {"machine", None}
    assert of(found, "peak_rss_mb") == "not slower"


def test_a_faster_machine_hides_no_slowdown() -> None:
    old = profile(times(1, yardstick_ms=[5.0] * 5))
    new = profile(times(1.0, yardstick_ms=[4.0] * 5))
    assert of(compare(old, new, 0.05), "e2e_ms") == "undecided"
    assert of(compare(old, new, 0.05), "peak_rss_mb") == "not slower"


def test_what_is_slower_in_any_unit_is_slower_on_a_slower_machine_too() -> None:
    old = profile(times(1, yardstick_ms=[5.0] * 5))
    new = profile(times(1.5, yardstick_ms=[5.6] * 5))
    assert of(compare(old, new, 0.05), "e2e_ms") == "slower"


def test_a_yardstick_that_wavers_is_no_other_machine() -> None:
    old = profile(times(1, yardstick_ms=[5.0, 5.1, 4.9, 5.0, 5.2]))
    new = profile(times(1, yardstick_ms=[5.1, 4.9, 5.0, 5.6, 4.9]))
    assert compare(old, new, 0.05).verdict == "not slower"


def test_differences_are_told() -> None:
    old = profile(times(1))
    other = replace(
        ENVIRONMENT, cpu="Another", versions={**ENVIRONMENT.versions, "onnxruntime": "1.31.0"}
    )
    notes = "\n".join(compare(old, profile(times(1), environment=other), 0.05).notes)
    assert "cpu was Imaginary CPU @ 2.00GHz and is Another" in notes
    assert "onnxruntime was 1.30.0 and is 1.31.0" in notes
    cut_short = compare(profile(times(1), complete=False), old, 0.05)
    assert "interrupted" in "\n".join(cut_short.notes)


def test_warnings_of_rows_are_told_where_they_matter() -> None:
    def warned(factor: float, warning: str, noise: Sequence[float] = STRONG) -> Profile:
        return profile(replace(times(factor, noise), warnings=(warning,)))

    calm = compare(warned(1, "busy"), warned(1, "hot"), 0.05)
    assert not calm.undecided
    assert calm.notes == ("Warning of the old profile: busy.",)
    open_ = compare(warned(1, "busy"), warned(1, "hot", (1.0, 1.2, 0.8, 1.1, 0.9)), 0.05)
    assert open_.undecided
    assert open_.notes == (
        "Warning of the old profile: busy.",
        "Warning of the new profile: hot.",
    )


# Texts


def texts(factor: float, digest: str | None, *rows: Row) -> Profile:
    """A row whose inputs are lines of a file, and others."""
    what = replace(configuration(), text="words.txt", source_tokens=None)
    made = profile(replace(times(factor), configuration=what), *rows)
    return replace(made, effort=replace(made.effort, text_sha256=digest))


def test_other_lines_are_other_work() -> None:
    assert compare(texts(1, "a"), texts(2, "a"), 0.05).slower
    for old, new in (("a", "b"), (None, "b"), ("a", None), (None, None)):
        found = compare(texts(1, old), texts(2, new), 0.05)
        assert (found.rows, found.skipped, found.verdict) == ((), 1, "undecided")
        assert found.undecided
        assert "1 row with text is not compared" in found.notes[0]
    # Rows without text are compared all the same, and what is open stays open.
    mixed = compare(texts(1, "a", times(1)), texts(2, "b", times(1)), 0.05)
    assert {change.verdict for _, change in mixed.changes} == {"not slower"}
    assert (mixed.verdict, mixed.undecided, mixed.slower) == ("undecided", True, False)
    assert compare(texts(1, "a", times(1)), texts(2, "b", times(2)), 0.05).slower


# Which rows belong together


def test_labels_do_not_matter_where_each_has_one_bundle() -> None:
    old = profile(replace(times(1), configuration=configuration("before")))
    new = profile(replace(times(1.2), configuration=configuration("after")))
    assert compare(old, new, 0.05).slower


def test_labels_matter_where_there_are_several() -> None:
    def both(factor: float) -> Profile:
        return profile(times(1), replace(times(factor), configuration=configuration("other")))

    found = compare(both(1), both(1.2), 0.05)
    assert [(r.old.bundle, r.new.bundle) for r in found.rows] == [("g2p", "g2p"), ("other",) * 2]
    assert [{c.verdict for c in r.changes} for r in found.rows] == [
        {"not slower"},
        {"slower", "not slower"},
    ]
    alone = compare(profile(times(1)), both(1.2), 0.05)
    assert len(alone.rows) == 1
    assert "1 of 2 rows of the new profile is not in the other one." in alone.notes


def test_other_settings_are_other_rows() -> None:
    new = profile(replace(times(1), configuration=configuration(batch=2)))
    found = compare(profile(times(1)), new, 0.05)
    assert not found.rows
    assert (found.verdict, found.slower) == ("undecided", False)
    assert "nothing to compare" in found.notes[0]


def test_failed_rows_are_told_and_not_compared() -> None:
    old = profile(times(1), replace(times(1), configuration=configuration(batch=2)))
    new = profile(times(1), failed("It broke.", configuration(batch=2)))
    found = compare(old, new, 0.05)
    assert len(found.rows) == 1
    assert "1 of 2 rows of the new profile failed." in found.notes


def test_rounds_that_only_one_has_are_left_out() -> None:
    found = compare(profile(times(1)), profile(times(1.2, STRONG * 2)), 0.05)
    assert len(found.rows[0].changes[0].ratio.values) == 5
    cut = "5 of 5 of the old profile and of 10 of the new one"
    assert found.notes == (
        "Measured otherwise: rounds was 5 and is 10.",
        "Measured otherwise: repetitions was 10 and is 20.",
        f"Only rounds that both have are compared: {cut}.",
    )


def test_no_round_in_common_is_no_comparison() -> None:
    later = times(1)
    later = replace(later, turns=tuple(replace(one, round=one.round + 5) for one in later.turns))
    found = compare(profile(times(1)), profile(later), 0.05)
    assert (found.rows, found.skipped, found.undecided) == ((), 1, True)
    assert "1 row is not compared: no round is in both profiles." in found.notes


# Bundles of one profile


def in_turn(one: Row) -> Row:
    """The same with two inputs per request, taken one by one: each has a first token."""
    turns = [
        replace(
            turn,
            samples=tuple(replace(s, inputs=2, steps=(s.steps or 0) - 1) for s in turn.samples),
        )
        for turn in one.turns
    ]
    return replace(one, turns=tuple(turns), configuration=configuration("in turn"))


def test_a_batch_taken_one_by_one_has_no_ratio_of_first_tokens() -> None:
    (found,) = ratios(profile(times(1), in_turn(times(1.5))), "g2p")
    assert set(found.ratios) == {"e2e_ms", "peak_rss_mb"}
    assert found.ratios["e2e_ms"].median == pytest.approx(1 / 1.5)
    there = profile(in_turn(times(1)))
    metrics = {change.metric for _, change in compare(there, there, 0.05).changes}
    assert metrics == {"e2e_ms", "peak_rss_mb"}


def test_ratios_tell_how_many_times_as_fast() -> None:
    both = profile(times(1.5), replace(times(1), configuration=configuration("small")))
    assert first_label(both) == "g2p"
    (found,) = ratios(both, "g2p")
    assert (found.reference.bundle, found.other.bundle) == ("g2p", "small")
    assert found.ratios["e2e_ms"].median == pytest.approx(1.5)
    assert found.ratios["peak_rss_mb"].median == 1


def test_one_bundle_and_policy_has_no_ratios() -> None:
    batch = replace(configuration(), batch=8)
    assert ratios(profile(times(1), replace(times(2), configuration=batch)), "g2p") == ()


def test_policies_stand_beside_the_first_of_their_bundle() -> None:
    rows = [
        replace(times(ms), configuration=configuration(bundle, depth=depth))
        for ms, bundle, depth in (
            (4, "g2p", "full"),
            (2, "g2p", "fixed:2"),
            (1, "g2p", "fixed:1"),
            (8, "small", "full"),
            (3, "small", "fixed:2"),
        )
    ]
    found = ratios(profile(*rows), "g2p")
    assert [(one.reference.depth, one.other.bundle, one.other.depth) for one in found] == [
        ("full", "g2p", "fixed:2"),
        ("full", "g2p", "fixed:1"),
        ("full", "small", "full"),
        ("fixed:2", "small", "fixed:2"),
    ]
    medians = [one.ratios["e2e_ms"].median for one in found]
    assert medians == pytest.approx([2, 4, 0.5, 2 / 3])


def test_a_row_that_failed_has_no_ratio() -> None:
    broken = replace(
        times(1), configuration=configuration("small"), error="It broke in the fourth round."
    )
    assert ratios(profile(times(1), broken), "g2p") == ()
    assert ratios(profile(replace(broken, configuration=configuration("a")), times(1)), "a") == ()


def test_ratios_take_what_the_machine_did_to_both_out_of_the_figures() -> None:
    busy = (1.0, 3.0, 1.2, 2.0, 1.1)
    both = profile(times(1.5, busy), replace(times(1, busy), configuration=configuration("small")))
    (found,) = ratios(both, "g2p")
    ratio = found.ratios["e2e_ms"]
    assert ratio.low == pytest.approx(1.5)
    assert ratio.high == pytest.approx(1.5)


def test_a_baseline_stands_beside_every_policy() -> None:
    theirs = replace(configuration("g2p (transformers)"), program="transformers")
    found = ratios(
        profile(
            times(1),
            replace(times(0.5), configuration=configuration(depth="fixed:2")),
            replace(times(4), configuration=theirs),
            replace(times(9), configuration=replace(theirs, batch=2)),
        ),
        "g2p",
    )
    beside = [one for one in found if one.other == theirs]
    assert [one.reference.depth for one in beside] == ["full", "fixed:2"]
    assert [one.ratios["e2e_ms"].median for one in beside] == pytest.approx([0.25, 0.125])
