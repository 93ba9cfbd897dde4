"""How fast a bundle is on this machine, and where time, memory and bytes go (docs/metrics.md)."""
