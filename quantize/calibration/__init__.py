"""Run a model piece by piece over a text, and learn its matrices on what they read."""
