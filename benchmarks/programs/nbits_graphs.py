"""edgedec's runtime over our float32 graphs with MatMulNBits in the place of every MatMul.

No bundle may contain operators of ONNX Runtime's own. So this opens the graphs by a device of its
own, which does not look; the loop over them is that of `edgedec run`.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from protocol import Task, read_task, serve

from edgedec.devices.base import DEVICES
from edgedec.runtime.bundle import Bundle
from edgedec.runtime.generator import Generator
from edgedec.runtime.manifest import MANIFEST, Component, load_manifest
from edgedec.runtime.session import OnnxSession, Session


@dataclass(frozen=True)
class Unchecked:
    """ONNX Runtime's CPU provider with the options that the CPU device gives it."""

    name: str = "unchecked"

    def file(self, component: Component) -> str:
        """Its graph."""
        return component.file

    def open(
        self,
        graph: Path,
        *,
        threads: int | None,
        shared: bool,
        records: Path | None = None,  # noqa: ARG002
    ) -> Session:
        """Open a graph; it keeps no records."""
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads or 1
        options.inter_op_num_threads = 1
        options.enable_mem_pattern = False
        if shared:
            options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        providers = ["CPUExecutionProvider"]
        return OnnxSession(graph.name, onnxruntime.InferenceSession(graph, options, providers))


def device(_option: str | None, _allow_fallback: bool) -> Unchecked:
    """What edgedec asks a device's module for."""
    return Unchecked()


def main(task: Task) -> None:
    """Open the graphs beside the manifest of the bundle that they came from, and serve."""
    DEVICES["unchecked"] = __name__
    manifest = load_manifest((task.model / MANIFEST).read_text())
    generator = Generator(Bundle(task.model, manifest), device="unchecked", threads=task.threads)

    def generate(count: int) -> int:
        results = generator.generate(
            task.sources, max_new_tokens=count, min_new_tokens=count, num_beams=1
        )
        return len(results[0].tokens)

    serve(task, generate, f"onnxruntime {version('onnxruntime')}")


if __name__ == "__main__":
    main(read_task())
