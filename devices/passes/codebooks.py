"""Put CodebookMatMul and CodebookGather in the place of floating-point products and tables."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from edgedec.devices.matrices import PackedMatrix
from edgedec.devices.passes.change import add_initializer, replace
from edgedec.devices.passes.embedding import Embedding, find_embeddings
from edgedec.devices.passes.fuse import MOST, group_linears, group_name, split_groups
from edgedec.devices.passes.linear import Linear, find_linears
from edgedec.devices.passes.match import constant
from edgedec.kernels.codebook_matmul import Compute
from edgedec.kernels.operator import DOMAIN
from edgedec.kernels.packing import Packed, concatenate, pack
from edgedec.quantize.codebook import CodebookTensor
from edgedec.quantize.matrices import Quantize


@dataclass(frozen=True, eq=False)
class Product:
    """Products that become one node, and their matrices one below the other."""

    group: Sequence[Linear]
    packed: Packed


class Packer:
    """Packs the matrices of a model's graphs; a tied one once, however many nodes use it.

    Args:
        quantize: asked for every matrix once.
        graphs: all of the model, none of them changed yet.
    """

    def __init__(self, quantize: Quantize, graphs: Iterable[ir.Graph]) -> None:
        self._quantize = quantize
        self._packed: dict[int, tuple[CodebookTensor, Packed]] = {}
        groups = [group for graph in graphs for group in group_linears(find_linears(graph))]
        self._tensors = {linear: quantize(linear.matrix) for group in groups for linear in group}
        keys = {linear: id(tensor) for linear, tensor in self._tensors.items()}
        self._groups: dict[ir.Graph, list[list[Linear]]] = {}
        for group in split_groups(groups, keys):
            self._groups.setdefault(_graph_of(group[0]), []).append(group)

    def embedding(self, item: Embedding) -> Packed:
        """The table of an embedding."""
        return self._once(self._quantize(item.matrix))

    def products(self, graph: ir.Graph) -> list[Product]:
        """What becomes of a graph's products."""
        return [product for group in self._groups.get(graph, ()) for product in self._pack(group)]

    def _pack(self, group: Sequence[Linear]) -> list[Product]:
        """The matrices of a group, one below the other, or alone where their bits differ."""
        tensors = [self._tensors[linear] for linear in group]
        if len(tensors) > 1 and len({tensor.bits for tensor in tensors}) == 1:
            return [Product(group, pack(concatenate(tensors)))]
        # Whatever is no end of the model is used once: to remember it would only take memory.
        return [
            Product([linear], self._once(tensor) if linear.matrix.role == "head" else pack(tensor))
            for linear, tensor in zip(group, tensors, strict=True)
        ]

    def _once(self, tensor: CodebookTensor) -> Packed:
        if id(tensor) not in self._packed:
            self._packed[id(tensor)] = tensor, pack(tensor)
        return self._packed[id(tensor)][1]


def _graph_of(linear: Linear) -> ir.Graph:
    graph = linear.node.graph
    assert isinstance(graph, ir.Graph)
    return graph


def use_codebooks(graph: ir.Graph, packer: Packer, compute: Compute) -> list[PackedMatrix]:
    """Replace every product with a constant matrix and every token embedding, in place.

    What only the replaced nodes used is left for whoever removes dead nodes.

    Returns:
        The matrices as the graph now holds them.
    """
    tables = [(item, packer.embedding(item)) for item in find_embeddings(graph)]
    products = packer.products(graph)
    # A function body either knows row orders or doesn't, and there is one for the whole graph.
    packed = [table for _, table in tables] + [product.packed for product in products]
    ordered = any(item.row_order is not None for item in packed)
    writer = _Writer(graph, compute, ordered=ordered)
    found = [writer.table(item, table) for item, table in tables]
    return found + [writer.product(product.group, product.packed) for product in products]


