"""How the verbs talk to a terminal: logs, progress, lines of input and output."""
