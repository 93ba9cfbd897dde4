"""Turn floating-point weights into codebook weights. Knows nothing of architectures."""
