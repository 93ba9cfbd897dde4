"""What ``gpu.py`` measures: products of matrices and decoding on NVIDIA GPUs."""
