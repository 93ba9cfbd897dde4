"""A profile as frozen dataclasses: what ``-o json`` writes and ``--compare`` reads.

Units stand in names: ``_ms``, ``_mb`` (10^6 bytes), ``_j``. What was not measured is None, never 0,
and `Row.missing` says why.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from edgedec.errors import InputError
from edgedec.runtime.profiling.sound import check_profile
from edgedec.runtime.schema import SchemaError, decode, encode

SCHEMA_VERSION = 1
Program = Literal["edgedec", "transformers"]
FileCache = Literal["cold", "warm"]


@dataclass(frozen=True)
class Configuration:
    """What is measured in one row.

    Attributes:
        bundle: label of the bundle, a key of `Profile.bundles`.
        device, threads, batch: as the command line has them; threads None: the device's choice.
        source_tokens: of each input, synthetic; None where inputs come from ``text``.
        new_tokens: of each output: exactly so many with ``source_tokens``, at most with ``text``;
            None for the checkpoint's own limit.
        depth: depth policy.
        text: name of the file that inputs come from.
        program: what ran it: a baseline is a row of its own.
    """

    bundle: str
    device: str
    threads: int | None
    batch: int
    source_tokens: int | None
    new_tokens: int | None
    depth: str
    text: str | None = None
    program: Program = "edgedec"


@dataclass(frozen=True)
class Sample:
    """One request, warm.

    Attributes:
        round: number of the process that it ran in, from 0; rounds of all rows take turns.
        inputs: rows of the batch.
        source_tokens: tokens read (encoder, or prompt of a decoder-only model), all rows.
        new_tokens: tokens generated, all rows.
        tokenize_ms, prepare_ms, encode_ms, first_step_ms, detokenize_ms: phases of the request;
            encode_ms is None without an encoder, all but e2e_ms and token_ms may be None for
            baselines.
        e2e_ms: the whole request, by a clock around the call.
        token_ms: when each token was known, since the request began, in order: one for every
            step of the longest row. Where the depth policy takes inputs one by one: of all of them.
        steps, steps_ms: steps after the first (inputs that are taken one by one have a first one
            each), and their time; None for baselines.
        runs_ms: time of graphs in the steps after the first, by component.
        plan_ms, search_ms: time of depth policy and search in these steps.
        mean_layers, exits, drafted, accepted: what the depth policy did (runtime/depth/
            statistics.py); drafted and accepted None without drafts.
        energy_j: of the package, None where it cannot be read.
        cache_bytes, cross_bytes: of keys and values of self- and of cross-attention.
    """

    round: int
    inputs: int
    source_tokens: int
    new_tokens: int
    e2e_ms: float
    token_ms: tuple[float, ...]
    steps: int | None = None
    steps_ms: float | None = None
    tokenize_ms: float | None = None
    prepare_ms: float | None = None
    encode_ms: float | None = None
    first_step_ms: float | None = None
    detokenize_ms: float | None = None
    runs_ms: dict[str, float] = field(default_factory=dict)
    plan_ms: float | None = None
    search_ms: float | None = None
    mean_layers: float | None = None
    exits: dict[str, int] | None = None
    drafted: int | None = None
    accepted: int | None = None
    energy_j: float | None = None
    cache_bytes: int | None = None
    cross_bytes: int | None = None


@dataclass(frozen=True)
class Memory:
    """Memory of a process; None where the system does not tell.

    Attributes:
        peak_rss_mb: the most that was resident up to the end of the measurement.
        steady_rss_mb: resident at that end,
        steady_file_mb: of these, pages of files (mapped weights, libraries): the system can drop
            them,
        steady_anonymous_mb: and the others.
    """

    peak_rss_mb: float | None
    steady_rss_mb: float | None
    steady_file_mb: float | None
    steady_anonymous_mb: float | None


@dataclass(frozen=True)
class Conditions:
    """What else went on while a process measured; None where the system does not tell.

    Attributes:
        others: time that other processes ran, as a fraction of all cores' time,
        stolen: and that a hypervisor took away.
        clock_mhz: of the fastest core, at the end.
        yardstick_ms: a fixed piece of work, the best of several: slower means a slower machine.
    """

    others: float | None
    stolen: float | None
    clock_mhz: float | None
    yardstick_ms: float


@dataclass(frozen=True)
class Turn:
    """What one process measured of one row, in one round.

    Attributes:
        round: its number.
        start_ms: from the start of the process to its first token, synthetic or of the first
            line; None if the process had other work before.
        imports_ms: of that, until our code and ONNX Runtime were imported,
        load_ms: and opening the bundle: reading, checking, sessions, tokenizer.
        file_cache: whether the bundle's files were in memory at the start; None if not known.
        memory: of the process; None if it had other work before.
        conditions: on the machine.
        samples: of its requests after warming up.
    """

    round: int
    start_ms: float | None
    imports_ms: float | None
    load_ms: float
    file_cache: FileCache | None
    memory: Memory | None
    conditions: Conditions
    samples: tuple[Sample, ...]


@dataclass(frozen=True)
class Operator:
    """ONNX operators of one kind, or of one layer, in one component.

    Attributes:
        component: of the bundle.
        phase: ``encode``, ``first step`` or ``step``.
        name: operator type (``MatMul``) or part of the model (``decoder.3.self_attn``).
        calls: in the whole request.
        ms: in the whole request, as ONNX Runtime's records say; they take time themselves.
    """

    component: str
    phase: str
    name: str
    calls: int
    ms: float


@dataclass(frozen=True)
class Operators:
    """One request with records of every operator: a run of its own, no source of latencies.

    Attributes:
        e2e_ms: of that request; compare it with the row's to see what the records cost.
        steps: of the decoder after the first.
        by_type: by operator type,
        by_layer: and by part of the model (blocks of layers, embedding, head).
        cross_kv_ms: projections of the encoder's states to keys and values for the decoder.
    """

    e2e_ms: float
    steps: int
    by_type: tuple[Operator, ...]
    by_layer: tuple[Operator, ...]
    cross_kv_ms: float | None


@dataclass(frozen=True)
class Summary:
    """Of ``n`` samples: median, percentiles (linear between samples), mean, deviation (n - 1).

    ``sd`` is None for a single sample, which says nothing about deviation.
    """

    n: int
    p50: float
    p90: float
    p99: float
    mean: float
    sd: float | None
    min: float
    max: float


@dataclass(frozen=True)
class Row:
    """One configuration.

    Attributes:
        configuration: what was measured.
        error: why it failed, in a sentence; None if it did not.
        turns: raw, in the order of rounds.
        operators: None unless asked for.
        metrics: every metric of docs/metrics.md: name with unit -> summary; None if unmeasured.
        missing: name of such a metric -> why; also ``operators``, where recording them failed.
        warnings: why the row deserves less trust; sentences.
    """

    configuration: Configuration
    error: str | None
    turns: tuple[Turn, ...]
    operators: Operators | None
    metrics: dict[str, Summary | None]
    missing: dict[str, str]
    warnings: tuple[str, ...]


@dataclass(frozen=True)
class BundleFacts:
    """A bundle as it was measured.

    Attributes:
        sha256: of its manifest, which holds the hashes of all other files.
        source: id of the checkpoint.
        producer: of the bundle.
        architecture: ``encoder-decoder`` or ``decoder-only``.
        precision: how the weights are stored: ``fp32``, ``cb4``, ...
        compute: how products with codes are computed; None without codes.
        parameters: stored weights.
        file_bytes: all files of the bundle,
        weight_bytes: and those of the graphs with their weights.
        encoder_layers, decoder_layers, d_model, vocab_size: sizes; encoder_layers None without.
        stages: of the decoder.
        step_bytes: weights that a step of one token reads at full depth; None if not known,
        head_bytes: and of these the head's, where it is a graph of its own: read at any depth.
        kv_width: channels of one position's keys in one layer.
    """

    sha256: str
    source: str
    producer: str
    architecture: str
    precision: str
    compute: str | None
    parameters: int
    file_bytes: int
    weight_bytes: int
    encoder_layers: int | None
    decoder_layers: int
    d_model: int
    vocab_size: int
    stages: int
    step_bytes: int | None
    head_bytes: int | None = None
    kv_width: int | None = None


@dataclass(frozen=True)
class Environment:
    """The machine; None where it does not tell.

    Attributes:
        date: of the beginning, UTC, ISO 8601.
        system, machine, python: as `platform` says.
        cpu: model of the processor.
        instruction_set: of the operator library's kernels; None: function bodies run.
        cores: this process may use.
        cache_bytes: largest cache of the processor.
        memory_bytes: of the machine.
        governor: of CPU frequency scaling.
        boost: whether clocks may exceed the base clock.
        hypervisor: whether the machine is virtual.
        versions: package -> version.
        bandwidth_gb_s: memory read per second by that many threads: number (as text) -> GB/s.
        load: 1-minute load average at the beginning.
        energy_missing: why the processor's energy cannot be read; None if it can.
    """

    date: str
    system: str
    machine: str
    python: str
    cpu: str
    instruction_set: str | None
    cores: int
    cache_bytes: int | None
    memory_bytes: int | None
    governor: str | None
    boost: bool | None
    hypervisor: bool | None
    versions: dict[str, str]
    bandwidth_gb_s: dict[str, float]
    load: float | None
    energy_missing: str | None = None


@dataclass(frozen=True)
class Effort:
    """How much was measured of every row.

    Attributes:
        rounds: processes, of which each warms up anew.
        repetitions: requests in all that count, divided among the rounds.
        warmup: requests of each process before these.
        fresh: whether every turn had a process of its own.
        seed: of synthetic inputs.
        text_sha256: of the lines that inputs come from, each with its line end; None without.
    """

    rounds: int
    repetitions: int
    warmup: int
    fresh: bool
    seed: int
    text_sha256: str | None = None


@dataclass(frozen=True)
class Profile:
    """Everything: the file of ``-o json``.

    Attributes:
        schema_version: of this format; a newer one is refused with a sentence.
        producer: ``edgedec`` and its version.
        complete: False if it was interrupted.
        environment: the machine.
        effort: how much was measured.
        bundles: by label.
        rows: configurations, in the order of the sweep.
    """

    schema_version: int
    producer: str
    complete: bool
    environment: Environment
    effort: Effort
    bundles: dict[str, BundleFacts]
    rows: tuple[Row, ...]


def dump_profile(profile: Profile) -> str:
    """The JSON text of a profile, in ASCII: names of files may have what no encoding knows."""
    return json.dumps(encode(profile), indent=1, allow_nan=False) + "\n"


def load_profile(path: str | Path) -> Profile:
    """Read a profile that ``-o json`` or ``--save`` wrote.

    Raises:
        InputError: there is no such file, or it is no profile, one of a newer edgedec, or one with
            values that cannot be.
    """
    try:
        value: Any = json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"cannot read the profile {path}: {error.strerror}.") from error
    except (ValueError, RecursionError) as error:  # also of UTF-8
        raise InputError(f"{path} is not a profile in JSON: {error}.") from error
    version = value.get("schema_version") if isinstance(value, dict) else None
    if type(version) is int and version > SCHEMA_VERSION:
        raise InputError(
            f"the profile {path} has format version {version}, this edgedec reads up to "
            f"{SCHEMA_VERSION}: upgrade edgedec (pip install -U edgedec)."
        )
    try:
        profile = decode(Profile, value)
        check_profile(profile)
    except SchemaError as error:
        # It quotes keys and values of the file, and a terminal obeys control characters.
        what = "".join(c if c.isprintable() else " " for c in str(error)[:300])
        raise InputError(f"{path} is not a profile of `edgedec profile`: {what}.") from error
    return profile
