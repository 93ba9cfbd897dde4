"""Cut a model's graphs into pieces that end where matrices read their inputs.

The components of a model are joined to one program: an output of one is the equally named input of
those after it (``hidden_out`` is ``hidden``). A piece computes the inputs of one step's matrices,
and only what they need, so that whatever can wait does: a decoder layer's cross-attention keys are
computed where they are read, and not kept for all layers. What comes before any step (masks,
positions, attention biases) is computed again in each piece, which costs less than to keep it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import onnx
import onnx_ir as ir
from numpy.typing import NDArray

from edgedec.quantize.matrices import Matrix

LINKS = {"hidden": "hidden_out"}
"""Inputs that are an earlier output of another name."""
DONE = -1
"""The segment of what needs no computing: fed values and constants."""


class Site(Protocol):
    """A node that reads a matrix; where it multiplies by it, ``x`` is what is multiplied.

    The passes that find matrices in graphs give such objects.
    """

    @property
    def node(self) -> ir.Node:
        """The node; one of its inputs is the matrix."""

    @property
    def matrix(self) -> Matrix:
        """The matrix."""


@dataclass(frozen=True, eq=False)
class StepPlan:
    """Matrices that read the same value.

    Attributes:
        component: the graph that they are in.
        matrices: in execution order, each initializer once.
        slots: their names as inputs of segments.
        x: the value that they are multiplied with; None for an embedding.
        bits: one per slot, to mark what depends on it.
        x_bit: the same for x.
    """

    component: str
    matrices: tuple[Matrix, ...]
    slots: tuple[str, ...]
    x: str | None
    bits: tuple[int, ...]
    x_bit: int


@dataclass(frozen=True, eq=False)
class Segment:
    """A piece of the program.

    Attributes:
        takes: values of earlier segments that it reads.
        fed: ``(component, input)`` of graph inputs that it reads, by value name.
        slots: matrices that it reads, by their names as inputs.
        gives: values that it computes for later.
        expires: values that nothing reads after it and its step.
    """

    takes: tuple[str, ...]
    fed: Mapping[str, tuple[str, ir.Value]]
    slots: Mapping[str, Matrix]
    gives: tuple[str, ...]
    expires: tuple[str, ...]
    _nodes: tuple[_Node, ...]
    _constants: Mapping[str, ir.Value]
    _opsets: Mapping[str, int]

    def model(self, taken: Mapping[str, NDArray[Any]]) -> bytes:
        """The piece as an ONNX model, without the matrices; ``taken`` tells types of `takes`."""
        types = {name: ir.DataType.from_numpy(taken[name].dtype) for name in self.takes}
        for name, (_, value) in self.fed.items():
            assert value.dtype is not None
            types[name] = value.dtype
        types |= dict.fromkeys(self.slots, ir.DataType.FLOAT)
        graph = onnx.helper.make_graph(
            [node.proto() for node in self._nodes],
            "segment",
            [onnx.helper.make_tensor_value_info(n, int(t), None) for n, t in types.items()],
            # ONNX Runtime infers what outputs are.
            [onnx.ValueInfoProto(name=name) for name in self.gives],
            [_tensor(name, value) for name, value in self._constants.items()],
        )
        opsets = [onnx.helper.make_opsetid(*opset) for opset in self._opsets.items()]
        model = onnx.helper.make_model(graph, opset_imports=opsets, ir_version=11)
        data: bytes = model.SerializeToString()
        return data


@dataclass(frozen=True, eq=False)
class Program:
    """A model's graphs in pieces.

    Attributes:
        steps: in execution order.
        segments: the one before each step, and the one that computes the outputs.
        outputs: the values that it computes, or that a step's segment did.
        inputs: component -> its graph's inputs but for those that other components compute.
        upstream: value -> bits of the slots and inputs of steps that it depends on, its own
            included; 0 for what is before any of them.
    """

    steps: tuple[StepPlan, ...]
    segments: tuple[Segment, ...]
    outputs: tuple[str, ...]
    inputs: Mapping[str, tuple[ir.Value, ...]]
    upstream: Mapping[str, int]

    @property
    def weights(self) -> int:
        """How many weights the matrices of all steps have."""
        return sum(m.rows * m.columns for step in self.steps for m in step.matrices)


def cut(
    models: Mapping[str, ir.Model],
    sites: Mapping[str, Sequence[Site]],
    outputs: Sequence[str] = ("logits",),
) -> Program:
    """Cut graphs where matrices read their inputs. No weights are read.

    Args:
        models: component name -> its model, in execution order, without control flow.
        sites: component name -> the nodes whose matrices are looked at; others are constants.
        outputs: the graph outputs to compute in the end; each is computed by a node.

    Raises:
        ValueError: no component has such an output, or their operator sets differ.
    """
    flat = _Flat(models)
    steps = _steps(flat, sites)
    found = tuple(map(flat.find_output, outputs))
    return _Cutter(flat, steps, found, _opsets(models.values())).program()


@dataclass(eq=False)
class _Node:
    """A node whose values have names that are unique in the program."""

    node: ir.Node
    inputs: list[str]
    outputs: list[str]

    def proto(self) -> onnx.NodeProto:
        proto = ir.serde.serialize_node(self.node)
        proto.name = ""
        proto.input[:] = self.inputs
        proto.output[:] = self.outputs
        return proto


class _Flat:
    """The nodes of all components in order, and where each value comes from."""

    def __init__(self, models: Mapping[str, ir.Model]) -> None:
        self.nodes: list[_Node] = []
        self.place: dict[ir.Node, int] = {}
        self.producer: dict[str, int] = {}
        self.constants: dict[str, ir.Value] = {}
        self.fed: dict[str, tuple[str, ir.Value]] = {}
        self.inputs: dict[str, tuple[ir.Value, ...]] = {}
        self._names: dict[ir.Value, str] = {}
        self._outputs: dict[str, str] = {}
        for component, model in models.items():
            self._add(component, model.graph)

    def name(self, value: ir.Value | None) -> str:
        """A value's name in the program."""
        return "" if value is None else self._names[value]

    def find_output(self, name: str) -> str:
        """The last graph output of that name."""
        if name not in self._outputs:
            raise ValueError(f"no graph has an output {name!r}")
        return self._outputs[name]

    def _add(self, component: str, graph: ir.Graph) -> None:
        for value in graph.initializers.values():
            name = self._names[value] = f"{component}/{value.name}"
            self.constants[name] = value
        inputs = [value for value in graph.inputs if value not in self._names]
        for value in inputs:
            known = self._outputs.get(LINKS.get(str(value.name), str(value.name)))
            self._names[value] = f"{component}/{value.name}" if known is None else known
        own = tuple(v for v in inputs if self._names[v] == f"{component}/{v.name}")
        self.inputs[component] = own
        self.fed |= {self._names[value]: (component, value) for value in own}
        for node in graph:
            for value in node.outputs:
                self._names[value] = f"{component}/{value.name}" if value.name else ""
            flat = _Node(node, [*map(self.name, node.inputs)], [*map(self.name, node.outputs)])
            self.place[node] = len(self.nodes)
            self.producer |= {name: len(self.nodes) for name in flat.outputs if name}
            self.nodes.append(flat)
        self._outputs |= {str(value.name): self._names[value] for value in graph.outputs}


