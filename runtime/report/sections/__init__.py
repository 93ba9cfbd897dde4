"""What the page of a profile consists of: each section shows one thing, where it was measured."""
