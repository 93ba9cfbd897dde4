"""Run graphs of fixed shapes, as NPUs want them."""
