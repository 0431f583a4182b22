"""Solvers of the optimal policy: rank procedures, soft procedures, the iteration of the paper."""
