"""Graphs of fixed shapes for NPUs: passes over a bundle's graphs, and how their numbers are stored."""
