"""The library's operators in ONNX Runtime against the NumPy references, and what they refuse."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnx import TensorProto, helper
from tests.kernels.models import Array, make_model, random_matrix, weight_inputs

from edgedec.devices.kernel_info import instruction_sets
from edgedec.kernels import (
    add_rms_norm,
    arg_max,
    codebook_gather,
    codebook_matmul,
    decode_attention,
    library,
    memory_attention,
)
from edgedec.kernels.operator import Operator
from edgedec.kernels.packing import Packed, pack

pytestmark = pytest.mark.skipif(
    library.library_path() is None, reason="the operator library was not compiled here"
)
SUM_TOLERANCE = 2e-5
"""Attention and norms in float32 against float64, for inputs of unit size."""


def session(
    op: Operator, inputs: Mapping[str, Array], attributes: Mapping[str, Any], outputs: int, **o: int
) -> onnxruntime.InferenceSession:
    model = make_model(op, None, [(inputs, attributes, outputs)])
    for result, tensor in zip(model.graph.output, op.outputs, strict=False):
        if tensor.dtype == "int64":
            result.type.tensor_type.elem_type = TensorProto.INT64
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = o.get("threads", 1)
    options.log_severity_level = 4
    assert library.register(options) is None
    return onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )


def run(
    op: Operator, inputs: Mapping[str, Array], attributes: Mapping[str, Any], outputs: int, **o: int
) -> list[Array]:
    opened = session(op, inputs, attributes, outputs, **o)
    names = {item.name for item in opened.get_inputs()}
    feeds = {f"0.{name}": value for name, value in inputs.items() if f"0.{name}" in names}
    found: list[Array] = opened.run(None, feeds)
    return found


def product(
    x: Array, packed: Packed, bias: Array | None, compute: Any, splits: list[int], **o: int
) -> list[Array]:
    inputs = {"X": x, **weight_inputs(packed)}
    if bias is not None:
        inputs["bias"] = bias
    attributes = {"bits": packed.bits, "compute": compute, "splits": splits}
    return run(codebook_matmul.OP, inputs, attributes, sum(width > 0 for width in splits), **o)


def heads_of(heads: int, groups: int, origin: int) -> dict[str, Any]:
    return {"q_num_heads": heads, "kv_num_heads": groups, "scale": 0.3, "origin": origin}


def numbers(*shape: int, seed: int = 0) -> NDArray[np.float32]:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


@pytest.mark.parametrize("compute", codebook_matmul.COMPUTES)
@pytest.mark.parametrize("bits", [2, 3, 4, 8])
def test_products_to_the_last_bit(bits: int, compute: Any) -> None:
    cases = itertools.product([(64, 64), (200, 300), (17, 5), (130, 129)], [False, True])
    for (rows, columns), order in cases:
        packed = pack(random_matrix(rows, columns, bits, order=order))
        bias = numbers(rows) if rows > 64 else None
        splits = [16, rows - 32, 16] if rows % 16 == 0 else [rows, 0, 0]
        # one row, tiles with and without a remainder, and enough rows to unpack panels
        for count in (1, 2, 3, 8, 9, 17, 40):
            x = numbers(count, columns, seed=count)
            x[count // 2] = 0
            expected = codebook_matmul.reference(
                x,
                packed,
                bias,
                compute=compute,
                splits=(splits[0], splits[1], splits[2]),
            )
            for found, wanted in zip(
                product(x, packed, bias, compute, splits), expected, strict=False
            ):
                np.testing.assert_array_equal(found, wanted)


@settings(max_examples=25, deadline=None)
@given(
    bits=st.sampled_from([2, 3, 4, 8]),
    rows=st.integers(1, 150),
    columns=st.integers(1, 300),
    count=st.integers(1, 24),
    compute=st.sampled_from(codebook_matmul.COMPUTES),
    seed=st.integers(0, 99),
)
def test_products_of_any_shape(
    bits: int, rows: int, columns: int, count: int, compute: Any, seed: int
) -> None:
    packed = pack(random_matrix(rows, columns, bits, seed=seed))
    x = numbers(1, count, columns, seed=seed) * 10.0 ** (seed % 9 - 4)
    (found,) = product(x.astype(np.float32), packed, None, compute, [rows, 0, 0])
    wanted = codebook_matmul.reference(x.astype(np.float32), packed, compute=compute)[0]
    np.testing.assert_array_equal(found, wanted)


def test_rows_that_are_no_numbers_spoil_only_themselves() -> None:
    packed = pack(random_matrix(64, 64, 4))
    x = numbers(4, 64)
    clean = product(x, packed, None, "int8", [64, 0, 0])[0]
    x[1, 3], x[2, 5] = np.inf, np.nan
    spoiled = product(x, packed, None, "int8", [64, 0, 0])[0]
    assert np.isnan(spoiled[1:3]).all()
    np.testing.assert_array_equal(spoiled[[0, 3]], clean[[0, 3]])


def test_threads_change_no_bit() -> None:
    packed = pack(random_matrix(1088, 512, 4))
    for count in (1, 8, 33):
        x = numbers(count, 512)
        one, three = (
            product(x, packed, None, "int8", [512, 512, 64], threads=threads) for threads in (1, 3)
        )
        for a, b in zip(one, three, strict=True):
            np.testing.assert_array_equal(a, b)


def test_no_rows_at_all() -> None:
    packed = pack(random_matrix(64, 64, 4))
    assert product(numbers(0, 64), packed, None, "int8", [64, 0, 0])[0].shape == (0, 64)


@pytest.mark.parametrize("order", [False, True])
@pytest.mark.parametrize("bits", [2, 3, 4, 8])
def test_rows_of_a_table(bits: int, order: bool) -> None:
    for rows, columns in ((70, 64), (33, 37), (5, 3)):
        packed = pack(random_matrix(rows, columns, bits, order=order))
        indices = np.random.default_rng(1).integers(0, rows, (2, 9))
        inputs = {"indices": indices, **weight_inputs(packed)}
        (found,) = run(codebook_gather.OP, inputs, {"bits": bits, "K": columns}, 1)
        np.testing.assert_array_equal(found, codebook_gather.reference(indices, packed))


@pytest.mark.parametrize("index", [-1, 70, 1 << 40])
def test_an_index_outside_of_the_table(index: int) -> None:
    packed = pack(random_matrix(70, 64, 4))
    inputs = {"indices": np.array([0, index]), **weight_inputs(packed)}
    with pytest.raises(Exception, match=f"the index {index} is outside of the table's 70 rows"):
        run(codebook_gather.OP, inputs, {"bits": 4, "K": 64}, 1)


HEADS = [(8, 8, 64), (8, 2, 64), (4, 4, 24), (2, 1, 128), (3, 3, 5)]


@pytest.mark.parametrize(("heads", "groups", "size"), HEADS)
def test_attention_that_appends(heads: int, groups: int, size: int) -> None:
    attributes: dict[str, Any] = {
        "q_num_heads": heads,
        "kv_num_heads": groups,
        "scale": 0.3,
        "origin": 1,
    }
    capacity = 70
    for new, past in ((1, [0, 69, 5]), (3, [0, 7, 67]), (20, [50, 0, 3]), (70, [0, 0, 0])):
        inputs: dict[str, Any] = {
            "query": numbers(3, new, heads * size),
            "key": numbers(3, new, groups * size, seed=1),
            "value": numbers(3, new, groups * size, seed=2),
            "past_key": numbers(3, capacity, groups * size, seed=3),
            "past_value": numbers(3, capacity, groups * size, seed=4),
            "past_length": np.array(past),
            "bias": numbers(heads, 33, seed=5),
        }
        for row, length in enumerate(past):  # what was never written must not be read
            inputs["past_key"][row, length:] = np.nan
            inputs["past_value"][row, length:] = np.nan
        found = run(decode_attention.OP, inputs, attributes, 3)
        wanted = decode_attention.reference(**inputs, **attributes)
        np.testing.assert_allclose(found[0], wanted[0], atol=SUM_TOLERANCE)
        np.testing.assert_array_equal(found[1], wanted[1])
        np.testing.assert_array_equal(found[2], wanted[2])


def test_a_cache_bound_to_its_own_output_is_written_in_place() -> None:
    heads, size, capacity = 4, 64, 16
    attributes: dict[str, Any] = {
        "q_num_heads": heads,
        "kv_num_heads": heads,
        "scale": 0.3,
        "origin": 1,
    }
    inputs: dict[str, Any] = {
        "query": numbers(1, 1, heads * size),
        "key": numbers(1, 1, heads * size, seed=1),
        "value": numbers(1, 1, heads * size, seed=2),
        "past_key": numbers(1, capacity, heads * size, seed=3),
        "past_value": numbers(1, capacity, heads * size, seed=4),
        "past_length": np.array([6]),
        "bias": numbers(1, 4, seed=5),
    }
    wanted = decode_attention.reference(**inputs, **attributes)
    opened = session(decode_attention.OP, inputs, attributes, 3)
    binding = opened.io_binding()
    y = np.empty((1, 1, heads * size), np.float32)
    bound = {"0.Y": y, "0.present_key": inputs["past_key"], "0.present_value": inputs["past_value"]}
    for name in [item.name for item in opened.get_inputs()]:
        array = inputs[name.removeprefix("0.")]
        binding.bind_input(name, "cpu", 0, array.dtype, array.shape, array.ctypes.data)
    for name, array in bound.items():
        binding.bind_output(name, "cpu", 0, array.dtype, array.shape, array.ctypes.data)
    opened.run_with_iobinding(binding)
    np.testing.assert_allclose(y, wanted[0], atol=SUM_TOLERANCE)
    np.testing.assert_array_equal(inputs["past_key"], wanted[1])
    np.testing.assert_array_equal(inputs["past_value"], wanted[2])


@pytest.mark.parametrize("length", [-1, 16, 1 << 62])
def test_a_cache_without_room(length: int) -> None:
    attributes: dict[str, Any] = {"q_num_heads": 1, "kv_num_heads": 1, "scale": 1.0, "origin": 0}
    inputs: dict[str, Any] = {
        **{name: numbers(1, 1, 8) for name in ("query", "key", "value")},
        **{name: numbers(1, 16, 8) for name in ("past_key", "past_value")},
        "past_length": np.array([length]),
        "bias": numbers(1, 4),
    }
    with pytest.raises(Exception, match="no room for the new tokens"):
        run(decode_attention.OP, inputs, attributes, 3)


@pytest.mark.parametrize(("heads", "groups", "size"), HEADS)
def test_attention_over_a_memory(heads: int, groups: int, size: int) -> None:
    for new, keys, origin in ((1, 1, 0), (1, 77, 3), (4, 64, 20), (5, 65, 32), (90, 90, 16)):
        attributes: dict[str, Any] = {
            "q_num_heads": heads,
            "kv_num_heads": groups,
            "scale": 0.3,
            "origin": origin,
        }
        mask = np.where(numbers(2, 1, 1, keys) > 1, np.float32(-1e9), np.float32(0))
        mask[1] = -1e9  # a row with nothing to see stays finite
        inputs: dict[str, Any] = {
            "query": numbers(2, new, heads * size),
            "key": numbers(2, keys, groups * size, seed=1),
            "value": numbers(2, keys, groups * size, seed=2),
            "mask": mask,
            "bias": numbers(1, 33, seed=3),
        }
        (found,) = run(memory_attention.OP, inputs, attributes, 1)
        assert np.isfinite(found).all()
        wanted = memory_attention.reference(**inputs, **attributes)
        np.testing.assert_allclose(found[0], wanted[0], atol=SUM_TOLERANCE)


def test_attention_on_several_threads() -> None:
    attributes: dict[str, Any] = {"q_num_heads": 8, "kv_num_heads": 4, "scale": 0.1, "origin": 64}
    inputs: dict[str, Any] = {
        "query": numbers(2, 70, 512),
        "key": numbers(2, 200, 256, seed=1),
        "value": numbers(2, 200, 256, seed=2),
        "mask": np.zeros((2, 1, 1, 200), np.float32),
        "bias": numbers(8, 129, seed=3),
    }
    one, three = (run(memory_attention.OP, inputs, attributes, 1, threads=n)[0] for n in (1, 3))
    np.testing.assert_array_equal(one, three)


@pytest.mark.parametrize("shape", [(1, 1, 512), (3, 7), (200, 512), (2, 0, 8)])
def test_a_sum_and_its_norm(shape: tuple[int, ...]) -> None:
    inputs: dict[str, Any] = {
        "X": numbers(*shape),
        "delta": numbers(*shape, seed=1),
        "scale": numbers(shape[-1], seed=2),
    }
    found = run(add_rms_norm.OP, inputs, {"epsilon": 1e-6}, 2)
    wanted = add_rms_norm.reference(inputs["X"], inputs["delta"], inputs["scale"], epsilon=1e-6)
    np.testing.assert_allclose(found[0], wanted[0], atol=SUM_TOLERANCE)
    np.testing.assert_array_equal(found[1], wanted[1])


def test_the_first_of_the_largest() -> None:
    x: NDArray[np.float32] = np.round(numbers(20, 3, 100))  # with many equal ones
    np.testing.assert_array_equal(run(arg_max.OP, {"X": x}, {}, 1)[0], arg_max.reference(x))
    for size in (1, 15, 16, 17):
        x = -np.abs(numbers(4, size))
        np.testing.assert_array_equal(run(arg_max.OP, {"X": x}, {}, 1)[0], arg_max.reference(x))


def _damaged(packed: Packed) -> dict[str, tuple[dict[str, Array], str]]:
    """Initializers that do not fit together, and what is said of them."""
    whole = weight_inputs(packed)
    return {
        "codes of fewer rows": ({"W": whole["W"][:1]}, "do not fit"),
        "codes of other bits": ({"W": whole["W"][:, :, :128]}, "not packed"),
        "a level too large": ({"levels": np.full_like(whole["levels"], 64)}, "outside of -63"),
        "levels of other bits": ({"levels": whole["levels"][:, :4]}, "2\\^bits"),
        "a group without levels": ({"group_of_block": whole["group_of_block"] + 9}, "no levels"),
        "a negative group": ({"group_of_block": whole["group_of_block"] - 9}, "no levels"),
        "groups of fewer rows": ({"group_of_block": whole["group_of_block"][:4]}, "every 16 rows"),
        "no permutation": ({"row_order": np.zeros(packed.rows, np.int32)}, "no permutation"),
        "an order outside": (
            {"row_order": np.arange(1, packed.rows + 1, dtype=np.int32)},
            "no permutation",
        ),
        "a short bias": ({"bias": numbers(5)}, "one number per row"),
        "other columns": ({"X": numbers(2, 99)}, "99 columns"),
    }


@pytest.mark.parametrize("case", _damaged(pack(random_matrix(130, 64, 4))))
def test_weights_that_contradict_each_other(case: str) -> None:
    packed = pack(random_matrix(130, 64, 4))
    changes, said = _damaged(packed)[case]
    inputs = {"X": numbers(2, 64), **weight_inputs(packed), **changes}
    attributes = {"bits": 4, "compute": "int8", "splits": [130, 0, 0]}
    with pytest.raises(Exception, match=f"edgedec.CodebookMatMul: .*{said}"):
        run(codebook_matmul.OP, inputs, attributes, 1)


def test_an_optional_constant_that_is_computed() -> None:
    """It is not there when the kernel is made, and must not be forgotten."""
    packed = pack(random_matrix(64, 64, 4))
    inputs = {"X": numbers(2, 64), **weight_inputs(packed), "bias": numbers(64)}
    attributes = {"bits": 4, "compute": "int8", "splits": [64, 0, 0]}
    model = make_model(codebook_matmul.OP, None, [(inputs, attributes, 1)])
    (bias,) = [item for item in model.graph.initializer if item.name == "0.bias"]
    model.graph.initializer.remove(bias)
    model.graph.input.append(helper.make_tensor_value_info("0.bias", TensorProto.FLOAT, [64]))
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    assert library.register(options) is None
    opened = onnxruntime.InferenceSession(model.SerializeToString(), options)
    with pytest.raises(Exception, match="the bias must be a constant initializer"):
        opened.run(None, {"0.X": inputs["X"], "0.bias": inputs["bias"]})


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"splits": [8, 122, 0]}, "multiples of 16"),
        ({"splits": [64, 64, 0]}, "add up"),
        ({"splits": [144, -14, 0]}, "multiples of 16"),
        ({"compute": "int4"}, "compute must be"),
        ({"bits": 5}, "bits must be"),
    ],
)
def test_attributes_that_make_no_sense(change: dict[str, Any], said: str) -> None:
    inputs = {"X": numbers(2, 64), **weight_inputs(pack(random_matrix(130, 64, 4)))}
    attributes = {"bits": 4, "compute": "int8", "splits": [130, 0, 0], **change}
    with pytest.raises(Exception, match=f"edgedec.CodebookMatMul: .*{said}"):
        run(codebook_matmul.OP, inputs, attributes, sum(n > 0 for n in attributes["splits"]))


FORCED = """
import hashlib, sys
import numpy as np
import onnxruntime
from tests.kernels.models import random_matrix
from tests.kernels.test_kernels import numbers, product
from edgedec.devices.kernel_info import instruction_sets
from edgedec.kernels import library
from edgedec.kernels.packing import pack
options = onnxruntime.SessionOptions()
refused = library.register(options)
if refused is not None:
    sys.exit(refused)
