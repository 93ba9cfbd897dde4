"""edgedec: a bundle, whatever its weights are."""

from __future__ import annotations

from importlib.metadata import version

from protocol import Task, read_task, serve


def main(task: Task) -> None:
    """Open the bundle and serve."""
    import edgedec

    generator = edgedec.load(task.model, threads=task.threads)

    def generate(count: int) -> int:
        # No end token: as in everyday use, no rule has to look at the scores.
        results = generator.generate(
            task.sources, max_new_tokens=count, eos_token_ids=[], num_beams=1
        )
        return len(results[0].tokens)

    serve(task, generate, f"{version('edgedec')} (onnxruntime {version('onnxruntime')})")


if __name__ == "__main__":
    main(read_task())
