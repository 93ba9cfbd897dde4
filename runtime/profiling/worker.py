"""``python -m edgedec.runtime.profiling.worker``: measures turns, in a process of its own.

A job comes in as one line of JSON; one line goes out: ``{"turn": ...}``, ``{"operators": ...,
"events": [...]}`` or ``{"error": sentence}``. The start of this process is one of the things that
are measured, so what is imported when is said here.
"""

from __future__ import annotations

import time

from edgedec.runtime.profiling.serve import keep_output, serve


def main() -> None:
    """Import what every user of edgedec imports, then what the profiler needs, and serve."""
    answers = keep_output()
    import onnxruntime  # noqa: F401

    import edgedec.runtime.generator  # noqa: F401

    imported = time.monotonic()
    from functools import partial

    from edgedec.runtime.profiling.turn import Start, carry_out

    start = Start(imported, time.monotonic() - imported)
    serve(partial(carry_out, {}, start), answers)


if __name__ == "__main__":
    main()
