"""What every exported graph has to be, whatever the model."""

from __future__ import annotations

import itertools
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from numpy.typing import NDArray

from edgedec.export import bundle as writer
from edgedec.export import export_checkpoint
from edgedec.export.blocks.positions import MASKED

MODULE = re.compile(r"(encoder|decoder|head|rotary|positions)(\.[a-z0-9_]+|\.[A-Z][A-Za-z0-9_]+)*")
PARTS = ("key", "value")
BITS = st.integers(0, 1)


@pytest.fixture(scope="session")
def half(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle with fp16 weights, cut once."""
    folder = tmp_path_factory.mktemp("bundles") / "half"
    return export_checkpoint(checkpoint, folder, stages=(1,), dtype="fp16")


@pytest.fixture(scope="session", params=["exported", "staged", "half", "decoder_only"])
def bundle(request: pytest.FixtureRequest) -> Path:
    folder: Path = request.getfixturevalue(request.param)
    return folder


@pytest.fixture(scope="module")
def encoder(exported: Path) -> Any:
    """A session of its encoder."""
    return onnxruntime.InferenceSession(
        exported / "encoder.onnx", providers=["CPUExecutionProvider"]
    )


def graphs(bundle: Path) -> dict[str, onnx.ModelProto]:
    return {
        path.stem: onnx.load(path, load_external_data=False)
        for path in sorted(bundle.glob("*.onnx"))
    }


def test_standard_operators_of_one_version(bundle: Path) -> None:
    for model in graphs(bundle).values():
        assert [(opset.domain, opset.version) for opset in model.opset_import] == [("", 24)]
        assert {node.domain for node in model.graph.node} == {""}
        assert not {node.op_type for node in model.graph.node} & {"If", "Loop", "Scan"}
        assert not model.functions


def test_valid(bundle: Path) -> None:
    """By the checker, weights included, and by strict shape inference."""
    for path in bundle.glob("*.onnx"):
        onnx.checker.check_model(str(path), full_check=True)
        model = onnx.load(path)
        onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True, data_prop=True)


def test_names_are_module_paths(bundle: Path) -> None:
    for model in graphs(bundle).values():
        names = [node.name for node in model.graph.node]
        assert len(set(names)) == len(names)
        assert [name for name in names if not MODULE.fullmatch(name)] == []
    decoder = graphs(bundle).get("decoder")
    if decoder is not None:
        names = [node.name for node in decoder.graph.node]
        assert {"decoder.embed", "decoder.1.self_attn.q", "decoder.1.mlp.down", "head"} <= {*names}


def test_every_input_is_used(bundle: Path) -> None:
    for model in graphs(bundle).values():
        used = {name for node in model.graph.node for name in node.input}
        used |= {output.name for output in model.graph.output}
        assert {value.name for value in model.graph.input} <= used
        assert {tensor.name for tensor in model.graph.initializer} <= used
        assert not {value.name for value in model.graph.input} & {
            tensor.name for tensor in model.graph.initializer
        }


def test_cross_keys_and_values_enter_decoders_only(bundle: Path) -> None:
    for name, model in graphs(bundle).items():
        inputs = {v.name for v in model.graph.input if v.name.startswith("cross.")}
        outputs = {v.name for v in model.graph.output if v.name.startswith("cross.")}
        if name == "encoder":
            assert outputs == {"cross.mask", *(f"cross.{i}.{p}" for i in (0, 1) for p in PARTS)}
            assert not inputs
        else:
            assert not outputs
            layers = {v.name.split(".")[1] for v in model.graph.input if v.name.startswith("past.")}
            if bundle.name != "llama" and layers:
                wanted = {f"cross.{i}.{p}" for i in layers for p in PARTS}
                assert inputs == {"cross.mask", *wanted}


@settings(max_examples=25)
@given(mask=st.integers(1, 4).flatmap(lambda rows: npst.arrays(np.int64, (rows, 7), elements=BITS)))
def test_the_encoder_hides_padding_wherever_it_is(encoder: Any, mask: NDArray[np.int64]) -> None:
    """One bias for cross-attention, and states that no padding token can change."""
    ids = np.arange(mask.size).reshape(mask.shape) % 29 + 3
    other = np.where(mask == 1, ids, 2)
    names = [output.name for output in encoder.get_outputs()]
    found, again = (
        dict(zip(names, encoder.run(None, {"input_ids": x, "attention_mask": mask}), strict=True))
        for x in (ids, other)
    )
    wanted = np.where(mask == 1, np.float32(0), np.float32(MASKED))
    np.testing.assert_array_equal(found["cross.mask"], wanted[:, None, None, :])
    seen = (mask == 1) & mask.any(axis=1, keepdims=True)
    for name in (f"cross.{i}.{part}" for i in (0, 1) for part in PARTS):
        np.testing.assert_allclose(found[name][seen], again[name][seen], rtol=1e-5, atol=1e-5)


def test_weights_lie_aligned_and_once(bundle: Path) -> None:
    """Over all graphs: same bytes, same place; different places never overlap."""
    data = (bundle / "weights.bin").read_bytes()
    spans: dict[tuple[int, int], bytes] = {}
    for model in graphs(bundle).values():
        for tensor in model.graph.initializer:
            if tensor.data_location != onnx.TensorProto.EXTERNAL:
                assert len(tensor.raw_data) < writer.INLINE_LIMIT
                continue
            place = {entry.key: entry.value for entry in tensor.external_data}
            assert set(place) == {"location", "offset", "length"}
            assert place["location"] == "weights.bin"
            offset, length = int(place["offset"]), int(place["length"])
            assert offset % writer.ALIGNMENT == 0
            item = onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize
            assert length == int(np.prod(tensor.dims)) * item
            spans[offset, length] = data[offset : offset + length]
    ordered = sorted(spans)
    for (begin, length), (following, _) in itertools.pairwise(ordered):
        assert begin + length <= following < begin + length + writer.ALIGNMENT
    assert sum(ordered[-1]) == len(data)
    assert len(set(spans.values())) == len(spans)


def test_manifest_says_what_graphs_there_are(bundle: Path) -> None:
    manifest = json.loads((bundle / "edgedec.json").read_text())
    assert {c["file"] for c in manifest["components"].values()} == {
        path.name for path in bundle.glob("*.onnx")
    }
