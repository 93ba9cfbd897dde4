"""Rewrites of graphs that put our own operators in the place of standard ones."""
