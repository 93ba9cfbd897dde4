"""Does a token cost more when the request allows more tokens?

    python benchmarks/step_cost.py BUNDLE

Caches grow with what is generated, not with what may be, and are never copied from step to step.
So token 60 must cost the same whether 128 or 2,048 new tokens are allowed. Prints both medians
and their ratio, taken in turns; exits with 1 if they differ by more than 10 %.
"""

from __future__ import annotations

import itertools
import statistics
import sys
import time

import click

import edgedec

ALLOWED = (128, 2048)
TOKENS = range(55, 66)


@click.command()
@click.argument("bundle")
@click.option("--rounds", default=15, show_default=True)
@click.option("--threads", default=1, show_default=True)
def main(bundle: str, rounds: int, threads: int) -> None:
    """Time tokens 55 to 65 of requests that allow 128 and 2,048 tokens."""
    generator = edgedec.load(bundle, threads=threads)
    source = list(range(5, 69))

    def step_ms(allowed: int) -> float:
        """Median milliseconds per token around token 60."""
        # No end token: both requests run as long as they are asked.
        chunks = generator.stream(source, max_new_tokens=allowed, eos_token_ids=[], num_beams=1)
        times = [time.perf_counter() for _ in itertools.islice(chunks, TOKENS.stop)]
        chunks.close()
        return 1e3 * statistics.median(times[t] - times[t - 1] for t in TOKENS)

    step_ms(ALLOWED[0])
    samples = [[step_ms(allowed) for allowed in ALLOWED] for _ in range(rounds)]
    short, long = (statistics.median(column) for column in zip(*samples, strict=True))
    ratio = statistics.median(b / a for a, b in samples)
    click.echo(
        f"token 60: {short:.3f} ms with {ALLOWED[0]} tokens allowed, {long:.3f} ms with "
        f"{ALLOWED[1]:,}; median ratio {ratio:.3f} over {rounds} rounds"
    )
    sys.exit(0 if abs(ratio - 1) <= 0.10 else 1)


if __name__ == "__main__":
    main()
