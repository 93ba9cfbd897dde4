"""What the graphs of a bundle must look like, checked before their buffers are bound by pointer.

The manifest says how large the buffers are and the graphs say what they read and write; a bundle
may come from a stranger, so the two are compared before anything runs. The contract itself is
written down in ``docs/bundle.md``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain

from edgedec.errors import BundleError
from edgedec.runtime.manifest import Interface, Stage
from edgedec.runtime.session import Port, Session

FLOAT, INT64 = "tensor(float)", "tensor(int64)"

Lengths = tuple[int | None, ...]
"""Of the axes; those that are None may vary from run to run."""
Expected = tuple[str, str, Lengths]
"""Name, type and lengths."""


@dataclass(frozen=True)
class Kept:
    """How graphs have keys and values.

    Attributes:
        type: of the numbers.
        past: lengths of a layer's cache.
        cross: lengths of what a layer reads of the source.
    """

    type: str
    past: Lengths
    cross: Lengths


def standard(io: Interface) -> Kept:
    """As docs/bundle.md says for all graphs but those of fixed shapes."""
    rows = (None, None, io.kv_width)
    return Kept(FLOAT, rows, rows)


def check_encoder(
    session: Session, io: Interface, kept: Kept | None = None, *, with_mean: bool = False
) -> None:
    """Compare the encoder with the interface.

    Args:
        session: the graph.
        io: what the manifest says.
        kept: how it gives keys and values; `standard` by default.
        with_mean: whether routers read the mean of its states.

    Raises:
        BundleError: with the graph, the input or output, and what is wrong with it.
    """
    inputs = (("input_ids", INT64, (None, None)), ("attention_mask", INT64, (None, None)))
    check_ports(session.name, "input", session.inputs, inputs)
    mean: list[Expected] = [("source.mean", FLOAT, (None, io.d_model))] if with_mean else []
    # Not a list: a manifest may speak of any number of layers.
    outputs = chain(mean, _memory(range(io.decoder_layers), kept or standard(io)))
    check_ports(session.name, "output", session.outputs, outputs)


def check_stage(
    session: Session,
    io: Interface,
    stage: Stage,
    kept: Kept,
    *,
    with_head: bool,
    more: Iterable[Expected] = (),
) -> None:
    """Compare a stage of the decoder with the interface; raises as `check_encoder`.

    Args:
        session: the graph.
        io: what the manifest says.
        stage: likewise.
        kept: how it has keys and values.
        with_head: whether the head is inside.
        more: further outputs.
    """
    positions = "positions" in session.inputs
    inputs = _stage_inputs(io, stage, kept, with_head=with_head, positions=positions)
    check_ports(session.name, "input", session.inputs, inputs)
    outputs = chain(_stage_outputs(io, stage, kept, with_head=with_head), more)
    check_ports(session.name, "output", session.outputs, outputs)


def check_fill(session: Session, io: Interface, stage: Stage, kept: Kept) -> None:
    """Compare a stage's fill variant with the interface; raises as `check_encoder`."""
    check_ports(session.name, "input", session.inputs, _variant_inputs(session, io, stage, kept))
    outputs = _cache("present.{}.self", range(stage.first, stage.last), kept)
    check_ports(session.name, "output", session.outputs, outputs)


def check_low_rank(session: Session, io: Interface, stage: Stage, kept: Kept) -> None:
    """Compare a stage's low-rank variant with the interface; raises as `check_encoder`."""
    layers = range(stage.first, stage.last)
    anchors = [(f"anchor.{layer}", FLOAT, (None, 1, io.d_model)) for layer in layers]
    inputs = [*_variant_inputs(session, io, stage, kept), *anchors]
    check_ports(session.name, "input", session.inputs, inputs)
    outputs = [_hidden("hidden_out", io), *_cache("present.{}.self", layers, kept)]
    check_ports(session.name, "output", session.outputs, outputs)


def check_meta(session: Session, io: Interface) -> None:
    """Compare the confidence classifier with the interface; raises as `check_encoder`."""
    check_ports(session.name, "input", session.inputs, (_hidden("hidden", io),))
    check_ports(session.name, "output", session.outputs, (("confidence", FLOAT, (None, None)),))


