"""A bare ONNX model: read it into one plain graph, and write it, all or nothing."""

from __future__ import annotations

import contextlib
import glob
import hashlib
import logging
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import onnx_ir as ir

from edgedec.devices.passes.linear import find_linears
from edgedec.errors import CheckpointError, InputError
from edgedec.export.bundle import ALIGNMENT, INLINE_LIMIT, write_file
from edgedec.export.leftovers import sweep
from edgedec.kernels.library import register
from edgedec.kernels.operator import DOMAIN
from edgedec.runtime.session import first_line

OLDEST_OPSET = 18
"""Function bodies have the opset of their model; from this one on it has all operators of ours."""
IR_VERSION = 11
LARGEST = 1 << 30
"""Bytes of tensors from which on they go into a file beside the graph: Protobuf ends at 2 GB."""


def load_graph(path: Path) -> ir.Model:
    """Read a model that ONNX Runtime opens as one graph, without functions and dead nodes.

    Weights that are constants are initializers then, and one that is read in both orientations is
    two. Those in other files stay there until they are read.

    Raises:
        InputError: codes cannot be put into it.
    """
    from onnx_ir.passes.common import (
        InlinePass,
        LiftConstantsToInitializersPass,
        RemoveInitializersFromInputsPass,
        RemoveUnusedNodesPass,
    )

    model = ir.load(path)
    if DOMAIN in model.opset_imports:
        raise InputError(
            f"the weights of {str(path)!r} are codes already: quantize the model that it was made "
            "from."
        )
    for tidy in (
        InlinePass(),
        RemoveInitializersFromInputsPass(),
        LiftConstantsToInitializersPass(),
        RemoveUnusedNodesPass(),
    ):
        tidy(model)
    if model.opset_imports.get("", OLDEST_OPSET) < OLDEST_OPSET:
        _raise_opset(model, path)
    model.ir_version = max(model.ir_version or 0, IR_VERSION)
    _separate(model.graph)
    return model


def computed_outputs(graph: ir.Graph) -> list[str]:
    """The graph's outputs but for those that are an input or a constant."""
    return [str(value.name) for value in graph.outputs if value.producer() is not None]


def opaque(graph: ir.Graph) -> ir.Node | None:
    """A node that a graph cannot be cut around: control flow, or values that are no tensors."""
    kinds = (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS)
    for node in graph:
        own = any(attribute.type in kinds for attribute in node.attributes.values())
        if own or "Sequence" in node.op_type or "Optional" in node.op_type:
            return node
    return None


