"""``edgedec profile --via``: real far ends behind ``sh -c`` and a local sshd, and hostile ones."""

from __future__ import annotations

import getpass
import json
import os
import shlex
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.profiling import profiles

from edgedec.builtin import resolve_bundle
from edgedec.errors import BundleError, DeviceError, InputError
from edgedec.runtime.profiling import remote, transport
from edgedec.runtime.profiling.plan import Measured, Plan
from edgedec.runtime.profiling.record import Configuration, Effort, Environment
from edgedec.runtime.profiling.trace import span_events
from edgedec.runtime.schema import decode, encode
from edgedec.runtime.spans import Span

SSHD = Path("/usr/sbin/sshd")


@pytest.fixture(scope="module")
def bundle(private_cache: Path) -> Path:
    return resolve_bundle("g2p")


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the far side puts its copies."""
    folder = tmp_path / "far"
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    return folder


def row(label: str, **changed: Any) -> Configuration:
    values: dict[str, Any] = {
        "bundle": label,
        "device": "cpu",
        "threads": 1,
        "batch": 1,
        "source_tokens": 4,
        "new_tokens": 2,
        "depth": "full",
    }
    return Configuration(**{**values, **changed})


def plan_of(
    bundles: dict[str, str], *rows: Configuration, rounds: int = 1, repetitions: int = 1
) -> Plan:
    return Plan(bundles, rows, Effort(rounds, repetitions, 0, True, 0))


# Real far ends.


@dataclass(frozen=True)
class Witness:
    """A Python that keeps what the far end left in its folder, and its exit code."""

    folder: Path

    @property
    def path(self) -> str:
        return str(self.folder / "python")

    def files(self) -> list[str]:
        return sorted((self.folder / "files").read_text().split())

    def code(self) -> str:
        return (self.folder / "code").read_text().strip()


@pytest.fixture
def witness(tmp_path: Path) -> Witness:
    path = tmp_path / "python"
    here = shlex.quote(str(tmp_path))
    path.write_text(
        f'#!/bin/sh\n[ "$1" = -m ] || exec {sys.executable} "$@"\n'
        f'{sys.executable} "$@"; echo $? > {here}/code; find 0 -type f > {here}/files\n'
    )
    path.chmod(0o755)
    return Witness(tmp_path)


def test_what_is_measured_behind_a_shell(
    bundle: Path, temporary: Path, witness: Witness, tmp_path: Path
) -> None:
    own = shutil.copytree(bundle, tmp_path / "own")
    (own / "notes.txt").write_text("not of the manifest")
    plan = plan_of(
        {"broken": str(tmp_path / "none"), "a": str(own), "b": str(own)},
        row("broken"),
        row("b"),
        row("a", depth="no-such-policy"),
    )
    notes: list[str] = []
    counts: list[tuple[int, int]] = []
    far = remote.site(
        plan,
        "sh -c",
        witness.path,
        note=notes.append,
        copied=lambda done, total: counts.append((done, total)),
    )
    assert far.environment.cores >= 1
    assert set(far.environment.bandwidth_gb_s)
    assert set(far.facts) == {"a", "b"}
    events = {event.row: event for event in far.events}

    assert set(events) == {0, 1, 2}
    assert "none" in (events[0].error or "")
    turn = events[1].turn
    assert turn is not None
    assert [len(sample.token_ms) for sample in turn.samples] == [2]
    assert "no-such-policy" in (events[2].error or "")
    # one copy for both labels, of the manifest's files only; nothing of it stays
    names = {path.relative_to(own).as_posix() for path in own.rglob("*") if path.is_file()}
    assert witness.files() == sorted(f"0/{name}" for name in names - {"notes.txt"})
    assert not list(temporary.iterdir())
    assert counts[-1][0] == counts[-1][1]
    assert [done for done, _ in counts] == sorted(done for done, _ in counts)
    assert witness.code() == "0"


def test_closing_the_events_ends_the_work_there(
    bundle: Path, temporary: Path, witness: Witness
) -> None:
    plan = plan_of({"a": str(bundle)}, row("a"), row("a", batch=2), rounds=1000, repetitions=1000)
    far = remote.site(plan, "sh -c", witness.path)
    with closing(far.events) as events:  # type: ignore[type-var]
        assert next(events).turn is not None
    assert witness.code() == "1"  # of its own accord
    assert not list(temporary.iterdir())


@pytest.fixture(scope="module")
def ssh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A prefix for this machine by way of a server of our own; nothing of the user's is read."""
    if not (SSHD.exists() and shutil.which("ssh") and shutil.which("ssh-keygen")):
        pytest.skip("needs OpenSSH's client and server")
    folder = tmp_path_factory.mktemp("ssh")
    for name in ("host", "key"):
        subprocess.run(
            ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name)], check=True
        )
    if os.getuid() == 0:  # it wants this folder then, which its service makes at every start
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    (folder / "config").write_text(
        f"ListenAddress 127.0.0.1:{port}\nHostKey {folder}/host\n"
        f"AuthorizedKeysFile {folder}/key.pub\nStrictModes no\nUsePAM no\nPidFile none\n"
        "PasswordAuthentication no\n"
    )
    log = (folder / "log").open("wb")
    server = subprocess.Popen([SSHD, "-D", "-e", "-f", str(folder / "config")], stderr=log)
    try:
        for _ in range(100):
            if b"listening" in (folder / "log").read_bytes():
                break
            if server.poll() is not None:
                pytest.skip(f"sshd does not start: {(folder / 'log').read_text()}")
            time.sleep(0.05)
        yield (
            f"ssh -F /dev/null -i {folder}/key -o UserKnownHostsFile={folder}/known "
            f"-o StrictHostKeyChecking=no -o BatchMode=yes -p {port} {getpass.getuser()}@127.0.0.1"
        )
    finally:
        server.terminate()
        server.wait()
        log.close()


