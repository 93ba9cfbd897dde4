"""Depth policies: which stages of the decoder run at a step, and how. One file for each policy."""
