"""The parts of `benchmarks/jlcm.py`."""
