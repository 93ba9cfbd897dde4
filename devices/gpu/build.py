"""Build an engine of a graph with TensorRT."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from edgedec.devices.gpu.bindings import titled, version
from edgedec.devices.gpu.log import SILENT, line, log_of
from edgedec.devices.gpu.signals import held_signals
from edgedec.errors import DeviceError

Profile = Mapping[str, tuple[Sequence[int], Sequence[int], Sequence[int]]]
"""Input -> its least, its usual and its greatest shape; kernels are chosen for each profile."""
REFUSED = "Unused Input"
"""What is said of an input that nothing reads: the parser dropped a part of a node."""


def build_engine(
    module: Any, graph: Path | bytes, profiles: Sequence[Profile], *, plugin: bool
) -> bytes:
    """Build an engine.

    Args:
        module: ``tensorrt`` or ``tensorrt_rtx``; the first needs a GPU to build on.
        graph: an ``.onnx`` file, or what is in one that has all its weights inside.
        profiles: ranges of shapes.
        plugin: the graph has products of codes that our plugin computes.

    Returns:
        The engine, as it is written to a file.

    Raises:
        DeviceError: TensorRT refuses the graph, drops a part of it, or cannot build it here.
    """
    name = graph.name if isinstance(graph, Path) else "the graph"
    log = log_of(module)
    mark = log.mark()
    if plugin:
        from edgedec.kernels.tensorrt.plugin import register

        register(module)
    try:
        builder = module.Builder(log.logger)
    except Exception as error:  # TypeError where the library gives none; others are not told
        reason = log.first(mark) or line(str(error))
        raise DeviceError(
            f"{titled(module)} cannot build engines here ({reason}): it needs an "
            "NVIDIA GPU and a driver that is new enough for it."
        ) from error
    network = builder.create_network(_network_flags(module, plugin=plugin))
    config = builder.create_builder_config()
    with held_signals():
        _parse(module, network, log.logger, graph, name)
    known = {network.get_input(i).name for i in range(network.num_inputs)}
    for profile in profiles:
        _add_profile(builder, config, {k: v for k, v in profile.items() if k in known}, name)
    flag = getattr(module.BuilderFlag, "REQUIRE_USER_ALLOCATION", None)
    if flag is not None:
        # Of TensorRT-RTX: without it, runs cannot be recorded as a CUDA graph.
        config.set_flag(flag)
    with held_signals():
        engine = builder.build_serialized_network(network, config)
    if engine is None:
        reason = log.first(mark) or SILENT
        way_out = "use another device, such as --device cuda or --device cpu."
        if "memory" in reason.lower():
            way_out = "export with a smaller --max-target, --max-source or --max-rows."
        raise DeviceError(
            f"{titled(module)} cannot build an engine of {name} ({reason}): {way_out}"
        )
    dropped = [text for _, text in log.since(mark) if REFUSED in text]
    if dropped:
        raise DeviceError(
            f"{titled(module)} drops a part of {name} ({line(dropped[0])}), which "
            "would then compute something else: use another device, such as --device cuda."
        )
    return bytes(engine)


def _network_flags(module: Any, *, plugin: bool) -> int:
    flags = module.NetworkDefinitionCreationFlag
    wanted = []
    if module.__name__ == "tensorrt" and version(module)[0] == 10:
        wanted.append(flags.STRONGLY_TYPED)  # later ones, and TensorRT-RTX, know nothing else
    if plugin:
        wanted.append(flags.PREFER_AOT_PYTHON_PLUGINS)
    found = 0
    for flag in wanted:
        found |= 1 << int(flag)  # numbers differ from version to version
    return found


def _parse(module: Any, network: Any, logger: Any, graph: Path | bytes, name: str) -> None:
    parser = module.OnnxParser(network, logger)
    inside = isinstance(graph, bytes)
    if not (parser.parse(graph) if inside else parser.parse_from_file(str(graph))):
        raise DeviceError(
            f"{titled(module)} cannot read {name} ({_first(parser)}): use another "
            "device, such as --device cuda or --device cpu."
        )


def _first(parser: Any) -> str:
    """The parser's first error, with its node."""
    if not parser.num_errors:
        return SILENT
    error = parser.get_error(0)
    if error.node() < 0:
        return line(error.desc())
    node = error.node_name() or f"number {error.node()}"
    return f"node {line(node)}, {error.node_operator()}: {line(error.desc())}"


def _add_profile(builder: Any, config: Any, profile: Profile, name: str) -> None:
    ranges = builder.create_optimization_profile()
    for port, shapes in profile.items():
        ranges.set_shape(port, *(tuple(shape) for shape in shapes))
    if config.add_optimization_profile(ranges) < 0:
        raise DeviceError(f"TensorRT refuses the ranges of shapes of {name}: {dict(profile)}.")
