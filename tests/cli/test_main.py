"""The `edgedec` command as a process: signals, pipes, encodings, logs, version."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

from edgedec.cli import cli

Invoke = Callable[..., Result]

posix = pytest.mark.skipif(os.name == "nt", reason="POSIX signals and pipes")

# The command with a generator that answers at once; SLEEP makes it hang instead.
FAKE = """
import sys, time, types, edgedec
class Generator:
    def generate(self, inputs, **options):
        print("started", file=sys.stderr, flush=True)
        time.sleep({sleep})
        fields = dict(text=chr(233) * 2000, tokens=[1], score=None, finish_reason="stop")
        return [types.SimpleNamespace(**fields) for _ in inputs]
edgedec.load = lambda *a, **k: Generator()
from edgedec.cli import main
sys.argv = ["edgedec", *sys.argv[1:]]
main()
"""


def start(sleep: float, *arguments: str, **environment: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-c", FAKE.format(sleep=sleep), *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=os.environ | environment,
    )


@posix
def test_control_c_exits_quietly_with_130(bundle: str) -> None:
    with start(60, "run", bundle, "x") as process:
        assert process.stderr is not None
        assert process.stderr.readline() == b"started\n"
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=20)
    assert (process.returncode, out, err.strip()) == (130, b"", b"")


@posix
def test_a_closed_pipe_is_no_error(bundle: str) -> None:
    with start(0, "run", bundle, "-") as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        process.stdin.write(b"word\n" * 50)
        process.stdin.close()
        err = process.stderr.read().replace(b"started\n", b"")
        process.wait(timeout=20)
    assert (process.returncode, err) == (141, b"")


@pytest.mark.parametrize("locale", ["C", "C.UTF-8", "POSIX"])
def test_output_is_utf8_in_any_locale(bundle: str, locale: str) -> None:
    with start(0, "run", bundle, "x", LC_ALL=locale, PYTHONUTF8="0", PYTHONIOENCODING="ascii") as p:
        out, err = p.communicate(timeout=20)
    assert out.decode("utf-8").strip() == "é" * 2000, err


def test_two_first_uses_at_once(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "edgedec", "run", "g2p", "deployment", "--threads", "1"]
    environment = os.environ | {"EDGEDEC_CACHE": str(tmp_path / "cache")}
    both = [
        subprocess.Popen(
            command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        for _ in range(2)
    ]
    outputs = [process.communicate(timeout=120) for process in both]
    assert [process.returncode for process in both] == [0, 0], outputs
    assert outputs[0][0] == outputs[1][0] != b""
    assert len(list((tmp_path / "cache" / "builtin").iterdir())) == 1


def test_module_and_version(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "edgedec", "--version"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.startswith("edgedec 0.")


def test_a_usage_error_has_exit_code_2() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "edgedec", "nonsense"], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert "Error: No such command 'nonsense'" in done.stderr


def test_every_verb_has_help_of_its_own(invoke: Invoke) -> None:
    top = invoke("--help")
    for verb in cli.list_commands(None):  # type: ignore[arg-type]
        assert f"  {verb}" in top.output
        for flag in ("-h", "--help"):
            assert invoke(verb, flag).exit_code == 0


@pytest.mark.parametrize(
    ("flags", "level"),
    [(["-v"], logging.INFO), (["-vv"], logging.DEBUG), (["-q"], logging.ERROR)],
)
def test_verbosity_works_before_and_after_the_verb(
    invoke: Invoke, logger: logging.Logger, flags: list[str], level: int
) -> None:
    for arguments in ([*flags, "run", "nothing", "x"], ["run", "nothing", "x", *flags]):
        logger.handlers.clear()
        invoke(*arguments)
        assert logger.level == level


def test_logs_go_to_standard_error(
    invoke: Invoke, capsys: pytest.CaptureFixture[str], logger: logging.Logger
) -> None:
    invoke("run", "nothing", "x")
    logging.getLogger("edgedec.runtime").info("a detail")
    logging.getLogger("edgedec.runtime").warning("a warning")
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", "WARNING: a warning\n")


def test_importing_the_command_line_changes_no_logger() -> None:
    code = "import logging, edgedec.cli.run; print(logging.getLogger('edgedec').handlers)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_no_room_for_the_results_is_a_sentence() -> None:
    with Path("/dev/full").open("wb") as full:
        command = [sys.executable, "-m", "edgedec", "devices"]
        result = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, check=False)
    assert result.returncode == 2
    assert result.stderr.startswith(b"Error: Cannot write the results: ")
    assert b"Traceback" not in result.stderr