def test_a_connection_of_ssh_that_breaks(
    ssh: str, bundle: Path, temporary: Path, tmp_path: Path
) -> None:
    """The client dies; the device notices, stops and removes the copies."""
    prefix = f"{shlex.quote(str(tmp_path / 'client'))} {ssh} env TMPDIR={temporary}"
    (tmp_path / "client").write_text(f'#!/bin/sh\necho $$ > {tmp_path}/pid\nexec "$@"\n')
    (tmp_path / "client").chmod(0o755)
    plan = plan_of({"a": str(bundle)}, row("a"), row("a", batch=2), rounds=1000, repetitions=1000)
    events = remote.site(plan, prefix, sys.executable).events
    event = next(events)
    assert event.turn is not None
    assert event.turn.samples[0].e2e_ms > 0
    os.kill(int((tmp_path / "pid").read_text()), 9)
    with pytest.raises(DeviceError, match="connection to it broke"):
        list(events)
    for _ in range(200):
        if not list(temporary.iterdir()):
            return
        time.sleep(0.05)
    pytest.fail("the copies are still there")


# Far ends that are not what they should be.

READY = {"ready": {"free_bytes": 10**12}}
MACHINE = {
    "environment": encode(
        Environment(
            date="2026-01-01T00:00:00",
            system="",
            machine="",
            python="",
            cpu="",
            instruction_set=None,
            cores=1,
            cache_bytes=None,
            memory_bytes=None,
            governor=None,
            boost=None,
            hypervisor=None,
            versions={},
            bandwidth_gb_s={},
            load=None,
        )
    )
}
EVENT = {"measured": encode(Measured(0, error="it failed."))}
END = {"end": True}


def line(answer: Any) -> str:
    return f"{transport.MARK}{json.dumps(answer)}"


@dataclass(frozen=True)
class Impostor:
    """Makes programs that claim to be Python."""

    path: Path

    def __call__(
        self, *lines: str, python: str = "3.12", edgedec: str | None = None, after: str = "wait"
    ) -> str:
        answers = self.path.with_suffix(".answers")
        answers.write_bytes("".join(f"{text}\n" for text in lines).encode(errors="surrogateescape"))
        self.path.write_text(
            "#!/bin/sh\n"
            'case "$1 $2" in\n'
            f'*version_info*) echo "{transport.MARK}python {python}";;\n'
            f'*importlib*) echo "{transport.MARK}edgedec {edgedec or version("edgedec")}";;\n'
            # what is sent to it must be read, or both would wait for each other
            "*) exec 3<&0; cat <&3 >/dev/null 2>&1 & "
            f"cat {shlex.quote(str(answers))}; {after};;\nesac\n"
        )
        self.path.chmod(0o755)
        return str(self.path)


