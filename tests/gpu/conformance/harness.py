"""Takes edgedec's plugin through what TensorRT calls of it while it builds an engine.

Run by ``stub.py``: descriptions, types, formats and symbolic scalars are the bindings' own. Faked
are the registry of plugins, expressions of dimensions and what receives a launch, which are objects
of libnvinfer.

Reads on standard input, as JSON, a list of cases: ``x`` (its shape; a string is a dynamic
dimension), ``dtype`` ("fp16", "bf16", "fp32"), ``words``, ``levels``, ``groups`` (shapes), ``at``
(a list of values of the dynamic dimensions), ``most`` (their largest values). Prints a list of what
the plugin said, or the error that it raised.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import operator
import sys
from collections.abc import Callable, Mapping
from typing import Any

import tensorrt as trt

from edgedec.kernels.tensorrt.plugin import register

OPERATIONS: dict[str, Callable[[int, int], int]] = {
    "SUM": operator.add,
    "PROD": operator.mul,
    "MAX": max,
    "MIN": min,
    "SUB": operator.sub,
    "EQUAL": operator.eq,
    "LESS": operator.lt,
    "FLOOR_DIV": operator.floordiv,
    "CEIL_DIV": lambda left, right: -(-left // right),
}
Value = Callable[[Mapping[str, int]], int]


class Expression(trt.IDimensionExpr):  # type: ignore[misc]
    """A dimension: a number, or a function of the dynamic ones."""

    value: Value
    constant: int | None

    def is_constant(self) -> bool:
        return self.constant is not None

    def get_constant_value(self) -> int:
        assert self.constant is not None, "TensorRT has no value for a dimension that is not known"
        return self.constant

    def is_size_tensor(self) -> bool:
        return False


def expression(value: Value, constant: int | None = None) -> Expression:
    # the native constructor is abstract
    made: Expression = trt.IDimensionExpr.__new__(Expression)
    made.value, made.constant = value, constant
    return made


class Builder:
    """TensorRT's ``IExprBuilder``."""

    def constant(self, value: int) -> Expression:
        return expression(lambda _at: value, value)

    def dynamic(self, name: str) -> Expression:
        return expression(lambda at: at[name])

    def operation(self, kind: Any, left: Expression, right: Expression) -> Expression:
        function = OPERATIONS[kind.name]
        if left.constant is not None and right.constant is not None:
            return self.constant(function(left.constant, right.constant))
        return expression(lambda at: function(left.value(at), right.value(at)))


class Registry:
    """TensorRT's registry of plugins."""

    def __init__(self) -> None:
        self.creators: dict[tuple[str, str, str], Any] = {}

    def register_creator(self, creator: Any, namespace: str = "") -> bool:
        key = (creator.name, creator.plugin_version, namespace)
        assert key not in self.creators
        self.creators[key] = creator
        return True

    def get_creator(self, name: str, version: str, namespace: str = "") -> Any:
        return self.creators.get((name, version, namespace))


class Dimensions(list[Any]):
    """TensorRT's ``DimsExprs``."""

    def __init__(self, length: int) -> None:
        super().__init__([None] * length)


class Scalar:
    """A symbolic scalar: TensorRT's own, and the expression that was put into it."""

    def __init__(self, native: Any, value: Expression) -> None:
        self.native, self.value = native, value  # the native one cannot be read


class Launch:
    """TensorRT's ``IKernelLaunchParams``."""


class Scalars(dict[int, Scalar]):
    """TensorRT's ``ISymExprs``."""

    nbSymExprs = 0  # noqa: N815  TensorRT's name


def described(shape: list[Any], dtype: Any, most: Mapping[str, int]) -> Any:
    """A ``DynamicPluginTensorDesc``."""
    inner = trt.PluginTensorDesc()
    inner.dims = [-1 if isinstance(length, str) else length for length in shape]
    inner.type, inner.format = dtype, trt.TensorFormat.LINEAR
    made = trt.DynamicPluginTensorDesc()
    made.desc = inner
    made.min = [1 if isinstance(length, str) else length for length in shape]
    made.max = [most[length] if isinstance(length, str) else length for length in shape]
    return made


