"""Text in, text out: joins tokenizer, encoder, decoder, depth policy and search."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

from edgedec.errors import BundleError, InputError
from edgedec.runtime.bundle import Bundle, open_bundle
from edgedec.runtime.depth.clock import Clock
from edgedec.runtime.depth.options import check, layout_of, make_policy, parse_depth
from edgedec.runtime.depth.plan import Policy, Request
from edgedec.runtime.depth.statistics import Statistics
from edgedec.runtime.generation import GenerationConfig
from edgedec.runtime.loop import Loop
from edgedec.runtime.opening import open_on
from edgedec.runtime.prompt import RouterScores, feed_prompts
from edgedec.runtime.resident.limits import PASS
from edgedec.runtime.search import Search, make_search
from edgedec.runtime.search.protocol import FinishReason
from edgedec.runtime.spans import Spans
from edgedec.runtime.static.options import check_depth, check_scores
from edgedec.runtime.steps import Steps
from edgedec.runtime.text import Tokenizer

Input = str | Sequence[int]
logger = logging.getLogger(__name__)
BATCH_SIZE = 16
PREFILL = PASS
"""A prompt is fed in pieces of this many tokens, so that attention over it stays small."""


@dataclass(frozen=True)
class Result:
    """What was generated for one input.

    Attributes:
        text: the generated text, None where the bundle has no tokenizer.
        tokens: generated ids, without the decoder's start or prompt, up to the end-of-sequence
            token and including it.
        score: length-normalised log probability of a beam search, None otherwise.
        finish_reason: ``stop`` at an end-of-sequence token, ``length`` at the limit.
    """

    text: str | None
    tokens: list[int]
    score: float | None
    finish_reason: FinishReason


@dataclass(frozen=True)
class Chunk:
    """A piece of a streamed result: a token, and the text that it completes (may be empty)."""

    text: str
    token: int


def load(
    bundle: str | Path,
    device: str | None = None,
    threads: int | None = None,
    depth: str | Policy = "full",
    *,
    allow_fallback: bool = False,
) -> Generator:
    """Open a bundle for generation.

    Args:
        bundle: a folder made by ``edgedec export``, or the name of a built-in checkpoint, which is
            exported into the user's cache on first use.
        device: where to run it: a device such as ``cpu`` or ``qnn:sm8650``, or one for each part,
            ``encoder=qnn,decoder=cpu``; by default the devices that it was exported for.
        threads: threads to compute with; by default the available cores, at most 4.
        depth: which layers run at which step: a policy such as ``early-exit:threshold=0.9``.
        allow_fallback: what a device cannot run may run on the CPU.

    Raises:
        BundleError: no bundle, a damaged one, or one that reaches outside of its folder.
        DeviceError: the device is not available here.
        InputError: no such policy, or one that the bundle cannot carry out.
    """
    from edgedec.builtin import resolve_bundle

    opened = open_bundle(resolve_bundle(bundle))
    return Generator(
        opened, device=device, threads=threads, depth=depth, allow_fallback=allow_fallback
    )


class Generator:
    """Generates with one bundle. Not for use by several threads at once.

    Args:
        bundle: an opened bundle.
        device: as `load` takes it.
        threads: threads to compute with, None for the device's choice.
        depth: depth policy, or its text; for calls that give no other.
        records: folder that gets ONNX Runtime's records of every operator, which slow it down.
        allow_fallback: what a device cannot run may run on the CPU.

    Attributes:
        bundle: as given.
        statistics: of the last call of `generate` or `stream`, filled while it goes on.
        spans: where time goes; switched off.
    """

    def __init__(
        self,
        bundle: Bundle,
        *,
        device: str | None = None,
        threads: int | None = None,
        depth: str | Policy = "full",
        records: Path | None = None,
        allow_fallback: bool = False,
    ) -> None:
        manifest = bundle.manifest
        self.bundle = bundle
        self.statistics = Statistics()
        self.spans = Spans()
        self._interface = manifest.interface
        self._layout = layout_of(manifest)
        self._fixed = None if manifest.static is None else manifest.static.decoder
        self._depth = self._policy(depth)
        self._clock = Clock()
        self._tokenizer: Tokenizer | None = None
        self._opener, self._model = open_on(
            bundle,
            device,
            threads=threads,
            spans=self.spans,
            records=records,
            allow_fallback=allow_fallback,
        )
        if "tokenizer.json" in manifest.files:
            self._tokenizer = Tokenizer.open(bundle.path("tokenizer.json"))

    @property
    def defaults(self) -> GenerationConfig:
        """How the checkpoint wants to be decoded."""
        return self.bundle.manifest.generation

    def generate(
        self,
        inputs: Input | Sequence[Input],
        *,
        batch_size: int = BATCH_SIZE,
        first_row: int = 0,
        depth: str | Policy | None = None,
        **options: Any,
    ) -> list[Result]:
        """Generate for one input or several.

        Args:
            inputs: texts, or lists of token ids (special tokens included); one or several.
            batch_size: how many inputs are decoded side by side at most.
            first_row: number of the first input among all that the caller runs in several calls;
                sampling with a seed draws the same tokens however they are divided.
            depth: depth policy, or its text; None: the generator's own.
            options: fields of `GenerationConfig`, over the checkpoint's own.

        Returns:
            One result per input, in order.

        Raises:
            InputError: an input without a single token, too long or no text, an option out of
                range, or a depth policy that does not go with the bundle or the options.
        """
        self.spans.begin_request()
        if batch_size < 1:
            raise InputError(f"batch_size must be a whole number of at least 1, not {batch_size}.")
        config = self._config(options)
        policy = self._checked(depth, config)
        if policy.one_row:
            batch_size = 1
        self.statistics = Statistics()
        batch_size = min(batch_size, self._most(config.num_beams) or batch_size)
        sources = [self._encode(item) for item in _as_batch(inputs)]
        self.spans.lap("tokenize")
        found = []
        for begin in range(0, len(sources), batch_size):
            batch = sources[begin : begin + batch_size]
            search, run = self._start(batch, config, policy, first_row + begin)
            for _ in run:
                pass
            found += search.results()
        results = [Result(self._text(h.tokens), h.tokens, h.score, h.finish_reason) for h in found]
        self.spans.lap("detokenize")
        self.spans.end_request()
        return results

    def stream(
        self, item: Input, *, depth: str | Policy | None = None, **options: Any
    ) -> Iterator[Chunk]:
        """Generate for one input, yielding every token as soon as it is known.

        Args:
            item: a text, or a list of token ids.
            depth: as in `generate`.
            options: as in `generate`.

        Raises:
            InputError: as `generate`; also for beam search, which knows nothing until the end.
        """
        self.spans.begin_request()
        config = self._config(options)
        if config.num_beams > 1:
            raise InputError("beam search cannot stream: use num_beams=1.")
        if not isinstance(item, str) and any(isinstance(part, str) for part in _list(item)):
            raise InputError("a stream has one input: give a text or one list of token ids.")
        policy = self._checked(depth, config)
        self.statistics = Statistics()
        source = self._encode(item)
        self.spans.lap("tokenize")
        return self._chunks(*self._start([source], config, policy, 0))

    def _chunks(self, search: Search, run: Iterator[None]) -> Iterator[Chunk]:
        decoder = self._tokenizer.decoder() if self._tokenizer is not None else None
        sent = 0
        for _ in run:
            # The search knows where the result ends; fed padding after it is not part of it.
            for token in search.results()[0].tokens[sent:]:
                chunk = Chunk(decoder.push(token) if decoder is not None else "", token)
                self.spans.lap("detokenize")
                yield chunk
                self.spans.resume()
                sent += 1
                last = token
        tail = decoder.flush() if decoder is not None else ""
        self.spans.lap("detokenize")
        self.spans.end_request()
        if tail:
            yield Chunk(tail, last)

    def _config(self, options: dict[str, Any]) -> GenerationConfig:
        config = self.defaults.override(**options)
        if (config.pad_token_id or 0) >= self._interface.vocab_size:
            # Nobody sees what fills a gap: a token that the model does not have becomes any other.
            config = replace(config, pad_token_id=0)
        return config

    def _policy(self, depth: str | Policy) -> Policy:
        """The policy of that text, or one that is ready-made; checked against the bundle."""
        if self._fixed is not None:
            check_depth(parse_depth(depth)[0] if isinstance(depth, str) else depth.name)
        if isinstance(depth, str):
            return make_policy(depth, self.bundle.manifest)
        check(depth, self._layout)
        return depth

    def _checked(self, depth: str | Policy | None, config: GenerationConfig) -> Policy:
        policy = self._depth if depth is None else self._policy(depth)
        if policy.one_row and config.num_beams > 1:
            raise InputError(
                f"--depth {policy.name} does not go with beam search: use num_beams=1, or another "
                "depth policy."
            )
        if self._fixed is not None:
            check_scores(config, self._interface, self._fixed)
        return policy

    def _most(self, beams: int) -> int | None:
        """How many inputs with so many beams can be decoded side by side; None for any number."""
        rows = self._model.rows
        if rows is not None and beams > rows:
            raise InputError(
                f"{beams} beams take as many rows, and this device's graphs have {rows}: use fewer "
                "beams, or export with a larger --max-rows."
            )
        return None if rows is None else rows // beams

    def end_records(self) -> dict[str, Path]:
        """The files with ONNX Runtime's records, which end here, by component.

        Only of a generator that was opened with ``records``.
        """
        return {session.component: session.end_records() for session in self._opener.sessions}

    def start_decoding(
        self, sources: list[list[int]] | None, rows: int, *, anchors: bool = False
    ) -> Steps:
        """Encode ``sources`` (None if decoder-only) and begin decoding, below any search.

        Args:
            sources: token ids of every row.
            rows: sequences decoded side by side.
            anchors: keep what low-rank variants need.

        Returns:
            A `Decoding`, or of graphs of fixed shapes a `StaticDecoding`.
        """
        pad = self._config({}).pad_token_id or 0
        return self._model.start(sources, rows, pad=pad, clock=self._clock, anchors=anchors)

    def _start(
        self, sources: list[list[int]], config: GenerationConfig, policy: Policy, first_row: int
    ) -> tuple[Search, Iterator[None]]:
        """Check the lengths, build the search, and return it with the loop that drives it."""
        io = self._interface
        if self._model.encodes:
            start = config.decoder_start_token_id
            if start is None:
                raise BundleError(
                    "the bundle names no decoder_start_token_id: export a checkpoint whose "
                    "generation_config.json has one, or pass decoder_start_token_id."
                )
            prompts = [[start] for _ in sources]
            longest = max(len(s) for s in sources)
            if io.max_source is not None and longest > io.max_source:
                raise InputError(
                    f"an input has {longest:,} tokens, the model takes {io.max_source:,}: split it."
                )
            source = self._model.source
            if source is not None and longest > source:
                raise InputError(
                    f"an input has {longest:,} tokens, this device's graphs take {source:,}: split "
                    "it, or export with a larger --max-source."
                )
        else:
            prompts = sources
        for token in {t for p in prompts for t in p}:
            self._check_id(token)
        limits = self._step_limits(config, [len(prompt) for prompt in prompts])
        search = make_search(
            config,
            batch=len(sources),
            vocab_size=io.vocab_size,
            prompts=prompts,
            max_steps=limits,
            first_row=first_row,
        )
        request = Request(
            rows=search.rows,
            limit=max(limits),
            sources=sources if self._model.encodes else None,
            prompts=prompts,
        )
        return search, self._run(search, policy, request, config.pad_token_id or 0, self.statistics)

    def _step_limits(self, config: GenerationConfig, prompts: list[int]) -> list[int]:
        """How many tokens may follow prompts of such lengths, as far as model and caches reach."""
        limits = [config.step_limit(length, self._interface.max_target) for length in prompts]
        target = self._model.target
        if target is None:
            return limits
        if max(prompts) >= target:
            raise InputError(
                f"a prompt has {max(prompts):,} tokens, this device's caches hold {target:,} "
                "positions: shorten it, or export with a larger --max-target."
            )
        held = [min(limit, target - length) for limit, length in zip(limits, prompts, strict=True)]
        if held != limits:
            logger.warning(
                "texts end before their limit: this device's caches hold %d positions, the longest "
                "prompt's %d included; export with a larger --max-target for more.",
                *(target, max(prompts)),
            )
        return held

    def _run(
        self, search: Search, policy: Policy, request: Request, pad: int, statistics: Statistics
    ) -> Iterator[None]:
        """Drive a search to its end; yields after every choice of tokens."""
        prompts, seconds, spans = request.prompts, statistics.seconds, self.spans
        statistics.source_tokens += sum(map(len, request.sources or prompts))
        needs = policy.needs(self._layout.layers)
        spans.lap("prepare")
        began = perf_counter()
        sources = None if request.sources is None else [list(s) for s in request.sources]
        decoding = self.start_decoding(sources, len(prompts), anchors=bool(needs.low_rank))
        encoded = perf_counter()
        if decoding.memory is not None:
            spans.lap("encode")
        routers = RouterScores(self._model.components, len(prompts)) if needs.routers else None
        if routers is not None and decoding.memory is not None:
            assert decoding.memory.mean is not None
            routers.see_source(decoding.memory.mean)
        output = feed_prompts(
            decoding,
            prompts,
            pad=pad,
            piece=PREFILL,
            want_logits=search.needs_logits,
            routers=routers if decoding.memory is None else None,
        )
        seconds["encode"] = seconds.get("encode", 0.0) + encoded - began
        seconds["prompt"] = seconds.get("prompt", 0.0) + perf_counter() - encoded
        yield from Loop(
            decoding,
            search,
            policy.start(self._layout, request),
            statistics,
            spans,
            beams=search.rows // len(prompts),
            context=len(prompts[0]),
        ).run(output, None if routers is None else routers.mean())
        if spans.on:
            statistics.cache_bytes = max(statistics.cache_bytes, decoding.cache.nbytes)
            if decoding.memory is not None:
                statistics.cross_bytes = max(statistics.cross_bytes, decoding.memory.nbytes)
        decoding.close()

    def _encode(self, item: Input) -> list[int]:
        if isinstance(item, str):
            if self._tokenizer is None:
                raise InputError(
                    "this bundle has no tokenizer: give lists of token ids, or export the "
                    "checkpoint with its tokenizer."
                )
            item = self._tokenizer.encode([item])[0]
        ids = [self._check_id(token) for token in _list(item)]
        if not ids:
            raise InputError("an input is empty: this model needs at least one token.")
        return ids

    def _check_id(self, token: Any) -> int:
        if isinstance(token, bool) or not isinstance(token, int | np.integer):
            raise InputError(f"inputs are texts or lists of token ids, not {type(token).__name__}.")
        if not 0 <= token < self._interface.vocab_size:
            raise InputError(
                f"token id {token} is outside of the vocabulary (0 to "
                f"{self._interface.vocab_size - 1}): is this the model's own tokenizer?"
            )
        return int(token)

    def _text(self, tokens: list[int]) -> str | None:
        return self._tokenizer.decode(tokens) if self._tokenizer is not None else None


def _as_batch(inputs: Input | Sequence[Input]) -> list[Input]:
    """One input or several: a text and a list of ids are one."""
    if isinstance(inputs, str):
        return [inputs]
    items = _list(inputs)
    return [items] if items and isinstance(items[0], int | np.integer) else items


def _list(value: Any) -> list[Any]:
    """The items of a list or whatever is like one."""
    if not isinstance(value, bytes | bytearray | Mapping):
        try:
            return list(value)
        except TypeError:
            pass
    raise InputError(f"inputs are texts or lists of token ids, not {type(value).__name__}.")
