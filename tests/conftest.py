"""What all tests share: paths, and an environment away from the hub and the user's cache."""

from __future__ import annotations

import logging
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

ROOT = Path(__file__).resolve().parent.parent

# `python -m pytest` puts the repository first: transformers would take our kernels/ for a package.
sys.path[:] = [entry for entry in sys.path if entry and Path(entry).resolve() != ROOT]

# Before anything imports the libraries that read these.
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("OMP_NUM_THREADS", "1")

# The same examples every time, without a clock; HYPOTHESIS_PROFILE=default looks for new ones.
settings.register_profile("repeatable", derandomize=True, deadline=None, database=None)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "repeatable"))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if shutil.which("nvidia-smi"):
        return
    for item in items:
        if item.get_closest_marker("gpu"):
            item.add_marker(pytest.mark.skip(reason="needs an NVIDIA GPU"))


@pytest.fixture(scope="session")
def root() -> Path:
    """The repository."""
    return ROOT


@pytest.fixture(scope="session")
def shared() -> Path:
    """Data and checkpoints too large to ship; a test that needs them is skipped elsewhere."""
    folder = ROOT.parent / "shared"
    if not folder.is_dir():
        pytest.skip("needs the shared data folder beside the repository")
    return folder


@pytest.fixture(scope="session", autouse=True)
def private_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One cache of built-in bundles for the whole run, away from the user's."""
    folder = tmp_path_factory.mktemp("cache")
    os.environ["EDGEDEC_CACHE"] = str(folder)
    return folder


@pytest.fixture(scope="session")
def staged_g2p(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of g2p, cut into a stage for each layer; not to be written to."""
    from edgedec.builtin import builtin_checkpoint
    from edgedec.export import export_checkpoint

    checkpoint = builtin_checkpoint("g2p")
    assert checkpoint is not None
    out = tmp_path_factory.mktemp("staged") / "g2p"
    return export_checkpoint(checkpoint, out, stages="all", verify=False)


def hide_library(patch: pytest.MonkeyPatch) -> None:
    """Make it as if edgedec had been installed without its operator library."""
    patch.setattr("edgedec.kernels.library.LIBRARY", "none.so")
    patch.delenv("EDGEDEC_LIBRARY", raising=False)


@pytest.fixture
def no_library(monkeypatch: pytest.MonkeyPatch) -> None:
    """Function bodies run edgedec's operators."""
    hide_library(monkeypatch)


@pytest.fixture(autouse=True)
def logger() -> Iterator[logging.Logger]:
    """The logger that `-v`, `-q` and every run of the command line change; restored afterwards."""
    logger = logging.getLogger("edgedec")
    level, handlers = logger.level, logger.handlers[:]
    yield logger
    logger.setLevel(level)
    logger.handlers[:] = handlers
