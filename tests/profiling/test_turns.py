"""Plans turn by turn: what one process does to its row, and to nobody else's."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from itertools import chain
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.profiling.plans import plan, row, text_row
from tests.profiling.profiles import ENVIRONMENT

from edgedec.errors import InputError
from edgedec.runtime.profiling import turns
from edgedec.runtime.profiling.collect import collect
from edgedec.runtime.profiling.plan import Measured
from edgedec.runtime.profiling.turns import count_turns, jobs_of, measure

PRETEND = """
import ctypes, os, signal, tempfile
from edgedec.errors import InputError
from edgedec.runtime.profiling.record import Conditions, Turn
from edgedec.runtime.profiling.serve import keep_output, serve

def carry_out(job):
    what = job.configuration.depth
    print("noise of a library")
    os.system("echo noise of a program")
    ctypes.CDLL(None).puts(b"noise of C")
    if what == "defect":
        raise ZeroDivisionError("here it is")
    if what == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    if what == "crashed":
        os.write(2, b"what(): bad_alloc\\n")
        os.abort()
    if job.kind == "operators":
        tempfile.mkdtemp()
        if what == "waiting":
            os.kill(os.getppid(), signal.SIGINT)
            signal.pause()
        raise InputError("its records are full.") if what == "full" else MemoryError
    if what == "left":
        os._exit(3)
    turn = Turn(job.round, None, None, os.getpid(), None, None, Conditions(None, None, None, 1), ())
    return {"turn": turn}

serve(carry_out, keep_output())
"""
NOWHERE = {"g2p": "none"}
LINUX = pytest.mark.skipif(not Path("/proc/self").exists(), reason="reads /proc")


@pytest.fixture
def pretend(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers that measure nothing: ``load_ms`` is their process id, ``depth`` what they do."""
    (tmp_path / "pretend.py").write_text(PRETEND)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setitem(turns.MODULES, "edgedec", "pretend")


@pytest.fixture(scope="module")
def sweep(g2p: str) -> list[Measured]:
    """Two rounds of three rows, of which one has no bundle."""
    bundles = {"g2p": g2p, "broken": str(Path(g2p) / "tokenizer.json")}
    rows = [row(), row("broken"), text_row(batch=2)]
    words = ["deployment", "", "ünïcödé 漢字"]
    return list(measure(plan(bundles, rows, inputs=words)))


def test_rows_take_turns_and_a_broken_bundle_fails_its_own(sweep: list[Measured]) -> None:
    assert [event.row for event in sweep] == [0, 1, 2, 0, 2]
    broken = sweep[1]
    assert broken.turn is None
    assert broken.error is not None
    assert "is not a folder" in broken.error
    for event, number in zip((sweep[0], sweep[2], sweep[3], sweep[4]), (0, 0, 1, 1), strict=True):
        assert event.error is None
        assert event.turn is not None
        assert event.turn.round == number
        assert {sample.round for sample in event.turn.samples} == {number}
        assert len(event.turn.samples) == (2, 1)[number]


def test_a_process_of_its_own_has_a_start_and_memory(sweep: list[Measured]) -> None:
    for event in sweep:
        if event.turn is None:
            continue
        turn = event.turn
        assert turn.imports_ms is not None
        assert turn.start_ms is not None
        assert turn.imports_ms > 0
        assert turn.load_ms > 0
        assert turn.imports_ms + turn.load_ms < turn.start_ms
        assert turn.memory is not None
        # Odd rounds begin with what was just read; even ones where the system drops it.
        assert turn.file_cache == "warm" if turn.round else turn.file_cache in {"cold", None}


def test_in_one_process(g2p: str) -> None:
    found = list(measure(plan({"g2p": g2p, "none": "none"}, [row(), row("none")], fresh=False)))
    assert [event.row for event in found] == [0, 1, 0]
    for event in found[::2]:
        assert event.turn is not None
        assert event.turn.samples
        assert event.turn.start_ms is None
        assert event.turn.memory is None
        assert event.turn.file_cache is None


def test_operators_are_recorded_last_and_in_a_process_of_their_own(g2p: str) -> None:
    found = list(measure(plan({"g2p": g2p}, [row()], rounds=1, fresh=False, operators=True)))
    assert [event.turn is None for event in found] == [False, True]
    assert found[1].error is None
    assert found[1].operators is not None
    assert found[1].operators.steps == 7


@pytest.mark.usefixtures("pretend")
@pytest.mark.parametrize(
    ("depth", "sentence"),
    [
        ("killed", "was killed, most likely because memory ran out"),
        ("crashed", r"Abort.*bad_alloc"),
        ("left", "exit code 3"),
        ("defect", "a defect of edgedec .ZeroDivisionError: here it is."),
    ],
)
@pytest.mark.parametrize("fresh", [True, False])
def test_whatever_ends_a_worker_fails_its_row_only(depth: str, sentence: str, fresh: bool) -> None:
    rows = [row(depth="a"), row(depth=depth), row(depth="b")]
    found = list(measure(plan(NOWHERE, rows, fresh=fresh)))
    assert [event.row for event in found] == [0, 1, 2, 0, 2]
    assert [event.error is None for event in found] == [True, False, True, True, True]
    error = found[1].error
    assert error is not None
    assert re.search(sentence, error)
    assert "\n" not in error
    processes = {event.turn.load_ms for event in found if event.turn is not None}
    assert len(processes) == (4 if fresh else 1 if depth == "defect" else 2)


