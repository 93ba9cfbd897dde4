"""edgedec's runtime over our float32 graphs with MatMulNBits in the place of every MatMul.

No bundle may contain operators of ONNX Runtime's own, so what checks bundles is left out here; the
sessions and the loop over them are those of `edgedec run`.
"""

from __future__ import annotations

from importlib.metadata import version

from protocol import Task, read_task, serve


def main(task: Task) -> None:
    """Open the graphs beside the manifest of the bundle that they came from, and serve."""
    from edgedec.runtime.bundle import Bundle
    from edgedec.runtime.generator import Generator
    from edgedec.runtime.manifest import MANIFEST, load_manifest

    manifest = load_manifest((task.model / MANIFEST).read_text())
    generator = Generator(Bundle(task.model, manifest), threads=task.threads)

    def generate(count: int) -> int:
        results = generator.generate(
            task.sources, max_new_tokens=count, min_new_tokens=count, num_beams=1
        )
        return len(results[0].tokens)

    serve(task, generate, f"onnxruntime {version('onnxruntime')}")


if __name__ == "__main__":
    main(read_task())
