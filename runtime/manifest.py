"""``edgedec.json``: what a bundle contains, as frozen dataclasses (format in docs/bundle.md)."""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass, field
from typing import Any, Literal

from edgedec.errors import BundleError, EdgedecError
from edgedec.runtime.depth.parts import depth_components, depth_problems
from edgedec.runtime.generation import GenerationConfig
from edgedec.runtime.schema import SchemaError, decode, encode
from edgedec.runtime.static.parts import static_components, static_problems

SCHEMA_VERSION = 1
MANIFEST = "edgedec.json"
Compute = Literal["int8", "int8-block", "bf16", "fp32"]
MAX_DEPTH = 32
MAX_TEXT = 255
LONGEST = 1 << 20
"""Rows and positions in `Limits`: more than any GPU has memory for, and few enough to multiply."""
GRAPH = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*\.onnx")
"""File names of graphs: beside ``edgedec.json``, where the graphs look for their weights."""
COMPONENT = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")
"""Names of components: they are shown to people, and stand in names of metrics."""
UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
"""Control characters (a terminal obeys them) and halves of characters (no file has such a name)."""


@dataclass(frozen=True)
class Source:
    """The checkpoint: folder name or hub id, the hub's commit, a hash of its files."""

    id: str
    revision: str | None
    sha256: str


@dataclass(frozen=True)
class Component:
    """One graph: its file, the device it was lowered for, how its weights are stored.

    ``precision`` is a floating-point type (``--dtype``) or a format of codes (``--quant``).
    ``contexts`` are compiled forms of it: system on chip (``sm8650``), or several joined by ``+``
    in one binary -> the ``.onnx`` file that names it; where there are any, ``file`` is the first.
    """

    file: str
    device: str
    precision: str
    contexts: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Stage:
    """Decoder layers ``first <= layer < last``, in one component.

    ``variants`` are other graphs for the same layers: ``fill`` or ``low-rank`` -> component
    (docs/bundle.md).
    """

    component: str
    first: int
    last: int
    variants: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class DepthPoint:
    """What a depth policy reached on a text.

    Attributes:
        depth: the policy with its parameters, as ``--depth`` takes them.
        quality: agreement with full depth, or a score as a fraction of full depth's; 1 is equal.
        layers: mean decoder layers executed per generated token.
        milliseconds: of decoding per generated token, the encoder not counted.
        speedup: full depth's milliseconds by these.
    """

    depth: str
    quality: float
    layers: float
    milliseconds: float
    speedup: float


@dataclass(frozen=True)
class DepthTable:
    """Depth policies compared on a user's text (``edgedec calibrate-depth``), best last.

    Attributes:
        text: name of the text, and
        inputs: how many of its inputs were generated for.
        measure: what ``quality`` is: ``agreement`` or a metric's name.
        machine: processor that it was measured on, with
        threads: so many threads.
        points: no point is better than another in both quality and time; full depth included.
    """

    text: str
    inputs: int
    measure: str
    machine: str
    threads: int
    points: tuple[DepthPoint, ...]


@dataclass(frozen=True)
class Interface:
    """What the runtime must know to feed the graphs.

    ``kv_width`` is the number of float32 channels of one position's keys in one layer's cache.
    """

    architecture: Literal["encoder-decoder", "decoder-only"]
    vocab_size: int
    d_model: int
    decoder_layers: int
    kv_width: int
    max_source: int | None
    max_target: int | None
    attention_heads: int | None = None
    """The most heads that any layer has: what attention over a long input takes of memory."""


@dataclass(frozen=True)
class Verified:
    """ONNX Runtime against another implementation on random tokens, in logits.

    The other one is the NumPy reference of the spec, or torch on the way through optimum.
    """

    max_abs_difference: float
    logit_range: float
    tokens: int


@dataclass(frozen=True)
class CodebookPart:
    """Rows of a stored matrix that are one matrix of the model, by its name there."""

    name: str
    rows: int


