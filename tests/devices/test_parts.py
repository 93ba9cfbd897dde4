"""Which device runs which part, from the text of --device."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgedec.devices.base import DEVICES, codebook_device, get_device
from edgedec.devices.cpu import Cpu
from edgedec.devices.parts import default_devices, devices_of, parse_devices, split_devices
from edgedec.errors import DeviceError, InputError
from edgedec.runtime.generation import GenerationConfig
from edgedec.runtime.manifest import Component, Interface, Manifest, Source, Stage

DEVICE = st.sampled_from(["cpu", "qnn", "qnn:sm8650", "openvino:NPU"])
CHOICE = st.one_of(
    DEVICE.map(str),
    st.tuples(DEVICE, DEVICE).map(lambda pair: "encoder={},decoder={}".format(*pair)),
)


def manifest(**devices: str) -> Manifest:
    """Of an encoder-decoder of two stages and a head."""
    names = ("encoder", "decoder.0-1", "decoder.1-2", "head")
    return Manifest(
        schema_version=1,
        producer="",
        source=Source("", None, ""),
        model={},
        interface=Interface("encoder-decoder", 9, 8, 2, 8, None, None),
        components={
            name: Component(f"{name}.onnx", devices.get(name.partition(".")[0], "cpu"), "fp32")
            for name in names
        },
        encoder="encoder",
        stages=(Stage("decoder.0-1", 0, 1), Stage("decoder.1-2", 1, 2)),
        head="head",
        generation=GenerationConfig(),
        parameters=1,
        verified=None,
        files={},
    )


@given(DEVICE, DEVICE)
def test_a_device_for_each_part(one: str, other: str) -> None:
    assert parse_devices(one) == {"encoder": one, "decoder": one}
    both = {"encoder": one, "decoder": other}
    assert parse_devices(f"encoder={one},decoder={other}") == both
    assert parse_devices(f" decoder = {other} , encoder = {one} ") == both
    assert parse_devices(f"decoder={other}") == {"decoder": other}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("head=cpu", "write a device, or encoder=DEVICE,decoder=DEVICE"),
        ("encoder=cpu,qnn", "write a device, or"),
        ("encoder=", "write a device, or"),
        ("encoder=cpu,encoder=qnn", "names the encoder's device twice"),
    ],
)
def test_texts_that_name_no_parts(text: str, words: str) -> None:
    with pytest.raises(InputError, match=words):
        parse_devices(text)


@given(st.lists(CHOICE, min_size=1, max_size=4, unique=True))
def test_lists_of_devices(choices: list[str]) -> None:
    """Of `edgedec profile`: commas stand between choices, and inside of them."""
    assert split_devices(", ".join(choices)) == tuple(choices)
    assert split_devices(",".join([*choices, *choices])) == tuple(choices)


def test_a_list_with_parts() -> None:
    text = "cpu,encoder=qnn,decoder=cpu,encoder=cpu,qnn:sm8650"
    assert split_devices(text) == ("cpu", "encoder=qnn,decoder=cpu", "encoder=cpu", "qnn:sm8650")


def test_every_component_belongs_to_a_part() -> None:
    lowered = manifest(encoder="qnn")
    assert set(devices_of(lowered).values()) == {"cpu", "qnn"}
    found = devices_of(lowered, {"decoder": "openvino"})
    assert found == {
        "encoder": "qnn",
        "decoder.0-1": "openvino",
        "decoder.1-2": "openvino",
        "head": "openvino",
    }
    assert default_devices(lowered) == "encoder=qnn,decoder=cpu"
    assert default_devices(manifest()) == "cpu"
    alone = replace(lowered, encoder=None, components={"d": Component("d.onnx", "qnn", "fp16")})
    alone = replace(alone, stages=(Stage("d", 0, 2),), head=None)
    assert default_devices(alone) == "qnn"
    assert devices_of(alone, parse_devices("cpu")) == {"d": "cpu"}
    with pytest.raises(InputError, match="this model has no encoder"):
        devices_of(alone, {"encoder": "qnn"})


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("tpu", "there is no device 'tpu'; there are: cpu"),
        ("", "there is no device ''"),
        ("cpu:", "ends in a colon"),
        ("cpu:avx2", "the device 'cpu' has no option 'avx2'"),
    ],
)
def test_devices_that_are_none(text: str, words: str) -> None:
    with pytest.raises(InputError, match=words):
        get_device(text)


def test_the_cpu_runs_graphs_and_no_contexts() -> None:
    cpu = get_device(" cpu ")
    assert cpu == Cpu()
    assert cpu.file(Component("d.onnx", "qnn", "fp16")) == "d.onnx"
    compiled = Component("d.sm8650.onnx", "qnn", "fp16", {"sm8650": "d.sm8650.onnx"})
    with pytest.raises(DeviceError, match="is compiled for sm8650 and cannot run on the CPU"):
        cpu.file(compiled)


def test_only_some_devices_read_codes(monkeypatch: pytest.MonkeyPatch) -> None:
    assert codebook_device("cpu") == Cpu()
    monkeypatch.setitem(DEVICES, "other", __name__)
    with pytest.raises(DeviceError, match="'other' has no kernels that read codes"):
        codebook_device("other")


def device(option: str | None, allow_fallback: bool) -> Path:
    """What `get_device` asks a module for; this one is none."""
    return Path()
