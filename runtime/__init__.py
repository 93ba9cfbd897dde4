"""Run bundles: sessions, caches, search, text. Knows nothing of checkpoints or Hugging Face."""