@dataclass(frozen=True)
class CodebookMatrix:
    """One matrix of codes, as its node reads it.

    Attributes:
        rows, columns: its size.
        bits: of one code: 2, 3, 4 or 8.
        codebooks: how many tables of ``2**bits`` levels its blocks of 16 rows choose from.
        parts: the model's matrices that it consists of, from its first row to its last.
    """

    rows: int
    columns: int
    bits: int
    codebooks: int
    parts: tuple[CodebookPart, ...]


@dataclass(frozen=True)
class Rounding:
    """What products that round their inputs did to the logits in the export's own check.

    Attributes:
        max_abs_difference: the graphs against a reference that rounds as they do.
        effect: that reference against itself without rounding.
    """

    max_abs_difference: float
    effect: float


@dataclass(frozen=True)
class Codebooks:
    """How a bundle's weights are stored as codes into small tables of levels.

    Attributes:
        scheme: the weight format, as ``--quant`` names it.
        compute: to what products round their inputs: int8 with a scale per row or per block of
            128, bfloat16, or float32. Function bodies compute in float32 whatever it says.
        portable: everything but the matrices is in standard operators.
        rounding: what the rounding of ``compute`` did in the export's check; the manifest's
            ``verified`` compares the same graphs with products in float32. None if there is no
            rounding, was no check, or was no operator library to do it with.
        matrices: component -> path of the node that reads it -> matrix.
        method: how codes of fewer than 8 bits were chosen, as ``--method`` names it; None where
            that is not known.
    """

    scheme: str
    compute: Compute
    portable: bool
    rounding: Rounding | None
    matrices: dict[str, dict[str, CodebookMatrix]]
    method: str | None = None


@dataclass(frozen=True)
class BiasTable:
    """What is added to attention scores, by distance.

    ``file`` holds float32 ``[heads, 2 * reach]``, little-endian, at ``reach - 1 - distance`` for a
    distance (position of the query less that of the key) from ``-reach`` to ``reach - 1``; heads
    is 1 where all add the same. What must not be seen has -40.
    """

    file: str
    heads: int
    reach: int


@dataclass(frozen=True)
class Grid:
    """How a port's numbers are stored: ``(integer - zero_point) * scale``."""

    scale: float
    zero_point: int


@dataclass(frozen=True)
class StaticEncoder:
    """An encoder of fixed shapes: ``source`` tokens of one input; ``bias`` of its attention."""

    source: int
    bias: BiasTable


@dataclass(frozen=True)
class StaticDecoder:
    """A decoder of fixed shapes, for one sequence.

    Attributes:
        source: tokens of its source; None for a decoder-only model.
        past: positions that its caches hold; it may be fed one more.
        unroll: greedy steps that one run makes.
        prefill: the component that takes prompts in chunks, None without.
        chunk: tokens that it takes at a time.
        bias: of self-attention, in both.
    """

    source: int | None
    past: int
    unroll: int
    prefill: str | None
    chunk: int | None
    bias: BiasTable


@dataclass(frozen=True)
class Agreement:
    """How often graphs chose the same token, fed what the floating-point model chose.

    Attributes:
        text: name of the text, and
        inputs, tokens: how much of it.
        soc: whose simulators ran, joined by commas; None where none did. The figures of the NPU
            are those of the worst.
        device: share of tokens, the simulator against floating point; None where none ran.
        cpu: the same graphs on the CPU against floating point.
        device_cpu: the simulator against the same graphs on the CPU.
        device_tokens: of the tokens, how many the simulator was fed: the first.
        device_error: greatest difference of its logits from those of the same graphs on the CPU,
            relative to the range of these; None where the graphs give none.
    """

    text: str
    inputs: int
    tokens: int
    soc: str | None
    device: float | None
    cpu: float
    device_cpu: float | None
    device_tokens: int | None = None
    device_error: float | None = None


@dataclass(frozen=True)
class Static:
    """Graphs of fixed shapes, as NPUs want them (docs/npu.md).

    Attributes:
        kv_heads: heads of keys and values of every decoder layer.
        encoder, decoder: None where that part's graphs are the ones of docs/bundle.md.
        grids: input or output -> how its integers stand for numbers. A cache's new rows have the
            grid of the cache, and the encoder's outputs that of the decoder's inputs.
        eight: weights that got 8 bits because of what fewer did (``component/module path``).
        projection: module path -> squared error of re-expressing its codes, relative to the
            squared weights that the codes stand for; empty where weights were floating-point.
        agreement: what the export's check measured; None without one.
    """

    kv_heads: int
    encoder: StaticEncoder | None = None
    decoder: StaticDecoder | None = None
    grids: dict[str, Grid] = field(default_factory=dict)
    eight: tuple[str, ...] = ()
    projection: dict[str, float] = field(default_factory=dict)
    agreement: Agreement | None = None


