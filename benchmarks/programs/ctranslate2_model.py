"""CTranslate2; the setting is its compute type."""

from __future__ import annotations

from protocol import Task, read_task, serve


def main(task: Task) -> None:
    """Open the converted model and serve."""
    import ctranslate2

    translator = ctranslate2.Translator(
        str(task.model),
        device="cpu",
        inter_threads=1,
        intra_threads=task.threads,
        compute_type=task.setting,
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

    serve(task, generate, ctranslate2.__version__)


if __name__ == "__main__":
    main(read_task())