def check_router(session: Session, io: Interface) -> None:
    """Compare the routers with the interface; raises as `check_encoder`."""
    inputs = (_hidden("hidden", io), ("layer", INT64, (1,)))
    check_ports(session.name, "input", session.inputs, inputs)
    check_ports(session.name, "output", session.outputs, (("score", FLOAT, (None, None)),))


def check_head(session: Session, io: Interface) -> None:
    """Compare a head of its own with the interface; raises as `check_encoder`."""
    check_ports(session.name, "input", session.inputs, (_hidden("hidden", io), _PICKED))
    check_ports(session.name, "output", session.outputs, _scores(io))


_PICKED: Expected = ("logit_positions", INT64, (None, None))


def _hidden(name: str, io: Interface) -> Expected:
    return name, FLOAT, (None, None, io.d_model)


def _scores(io: Interface) -> tuple[Expected, ...]:
    return (("next_token", INT64, (None, None)), ("logits", FLOAT, (None, None, io.vocab_size)))


def _pairs(prefix: str, layers: range, kind: str, lengths: Lengths) -> Iterator[Expected]:
    for layer in layers:
        for part in ("key", "value"):
            yield f"{prefix.format(layer)}.{part}", kind, lengths


def _cache(prefix: str, layers: range, kept: Kept) -> Iterator[Expected]:
    return _pairs(prefix, layers, kept.type, kept.past)


def _memory(layers: range, kept: Kept) -> Iterator[Expected]:
    yield from _pairs("cross.{}", layers, kept.type, kept.cross)
    yield "cross.mask", FLOAT, (None, 1, 1, None)


def _stage_inputs(
    io: Interface, stage: Stage, kept: Kept, *, with_head: bool, positions: bool
) -> Iterator[Expected]:
    layers = range(stage.first, stage.last)
    yield ("input_ids", INT64, (None, None)) if stage.first == 0 else _hidden("hidden", io)
    yield "past_length", INT64, (None,)
    if positions:  # only models need them that do not tell positions by the place in the cache
        yield "positions", INT64, (None, None)
    yield from _cache("past.{}.self", layers, kept)
    if io.architecture == "encoder-decoder":
        yield from _memory(layers, kept)
    if with_head:
        yield _PICKED


def _variant_inputs(
    session: Session, io: Interface, stage: Stage, kept: Kept
) -> Iterator[Expected]:
    yield _hidden("hidden", io)
    yield "past_length", INT64, (None,)
    if "positions" in session.inputs:
        yield "positions", INT64, (None, None)
    yield from _cache("past.{}.self", range(stage.first, stage.last), kept)


def _stage_outputs(
    io: Interface, stage: Stage, kept: Kept, *, with_head: bool
) -> Iterator[Expected]:
    if with_head:
        yield from _scores(io)
    else:
        yield _hidden("hidden_out", io)
    if "low-rank" in stage.variants:  # anchors
        for layer in range(stage.first, stage.last - 1):
            yield _hidden(f"hidden.{layer}", io)
    yield from _cache("present.{}.self", range(stage.first, stage.last), kept)


def check_ports(
    graph: str, kind: str, found: Mapping[str, Port], expected: Iterable[Expected]
) -> None:
    """Compare the inputs or outputs of a graph; stops at the first that is not as expected."""
    names = set()
    for name, wanted, lengths in expected:
        port = found.get(name)
        if port is None:
            raise BundleError(
                f"{graph} has no {kind} {name!r}: it does not belong to this bundle's manifest; "
                "export the bundle again."
            )
        if port.type != wanted or not _fits(port.shape, lengths):
            raise BundleError(
                f"{kind} {name!r} of {graph} is {port.type} {_words(port.shape)} and not {wanted} "
                f"{_words(lengths)}: it does not belong to this bundle's manifest; export the "
                "bundle again."
            )
        names.add(name)
    for name in found.keys() - names:
        raise BundleError(
            f"{graph} has an {kind} {name!r} that this edgedec does not know: upgrade edgedec "
            "(pip install -U edgedec), or export the bundle again."
        )


def _fits(shape: tuple[str | int | None, ...], lengths: tuple[int | None, ...]) -> bool:
    return len(shape) == len(lengths) and all(
        axis == length if length is not None else not isinstance(axis, int)
        for axis, length in zip(shape, lengths, strict=True)
    )


def _words(shape: tuple[str | int | None, ...]) -> str:
    return f"[{', '.join('any' if axis is None else str(axis) for axis in shape)}]"
