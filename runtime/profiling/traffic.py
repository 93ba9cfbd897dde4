"""How many bytes a token reads from memory: what bounds decoding.

docs/metrics.md has the formulas. Counted is what has to be read: weights once in a step, and keys
and values as long as they are. Activations, masks and what is written are left out; they are small
beside these.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

from edgedec.runtime.bundle import Bundle
from edgedec.runtime.profiling.record import BundleFacts, Sample

if TYPE_CHECKING:
    import onnx

FLOAT = 4
"""Bytes of one channel of keys and values."""
Tensor = tuple[str, str | int]
"""Where weights are stored: a file and an offset in it, or a graph and the name in it. Two graphs
that share weights, and an embedding that is also the head, name the same place."""


def step_weights(bundle: Bundle) -> dict[str, int]:
    """Bytes of weights that each component reads in a step of one token at full depth.

    Components are the stages and the head, where it is a graph of its own. A tensor counts once in
    a step however many nodes read it, in the component that reads most of it. Of an embedding one
    row is read. Weights that are converted when the bundle is opened (``--dtype fp16``) count as
    what they become.

    Returns:
        Component -> bytes.
    """
    manifest = bundle.manifest
    names = [stage.component for stage in manifest.stages]
    if manifest.head is not None:
        names.append(manifest.head)
    read: dict[Tensor, tuple[int, str]] = {}
    for name in names:
        for tensor, size in _reads(bundle, manifest.components[name].file):
            if size > read.get(tensor, (0, ""))[0]:
                read[tensor] = size, name
    sums = dict.fromkeys(names, 0)
    for size, name in read.values():
        sums[name] += size
    return sums


def read_bytes_per_token(sample: Sample, facts: BundleFacts) -> float | None:
    """Bytes read for a token after the first, of the layers that ran; None if not known.

    Args:
        sample: without drafts: their verification reads weights for many tokens at once, and a
            sample does not say how often.
        facts: of the bundle.
    """
    tokens = sample.new_tokens - sample.inputs
    if (
        not sample.steps
        or tokens <= 0
        or sample.drafted is not None
        or sample.mean_layers is None
        or facts.step_bytes is None
        or facts.head_bytes is None
        or facts.kv_width is None
    ):
        return None
    source = sample.source_tokens / sample.inputs
    prompt, memory = (1.0, source) if facts.architecture == "encoder-decoder" else (source, 0.0)
    # Before the n-th of N tokens, prompt + n - 1 positions; the mean of those after the first.
    live = prompt + sample.new_tokens / sample.inputs / 2
    depth = sample.mean_layers / facts.decoder_layers
    weights = facts.head_bytes + depth * (facts.step_bytes - facts.head_bytes)
    keys_and_values = sample.mean_layers * 2 * FLOAT * facts.kv_width * (live + memory)
    return weights * sample.steps / tokens + keys_and_values


def _reads(bundle: Bundle, file: str) -> Iterator[tuple[Tensor, int]]:
    """Tensors that a graph reads for one token, and how many bytes of them."""
    import onnx

    graph = onnx.load(str(bundle.path(file)), load_external_data=False).graph
    stored = {tensor.name: tensor for tensor in graph.initializer}
    # A runtime converts constants once, when it opens the graph, and reads what they became.
    became = {
        node.output[0]: (stored[node.input[0]], _integer(node, "to"))
        for node in graph.node
        if node.op_type == "Cast" and node.input[0] in stored
    }
    constants = {name: (tensor, tensor.data_type) for name, tensor in stored.items()} | became
    for node in graph.node:
        if node.output[0] in became:
            continue
        for index, name in enumerate(node.input):
            if name in constants:
                tensor, kind = constants[name]
                yield _place(tensor, file), _size(tensor, kind) // _parts(node, index, tensor)


def _parts(node: onnx.NodeProto, index: int, tensor: onnx.TensorProto) -> int:
    """Of so many equal parts of an input, a node reads one for a token: rows of an embedding."""
    from edgedec.kernels.packing import PANEL_ROWS

    if node.op_type == "Gather" and index == 0 and not _integer(node, "axis"):
        return tensor.dims[0] or 1
    if node.op_type == "CodebookGather":
        return tensor.dims[0] * (PANEL_ROWS if index == 1 else 1) or 1
    return 1


def _integer(node: onnx.NodeProto, name: str) -> int:
    """An attribute of a node; 0 where it has none of that name."""
    return int(next((found.i for found in node.attribute if found.name == name), 0))


def _place(tensor: onnx.TensorProto, file: str) -> Tensor:
    where = {entry.key: entry.value for entry in tensor.external_data}
    if "location" in where:
        return where["location"], int(where.get("offset", "0"))
    return file, tensor.name


def _size(tensor: onnx.TensorProto, kind: int) -> int:
    """Bytes of a tensor's values as another type."""
    from onnx.helper import tensor_dtype_to_np_dtype

    width: int = tensor_dtype_to_np_dtype(kind).itemsize
    return int(math.prod(tensor.dims)) * width
