"""The parts of `benchmarks/depth.py`."""