@pytest.fixture
def impostor(tmp_path: Path, temporary: Path) -> Impostor:
    return Impostor(tmp_path / "impostor")


def events_of(bundle: Path, python: str, prefix: str = "sh -c", **options: Any) -> list[Measured]:
    far = remote.site(plan_of({"a": str(bundle)}, row("a")), prefix, python, **options)
    return list(far.events)


@pytest.mark.parametrize(
    ("python", "says"),
    [
        ("no-such-python", "has no no-such-python: .*a device without Python cannot be profiled"),
        ("~/no-such-python", "has no ~/no-such-python"),
        ("it's not; there", "has no it's not; there"),
    ],
)
def test_a_device_without_python(bundle: Path, python: str, says: str) -> None:
    with pytest.raises(DeviceError, match=says):
        events_of(bundle, python)


def test_an_old_python(bundle: Path, impostor: Impostor) -> None:
    with pytest.raises(DeviceError, match=r"is Python 3\.9, edgedec needs 3\.10"):
        events_of(bundle, impostor(python="3.9"))


def test_another_version(bundle: Path, impostor: Impostor) -> None:
    with pytest.raises(DeviceError, match=r"has edgedec 99\.0, here is .*install the same version"):
        events_of(bundle, impostor(edgedec="99.0"))


def test_a_python_without_edgedec(bundle: Path, temporary: Path, tmp_path: Path) -> None:
    bare = tmp_path / "bare"
    bare.write_text(f'#!/bin/sh\nexec {sys.executable} -I -S "$@"\n')
    bare.chmod(0o755)
    with pytest.raises(DeviceError, match=r"has no edgedec for its .*bare: .* -m pip install"):
        events_of(bundle, str(bare))


