"""What a policy does with every decoder layer at every step, read from its own planner."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from edgedec.runtime.depth.layout import Layout
from edgedec.runtime.depth.plan import Policy, Request, Signals

if TYPE_CHECKING:
    from torch import Tensor

    from edgedec.adapt.twin import Hook, LowRank, Run
else:
    Tensor = Any

SKIP, LOW, FULL = 0, 1, 2
ACTIONS = {"full": FULL, "low-rank": LOW}


def action_table(policy: Policy, layers: int, steps: int) -> NDArray[np.int8]:
    """What the policy does: ``[steps + 1, layers]`` of SKIP, LOW or FULL; step 0 is the prompt.

    Args:
        policy: one whose plans depend on the step only.
        layers: of the decoder.
        steps: as many as there are rows after the prompt.
    """
    every = frozenset(range(layers))
    stages = tuple((i, i + 1) for i in range(layers))
    layout = Layout(stages, fill=every, low_rank=every - {0}, routers=every, meta=True)
    request = Request(rows=1, limit=max(steps, 1), sources=None, prompts=((0,),))
    planner = policy.start(layout, request)
    table = np.full((steps + 1, layers), SKIP, np.int8)
    table[0] = FULL
    for step in range(1, steps + 1):
        for run in planner.plan(step, Signals(tokens=(0,))).passes:
            table[step, run.stage] = ACTIONS[run.variant]
    return table


def at_positions(table: NDArray[np.int8], prompt: int, positions: int) -> NDArray[np.int8]:
    """The table's rows ``[positions, layers]`` for a target whose first tokens are the prompt."""
    step = np.maximum(np.arange(positions) - prompt + 1, 0)
    rows: NDArray[np.int8] = table[step]
    return rows


def follow(actions: NDArray[np.int8], low: dict[int, LowRank] | None = None) -> Hook:
    """A hook that does to every position what ``actions [T, layers]`` says.

    A layer's keys and values come from what stands before it at every position that it does not
    skip, as in the runtime's caches; once it skips one it is done.

    Args:
        actions: SKIP, LOW or FULL.
        low: layer -> its correction, for LOW.
    """

    def hook(layer: int, x: Tensor, run: Run) -> Tensor:
        import torch

        column = actions[:, layer]
        if (column == FULL).all():
            return run(x)
        kept = np.flatnonzero(column != SKIP)
        reach = int(kept[-1]) + 1 if len(kept) else 0
        y = run(x[:, :reach])
        here = column[:reach]
        if (here == LOW).any():
            assert low is not None
            full = here == FULL
            # the newest position before, or itself, that ran in full
            anchor = np.maximum.accumulate(np.where(full, np.arange(reach), 0))
            part = low[layer]
            part_of = part.scaling * ((x[:, :reach] @ part.a.T) @ part.b.T)
            places = torch.from_numpy(anchor).to(x.device)
            is_full = torch.from_numpy(full).to(x.device)[None, :, None]
            y = torch.where(is_full, y, y[:, places] + part_of)
        return torch.cat([y, x[:, reach:]], 1) if reach < x.shape[1] else y

    return hook
