"""Searches choose the tokens: greedy decoding, sampling, beam search. NumPy only.

A search knows nothing of models or sessions: the generation loop runs the decoder and tells the
search what came out, and the search says what to run next (`protocol.Search`).
"""

from collections.abc import Sequence

from edgedec.errors import InputError
from edgedec.runtime.generation import GenerationConfig
from edgedec.runtime.search.protocol import Advance, FinishReason, Hypothesis, Search

__all__ = ["Advance", "FinishReason", "Hypothesis", "Search", "make_search"]


def make_search(
    config: GenerationConfig,
    batch: int,
    vocab_size: int,
    prompts: Sequence[Sequence[int]],
    max_steps: int | Sequence[int],
    *,
    first_row: int = 0,
) -> Search:
    """Return the search that the configuration asks for.

    Args:
        config: The options.
        batch: Number of inputs.
        vocab_size: Number of logits for each token.
        prompts: What the decoder has before its first new token, without padding: the start token
            of an encoder-decoder, the prompt of a decoder-only model.
        max_steps: How many tokens may be generated at most, whatever the configuration says: what
            the model or the cache has room for. One number, or one for each input, which are then
            independent of each other's prompts (`GenerationConfig.step_limit`).
        first_row: Number of the first input among all that the caller runs; sampling gives each
            input the same tokens however a list of inputs is cut into batches.

    Raises:
        InputError: a prompt is empty or uses up `max_length`, or a forced token does not exist.
    """
    from edgedec.runtime.processors import build_forced, build_processors
    from edgedec.runtime.search.beam import BeamSearch
    from edgedec.runtime.search.greedy import Greedy
    from edgedec.runtime.search.rows import RowSearch
    from edgedec.runtime.search.sampling import Sampler

    room = [max_steps] * batch if isinstance(max_steps, int) else list(max_steps)
    if not batch == len(prompts) == len(room) > 0 or min(room) < 1:
        raise ValueError(f"{len(prompts)} prompts for a batch of {batch}, {max_steps} steps")
    if not all(prompts):
        raise InputError("A prompt has no tokens; the decoder needs at least one to start from.")
    requested = [config.requested_steps(len(prompt)) for prompt in prompts]
    limits = [
        most if steps is None else min(steps, most)
        for steps, most in zip(requested, room, strict=True)
    ]

    lengths = [len(prompt) for prompt in prompts for _ in range(config.num_beams)]
    row_limits = [limit for limit in limits for _ in range(config.num_beams)]
    processors = build_processors(config, lengths, vocab_size)
    forced = build_forced(config, lengths, row_limits, vocab_size)
    pad = 0 if config.pad_token_id is None else config.pad_token_id
    if config.num_beams > 1:
        return BeamSearch(
            prompts,
            limits,
            beams=config.num_beams,
            length_penalty=config.length_penalty,
            early_stopping=config.early_stopping,
            renormalize=config.renormalize_logits,
            processors=processors,
            forced=forced,
            eos=config.eos_token_ids,
            pad=pad,
        )
    pick = (
        Sampler(
            batch,
            temperature=config.temperature,
            top_k=config.top_k,
            top_p=config.top_p,
            seed=config.seed,
            first_row=first_row,
        )
        if config.do_sample
        else Greedy()
    )
    return RowSearch(
        prompts,
        limits,
        pick=pick,
        processors=processors,
        forced=forced,
        eos=config.eos_token_ids,
        pad=pad,
    )
