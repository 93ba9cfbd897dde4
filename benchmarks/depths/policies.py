"""Which policies are measured on which model, as texts of ``--depth``."""

from __future__ import annotations

G2P = (
    *(f"early-exit:threshold={t},tau=0" for t in (0.3, 0.5, 0.7, 0.9, 0.95)),
    *(f"early-exit:threshold={t},tau=0,min=2" for t in (0.5, 0.9, 0.95)),
    *(f"early-exit:measure=softmax_max,threshold={t}" for t in (0.5, 0.7, 0.9)),
    *(f"early-exit:measure=state,threshold={t}" for t in (0.8, 0.9)),
    *(f"free:exit={e},threshold={t}" for e in (1, 2) for t in (0.5, 0.8)),
    *(f"layerskip:exit={e},drafts={g}" for e in (1, 2, 3) for g in (2, 4, 7)),
    "del",
    "ngram",
    *(f"skipdecode:{s}" for s in ("min=1,max=3,length=12", "min=2,max=3,length=12")),
    *(f"unified:layers={n}" for n in (2, 3)),
    "d3:alpha=0.95",
)
LM = (
    *(f"layerskip:exit={e},drafts={g}" for e in range(1, 8) for g in (2, 4)),
    "del",
    *(f"ngram:drafts={g}" for g in (3, 6)),
    *(f"free:exit={e},threshold={t}" for e in (2, 4) for t in (0.5, 0.8)),
    *(f"early-exit:threshold={t}" for t in (0.5, 0.8)),
    *(f"early-exit:measure=state,threshold={t}" for t in (0.9, 0.95)),
    *(f"skipdecode:{s}" for s in ("min=2,max=6", "min=4,max=8")),
    *(f"unified:layers={n}" for n in (4, 6)),
    "d3:alpha=0.99",
)
ADAPTED = {
    "skipdecode": ("min=1,max=3,length=12", "min=2,max=3,length=12", "min=2,max=6", "min=4,max=8"),
    "lora-drop": ("cycle=2", "cycle=3", "cycle=4", "cycle=6", "cycle=8", "cycle=12"),
    "first": ("threshold=0.5", "layers=2", "layers=3", "layers=4", "layers=6"),
    "early-exit": (
        *(f"measure=meta,threshold={t}" for t in (0.1, 0.3, 0.5, 0.7, 0.9)),
        *(f"measure=softmax_diff,threshold={t}" for t in (0.5, 0.7, 0.9)),
    ),
}
"""For a checkpoint that ``edgedec adapt`` made for a policy; beside its own parameters."""
EXPORTED = ("early-exit", "del", "ngram")
"""What a bundle is exported for, with a stage for every layer; early exit needs fill variants."""
