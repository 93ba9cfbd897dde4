"""edgedec, float32, ONNX Runtime on CPU."""

from __future__ import annotations

import time
from importlib.metadata import version

from protocol import Task, read_task, serve

started = time.perf_counter()


def main(task: Task) -> None:
    """Open the bundle beside the checkpoint and serve."""
    import edgedec

    bundle = task.checkpoint.with_name(task.checkpoint.name + ".edgedec")
    generator = edgedec.load(bundle, threads=task.threads)

    def generate(count: int) -> int:
        results = generator.generate(
            task.sources, max_new_tokens=count, min_new_tokens=count, num_beams=1
        )
        return len(results[0].tokens)

    serve(task, generate, f"{version('edgedec')} (onnxruntime {version('onnxruntime')})", started)


if __name__ == "__main__":
    main(read_task())
