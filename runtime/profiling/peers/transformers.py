"""``edgedec profile --baseline hf``: the same requests by transformers, in fp32 on the CPU.

``python -m edgedec.runtime.profiling.peers.transformers`` is a worker as the one beside it
(runtime/profiling/worker.py), but a job's folder is a checkpoint. Inputs, lengths, threads and
what counts as a request are the same: text is tokenized and results are turned into text. Tokens
are not compared: transformers 5 ties and scales T5's head whatever the checkpoint was trained with.
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgedec.runtime.profiling.peers.checkpoint import (
    CONFIG,
    cached,
    open_checkpoint,
    reason,
    sha256_of,
)

if TYPE_CHECKING:
    from edgedec.runtime.generation import GenerationConfig
    from edgedec.runtime.profiling.energy import Energy
    from edgedec.runtime.profiling.plan import Job
    from edgedec.runtime.profiling.record import Sample, Turn
    from edgedec.runtime.profiling.request import Requests
    from edgedec.runtime.profiling.turn import Start

NEEDED = ("torch", "transformers")
INSTALL = "pip install 'transformers>=5,<6' 'torch>=2.4'"
HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
GENERATION = "generation_config.json"


def resolve(
    bundle: str | Path, given: str | None, note: Callable[[str], None] | None = None
) -> str:
    """The folder of the checkpoint to compare a bundle with.

    Args:
        bundle: its folder.
        given: a checkpoint's folder, built-in name or hub id, which is downloaded; None: the one
            that the bundle was made from, if it is still here and its files are the same.
        note: is told if the one that was given is another one.

    Raises:
        MissingDependencyError: torch or transformers is not installed.
        InputError: there is no such checkpoint, or it cannot be opened.
    """
    from edgedec.builtin import CHECKPOINTS, builtin_checkpoint, builtin_names
    from edgedec.errors import BundleError, InputError, MissingDependencyError
    from edgedec.runtime.bundle import open_bundle

    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        raise MissingDependencyError(f"--baseline hf needs {' and '.join(missing)}: {INSTALL}.")
    if given is not None:
        path = builtin_checkpoint(given) or Path(given).expanduser()
        if (path / CONFIG).is_file():
            return _told(str(path), bundle, note)
        if path.exists() or not HUB_ID.fullmatch(given):
            raise InputError(
                f"--baseline hf={given}: that is neither a checkpoint's folder (with {CONFIG}) nor "
                "a hub id such as google/flan-t5-small."
            )
        open_checkpoint(given, local=False)  # into the hub's cache, with all that it needs
        folder = cached(given, None)
        assert folder is not None
        return _told(folder, bundle, note)
    try:
        source = open_bundle(bundle).manifest.source
    except BundleError:
        return str(bundle)  # its rows say why
    # the name is a stranger's, and many folders have the same: only the same files will do
    places = [CHECKPOINTS / source.id] if source.id in builtin_names() else []
    for place in (*places, Path(source.id)):
        if sha256_of(place) == source.sha256:
            return str(place)
    if HUB_ID.fullmatch(source.id):
        folder = cached(source.id, source.revision)
        if folder is not None:
            return folder
    raise InputError(
        f"--baseline hf does not find the checkpoint {source.id!r}, which {bundle} was made from: "
        "give its folder or hub id, --baseline hf=CHECKPOINT."
    )


def _told(folder: str, bundle: str | Path, note: Callable[[str], None] | None) -> str:
    """The folder, after a word about what it is not."""
    from edgedec.errors import BundleError
    from edgedec.runtime.bundle import open_bundle

    with suppress(BundleError):  # its rows say why
        source = open_bundle(bundle).manifest.source
        if note is not None and sha256_of(Path(folder)) != source.sha256:
            note(
                f"{folder} is not the checkpoint {source.id!r} that {bundle} was made from, or not "
                "as it was: ratios between them may mean nothing."
            )
    return folder


@dataclass(frozen=True)
class Peer:
    """A checkpoint that is ready.

    Attributes:
        model: of transformers.
        tokenizer: likewise, or None.
        own: the checkpoint's generation settings, as transformers reads them,
        settings: and as we do.
        load_ms: that opening took.
    """

    model: Any
    tokenizer: Any
    own: Any
    settings: GenerationConfig
    load_ms: float


@dataclass(frozen=True)
class Done:
    """A request that is over; times are of `time.perf_counter`."""

    began: float
    tokens: tuple[float, ...]
    ended: float
    source_tokens: int
    new_tokens: int


def measure_turn(kept: dict[str, Peer], start: Start, job: Job) -> Turn:
    """Do a job of kind ``latency``.

    Args:
        kept: checkpoints that were opened for earlier jobs, by folder; gets this one's.
        start: of this process.
        job: what to do.

    Raises:
        InputError: transformers cannot do it.
    """
    import torch

    from edgedec.devices.options import default_threads
    from edgedec.runtime.profiling.turn import turn_of

    torch.set_num_threads(job.configuration.threads or default_threads())
    if job.folder not in kept:
        kept[job.folder] = _load(job.folder)
    peer = kept[job.folder]
    requests = _requests(peer, job)
    first = _generate(peer, requests, 0, {"max_new_tokens": 1, "min_new_tokens": 0}).tokens[0]
    ahead = time.monotonic() - time.perf_counter()

    def request(number: int, energy: Energy | None) -> Sample:
        return _request(peer, requests, number, energy)

    return turn_of(job, start, peer.load_ms, first + ahead, request)


def _load(folder: str) -> Peer:
    from edgedec.runtime.generation import GenerationConfig

    began = time.perf_counter()
    model, tokenizer = open_checkpoint(folder, local=True)
    load_ms = (time.perf_counter() - began) * 1e3
    generation = Path(folder, GENERATION)
    settings = GenerationConfig.from_huggingface(
        json.loads(generation.read_text(encoding="utf-8")) if generation.exists() else None,
        json.loads(Path(folder, CONFIG).read_text(encoding="utf-8")),
        encoder_decoder=model.config.is_encoder_decoder,
    )
    return Peer(model, tokenizer, model.generation_config, settings, load_ms)


def _requests(peer: Peer, job: Job) -> Requests:
    """The same requests as a bundle's worker makes."""
    from edgedec.errors import InputError
    from edgedec.runtime.generation import DEFAULT_NEW_TOKENS
    from edgedec.runtime.profiling.request import Requests, special_ids

    limit = job.configuration.new_tokens
    unlimited = peer.settings.max_new_tokens is None and peer.settings.max_length is None
    if limit is None and (unlimited or job.configuration.source_tokens is not None):
        limit = DEFAULT_NEW_TOKENS
    if job.configuration.source_tokens is None:
        if peer.tokenizer is None:
            raise InputError(
                f"transformers finds no tokenizer in {job.folder}: without -f, ids are its inputs."
            )
        if job.configuration.batch > 1 and peer.tokenizer.pad_token_id is None:
            raise InputError(
                f"the tokenizer of {job.folder} has no token to pad with: use -b 1 with -f."
            )
    return Requests(
        job=job,
        vocab_size=peer.model.config.get_text_config(decoder=True).vocab_size,
        special=special_ids(peer.settings),
        options={} if limit is None else {"max_new_tokens": limit},
    )