digest = hashlib.sha256()
for bits in (2, 3, 4, 8):
    packed = pack(random_matrix(150, 200, bits))
    for compute in ("int8", "int8-block", "fp32", "bf16"):
        for rows in (1, 5, 20):
            digest.update(product(numbers(rows, 200), packed, None, compute, [150, 0, 0])[0])
print(instruction_sets(options)[0], digest.hexdigest())
"""


def forced(name: str) -> subprocess.CompletedProcess[str]:
    root = Path(__file__).parents[2]
    return subprocess.run(
        [sys.executable, "-c", FORCED],
        env={**os.environ, "EDGEDEC_ISA": name, "PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
        check=False,
    )


def test_every_instruction_set_gives_the_same_bits() -> None:
    options = onnxruntime.SessionOptions()
    assert library.register(options) is None
    every = instruction_sets(options)[1]
    assert every[-1] == "scalar"
    answers = {}
    for name in every:
        done = forced(name)
        assert done.returncode == 0, done.stderr
        used, answers[name] = done.stdout.split()
        assert used == name
    assert len(set(answers.values())) == 1, answers


def test_an_instruction_set_that_is_not_there() -> None:
    done = forced("avx1024")
    assert done.returncode != 0
    assert "EDGEDEC_ISA=avx1024 cannot run here; this machine has: " in done.stderr
