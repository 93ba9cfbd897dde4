"""What is trained for each kind of depth policy: one objective per file."""
