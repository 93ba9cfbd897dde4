"""What a manifest may say about graphs of fixed shapes."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from edgedec.runtime.manifest import (
        Agreement,
        BiasTable,
        Component,
        FileEntry,
        Manifest,
        Static,
        StaticDecoder,
    )

LONGEST = 1 << 16
"""Tokens, positions and heads: more than any device takes, and few enough to multiply."""
CONTEXT = re.compile(r"[A-Za-z0-9_.-]+(\+[A-Za-z0-9_.-]+)*")
"""Systems on chip that a compiled graph is for."""
FLOAT = 4


def is_static(manifest: Manifest, component: str) -> bool:
    """Whether a component's graph has fixed shapes."""
    if manifest.static is None:
        return False
    encoder = component == manifest.encoder
    return (manifest.static.encoder if encoder else manifest.static.decoder) is not None


def static_components(m: Manifest) -> list[str]:
    """The components that only decoders of fixed shapes have."""
    decoder = None if m.static is None else m.static.decoder
    return [] if decoder is None or decoder.prefill is None else [decoder.prefill]


def static_problems(m: Manifest) -> dict[str, bool]:
    """What contradicts, and whether it does."""
    contexts = [c for c in m.components.values() if c.contexts]
    impossible = [n for n, c in m.components.items() if c.contexts and not _are_contexts(c)]
    problems = {
        "a component has compiled graphs and is none of fixed shapes": any(
            c.contexts and not is_static(m, name) for name, c in m.components.items()
        ),
        f"the compiled graphs of {', '.join(impossible)} cannot be": bool(impossible),
        "a compiled graph is not listed": any(
            file not in m.files for c in contexts for file in c.contexts.values()
        ),
    }
    if m.static is None:
        return problems
    static, decoder = m.static, m.static.decoder
    wrong = _wrong_sizes(m, static)
    return problems | {
        "'static' has neither an encoder nor a decoder": static.encoder is None and decoder is None,
        "'static' has an encoder and the model none": static.encoder is not None
        and m.encoder is None,
        f"a size in 'static' is out of range ({', '.join(wrong)})": bool(wrong),
        "a decoder of fixed shapes has more than one stage, or variants": decoder is not None
        and (len(m.stages) != 1 or m.head is not None or bool(m.stages[0].variants)),
        "'prefill' and 'chunk' contradict each other": decoder is not None
        and (decoder.prefill is None) != (decoder.chunk is None),
        "'static' and the encoder contradict each other": decoder is not None
        and (
            (decoder.source is None) != (m.encoder is None)
            or (static.encoder is not None and static.encoder.source != decoder.source)
        ),
        "longer inputs or outputs are allowed than 'static' takes": not _holds(m, static),
        "a table of biases is not listed, or not of its size": not all(
            _is_table(table, m.files.get(table.file)) for table in _tables(static)
        ),
        "a grid in 'static' cannot be": not all(
            grid.scale > 0 and abs(grid.zero_point) < 1 << 16 for grid in static.grids.values()
        ),
        "an error in 'projection' is below 0": any(e < 0 for e in static.projection.values()),
        "'agreement' cannot be": static.agreement is not None
        and not _is_possible(static.agreement),
    }


def _tables(static: Static) -> list[BiasTable]:
    return [part.bias for part in (static.encoder, static.decoder) if part is not None]


def _wrong_sizes(m: Manifest, static: Static) -> list[str]:
    """The sizes that are out of range, or tables that reach less far than they are read."""
    encoder, decoder = static.encoder, static.decoder
    sizes = {"kv_heads": static.kv_heads}
    reads = {}
    if encoder is not None:
        sizes["encoder.source"] = encoder.source
        reads["encoder"] = encoder.bias, encoder.source
    if decoder is not None:
        sizes["decoder.past"], sizes["decoder.unroll"] = decoder.past, decoder.unroll
        given = {"decoder.source": decoder.source, "decoder.chunk": decoder.chunk}
        sizes |= {name: size for name, size in given.items() if size is not None}
        reads["decoder"] = decoder.bias, decoder.past + _longest_run(decoder)
    for name, (table, _) in reads.items():
        sizes[f"{name}.bias.heads"] = table.heads
    wrong = [name for name, size in sizes.items() if not 0 < size <= LONGEST]
    wrong += [
        f"{name}.bias.reach"
        for name, (table, least) in reads.items()
        if not least <= table.reach <= 2 * LONGEST
    ]
    if not wrong and m.interface.kv_width % static.kv_heads != 0:
        wrong.append("kv_heads")
    return wrong


def _longest_run(decoder: StaticDecoder) -> int:
    return max(decoder.unroll, decoder.chunk or 1)


def _holds(m: Manifest, static: Static) -> bool:
    """Whether all that the interface allows fits."""
    io, encoder, decoder = m.interface, static.encoder, static.decoder
    sources = [part.source for part in (encoder, decoder) if part is not None]
    return all(
        source is None or (io.max_source is not None and io.max_source <= source)
        for source in sources
    ) and (decoder is None or (io.max_target is not None and io.max_target <= decoder.past + 1))


def _is_table(table: BiasTable, file: FileEntry | None) -> bool:
    return file is not None and file.bytes == table.heads * 2 * table.reach * FLOAT


def _are_contexts(component: Component) -> bool:
    from edgedec.runtime.manifest import GRAPH

    return (
        all(CONTEXT.fullmatch(name) for name in component.contexts)
        and all(GRAPH.fullmatch(file) for file in component.contexts.values())
        and component.file == next(iter(component.contexts.values()))
    )


def _is_possible(agreement: Agreement) -> bool:
    shares = (agreement.device, agreement.cpu, agreement.device_cpu)
    return (
        agreement.inputs > 0
        and agreement.tokens > 0
        and all(share is None or 0 <= share <= 1 for share in shares)
    )