@pytest.mark.usefixtures("pretend")
def test_no_process_is_left_when_the_events_are_closed() -> None:
    events = measure(plan(NOWHERE, [row(depth="a")], fresh=False))
    first = next(events)
    assert first.turn is not None
    assert isinstance(events, Iterator)
    events.close()  # type: ignore[attr-defined]  # it is a generator
    with pytest.raises(ProcessLookupError):
        os.kill(int(first.turn.load_ms), 0)


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where temporary files go."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.setattr(tempfile, "tempdir", None)  # it is asked for anew
    return folder


@pytest.mark.usefixtures("pretend")
@pytest.mark.parametrize(("depth", "why"), [("full", "records are full"), ("x", "enough memory")])
def test_operators_that_fail_leave_the_row_and_no_files(
    temporary: Path, depth: str, why: str
) -> None:
    sweep = plan(NOWHERE, [row(depth=depth), row()], operators=True)
    events = list(measure(sweep))
    assert [event.turn is None for event in events] == [False] * 4 + [True] * 2
    assert [event.error for event in events] == [None] * 6
    assert why in (events[4].operators_error or "")
    found = collect(sweep, ENVIRONMENT, {}, events, complete=True).rows[0]
    assert found.error is None
    assert len(found.turns) == 2
    assert all(why in found.missing[name] for name in ("operators", "cross_kv_ms"))
    assert not list(temporary.iterdir())


@pytest.mark.usefixtures("pretend")
@pytest.mark.parametrize("fresh", [False, True])
def test_an_interruption_leaves_no_files(temporary: Path, fresh: bool) -> None:
    sweep = plan(NOWHERE, [row(depth="waiting")], operators=True, fresh=fresh)
    events = measure(sweep)
    assert next(events).turn is not None
    assert next(events).turn is not None
    with pytest.raises(KeyboardInterrupt):
        next(events)
    assert not list(temporary.iterdir())


SCRIPT = """
import sys
from tests.profiling.plans import plan, row
from edgedec.runtime.profiling.turns import measure

try:
    for event in measure(plan({"g2p": sys.argv[1]}, [row(), row(new=20_000)])):
        print(event.row, flush=True)
except KeyboardInterrupt:
    print("kept", flush=True)
"""


def children(process: int) -> list[int]:
    found = (Path(f"/proc/{process}/task") / str(process) / "children").read_text()
    return [int(word) for word in found.split()]


def runs(process: int) -> bool:
    """Whether it does; who has ended waits for its parent, as a zombie."""
    try:
        state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state not in {"Z", "X"}


def wait_until(holds: Callable[[], object], seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.02)


@LINUX
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_no_worker_outlives_whoever_started_it(g2p: str, root: Path, how: signal.Signals) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", SCRIPT, g2p],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(root)},
        cwd=root.parent,
        start_new_session=True,
    )
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == "0\n"  # the second row takes long
        wait_until(lambda: children(process.pid))
        (worker,) = children(process.pid)
        wait_until(lambda: b"worker" in Path(f"/proc/{worker}/cmdline").read_bytes())
        if how == signal.SIGINT:  # as a terminal does it: to all
            os.killpg(process.pid, how)
        else:
            process.kill()
        rest, _ = process.communicate(timeout=20)
    finally:
        process.kill()
        process.wait()
    if how == signal.SIGINT:
        assert rest == "kept\n"
        assert process.returncode == 0
    wait_until(lambda: not runs(worker))


def test_a_text_without_text() -> None:
    # At once, before anything is measured.
    with pytest.raises(InputError, match="no line that is not empty"):
        measure(plan(NOWHERE, [text_row()], inputs=["", " "]))


@pytest.mark.usefixtures("pretend")
def test_blank_lines_are_said_once() -> None:
    notes: list[str] = []
    events = measure(plan(NOWHERE, [text_row()], inputs=["a", ""]), note=notes.append)
    assert len(list(events)) == 2
    assert notes == ["skipped 1 empty line of the text."]


@given(
    rounds=st.integers(1, 7),
    repetitions=st.integers(1, 20),
    batches=st.lists(st.integers(1, 4), min_size=1, max_size=3),
    lines=st.lists(st.text(min_size=1).filter(str.strip), min_size=1, max_size=6),
    operators=st.booleans(),
)
def test_rounds_divide_repetitions_and_lines_follow_each_other(
    rounds: int, repetitions: int, batches: list[int], lines: list[str], operators: bool
) -> None:
    rows = [text_row(batch=batch) for batch in batches] + [row()]
    whole = plan(
        NOWHERE,
        rows,
        rounds=rounds,
        repetitions=repetitions,
        inputs=lines,
        operators=operators,
    )
    jobs = list(jobs_of(whole, lines))
    assert len(jobs) == count_turns(whole)
    latency = [(job, number) for job, number in jobs if job.kind == "latency"]
    order = [number for _, number in latency]
    assert order == list(range(len(rows))) * (len(order) // len(rows))
    for number, batch in enumerate(batches):
        mine = [job for job, other in latency if other == number]
        assert len(mine) == min(rounds, repetitions)
        assert sum(job.repetitions for job in mine) == repetitions
        assert max(j.repetitions for j in mine) - min(j.repetitions for j in mine) <= 1
        read = list(chain.from_iterable(job.inputs for job in mine))
        assert read == [lines[i % len(lines)] for i in range(repetitions * batch)]
    synthetic = [job for job, number in latency if number == len(batches)]
    assert [job.first for job in synthetic] == [
        sum(job.repetitions for job in synthetic[:i]) for i in range(len(synthetic))
    ]
