"""NVIDIA GPUs: graphs whose caches stay in their memory, and engines of them."""
