"""NPUs: a bundle's graphs with fixed shapes, and how their numbers are stored."""