def name_of(value: Any) -> str:
    return str(value).rsplit(".", 1)[-1]


def answers(case: dict[str, Any]) -> dict[str, Any]:
    """What the plugin says in a case, or the error that it raises, which TensorRT would log."""
    try:
        return build(case)
    except Exception as error:  # noqa: BLE001
        return {"error": f"{type(error).__name__}: {error}"}


def build(case: dict[str, Any]) -> dict[str, Any]:
    """Call the plugin as the parser and then the builder do, who clone it between calls."""
    dtype = {"fp16": trt.float16, "bf16": trt.bfloat16, "fp32": trt.float32}[case["dtype"]]
    rows = case["words"][0]
    inputs = [case["x"], case["words"], case["levels"], case["groups"], [rows]]
    types = [dtype, trt.int32, dtype, trt.int32, trt.float32]
    creator = trt.get_plugin_registry().get_creator("CodebookMatMul", "1", "edgedec")
    plugin = creator.create_plugin(
        "CodebookMatMul",
        "edgedec",
        trt.PluginFieldCollection([]),
        trt.TensorRTPhase.BUILD,
        trt.QuickPluginCreationRequest.UNKNOWN,  # what the parser asks for without a preference
    )
    said: dict[str, Any] = {
        "fields": [field.name for field in creator.field_names],
        "ahead": isinstance(plugin, trt.IPluginV3QuickAOTBuild),
        "outputs": plugin.get_num_outputs(),
        "types": list(map(name_of, plugin.get_output_data_types(types, list(map(len, inputs))))),
        "alias": plugin.get_aliased_input(0),
    }
    plugin, builder = plugin.clone(), Builder()
    dimensions = [
        [builder.dynamic(n) if isinstance(n, str) else builder.constant(n) for n in shape]
        for shape in inputs
    ]
    (shape,) = plugin.get_output_shapes(dimensions, [], builder)
    said["shapes"] = [[length.value(at) for length in shape] for at in case["at"]]

    ports = [described(s, t, case["most"]) for s, t in zip(inputs, types, strict=True)]
    ports.append(described([*case["x"][:-1], rows], dtype, case["most"]))
    combinations = plugin.get_supported_format_combinations(ports, len(inputs))
    said["combinations"] = [
        [name_of(port.type) for port in combinations[at : at + len(ports)]]
        for at in range(0, len(combinations), len(ports))
    ]
    said["layouts"] = sorted({name_of(port.format) for port in combinations})
    plugin.configure_plugin(ports[:-1], ports[-1:])
    said["tactics"] = {}
    for tactic in plugin.get_valid_tactics():
        timed = plugin.clone()
        timed.set_tactic(tactic)
        launch, scalars, again = Launch(), Scalars(), Builder()
        timed.get_launch_params(dimensions, ports, len(inputs), launch, scalars, again)
        name, ptx = timed.get_kernel([p.desc for p in ports[:-1]], [ports[-1].desc])
        assert sorted(scalars) == list(range(scalars.nbSymExprs))
        said["tactics"][tactic] = {
            "name": name,
            "sha256": hashlib.sha256(ptx).hexdigest(),
            "launches": [launched(launch, scalars, at) for at in case["at"]],
        }
    return said


def launched(launch: Any, scalars: Scalars, at: Mapping[str, int]) -> dict[str, Any]:
    """The numbers of a launch where the dynamic dimensions have values."""
    return {
        "grid": [getattr(launch, f"grid_{axis}").value.value(at) for axis in "xyz"],
        "block": [getattr(launch, f"block_{axis}").value.value(at) for axis in "xyz"],
        "shared": launch.shared_mem.value.value(at),
        "scalars": [scalars[index].value.value(at) for index in sorted(scalars)],
    }


def main() -> None:
    registry = Registry()
    trt.get_plugin_registry = lambda: registry
    trt.DimsExprs = Dimensions
    for _ in range(2):  # the second time must be no error
        register(trt)
    api = importlib.import_module("tensorrt.plugin")
    native = api.SymInt32.__call__
    api.SymInt32.__call__ = lambda self: Scalar(native(self), self._expr)
    json.dump([answers(case) for case in json.load(sys.stdin)], sys.stdout)


main()
