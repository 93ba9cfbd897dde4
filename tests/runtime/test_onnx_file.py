"""The reader of ONNX files against the `onnx` package."""

from __future__ import annotations

import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper

from edgedec.runtime.onnx_file import read_onnx


def tensor(
    name: str, offset: int, length: int | None, location: str = "weights.bin"
) -> TensorProto:
    made = TensorProto(name=name, data_type=1, dims=[1], data_location=TensorProto.EXTERNAL)
    made.external_data.add(key="location", value="weights.bin")
    made.external_data.add(key="offset", value=str(offset))
    if length is not None:
        made.external_data.add(key="length", value=str(length))
    return made


def put(model: onnx.ModelProto, made: TensorProto, place: int) -> None:
    """One of all the places where ONNX allows a tensor."""
    graph = model.graph
    if place == 0:
        graph.initializer.append(made)
    elif place == 1:
        graph.node.append(helper.make_node("Constant", [], ["c"], value=made))
    elif place == 2:
        node = helper.make_node("X", [], ["c"])
        node.attribute.append(
            onnx.AttributeProto(name="many", type=onnx.AttributeProto.TENSORS, tensors=[made])
        )
        graph.node.append(node)
    elif place == 3:
        graph.sparse_initializer.add(dims=[9]).values.CopyFrom(made)
    elif place == 4:
        graph.sparse_initializer.add(dims=[9]).indices.CopyFrom(made)
    elif place == 5:
        sparse = onnx.SparseTensorProto(values=made, dims=[9])
        graph.node.append(helper.make_node("Constant", [], ["c"], sparse_value=sparse))
    else:
        node = helper.make_node("Constant", [], ["c"], value=made)
        imports = list(model.opset_import)
        if model.functions:
            model.functions[0].node.append(node)
            return
        body = helper.make_function("edgedec", "CodebookGather", [], ["c"], [node], imports)
        body.attribute.extend(["bits", "K"])
        model.functions.append(body)


@given(
    st.lists(
        st.tuples(st.integers(0, 6), st.integers(0, 2**50), st.none() | st.integers(0, 2**50)),
        max_size=6,
    ),
    st.integers(-(2**63), 2**63 - 1),
)
def test_every_reference_is_found(wanted: list[tuple[int, int, int | None]], version: int) -> None:
    model = onnx.ModelProto(ir_version=11)
    model.opset_import.append(helper.make_opsetid("", version))
    model.opset_import.append(helper.make_opsetid("edgedec", 1))
    for i, (place, offset, length) in enumerate(wanted):
        put(model, tensor(f"t{i}", offset, length), place)
    found = read_onnx(model.SerializeToString())
    assert found.opsets == {"": version, "edgedec": 1}
    assert {(e.tensor, e.location, e.offset, e.length) for e in found.external} == {
        (f"t{i}", "weights.bin", offset, length) for i, (_, offset, length) in enumerate(wanted)
    }


def test_a_tensor_in_two_pieces() -> None:
    """Protobuf joins a message that comes twice; neither piece may pass for the whole."""
    first = TensorProto(name="t", data_type=1, dims=[1], data_location=TensorProto.EXTERNAL)
    second = TensorProto()
    second.external_data.add(key="location", value="../secret")
    attribute = b""
    for piece in (first, second):
        data = piece.SerializeToString()
        attribute += b"\x2a" + bytes([len(data)]) + data  # field 5: t
    node = b"\x2a" + bytes([len(attribute)]) + attribute
    graph = b"\x0a" + bytes([len(node)]) + node
    model = b"\x3a" + bytes([len(graph)]) + graph
    parsed = onnx.load_from_string(model).graph.node[0].attribute[0].t
    assert parsed.external_data[0].value == "../secret"
    with pytest.raises(ValueError, match="location"):
        read_onnx(model)


@given(st.binary(max_size=200))
def test_any_bytes_are_a_file_or_an_error(data: bytes) -> None:
    try:
        found = read_onnx(data)
    except ValueError:  # also UnicodeDecodeError
        return
    assert all(e.location != ".." for e in found.external)
