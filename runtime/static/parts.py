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
    problems = {
        "a component has compiled graphs and is none of fixed shapes": any(
            c.contexts and not is_static(m, name) for name, c in m.components.items()
        ),
        "the compiled graphs of a component cannot be": not all(map(_are_contexts, contexts)),
        "a compiled graph is not listed": any(
            file not in m.files for c in contexts for file in c.contexts.values()
        ),
    }
    if m.static is None:
        return problems
    static, decoder = m.static, m.static.decoder
    return problems | {
        "'static' has neither an encoder nor a decoder": static.encoder is None and decoder is None,
        "'static' has an encoder and the model none": static.encoder is not None
        and m.encoder is None,
        "a size in 'static' is out of range": not _fits(m, static),
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


def _fits(m: Manifest, static: Static) -> bool:
    """Whether sizes are in range, and tables reach as far as they are read."""
    encoder, decoder = static.encoder, static.decoder
    sizes = [static.kv_heads, *(n for t in _tables(static) for n in (t.heads, (t.reach + 1) // 2))]
    reaches = True
    if encoder is not None:
        sizes.append(encoder.source)
        reaches = encoder.bias.reach >= encoder.source
    if decoder is not None:
        sizes += [1 if n is None else n for n in (decoder.source, decoder.chunk)]
        sizes += [decoder.past, decoder.unroll]
        reaches = reaches and decoder.bias.reach >= decoder.past + _longest_run(decoder)
    return (
        all(0 < size <= LONGEST for size in sizes)
        and m.interface.kv_width % static.kv_heads == 0
        and reaches
    )


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
