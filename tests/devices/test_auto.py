"""`--device auto` goes from one way to the next, and says why."""

from __future__ import annotations

import logging

import pytest

from edgedec.devices.auto import candidates, first_that_works
from edgedec.devices.base import DEVICES
from edgedec.errors import BundleError, DeviceError, MissingDependencyError, MissingDeviceError

REFUSALS = (DeviceError("of another version."), MissingDeviceError("no GPU."))


def test_every_candidate_is_a_device_and_the_cpu_comes_last() -> None:
    assert {text.partition(":")[0] for text in candidates()} <= DEVICES.keys()
    assert candidates()[-1] == "cpu"
    assert len(set(candidates())) == len(candidates())


@pytest.mark.parametrize("works", candidates())
def test_it_steps_down_to_what_works_with_a_sentence_each_time(
    works: str, caplog: pytest.LogCaptureFixture
) -> None:
    tried = []

    def attempt(device: str) -> str:
        tried.append(device)
        if device == works:
            return device.upper()
        if len(tried) == 1:
            raise MissingDependencyError("TensorRT is not installed: pip install it.")
        raise REFUSALS[len(tried) % 2]

    with caplog.at_level(logging.WARNING):
        assert first_that_works(attempt) == works.upper()
    assert tried == list(candidates()[: len(tried)])
    said = [record.getMessage() for record in caplog.records]
    assert len(said) == len(tried) - 1
    for text, left, following in zip(said, tried, tried[1:], strict=False):
        assert text.startswith(f"{left} is left for {following}: ")
        assert text.endswith(".")
        assert not text.endswith("..")


def test_the_last_error_is_the_users() -> None:
    def attempt(device: str) -> None:
        raise DeviceError(device)

    with pytest.raises(DeviceError, match=r"^cpu$"):
        first_that_works(attempt)


def test_a_damaged_bundle_is_no_reason_to_try_another_device() -> None:
    tried = []

    def attempt(device: str) -> None:
        tried.append(device)
        raise BundleError("damaged")

    with pytest.raises(BundleError):
        first_that_works(attempt)
    assert len(tried) == 1
