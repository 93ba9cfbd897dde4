"""CTranslate2, float32."""

from __future__ import annotations

import time

from protocol import Task, read_task, serve

started = time.perf_counter()


def main(task: Task) -> None:
    """Open the converted model beside the checkpoint and serve."""
    import ctranslate2

    model = task.checkpoint.with_name(task.checkpoint.name + ".ctranslate2")
    translator = ctranslate2.Translator(
        str(model),
        device="cpu",
        inter_threads=1,
        intra_threads=task.threads,
        compute_type="float32",
    )
    # The checkpoints' tokenizer calls token i "w<i>".
    sources = [[f"w{i}" for i in source] for source in task.sources]

    def generate(count: int) -> int:
        results = translator.translate_batch(
            sources,
            beam_size=1,
            max_decoding_length=count,
            min_decoding_length=count,
            suppress_sequences=[["</s>"]],
        )
        return len(results[0].hypotheses[0])

    serve(task, generate, ctranslate2.__version__, started)


if __name__ == "__main__":
    main(read_task())
