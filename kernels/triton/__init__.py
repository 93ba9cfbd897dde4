"""Kernels for NVIDIA GPUs in Triton's language; `edgedec.kernels.ptx` has them compiled."""
