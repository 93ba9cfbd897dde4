"""Blocks: each function emits one piece of a graph from a `ModelSpec`."""
