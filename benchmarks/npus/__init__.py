"""What `benchmarks/npu.py` is made of."""
