"""What happened while generating: how deep tokens went, which drafts held, where time was spent."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class Statistics:
    """Counted over one or several batches, without their prompts and what followed these at once.

    Attributes:
        source_tokens: tokens read: the encoder's sources, or prompts of decoder-only models.
        tokens: tokens that steps after the prompt chose, for rows that had not ended.
        steps: steps of the decode loop (with drafts: rounds).
        layers: decoder layers executed in full, summed over positions of live rows; a rejected
            draft's layers count too, and those of a batch's other rows.
        exits: layers executed in full below the head that chose a token -> such tokens.
        drafted: tokens drafted,
        accepted: and accepted.
        seconds: by what ran: ``encode``, ``prompt`` (all of it), and after the prompt ``stages``,
            ``fill``, ``low-rank``, ``head``.
        total_seconds: wall clock from the first step after the prompt to the end.
        cache_bytes: of self-attention's keys and values at the end, of the largest batch,
        cross_bytes: and cross-attention's; 0 unless spans were taken.
    """

    source_tokens: int = 0
    tokens: int = 0
    steps: int = 0
    layers: int = 0
    exits: dict[int, int] = field(default_factory=dict)
    drafted: int = 0
    accepted: int = 0
    seconds: dict[str, float] = field(default_factory=dict)
    total_seconds: float = 0.0
    cache_bytes: int = 0
    cross_bytes: int = 0

    @property
    def mean_layers(self) -> float | None:
        """Layers executed per generated token; None before there is one."""
        return self.layers / self.tokens if self.tokens else None

    @property
    def acceptance(self) -> float | None:
        """Fraction of drafts that held; None without drafts."""
        return self.accepted / self.drafted if self.drafted else None
