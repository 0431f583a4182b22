"""Solvers for the optimal policy: rank procedures, soft procedures, the paper's iteration."""
