"""Targets that the model writes itself, for texts without."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from edgedec.adapt.twin import Twin

LONGEST = 64
"""Tokens of a target."""
TOGETHER = 32
"""Targets that are written side by side."""

Ids = tuple[int, ...]


def write_targets(
    twin: Twin,
    sources: Sequence[Ids],
    *,
    start: int,
    ends: Sequence[int],
    report: Callable[[float], None] = lambda _: None,
) -> list[Ids]:
    """Decode greedily at full depth; sources of like length should be neighbours.

    Args:
        twin: an encoder-decoder.
        sources: its inputs.
        start: the decoder's first input.
        ends: tokens that end a target, and are part of it.
        report: told the fraction done.
    """
    written: list[Ids] = []
    for begin in range(0, len(sources), TOGETHER):
        report(begin / len(sources))
        written += _write(twin, sources[begin : begin + TOGETHER], start, frozenset(ends))
    return written


def _write(twin: Twin, sources: Sequence[Ids], start: int, ends: frozenset[int]) -> list[Ids]:
    import torch

    longest = max(map(len, sources))
    ids = torch.zeros(len(sources), longest, dtype=torch.int64)
    mask = torch.zeros_like(ids)
    for row, source in enumerate(sources):
        ids[row, : len(source)] = torch.tensor(source)
        mask[row, : len(source)] = 1
    limit = min(LONGEST, (twin.spec.max_target or LONGEST + 1) - 1)
    with torch.no_grad():
        memory = twin.encode(ids.to(twin.device), mask.to(twin.device))
        target = torch.full((len(sources), 1), start, device=twin.device)
        ended = torch.zeros(len(sources), dtype=torch.bool, device=twin.device)
        # Without caches: targets are short, and this is done once.
        while target.shape[1] <= limit and not ended.all():
            token = twin.head(twin.decode(target, memory)[-1][:, -1]).argmax(-1)
            target = torch.cat([target, token[:, None]], 1)
            for end in ends:
                ended |= token == end
    return [_until(row[1:], ends) for row in target.tolist()]


def _until(row: list[int], ends: frozenset[int]) -> Ids:
    stop = next((i + 1 for i, token in enumerate(row) if token in ends), len(row))
    return tuple(row[:stop])
