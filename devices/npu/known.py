"""What a graph computes of lengths or positions alone: worked out once, when it is lowered."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import onnx_ir as ir
from numpy.typing import NDArray

from edgedec.devices.passes.refusal import RefusalError
from edgedec.runtime.session import first_line

Arrays = dict[ir.Value, NDArray[Any]]
POSITIONS = "positions"
NOTHING: frozenset[str] = frozenset()


def varying(graph: ir.Graph) -> dict[ir.Value, frozenset[str]]:
    """The graph inputs whose numbers every value depends on; their lengths do not count."""
    found: dict[ir.Value, frozenset[str]] = {
        value: frozenset({str(value.name)}) for value in graph.inputs
    }
    for node in graph:
        read = [v for v in node.inputs if v is not None] if node.op_type != "Shape" else []
        names = NOTHING.union(*(found.get(value, NOTHING) for value in read))
        found.update(dict.fromkeys(node.outputs, names))
    return found


def evaluate(
    model: ir.Model, wanted: Iterable[ir.Value], feeds: Mapping[str, NDArray[Any]]
) -> Arrays:
    """Values of a graph on given inputs, by ONNX Runtime on the CPU.

    Args:
        model: the graph, which stays as it is.
        wanted: values that nodes of it compute.
        feeds: every input of the graph.

    Raises:
        RefusalError: ONNX Runtime cannot compute them.
    """
    import onnxruntime

    values = list(wanted)
    if not values:
        return {}
    part = ir.convenience.extract(model.graph, model.graph.inputs, values)
    for value in part.initializers.values():
        if isinstance(value.const_value, ir.ExternalTensor):
            value.const_value = ir.tensor(value.const_value.numpy(), name=value.name)
    proto = ir.serde.serialize_model(ir.Model(part, ir_version=model.ir_version))
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    try:
        session = onnxruntime.InferenceSession(
            proto.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
        given = {i.name: feeds[i.name] for i in session.get_inputs()}
        arrays = session.run([value.name for value in values], given)
    except Exception as error:  # ONNX Runtime's exceptions share no other base
        reason = f"what depends on lengths alone cannot be computed: {first_line(error)}"
        raise RefusalError(values[0].producer(), reason) from error
    return dict(zip(values, arrays, strict=True))


def computed(
    varying: Mapping[ir.Value, frozenset[str]], names: frozenset[str]
) -> frozenset[ir.Value]:
    """The values that nodes compute of these inputs alone."""
    return frozenset(
        value for value, read in varying.items() if read <= names and value.producer() is not None
    )


def frontier(
    nodes: Iterable[ir.Node], ready: frozenset[ir.Value], outputs: Iterable[ir.Value] = ()
) -> list[ir.Value]:
    """The values of a set that nodes outside of it read, each once, in order."""
    read = [value for node in nodes for value in node.inputs]
    return list(dict.fromkeys(value for value in (*read, *outputs) if value in ready))
