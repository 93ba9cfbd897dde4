"""Ask the operator library which instruction sets it may use on this machine."""

from __future__ import annotations

from typing import Any

from edgedec.kernels.operator import DOMAIN, OPSET, VERSION


def instruction_sets(options: Any) -> tuple[str, tuple[str, ...]]:
    """The instruction set that the library has chosen, and all it could have, the best first.

    Args:
        options: an ``onnxruntime.SessionOptions`` that has the library.
    """
    import onnxruntime
    from onnx import TensorProto, helper

    node = helper.make_node("KernelInfo", [], ["text"], domain=DOMAIN)
    text = helper.make_tensor_value_info("text", TensorProto.UINT8, [None])
    model = helper.make_model(
        helper.make_graph([node], "info", [], [text]),
        opset_imports=[helper.make_opsetid("", OPSET), helper.make_opsetid(DOMAIN, VERSION)],
        ir_version=11,
    )
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    (found,) = session.run(None, {})
    chosen, _, every = bytes(found).decode().partition(";")
    return chosen, tuple(every.split(","))
