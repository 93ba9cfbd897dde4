"""What graphs of fixed shapes must look like, checked before memory is bound to them.

The contract is written down in docs/bundle.md; see also `edgedec.runtime.contract`.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain

from edgedec.runtime.contract import FLOAT, Expected, check_ports
from edgedec.runtime.manifest import Grid, Interface, Static, StaticDecoder
from edgedec.runtime.session import Session
from edgedec.runtime.static.memory import PARTS
from edgedec.runtime.static.numbers import Numbers, numbers_of

INT32 = "tensor(int32)"


def check_static_encoder(session: Session, io: Interface, static: Static) -> dict[str, Numbers]:
    """Compare an encoder of fixed shapes with the manifest.

    Returns:
        How its outputs store their numbers, by name.

    Raises:
        BundleError: with the graph, the input or output, and what is wrong with it.
    """
    assert static.encoder is not None
    source, heads = static.encoder.source, static.encoder.bias.heads
    port = session.inputs.get("self.bias")
    # Rows are equal where the table says nothing but what is padding.
    rows = 1 if port is not None and port.shape[2:3] == (1,) else source
    inputs = (("input_ids", INT32, (1, source)), ("self.bias", FLOAT, (1, heads, rows, source)))
    check_ports(session.name, "input", session.inputs, inputs)
    check_ports(session.name, "output", session.outputs, _cross(session, io, static, source))
    return {
        name: numbers_of(session.name, name, port, static.grids)
        for name, port in session.outputs.items()
    }


def check_static_decoder(
    session: Session, io: Interface, static: Static, *, prefill: bool
) -> dict[str, Numbers]:
    """Compare a decoder of fixed shapes with the manifest, or what takes its prompts.

    Returns:
        How caches and the source's keys and values store their numbers, by the inputs' names.

    Raises:
        BundleError: as `check_static_encoder`.
    """
    decoder = static.decoder
    assert decoder is not None
    tokens = (decoder.chunk if prefill else decoder.unroll) or 1
    read = tokens if prefill else 1
    inputs = _decoder_inputs(session, io, static, decoder, read, tokens, prefill=prefill)
    check_ports(session.name, "input", session.inputs, inputs)
    chosen = 1 if prefill else tokens
    outputs: list[Expected] = [("next_token", INT32, (1, chosen))]
    if chosen == 1:
        outputs.append(("logits", FLOAT, (1, 1, io.vocab_size)))
    new = _rows(session, io, static.grids, tokens)
    check_ports(session.name, "output", session.outputs, chain(outputs, new))
    return {
        name: numbers_of(session.name, name, port, static.grids)
        for name, port in session.inputs.items()
        if name.startswith(("past.", "cross.")) and name != "cross.bias"
    }


def _decoder_inputs(
    session: Session,
    io: Interface,
    static: Static,
    decoder: StaticDecoder,
    read: int,
    tokens: int,
    *,
    prefill: bool,
) -> Iterator[Expected]:
    yield "input_ids", INT32, (1, read)
    if "positions" in session.inputs:  # only models need them that embed positions
        yield "positions", INT32, (1, tokens)
    yield "self.bias", FLOAT, (1, decoder.bias.heads, tokens, decoder.past + tokens)
    if prefill:
        yield "logit_positions", INT32, (1, 1)
    if decoder.source is not None:
        yield "cross.bias", FLOAT, (1, 1, 1, decoder.source)
        yield from _cross(session, io, static, decoder.source)
    yield from _heads("past.{}.self", session, io, static, decoder.past)


def _cross(session: Session, io: Interface, static: Static, source: int) -> Iterator[Expected]:
    return _heads("cross.{}", session, io, static, source)


def _heads(
    prefix: str, session: Session, io: Interface, static: Static, length: int
) -> Iterator[Expected]:
    """Keys and values with their heads apart."""
    heads = static.kv_heads
    depth = io.kv_width // heads
    shapes = {"key": (1, heads, depth, length), "value": (1, heads, length, depth)}
    for layer in range(io.decoder_layers):
        for part in PARTS:
            name = f"{prefix.format(layer)}.{part}"
            yield name, _type(session, name, static.grids), shapes[part]


def _rows(
    session: Session, io: Interface, grids: dict[str, Grid], count: int
) -> Iterator[Expected]:
    """New rows of the caches; their numbers are the caches'."""
    for layer in range(io.decoder_layers):
        for part in PARTS:
            cache = f"past.{layer}.self.{part}"
            kind = _type(session, cache, grids)
            yield f"new.{layer}.self.{part}", kind, (1, count, io.kv_width)


def _type(session: Session, name: str, grids: dict[str, Grid]) -> str:
    """The type of a port, which goes with its grid; of one that is missing, any."""
    port = session.inputs.get(name) or session.outputs.get(name)
    if port is None:
        return FLOAT
    numbers_of(session.name, name, port, grids)
    return port.type
