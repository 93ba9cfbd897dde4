"""English to German: how a small T5 is trained that `edgedec` exports."""