def _steps(flat: _Flat, sites: Mapping[str, Sequence[Site]]) -> list[StepPlan]:
    """Group sites by what they read, and let their nodes read slots in place of constants."""
    found: dict[tuple[str, str], list[Site]] = {}
    order: dict[tuple[str, str], tuple[float, int]] = {}
    for component, those in sites.items():
        for site in those:
            place = flat.place[site.node]
            x: ir.Value | None = getattr(site, "x", None)
            key = (component, f"embedding {place}" if x is None else flat.name(x))
            # An embedding comes before what is computed of it.
            ready = place - 0.5 if x is None else flat.producer.get(flat.name(x), -1)
            found.setdefault(key, []).append(site)
            order[key] = min(order.get(key, (ready, place)), (ready, place))
    steps: list[StepPlan] = []
    count = 0
    for number, key in enumerate(sorted(found, key=lambda k: order[k])):
        component = key[0]
        slots: dict[ir.Value, str] = {}
        matrices: dict[str, Matrix] = {}
        for site in sorted(found[key], key=lambda s: flat.place[s.node]):
            stored = site.matrix.stored
            slot = slots.setdefault(stored, f"{flat.name(stored)}@{number}")
            matrices.setdefault(slot, site.matrix)
            node = flat.nodes[flat.place[site.node]]
            node.inputs = [
                slot if value is stored else name
                for value, name in zip(site.node.inputs, node.inputs, strict=True)
            ]
        x = getattr(found[key][0], "x", None)
        steps.append(
            StepPlan(
                component,
                tuple(matrices.values()),
                tuple(matrices),
                None if x is None else flat.name(x),
                tuple(1 << count + i for i in range(len(matrices))),
                1 << count + len(matrices),
            )
        )
        count += len(matrices) + 1
    return steps


