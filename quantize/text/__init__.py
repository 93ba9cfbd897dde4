"""Texts to calibrate on: files, samples, batches."""