@dataclass(frozen=True)
class Limits:
    """How far a GPU's graphs reach: memory is set aside for so much (docs/bundle.md).

    Attributes:
        rows: sequences that run together, the beams of each input counted.
        source: tokens of a source; None for a decoder-only model.
        target: positions that the caches hold, prompt included.
    """

    rows: int
    source: int | None
    target: int


@dataclass(frozen=True)
class FileEntry:
    """Size in bytes and SHA-256 of a file of the bundle."""

    bytes: int
    sha256: str


@dataclass(frozen=True)
class Manifest:
    """Everything in ``edgedec.json``.

    Attributes:
        schema_version: version of this format; a newer one is refused with a sentence.
        producer: ``edgedec`` and its version.
        source: where the weights came from.
        model: the exporter's `ModelSpec`, for tools; the runtime reads `interface` instead.
        interface: shapes of the graphs' contract.
        components: graphs by name.
        encoder: component of the encoder, None for a decoder-only model.
        stages: the decoder, in order.
        head: component of the head, None when the only stage contains it.
        policies: depth policies that the bundle was made for, with their default parameters.
        meta: component of the confidence classifier, None without.
        router: component of the routers, None without; `routed` are the layers that have one.
        depth: depth policies compared on a text, None where that was not done.
        static: graphs of fixed shapes, None where all are as docs/bundle.md says.
        limits: how far GPUs' graphs reach, None where that was not said.
        generation: how the checkpoint wants to be decoded.
        codebooks: weights that are stored as codes, None without.
        parameters: number of stored weights.
        verified: what the export's own check measured, None when it was switched off.
        files: every file of the bundle but this one.
    """

    schema_version: int
    producer: str
    source: Source
    model: dict[str, Any]
    interface: Interface
    components: dict[str, Component]
    encoder: str | None
    stages: tuple[Stage, ...]
    head: str | None
    generation: GenerationConfig
    parameters: int
    verified: Verified | None
    files: dict[str, FileEntry]
    policies: dict[str, dict[str, Any]] = field(default_factory=lambda: {"full": {}})
    codebooks: Codebooks | None = None
    meta: str | None = None
    router: str | None = None
    routed: tuple[int, ...] = ()
    depth: DepthTable | None = None
    static: Static | None = None
    limits: Limits | None = None