class _Writer:
    """Writes our operators into one graph."""

    def __init__(self, graph: ir.Graph, compute: Compute, *, ordered: bool) -> None:
        self._graph, self._compute, self._ordered = graph, compute, ordered
        self._inputs: dict[int, list[ir.Value]] = {}
        # Products were found before any was replaced: one may read what another one computed.
        self._replaced: dict[ir.Value, ir.Value] = {}
        self._names: set[str] = set()

    def table(self, item: Embedding, packed: Packed) -> PackedMatrix:
        name = self._unused(item.name)
        node = ir.node(
            "CodebookGather",
            [item.node.inputs[1], *self._weights(name, packed), *self._order(name, packed)],
            {"bits": packed.bits, "K": packed.columns},
            domain=DOMAIN,
            name=name,
        )
        self._put(node, item.node, [item.node.outputs[0]], [name])
        return PackedMatrix(name, packed, (item.matrix,))

    def product(self, group: Sequence[Linear], packed: Packed) -> PackedMatrix:
        first = group[0]
        names = [linear.name for linear in group]
        name = self._unused(names[0] if len(group) == 1 else group_name(list(group)))
        widths = [linear.matrix.rows for linear in group]
        inputs = [self._replaced.get(first.x, first.x), *self._weights(name, packed)]
        optional = [self._bias(name, group), *self._order(name, packed)]
        node = ir.node(
            "CodebookMatMul",
            inputs + optional if any(optional) else inputs,
            {
                "bits": packed.bits,
                "compute": self._compute,
                "splits": [*widths, *[0] * (MOST - len(widths))],
            },
            domain=DOMAIN,
            num_outputs=MOST,
            name=name,
        )
        # ONNX Runtime wants as many outputs as the function body has; no kernel makes these.
        for i, unused in enumerate(node.outputs[len(group) :]):
            unused.name = f"{name}.unused_{i}"
        self._put(node, first.node, [linear.output for linear in group], names)
        return PackedMatrix(name, packed, tuple(linear.matrix for linear in group))

    def _unused(self, name: str) -> str:
        """A name for a node and what belongs to it; other graphs than ours may repeat one."""
        number, unused = 1, name
        while unused in self._names:
            number += 1
            unused = f"{name}_{number}"
        self._names.add(unused)
        return unused

    def _put(
        self, node: ir.Node, place: ir.Node, old: Sequence[ir.Value], names: Sequence[str]
    ) -> None:
        self._graph.insert_before(place, node)
        for output, replaced, name in zip(node.outputs, old, names, strict=False):
            output.name = name
            replace(self._graph, replaced, output)
            self._replaced[replaced] = output

    def _weights(self, name: str, packed: Packed) -> list[ir.Value]:
        """The inputs that hold a matrix; nodes that share it share them."""
        if id(packed) not in self._inputs:
            codes = add_initializer(self._graph, f"{name}.codes", packed.weight)
            # What `parameters` in the manifest counts: weights, however they are stored.
            codes.meta["parameters"] = packed.rows * packed.columns
            self._inputs[id(packed)] = [
                codes,
                add_initializer(self._graph, f"{name}.levels", packed.levels),
                add_initializer(self._graph, f"{name}.row_scale", packed.row_scale),
                add_initializer(self._graph, f"{name}.group_of_block", packed.group_of_block),
            ]
            self._inputs[id(packed)][2].meta["parameters"] = 0
        return self._inputs[id(packed)][:4]

    def _order(self, name: str, packed: Packed) -> list[ir.Value]:
        if not self._ordered:
            return []
        shared = self._inputs[id(packed)]
        if len(shared) == 4:
            order = packed.row_order
            rows = np.arange(packed.rows, dtype=np.int32) if order is None else order
            shared.append(add_initializer(self._graph, f"{name}.row_order", rows))
        return shared[4:]

    def _bias(self, name: str, group: Sequence[Linear]) -> ir.Value | None:
        """What is added to a group's outputs: none, or zeros where a member has none."""
        if all(linear.bias is None for linear in group):
            return None
        values = [
            np.zeros(linear.matrix.rows, np.float32)
            if (found := constant(linear.bias)) is None
            else found.ravel()
            for linear in group
        ]
        return add_initializer(self._graph, f"{name}.added", np.concatenate(values))
