"""TensorRT's plugin for codebook weights."""
