"""The command line: one file per verb, each loaded only when it is used."""


def main() -> None:
    """Entry point of the `edgedec` command (being written)."""
    raise SystemExit("not yet")