class _Cutter:
    """Assigns nodes to segments."""

    def __init__(
        self,
        flat: _Flat,
        steps: Sequence[StepPlan],
        outputs: tuple[str, ...],
        opsets: Mapping[str, int],
    ) -> None:
        self._flat, self._steps, self._outputs, self._opsets = flat, steps, outputs, opsets
        self._slots = {
            slot: matrix
            for step in steps
            for slot, matrix in zip(step.slots, step.matrices, strict=True)
        }
        self._upstream = self._trace()
        self._segment: dict[int, int] = {}
        """Node behind a step -> the only segment that it is in."""

    def program(self) -> Program:
        """Cut."""
        inputs = [() if step.x is None else (step.x,) for step in self._steps]
        wanted = [*inputs, self._outputs]
        parts = [self._nodes(values, number) for number, values in enumerate(wanted)]
        last: dict[str, int] = {}
        """Value that outlives its segment -> the last that reads it."""
        takes: list[list[str]] = []
        for number, (part, values) in enumerate(zip(parts, wanted, strict=True)):
            read = dict.fromkeys(v for n in part for v in self._flat.nodes[n].inputs)
            takes.append([v for v in read if self._made(v) not in (DONE, number)])
            last |= dict.fromkeys(takes[-1], number)
            last |= {v: number for v in values if v not in self._flat.fed}
        segments = []
        dropped: set[str] = set()
        for number, (part, values) in enumerate(zip(parts, wanted, strict=True)):
            computed = {v for n in part for v in self._flat.nodes[n].outputs}
            gives = [v for v in last if v in computed and (v in values or self._made(v) == number)]
            over = [v for v in last if last[v] <= number and v not in (*values, *dropped)]
            dropped |= {*over}
            segments.append(self._make(part, takes[number], gives, over))
        return Program(
            tuple(self._steps), tuple(segments), self._outputs, self._flat.inputs, self._upstream
        )

    def _trace(self) -> dict[str, int]:
        bits = {
            slot: bit
            for step in self._steps
            for slot, bit in zip(step.slots, step.bits, strict=True)
        }
        inputs: dict[str, int] = {}
        for step in self._steps:
            if step.x is not None:
                inputs[step.x] = inputs.get(step.x, 0) | step.x_bit
        upstream = dict.fromkeys([*self._flat.constants, *self._flat.fed, ""], 0) | bits
        for node in self._flat.nodes:
            found = 0
            for name in node.inputs:
                found |= upstream[name]
            upstream |= {name: found | inputs.get(name, 0) for name in node.outputs}
        return upstream

    def _made(self, name: str) -> int:
        """The segment that computes a value for others; `DONE` if none has to."""
        producer = self._flat.producer.get(name)
        return DONE if producer is None else self._segment.get(producer, DONE)

    def _nodes(self, values: Sequence[str], number: int) -> list[int]:
        """The nodes that a segment has to run to compute these values, in order."""
        wanted = [*values]
        part: set[int] = set()
        while wanted:
            producer = self._flat.producer.get(wanted.pop())
            if producer is None or producer in part or producer in self._segment:
                continue
            part.add(producer)
            wanted += self._flat.nodes[producer].inputs
        for n in part:
            if any(self._upstream[name] for name in self._flat.nodes[n].outputs):
                self._segment[n] = number
        return sorted(part)

    def _make(
        self, part: Sequence[int], takes: Sequence[str], gives: Sequence[str], over: Sequence[str]
    ) -> Segment:
        nodes = tuple(self._flat.nodes[n] for n in part)
        read = dict.fromkeys(name for node in nodes for name in node.inputs)
        return Segment(
            takes=tuple(takes),
            fed={name: self._flat.fed[name] for name in read if name in self._flat.fed},
            slots={name: self._slots[name] for name in read if name in self._slots},
            gives=tuple(gives),
            expires=tuple(over),
            _nodes=nodes,
            _constants={n: self._flat.constants[n] for n in read if n in self._flat.constants},
            _opsets=self._opsets,
        )


def _tensor(name: str, value: ir.Value) -> onnx.TensorProto:
    """A constant with its values inside, wherever they are stored."""
    tensor = value.const_value
    assert tensor is not None
    return ir.serde.serialize_tensor(ir.Tensor(tensor.numpy(), dtype=tensor.dtype, name=name))


def _opsets(models: Iterable[ir.Model]) -> dict[str, int]:
    opsets: dict[str, int] = {}
    for model in models:
        for domain, number in model.graph.opset_imports.items():
            if opsets.setdefault(domain, number) != number:
                raise ValueError("the graphs of a model use different operator sets")
    return opsets
