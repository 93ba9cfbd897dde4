"""Build an engine of a graph with TensorRT."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from edgedec.devices.gpu.bindings import version
from edgedec.errors import DeviceError

Profile = Mapping[str, tuple[Sequence[int], Sequence[int], Sequence[int]]]
"""Input -> its least, its usual and its greatest shape; kernels are chosen for each profile."""
REFUSED = "Unused Input"
"""What the parser says of a node's input that it drops: the engine would compute something else."""


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
    log = Log(module)
    if plugin:
        from edgedec.kernels.tensorrt.plugin import register

        register(module)
    try:
        builder = module.Builder(log.logger)
    except Exception as error:  # TypeError where the library gives none; others are not told
        raise DeviceError(
            f"TensorRT {module.__version__} cannot build engines here ({log.last(error)}): it "
            "needs an NVIDIA GPU and a driver that is new enough for it."
        ) from error
    network = builder.create_network(_network_flags(module, plugin=plugin))
    config = builder.create_builder_config()
    _parse(module, network, log, graph, name)
    known = {network.get_input(i).name for i in range(network.num_inputs)}
    for profile in profiles:
        _add_profile(builder, config, {k: v for k, v in profile.items() if k in known}, name)
    flag = getattr(module.BuilderFlag, "REQUIRE_USER_ALLOCATION", None)
    if flag is not None:
        # Of TensorRT-RTX: without it, runs cannot be recorded as a CUDA graph.
        config.set_flag(flag)
    engine = builder.build_serialized_network(network, config)
    if engine is None:
        raise DeviceError(
            f"TensorRT {module.__version__} cannot build an engine of {name} ({log.last()}): use "
            "another device, such as --device cuda or --device cpu."
        )
    return bytes(engine)


class Log:
    """What TensorRT says while it works.

    Args:
        module: of TensorRT's.

    Attributes:
        logger: is given to TensorRT, and must live as long as what was made with it.
        said: severity and message of warnings and errors, in order.
    """

    def __init__(self, module: Any) -> None:
        said: list[tuple[str, str]] = []

        class Logger(module.ILogger):  # type: ignore[misc]  # known at run time only
            """Keeps what it is told; TensorRT's own prints it."""

            def __init__(self) -> None:
                # Not super(): the bindings refuse objects whose own constructor was not called.
                module.ILogger.__init__(self)

            def log(self, severity: Any, msg: str) -> None:
                word = str(getattr(severity, "name", severity))
                if word in {"INTERNAL_ERROR", "ERROR", "WARNING"}:
                    said.append((word, msg))

        self.said = said
        self.logger = Logger()

    def last(self, error: Exception | None = None) -> str:
        """The first error that it told of, as what follows is mostly of its making."""
        found = [text for word, text in self.said if word != "WARNING"]
        text = found[0] if found else str(error or "it does not say why")
        return line(text)


def line(text: str) -> str:
    """What is worth telling of a message: one line without control characters."""
    first = (text.strip().splitlines() or ["nothing"])[0][:300].rstrip(". ")
    return "".join(letter if letter.isprintable() else "?" for letter in first)


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


def _parse(module: Any, network: Any, log: Log, graph: Path | bytes, name: str) -> None:
    parser = module.OnnxParser(network, log.logger)
    inside = isinstance(graph, bytes)
    if not (parser.parse(graph) if inside else parser.parse_from_file(str(graph))):
        raise DeviceError(
            f"TensorRT {module.__version__} cannot read {name} ({_first(parser)}): use another "
            "device, such as --device cuda or --device cpu."
        )
    for _, text in log.said:
        if REFUSED in text:
            raise DeviceError(
                f"TensorRT {module.__version__} drops a part of {name} ({line(text)}), which "
                "would then compute something else: use another device, such as --device cuda."
            )


def _first(parser: Any) -> str:
    """The parser's first error, with its node."""
    if not parser.num_errors:
        return "it does not say why"
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
