"""Exports for GPUs: the ordinary bundle, with limits, and a check of what is made of it there."""