def test_a_home_in_the_name_of_python(
    bundle: Path, impostor: Impostor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    impostor(*map(line, (READY, MACHINE, EVENT, END)))
    monkeypatch.setenv("HOME", str(tmp_path))
    assert len(events_of(bundle, "~/impostor")) == 1


@pytest.mark.parametrize(
    ("prefix", "error", "says"),
    [
        ("", InputError, "needs a command"),
        ("ssh 'board", InputError, "is not a command"),
        ("no-such-command", DeviceError, "cannot be started: No such file"),
        ("true", DeviceError, r"does not answer\."),
        ("sh -c 'echo went wrong >&2; exit 255'", DeviceError, 'message: "went wrong"'),
        ("sh -c 'echo went wrong; exit 255'", DeviceError, 'message: "went wrong"'),
        ("echo", DeviceError, r"does not answer\.$"),
        ("sh -c 'echo \"$0\" >&2'", DeviceError, r"does not answer\.$"),
        ("script -qe /dev/null -c", DeviceError, r"is given a terminal.*ssh -T"),
    ],
)
def test_prefixes_that_lead_nowhere(
    bundle: Path, prefix: str, error: type[Exception], says: str
) -> None:
    if prefix.startswith("script") and not shutil.which("script"):
        pytest.skip("needs script, which gives a command a terminal")
    with pytest.raises(error, match=says):
        events_of(bundle, "python3", prefix)


def test_no_room(bundle: Path, impostor: Impostor) -> None:
    python = impostor(*map(line, ({"ready": {"free_bytes": 5}}, MACHINE)))
    with pytest.raises(DeviceError, match=r"has 0 MB free.*bundles have 17 MB.*TMPDIR"):
        events_of(bundle, python)


def test_a_bundle_that_shrinks_while_it_is_copied(
    bundle: Path, impostor: Impostor, tmp_path: Path, temporary: Path
) -> None:
    own = shutil.copytree(bundle, tmp_path / "own")
    python = impostor(*map(line, (READY, MACHINE)))
    far = remote.site(plan_of({"a": str(own)}, row("a")), "sh -c", python)
    max(own.iterdir(), key=lambda path: path.stat().st_size).write_bytes(b"short")
    with pytest.raises(BundleError, match="changed while it was copied"):
        list(far.events)
    assert not list(temporary.iterdir())


def test_lines_of_others_and_control_characters(bundle: Path, impostor: Impostor) -> None:
    answers = (READY, MACHINE, {"note": "a\x1b[2Jb\n"}, EVENT, END)
    noise = ("Welcome!", "\x1b[31m", '{"end": true}', "\udcff\udcfe", f" {line(END)}")
    lines = [text for answer in answers for text in (*noise, f"{line(answer)}\r")]
    notes: list[str] = []
    (event,) = events_of(bundle, impostor(*lines), note=notes.append)
    assert event == Measured(0, error="it failed.")
    assert notes == ["a [2Jb "]


def test_what_came_before_the_connection_broke(bundle: Path, impostor: Impostor) -> None:
    python = impostor(
        *map(line, (READY, MACHINE, EVENT)), after="echo first >&2; echo 'reset by peer' >&2"
    )
    far = remote.site(plan_of({"a": str(bundle)}, row("a")), "sh -c", python)
    assert next(far.events).error == "it failed."
    with pytest.raises(DeviceError, match=r'connection to it broke .*message: "reset by peer"'):
        next(far.events)


def test_a_problem_there(bundle: Path, impostor: Impostor) -> None:
    python = impostor(*map(line, (READY, {"problem": "the disk is full."})))
    with pytest.raises(DeviceError, match="cannot measure: the disk is full"):
        events_of(bundle, python)


@pytest.mark.parametrize(
    "wrong",
    [
        "",
        "nonsense",
        "{",
        "[]",
        "[" * 100_000,
        '{"measured": null}',
        line(EVENT)[len(transport.MARK) :].replace("it failed", "x" * 200_000),
        '{"measured": {"row": 0, "turn": {}}}',
        '{"measured": {"row": 1, "error": "of nobody"}}',
        '{"measured": {"row": -1, "error": "of nobody"}}',
        '{"measured": {"row": 0, "more": 1}}',
        '{"measured": {"row": 0, "operators": {"e2e_ms": NaN, "steps": 1, "by_type": []}}}',
    ],
    ids=lambda text: text[:60],
)
def test_answers_that_are_none(
    bundle: Path, impostor: Impostor, wrong: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transport, "MAX_LINE", 150_000)
    python = impostor(*map(line, (READY, MACHINE)), f"{transport.MARK}{wrong}")
    with pytest.raises(DeviceError, match=r"answer"):
        events_of(bundle, python)


def test_more_answers_than_rows(bundle: Path, impostor: Impostor) -> None:
    python = impostor(*map(line, (READY, MACHINE, EVENT, EVENT, EVENT)))
    with pytest.raises(DeviceError, match="nobody asked for it"):
        events_of(bundle, python)


@pytest.mark.parametrize("free", [-1, 1 << 70, -(10**400), 1.0, None])
def test_room_that_cannot_be(bundle: Path, impostor: Impostor, free: object) -> None:
    python = impostor(line({"ready": {"free_bytes": free}}), line(MACHINE))
    with pytest.raises(DeviceError, match="could not start"):
        events_of(bundle, python)


TRACE = span_events([Span("run", "decoder", 0.0, 0.5)], pid=1, tid=1, zero=0.0)


def good_turn(number: int) -> dict[str, Any]:
    return {"row": 0, "turn": encode(profiles.turn(number, [profiles.sample(20.0)]))}


GOOD = [
    good_turn(0),
    good_turn(1),
    {"row": 0, "operators": encode(profiles.OPERATORS), "events": TRACE},
]


def answered(bundle: Path, impostor: Impostor, *measured: Any) -> list[Measured]:
    """Of a plan that asks for two turns and a trace."""
    answers = (READY, MACHINE, *({"measured": one} for one in measured), END)
    asked = plan_of({"a": str(bundle)}, row("a"), rounds=2, repetitions=2)
    far = remote.site(
        replace(asked, operators=True, trace=True), "sh -c", impostor(*map(line, answers))
    )
    return list(far.events)


def changed(one: dict[str, Any], path: str, value: Any) -> dict[str, Any]:
    """An answer with another value somewhere."""
    copy: dict[str, Any] = json.loads(json.dumps(one))
    *parents, last = path.split(".")
    place: Any = copy
    for key in parents:
        place = place[int(key) if key.isdecimal() else key]
    place[last] = value
    return copy


def test_all_that_was_asked_for(bundle: Path, impostor: Impostor) -> None:
    assert encode(answered(bundle, impostor, *GOOD)) == [encode(decode(Measured, e)) for e in GOOD]
    failed = {"row": 0, "error": "it failed."}
    assert len(answered(bundle, impostor, GOOD[0], failed)) == 2
    assert len(answered(bundle, impostor, *GOOD[:2], {"row": 0, "operators_error": "full."})) == 3


@pytest.mark.parametrize(
    ("answers", "says"),
    [
        ([], "ended with 3 turns missing"),
        (GOOD[:2], "ended with 1 turns missing"),
        ([GOOD[0], GOOD[2]], "ended with 1 turns missing"),
        ([GOOD[0], GOOD[0]], "nobody asked for it"),
        ([good_turn(2)], "nobody asked for it"),
        ([changed(GOOD[0], "row", 1)], "nobody asked for it"),
        ([changed(GOOD[0], "row", -1)], "row must be"),
        ([changed(GOOD[0], "turn.round", -5)], "turn.round must be"),
        ([changed(GOOD[0], "turn.samples", [])], "0 of 1"),
        ([{"row": 0}], "must be one of"),
        ([{**GOOD[0], "error": "it failed."}], "must be one of"),
        ([{**GOOD[0], "events": TRACE}], "events belong to operators"),
        ([{"row": 0, "error": "x" * 20_000}], "more than 10,000 characters"),
        ([{"row": 0, "error": "it failed."}, GOOD[0]], "nobody asked for it"),
        ([changed(GOOD[2], "events.0.cat", "other")], "events.0.cat"),
        ([changed(GOOD[2], "events.0.ts", 1e300)], "events.0.ts"),
        ([changed(GOOD[2], "operators.e2e_ms", 0)], "operators.e2e_ms"),
        ([changed(GOOD[0], "turn.samples.0.e2e_ms", 0)], "samples.0.e2e_ms must be"),
    ],
)
def test_answers_that_cannot_be(
    bundle: Path, impostor: Impostor, answers: list[Any], says: str
) -> None:
    with pytest.raises(DeviceError, match=says) as caught:
        answered(bundle, impostor, *answers)
    assert len(str(caught.value)) < 600


def test_noise_without_end(
    bundle: Path, impostor: Impostor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transport, "MAX_LINE", 100_000)
    with pytest.raises(DeviceError, match="does not end"):
        events_of(bundle, impostor(*map(line, (READY, MACHINE)), after="yes"))


def test_baselines_stay_here(bundle: Path) -> None:
    with pytest.raises(InputError, match="--baseline cannot go with --via"):
        remote.site(plan_of({"a": str(bundle)}, row("a", program="transformers")), "sh -c")


@given(st.text() | st.binary().map(lambda data: data.decode(errors="replace")))
def test_any_answer_is_an_object_or_refused(text: str) -> None:
    with suppress(ValueError):
        assert isinstance(transport.parse(text), dict)


@given(st.dictionaries(st.text(), st.text()))
def test_answers_contain_nothing_that_a_terminal_obeys(answer: dict[str, str]) -> None:
    for key, value in transport.parse(json.dumps(answer)).items():
        assert not any(ord(c) < 32 or 127 <= ord(c) < 160 for c in key + value)


@given(st.binary())
def test_messages_are_printable(data: bytes) -> None:
    assert transport.message(data).isprintable()
    assert len(transport.message(data)) <= 200
