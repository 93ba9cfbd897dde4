"""llama.cpp through its C interface: encode, then decode greedily, all sequences in one batch."""

from __future__ import annotations

import ctypes
import sys
from importlib.metadata import version
from typing import Any

from protocol import Task, read_task, serve


def main(task: Task) -> None:
    """Open the GGUF file and serve."""
    import llama_cpp as ll
    import numpy as np

    rows, source = len(task.sources), len(task.sources[0])
    quiet = ll.llama_log_callback(lambda *_: None)
    ll.llama_log_set(quiet, ctypes.c_void_p(0))
    ll.llama_backend_init()
    model = ll.llama_model_load_from_file(str(task.model).encode(), ll.llama_model_default_params())
    if not model:
        sys.exit(f"{task.model} cannot be opened")
    vocabulary = ll.llama_vocab_n_tokens(ll.llama_model_get_vocab(model))
    parameters = ll.llama_context_default_params()
    # An encoder takes its input in one piece, and no piece may be larger than the context.
    parameters.n_ctx = rows * max(source, task.new_tokens + 8)
    parameters.n_batch = parameters.n_ubatch = parameters.n_ctx
    parameters.n_seq_max = rows
    parameters.kv_unified = True  # position biases know one stream only
    parameters.n_threads = parameters.n_threads_batch = task.threads
    context = ll.llama_init_from_model(model, parameters)
    if not context:
        sys.exit("no context")

    sources = fill(ll.llama_batch_init(rows * source, 0, 1), task.sources, 0)
    step = ll.llama_batch_init(rows, 0, 1)

    def generate(count: int) -> int:
        ll.llama_memory_clear(ll.llama_get_memory(context), True)
        if ll.llama_encode(context, sources) != 0:
            sys.exit("llama_encode failed")
        tokens = [[0]] * rows
        for position in range(count):
            if ll.llama_decode(context, fill(step, tokens, position)) != 0:
                sys.exit(f"llama_decode failed at position {position}")
            tokens = []
            for row in range(rows):
                logits = ll.llama_get_logits_ith(context, row)
                tokens.append([int(np.ctypeslib.as_array(logits, (vocabulary,)).argmax())])
        return count

    serve(task, generate, version("llama-cpp-python"))


def fill(batch: Any, tokens: list[list[int]], begin: int) -> Any:
    """Fill a ``llama_batch`` with ``tokens [rows][n]`` at positions ``begin ...``.

    The last token of each row is scored.
    """
    at = 0
    for row, ids in enumerate(tokens):
        for offset, token in enumerate(ids):
            batch.token[at] = token
            batch.pos[at] = begin + offset
            batch.n_seq_id[at] = 1
            batch.seq_id[at][0] = row
            batch.logits[at] = offset + 1 == len(ids)
            at += 1
    batch.n_tokens = at
    return batch


if __name__ == "__main__":
    main(read_task())
