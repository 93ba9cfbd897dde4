"""Codes, levels and scales fitted to each other on the second moments of inputs."""
