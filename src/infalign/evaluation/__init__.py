"""Evaluation: unbiased estimates from samples, with intervals whose coverage is tested."""
