"""`python -m edgedec` and the `edgedec` command."""

from edgedec.cli import main

if __name__ == "__main__":
    main()
