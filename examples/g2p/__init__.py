"""Grapheme-to-phoneme conversion: the recipe behind the built-in ``g2p`` checkpoint."""
