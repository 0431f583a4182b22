"""Evaluation: unbiased estimates from samples, with honest intervals."""
