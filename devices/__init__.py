"""What can lower a bundle for a target and open it there. Knows nothing of checkpoints."""
