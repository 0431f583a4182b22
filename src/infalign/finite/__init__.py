"""The exact world: finitely many outcomes per prompt, ties included.

Where outcomes can be listed, everything about inference-time alignment is a sum: the law of the
kept response, the win rate, its gradient, the coupled reward and the policy it is coupled to
(InfAlign, arXiv:2412.19792, theorem 1). No quadrature, no sampling; the ground truth for the rest.
"""

from .functionals import calibrated_reward as calibrated_reward
from .functionals import coupled_reward as coupled_reward
from .functionals import kept as kept
from .functionals import kl as kl
from .functionals import win_rate as win_rate
from .majority import MajorityVote as MajorityVote
from .maps import AbstractMap as AbstractMap
from .maps import Custom as Custom
from .solve import Solution as Solution
from .solve import solve as solve
