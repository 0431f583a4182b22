"""Exact results for finitely many outcomes per prompt, ties included.

If outcomes can be listed, everything about inference-time alignment is a sum: the distribution of
the selected response, the win rate, its gradient, the coupled reward and the policy that it is
coupled to (InfAlign, arXiv:2412.19792, theorem 1). These sums need neither quadrature nor sampling,
so they are the ground truth for the rest of the package.
"""

from .functionals import calibrated_reward, coupled_reward, kl, selected, win_rate
from .majority import MajorityVote
from .maps import AbstractMap, Custom
from .solve import Solution, solve

__all__ = [
    "AbstractMap",
    "Custom",
    "MajorityVote",
    "Solution",
    "calibrated_reward",
    "coupled_reward",
    "kl",
    "selected",
    "solve",
    "win_rate",
]


def __getattr__(name: str) -> object:
    if name == "kept":  # its former name
        return selected
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
