"""Decoding over memory that stays in a device: caches of a fixed capacity, and what reads them."""