def open_session(path: Path, threads: int, *, ours: bool = False) -> Any:
    """Open a model in ONNX Runtime; ``ours`` says that it has operators of edgedec's.

    Raises:
        InputError: ONNX Runtime refuses it.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 4
    if ours:
        register(options)
    try:
        return onnxruntime.InferenceSession(
            path, options, providers=["CPUExecutionProvider"], enable_fallback=0
        )
    except Exception as error:  # ONNX Runtime's exceptions share no other base
        raise InputError(
            f"{str(path)!r} cannot be opened by ONNX Runtime {onnxruntime.__version__}: "
            f"{first_line(error)}"
        ) from error


def files_of(path: Path, graph: ir.Graph) -> list[Path]:
    """The files that a model consists of, its own first."""
    tensors = (value.const_value for value in graph.initializers.values())
    others = {Path(t.path) for t in tensors if isinstance(t, ir.ExternalTensor)}
    return [path, *sorted(others)]


def digests(files: list[Path]) -> dict[str, str]:
    """The name of each file, and what is equal for equal contents."""
    found = {}
    for path in files:
        digest = hashlib.sha256()
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
        found[path.name] = digest.hexdigest()
    return found


def data_file(out: Path) -> Path:
    """Where the tensors of a large model are."""
    return out.with_name(f"{out.name}.data")


@contextmanager
def new_model(out: Path, source: list[Path], *, force: bool) -> Iterator[Path]:
    """A folder for a model named as ``out``, which takes its place when the block succeeds.

    Args:
        out: where the model belongs.
        source: files that stay.
        force: replace an existing model.

    Raises:
        InputError: ``out`` is not to be replaced.
        CheckpointError: it could not be written.
    """
    _check_target(out, source, force=force)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        sweep(out.parent, f".{glob.escape(out.name)}.partial-*")
        partial = Path(tempfile.mkdtemp(prefix=f".{out.name}.partial-", dir=out.parent))
    except OSError as error:
        raise InputError(f"cannot write to {str(out)!r}: {error.strerror}.") from error
    try:
        yield partial
        _replace(partial / out.name, out)
    except OSError as error:
        at = f" ({error.filename})" if error.filename else ""
        raise CheckpointError(
            f"{str(out)!r} could not be written: {error.strerror or error}{at}."
        ) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def save_graph(model: ir.Model, path: Path) -> None:
    """Write a model with its weights inside, or beside it if they are many."""
    from onnx_ir.passes.common import DeduplicateHashedInitializersPass, NameFixPass

    # A weight that several nodes share was packed for each.
    DeduplicateHashedInitializersPass()(model)
    NameFixPass()(model)
    tensors = [value.const_value for value in model.graph.initializers.values()]
    if sum(tensor.nbytes for tensor in tensors if tensor is not None) < LARGEST:
        ir.external_data.load_to_model(model)
    else:
        ir.external_data.unload_from_model(
            model,
            path.parent,
            data_file(path).name,
            size_threshold_bytes=INLINE_LIMIT,
            alignment=ALIGNMENT,
            align_threshold=INLINE_LIMIT,
        )
    data = ir.serde.serialize_model(model).SerializeToString(deterministic=True)
    write_file(path, data)


def _raise_opset(model: ir.Model, path: Path) -> None:
    from onnxscript.version_converter import convert_version

    opset = model.opset_imports[""]
    logger = logging.getLogger("onnxscript.version_converter")
    disabled, logger.disabled = logger.disabled, True  # it warns of what nobody can act on
    try:
        with contextlib.suppress(Exception):  # the converter's exceptions share no other base
            convert_version(model, OLDEST_OPSET, fallback=True)
    finally:
        logger.disabled = disabled
    if model.opset_imports[""] != OLDEST_OPSET:
        raise InputError(
            f"{str(path)!r} has operators of opset {opset} that cannot be converted to opset "
            f"{OLDEST_OPSET}, which codes need: export the model with a newer opset."
        )


def _separate(graph: ir.Graph) -> None:
    """Give a matrix that is read in both orientations an initializer for each."""
    found: dict[tuple[str, bool], ir.Value] = {}
    for linear in find_linears(graph):
        stored = linear.matrix.stored
        name = linear.matrix.name
        if (name, not linear.matrix.transposed) not in found:
            found[name, linear.matrix.transposed] = stored
            continue
        key = (name, linear.matrix.transposed)
        if key not in found:
            found[key] = ir.Value(
                name=f"{name}.transposed",
                shape=stored.shape,
                type=stored.type,
                const_value=stored.const_value,
            )
            graph.register_initializer(found[key])
        linear.node.replace_input_with(1, found[key])


def _check_target(out: Path, source: list[Path], *, force: bool) -> None:
    if out.suffix != ".onnx" or out.is_dir():
        raise InputError(f"{str(out)!r} is no name for an ONNX model: give one that ends in .onnx.")
    kept = {path.resolve() for path in source}
    for path in (out, data_file(out)):
        if path.resolve() in kept:
            raise InputError(
                f"{str(path)!r} belongs to the model to quantize: choose another name."
            )
        if path.exists() and not force:
            raise InputError(
                f"{str(path)!r} exists: choose another name, or replace it with --force."
            )


def _replace(written: Path, out: Path) -> None:
    """Rename: never new data under an old graph, as two files can't be swapped in one step."""
    data = data_file(written)
    if data.exists():
        out.unlink(missing_ok=True)
        data.replace(data_file(out))
        written.replace(out)
    else:
        written.replace(out)
        data_file(out).unlink(missing_ok=True)
