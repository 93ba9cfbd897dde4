"""Greedy decoding on a GPU: torch step by step, torch compiled, or a bundle of ours on a device.

``setting`` says which: ``eager``, ``compiled``, or the name of a device of edgedec. What is timed
is steps alone: with torch tokens stay on the GPU, and with neither does a rule look at scores.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import version
from typing import Any

from protocol import Task, read_task, serve

TORCH = ("eager", "compiled")
COMPARED = 16
"""Tokens that are handed back, so that nothing is timed that decodes something else."""
Generate = Callable[[int], list[int]]
"""From a number of tokens to those of the first source."""


def bundle(task: Task) -> Generate:
    """A bundle of ours."""
    import edgedec

    generator = edgedec.load(task.model, device=task.setting, threads=task.threads)

    def generate(count: int) -> list[int]:
        results = generator.generate(
            task.sources, max_new_tokens=count, eos_token_ids=[], num_beams=1
        )
        return list(results[0].tokens)

    return generate


def checkpoint(task: Task, device: str = "cuda", backend: str = "inductor") -> Generate:
    """A Hugging Face model in float16, with a static cache where its step is compiled."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSeq2SeqLM

    encodes = AutoConfig.from_pretrained(task.model).is_encoder_decoder
    kind = AutoModelForSeq2SeqLM if encodes else AutoModelForCausalLM
    model = kind.from_pretrained(task.model, dtype=torch.float16).to(device).eval()
    static = task.setting == "compiled"
    sources = torch.tensor(task.sources, device=device)
    fed = "decoder_input_ids" if encodes else "input_ids"

    def step(token: Any, **state: Any) -> Any:
        logits = model(**{fed: token}, use_cache=True, **state).logits
        return logits[:, -1].argmax(-1, keepdim=True)

    fast = step
    if static:
        # By "reduce-overhead" steps become CUDA graphs, as transformers' generate has it.
        mode = {"mode": "reduce-overhead"} if backend == "inductor" else {}
        fast = torch.compile(step, backend=backend, dynamic=False, **mode)
    room = task.new_tokens + (1 if encodes else sources.shape[1])
    kept = _cache(model, static, encodes, sources.shape[1], room)

    @torch.no_grad()
    def generate(count: int) -> list[int]:
        cache = kept
        if static:
            kept.reset()
        else:
            cache = _cache(model, static, encodes, sources.shape[1], room)
        state: dict[str, Any] = {"past_key_values": cache}
        token = sources
        if encodes:
            state["encoder_outputs"] = model.get_encoder()(sources)
            start = model.generation_config.decoder_start_token_id
            token = torch.full((len(sources), 1), start, device=device)
        found = [step(token, **state)]
        for _ in range(1, count):
            if static:
                torch.compiler.cudagraph_mark_step_begin()
            found.append(fast(found[-1], **state).clone())
        return [int(t) for t in torch.cat(found, 1)[0].tolist()]  # waits for the GPU

    return generate


def _cache(model: Any, static: bool, encodes: bool, source: int, room: int) -> Any:
    """Keys and values: growing, or of fixed length."""
    from transformers import DynamicCache, EncoderDecoderCache, StaticCache

    def one(length: int) -> Any:
        if not static:
            return DynamicCache(config=config)
        return StaticCache(config=config, max_cache_len=length)

    config = model.get_decoder().config  # the encoder may have another number of layers
    return EncoderDecoderCache(one(room), one(source)) if encodes else one(room)


def main(task: Task) -> None:
    """Open the model, hand over its first tokens, and serve."""
    ours = task.setting not in TORCH
    generate = bundle(task) if ours else checkpoint(task)
    generate(3)  # compiles the step
    tokens = generate(min(COMPARED, task.new_tokens))
    package = "edgedec" if ours else "torch"
    serve(task, lambda n: len(generate(n)), f"{package} {version(package)}", {"tokens": tokens})


if __name__ == "__main__":
    main(read_task())
