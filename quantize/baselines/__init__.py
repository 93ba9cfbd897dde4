"""What the field does beside learned codebooks: to compare with, and where no text is at hand."""
