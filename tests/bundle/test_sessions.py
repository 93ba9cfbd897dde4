"""How the graphs of a bundle are opened: who may spin, and who gets the operator library."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import edgedec
from edgedec.devices import cpu
from edgedec.devices.options import session_options
from edgedec.kernels import library

SPINNING = "session.intra_op.allow_spinning"


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> dict[str, bool]:
    """Graph -> whether its idle threads may spin, of what is opened from now on."""
    seen: dict[str, bool] = {}
    plain = cpu.Cpu.open

    def record(
        self: cpu.Cpu, graph: Path, *, threads: int | None, shared: bool, records: Path | None
    ) -> Any:
        options = session_options(threads or 1, shared, None)
        try:
            seen[graph.stem] = options.get_session_config_entry(SPINNING) != "0"
        except RuntimeError:  # nothing was said: ONNX Runtime lets them
            seen[graph.stem] = True
        return plain(self, graph, threads=threads, shared=shared, records=records)

    monkeypatch.setattr(cpu.Cpu, "open", record)
    return seen


def test_the_encoder_never_spins_and_a_decoder_of_one_graph_does(
    exported: Path, coded: Path, decoder_only: Path, opened: dict[str, bool]
) -> None:
    """Its threads wait for the next token; the encoder's would take their cores."""
    for bundle in (exported, coded):
        opened.clear()
        edgedec.load(bundle, threads=2)
        assert opened == {"encoder": False, "decoder": True}
    opened.clear()
    edgedec.load(decoder_only, threads=2)
    assert opened == {"decoder": True}


def test_several_stages_do_not_spin_against_each_other(
    coded_staged: Path, opened: dict[str, bool]
) -> None:
    edgedec.load(coded_staged, threads=2)
    assert opened == {"encoder": False, "decoder.0-1": False, "decoder.1-2": False, "head": False}


def test_one_thread_has_nothing_to_spin(coded_staged: Path, opened: dict[str, bool]) -> None:
    edgedec.load(coded_staged, threads=1)
    assert all(opened.values())


def test_the_library_goes_to_graphs_that_use_it(
    exported: Path, coded: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    registered: list[Any] = []
    plain = library.register

    def record(options: Any) -> str | None:
        registered.append(options)
        return plain(options)

    monkeypatch.setattr(library, "register", record)
    edgedec.load(exported, threads=1)
    assert registered == []
    edgedec.load(coded, threads=1)
    assert len(registered) == 2


@pytest.mark.usefixtures("no_library")
def test_a_missing_library_is_one_warning(
    exported: Path, coded: Path, caplog: pytest.LogCaptureFixture
) -> None:
    library._warn.cache_clear()
    with caplog.at_level("WARNING", "edgedec"):
        edgedec.load(exported, threads=1)
        assert not caplog.records
        for _ in range(2):
            edgedec.load(coded, threads=1).generate("hello", max_new_tokens=2)
    assert len(caplog.records) == 1
    library._warn.cache_clear()
