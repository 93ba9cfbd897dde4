"""Other programs that do the same work, to compare with: only they may import torch here."""
