"""Where bundles of fixed shapes run, and what is said where they cannot."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import edgedec
from edgedec.errors import BundleError, DeviceError, InputError
from edgedec.runtime.bundle import Bundle, open_bundle
from edgedec.runtime.generator import Generator


def test_devices_for_parts(fixed: Path, exported: Path) -> None:
    found = edgedec.load(fixed, device="encoder=cpu,decoder=cpu", threads=1).generate([[3, 1]])
    assert found[0].tokens == edgedec.load(fixed, threads=1).generate([[3, 1]])[0].tokens
    with pytest.raises(DeviceError, match="runs graphs of fixed shapes only: export with"):
        edgedec.load(exported, device="qnn")
    with pytest.raises(InputError, match="names the encoder's device twice"):
        edgedec.load(fixed, device="encoder=cpu,encoder=cpu")
    with pytest.raises(InputError, match="has no option 'fast'"):
        edgedec.load(fixed, device="cpu:fast")


def test_contexts_alone_do_not_run_on_the_cpu(fixed: Path) -> None:
    bundle = open_bundle(fixed)
    components = {
        name: replace(c, contexts={"sm8650": c.file}, device="qnn")
        for name, c in bundle.manifest.components.items()
    }
    other = Bundle(fixed, replace(bundle.manifest, components=components))
    with pytest.raises(DeviceError, match="is compiled for sm8650 and cannot run on the CPU"):
        Generator(other, device="cpu", threads=1)


def of_device(folder: Path, **changes: Any) -> Bundle:
    """A bundle whose components are changed."""
    bundle = open_bundle(folder)
    components = {n: replace(c, **changes) for n, c in bundle.manifest.components.items()}
    return Bundle(folder, replace(bundle.manifest, components=components))


@pytest.mark.parametrize("device", ["tpu", "qnn:sm1"])
def test_a_device_of_a_newer_version(fixed_victim: Any, device: str) -> None:
    fixed_victim.manifest(lambda m: m["components"]["decoder"].update(device=device))
    said = fixed_victim.complaint()
    assert said.startswith(f"edgedec.json: the component 'decoder' is for the device '{device}'")
    assert "upgrade edgedec" in said
    assert edgedec.load(fixed_victim.folder, device="cpu", threads=1).generate([[3, 1]])
    with pytest.raises(BundleError, match="'decoder' is for"):
        edgedec.load(fixed_victim.folder, device="encoder=cpu")


@pytest.mark.parametrize("text", ["nope", "encoder=cpu,decoder=nope", "qnn:foo", "openvino:foo"])
def test_devices_that_are_misspelt(fixed: Path, text: str) -> None:
    with pytest.raises(InputError, match=r"there is no|has no device") as raised:
        edgedec.load(fixed, device=text)
    assert raised.value.exit_code == 2


def test_a_device_that_this_machine_lacks(fixed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was chosen is said to be missing; instead of a default, there is the CPU."""
    monkeypatch.setattr("edgedec.devices.qnn_library.find_spec", lambda _: None)
    way_out = "or run the bundle on the CPU: --device cpu."
    bundle = of_device(fixed, device="qnn")
    with pytest.raises(DeviceError, match=r"pip install 'edgedec\[npu\]'; ") as raised:
        Generator(bundle, threads=1)
    assert str(raised.value).endswith(way_out)
    assert raised.value.exit_code == 3
    assert Generator(bundle, device="cpu", threads=1).generate([[3, 1]])
    compiled = of_device(fixed, device="qnn", contexts={"sm8650": "encoder.onnx"})
    for chosen, device in ((bundle, "qnn"), (compiled, None)):
        with pytest.raises(DeviceError, match="is not available here") as raised:
            Generator(chosen, device=device, threads=1)
        assert way_out not in str(raised.value)
