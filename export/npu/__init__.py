"""From a checkpoint or a bundle to one with graphs of fixed shapes, for NPUs (docs/npu.md)."""