def dump_manifest(manifest: Manifest) -> str:
    """The text of ``edgedec.json``: same manifest, same text."""
    return json.dumps(encode(manifest), indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def load_manifest(text: str) -> Manifest:
    """Read and check ``edgedec.json``.

    Raises:
        BundleError: no JSON, a newer format, a wrong key or type, or parts that contradict.
    """
    try:
        value = json.loads(text, object_pairs_hook=_object, parse_constant=_no_number)
        version = value.get("schema_version") if isinstance(value, dict) else None
        if type(version) is int and version > SCHEMA_VERSION:
            raise BundleError(
                f"{MANIFEST} has format version {version}, this edgedec reads up to "
                f"{SCHEMA_VERSION}: upgrade edgedec (pip install -U edgedec)."
            )
        _check_values(value)
        manifest = decode(Manifest, value)
    except (ValueError, RecursionError) as error:  # JSONDecodeError and SchemaError are ValueErrors
        kind = "does not fit the format" if isinstance(error, SchemaError) else "is not JSON"
        raise BundleError(f"{MANIFEST} {kind}: {error}; export the bundle again.") from error
    except BundleError:
        raise
    except EdgedecError as error:
        raise BundleError(f"{MANIFEST} has an invalid generation block: {error}") from error
    _check_parts(manifest)
    return manifest


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Refuse a key given twice: readers differ in which of the two they take."""
    value = dict(pairs)
    if len(value) != len(pairs):
        raise ValueError("a key is given twice")
    return value


def _no_number(name: str) -> None:
    raise ValueError(f"{name} is no number")


def _check_values(value: Any) -> None:
    """Refuse values that would trouble whoever prints, copies or computes with them later."""
    todo = [(value, 0)]
    while todo:
        value, depth = todo.pop()
        if depth > MAX_DEPTH:
            raise SchemaError(f"values are nested more than {MAX_DEPTH} deep")
        if isinstance(value, dict):
            todo += [(item, depth + 1) for pair in value.items() for item in pair]
        elif isinstance(value, list):
            todo += [(item, depth + 1) for item in value]
        elif isinstance(value, str):
            if UNPRINTABLE.search(value) or len(value) > MAX_TEXT:
                raise SchemaError(f"{value[:40]!r} is too long or cannot be printed")
        elif isinstance(value, int | float) and not (
            math.isfinite(value) if isinstance(value, float) else abs(value) < 1 << 63
        ):
            raise SchemaError("a number is out of range")


def _check_parts(m: Manifest) -> None:
    """Refuse manifests whose parts contradict each other."""
    io = m.interface
    named = [s.component for s in m.stages] + [c for c in (m.encoder, m.head) if c is not None]
    named += depth_components(m) + static_components(m)
    problems = {
        "schema_version is not 1": m.schema_version != SCHEMA_VERSION,
        "a size in 'interface' is out of range": not all(
            0 < size <= 1 << 24
            for size in (io.vocab_size, io.d_model, io.decoder_layers, io.kv_width)
        )
        or not all(
            limit is None or 0 < limit <= 1 << 30 for limit in (io.max_source, io.max_target)
        ),
        "the stages do not cover the decoder's layers in order": not m.stages
        or [s.first for s in m.stages] != [0, *(s.last for s in m.stages)][:-1]
        or any(s.first >= s.last for s in m.stages)
        or m.stages[-1].last != io.decoder_layers,
        "a stage, the encoder or the head names a component that is not listed": any(
            name not in m.components for name in named
        ),
        **depth_problems(m),
        **static_problems(m),
        "'limits' cannot be": m.limits is not None and not _are_possible(m.limits, io),
        "one component is named twice": len(set(named)) != len(named),
        "the architecture and the encoder contradict each other": (m.encoder is None)
        != (io.architecture == "decoder-only"),
        "several stages need a head of their own": len(m.stages) > 1 and m.head is None,
        "a component's name is not made of letters, digits, '_', '.' and '-'": not all(
            map(COMPONENT.fullmatch, m.components)
        ),
        "a component's file is not the plain name of an .onnx file": not all(
            GRAPH.fullmatch(c.file) for c in m.components.values()
        ),
        "a component's file is not listed": any(
            c.file not in m.files for c in m.components.values()
        ),
        "a matrix in 'codebooks' cannot be": m.codebooks is not None
        and not all(
            _is_possible(matrix)
            for component in m.codebooks.matrices.values()
            for matrix in component.values()
        ),
        "'codebooks' names a component that is not listed": m.codebooks is not None
        and not m.codebooks.matrices.keys() <= m.components.keys(),
    }
    for problem, found in problems.items():
        if found:
            raise BundleError(f"{MANIFEST}: {problem}; export the bundle again.")


def _is_possible(matrix: CodebookMatrix) -> bool:
    return (
        matrix.bits in {2, 3, 4, 8}
        and all(0 < n < 1 << 31 for n in (matrix.rows, matrix.columns, matrix.codebooks))
        and all(part.rows > 0 for part in matrix.parts)
        and sum(part.rows for part in matrix.parts) == matrix.rows
    )


def _are_possible(limits: Limits, io: Interface) -> bool:
    """Whether a GPU's graphs could reach so far, and no farther than the model does."""
    if (limits.source is None) != (io.architecture == "decoder-only"):
        return False
    reached = [(limits.rows, None), (limits.target, io.max_target)]
    if limits.source is not None:
        reached.append((limits.source, io.max_source))
    return all(0 < n <= LONGEST and (most is None or n <= most) for n, most in reached)
