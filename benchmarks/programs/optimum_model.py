"""optimum-onnx: decoder graphs with and without past; the setting is what their names end with."""

from __future__ import annotations

from importlib.metadata import version

from protocol import Task, read_task, serve


def main(task: Task) -> None:
    """Open the exported model and serve."""
    import onnxruntime
    import torch
    from optimum.onnxruntime import ORTModelForSeq2SeqLM

    torch.set_num_threads(task.threads)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = task.threads
    model = ORTModelForSeq2SeqLM.from_pretrained(
        task.model,
        encoder_file_name=f"encoder_model{task.setting}.onnx",
        decoder_file_name=f"decoder_model{task.setting}.onnx",
        decoder_with_past_file_name=f"decoder_with_past_model{task.setting}.onnx",
        session_options=options,
        use_merged=False,
    )
    longest = max(len(s) for s in task.sources)
    ids = torch.tensor([s + [0] * (longest - len(s)) for s in task.sources])
    mask = (ids != 0).long()

    def generate(count: int) -> int:
        output = model.generate(
            ids,
            attention_mask=mask,
            max_new_tokens=count,
            min_new_tokens=count,
            num_beams=1,
            do_sample=False,
        )
        return int(output.shape[1]) - 1

    serve(task, generate, f"{version('optimum-onnx')} (onnxruntime {version('onnxruntime')})")


if __name__ == "__main__":
    main(read_task())
