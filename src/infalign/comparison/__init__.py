"""Policies × procedures × rewards on held-out prompts, from one set of samples."""
