"""optimum-onnx, float32: separate decoder graphs with and without past, ONNX Runtime on CPU."""

from __future__ import annotations

import time
from importlib.metadata import version

from protocol import Task, read_task, serve

started = time.perf_counter()


def main(task: Task) -> None:
    """Open the exported model beside the checkpoint and serve."""
    import onnxruntime
    import torch
    from optimum.onnxruntime import ORTModelForSeq2SeqLM

    torch.set_num_threads(task.threads)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = task.threads
    model = ORTModelForSeq2SeqLM.from_pretrained(
        task.checkpoint.with_name(task.checkpoint.name + ".optimum"),
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

    serve(task, generate, version("optimum-onnx"), started)


if __name__ == "__main__":
    main(read_task())