def _request(peer: Peer, requests: Requests, number: int, energy: Energy | None) -> Sample:
    """Make one request, and measure it."""
    from edgedec.runtime.profiling.record import Sample

    before = None if energy is None else energy.joules()
    done = _generate(peer, requests, number, requests.options)
    used = None if energy is None else energy.since(before)
    return Sample(
        round=requests.job.round,
        inputs=requests.job.configuration.batch,
        source_tokens=done.source_tokens,
        new_tokens=done.new_tokens,
        e2e_ms=_ms(done.ended - done.began),
        token_ms=tuple(_ms(token - done.began) for token in done.tokens),
        energy_j=used,
    )


def _generate(peer: Peer, requests: Requests, number: int, options: dict[str, Any]) -> Done:
    """Make one request.

    Raises:
        InputError: transformers cannot carry it out.
    """
    import torch

    from edgedec.errors import InputError

    inputs: Any = requests.inputs(number)
    text = requests.job.configuration.source_tokens is None
    known: list[float] = []

    def tick(ids: torch.Tensor, *_: Any, **__: Any) -> torch.Tensor:
        known.append(time.perf_counter())  # asked once per step, when its token is known
        return torch.zeros(len(ids), dtype=torch.bool)

    # not as an argument: what is None there is filled in from here
    peer.model.generation_config = peer.own if text else _plain(peer.own)
    began = time.perf_counter()
    try:
        if text:
            batch = dict(peer.tokenizer(inputs, padding=len(inputs) > 1, return_tensors="pt"))
            batch.pop("token_type_ids", None)  # no model here takes them
        else:
            ids = torch.tensor(inputs)
            batch = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
        found = peer.model.generate(**batch, **options, use_cache=True, stopping_criteria=[tick])
        prompt = 1 if peer.model.config.is_encoder_decoder else batch["input_ids"].shape[1]
        new = found[:, prompt:]
        if peer.tokenizer is not None:
            peer.tokenizer.batch_decode(new, skip_special_tokens=True)
        ended = time.perf_counter()
    except Exception as error:  # it raises what it likes
        raise InputError(f"transformers cannot generate here ({reason(error)}).") from error
    ends = set(peer.settings.eos_token_ids) if text else set()
    return Done(
        began=began,
        tokens=tuple(known),
        ended=ended,
        source_tokens=int(batch["attention_mask"].sum()),
        new_tokens=sum(_length(row, ends) for row in new.tolist()),
    )


def _plain(own: Any) -> Any:
    """Greedy decoding that nothing but a limit ends, as runtime/profiling/request.py's."""
    from transformers import GenerationConfig

    return GenerationConfig(  # type: ignore[no-untyped-call]
        bos_token_id=own.bos_token_id,
        pad_token_id=own.pad_token_id,
        decoder_start_token_id=own.decoder_start_token_id,
    )


def _length(tokens: list[int], ends: set[int]) -> int:
    """Tokens up to the first that ends a row, and with it; padding follows."""
    return next((n for n, token in enumerate(tokens, 1) if token in ends), len(tokens))


def _ms(seconds: float) -> float:
    return round(seconds * 1e3, 6)


def main() -> None:
    """Import what a user of transformers imports, then what the profiler needs, and serve."""
    from edgedec.runtime.profiling.serve import keep_output, serve

    answers = keep_output()
    # A worker that asks the hub whether files are new would measure the network.
    os.environ["HF_HUB_OFFLINE"] = "1"
    import torch  # noqa: F401
    from transformers import (  # noqa: F401
        AutoConfig,
        AutoModelForCausalLM,
        AutoModelForSeq2SeqLM,
        AutoTokenizer,
    )

    imported = time.monotonic()
    from edgedec.runtime.profiling.turn import Start

    kept: dict[str, Peer] = {}
    start = Start(imported, time.monotonic() - imported)
    serve(lambda job: {"turn": measure_turn(kept, start, job)}, answers)


if __name__ == "__main__":
    main()
