"""What a policy is worth on a finite outcome set: exact laws, win rates and their gradient.

Everywhere `reward`, `policy` and `reference` have one shape, (outcomes,) or (prompts, outcomes).
Rewards have any scale and may tie; probabilities sum to 1 over the outcomes and may be 0.
"""

import numpy as np
from scipy.special import rel_entr

from .problem import Problem, as_map
from .problem import selected as selection_law
from .world import World, probabilities


def calibrated_reward(reward, reference) -> np.ndarray:
    """C(y) = E_{z ~ π_ref} w(y, z): the chance to beat a reference response, ties counted one half.

    InfAlign, arXiv:2412.19792, eq. (4). Its mean under the reference is 1/2.

    >>> calibrated_reward([-3, 7, 7, 1e9], [0.25, 0.25, 0.25, 0.25]).tolist()
    [0.125, 0.5, 0.5, 0.875]
    """
    world = World.of(reward, reference)
    return world.as_given(world.at_outcomes(world.mid_rank(world.reference)))


def selected(reward, policy, procedure) -> np.ndarray:
    """T(π): the law of the response that `procedure` keeps out of its draws from the policy.

    By rank, a level of the reward gets H(F) − H(F⁻), split in proportion to the policy: a tie
    among the draws is broken at random.

    >>> from infalign import BestOfN
    >>> selected([0, 1, 1], [0.5, 0.25, 0.25], BestOfN(2)).tolist()
    [0.25, 0.375, 0.375]
    """
    world = World.of(reward, policy, name="policy")
    return world.as_given(selection_law(world, world.reference, as_map("procedure", procedure)))


def win_rate(reward, policy, reference, procedure, *, against=None):
    """W_T(π) = E_{y ~ T(π), z ~ T(π_ref)} w(y, z), ties counted one half.

    - `procedure`: how the policy is decoded.
    - `against`: how the reference is decoded; `procedure` unless given.

    One number per prompt; 1/2 for the reference against itself.

    >>> from infalign import BestOfN
    >>> win_rate([0, 1], [0.25, 0.75], [0.5, 0.5], BestOfN(2))      # ½ + ½ (0.5² - 0.25²)
    0.59375
    """
    world, rows = _placed(reward, policy, reference)
    problem = Problem.of(world, procedure, against)
    return as_numbers(world, problem.win_rate(problem.columns(rows)))


def coupled_reward(reward, policy, reference, procedure, *, against=None) -> np.ndarray:
    """R(y) = ∂W_T(π) / ∂π(y), the reward whose KL-regularized optimum a best policy is.

    InfAlign, arXiv:2412.19792, theorem 1. A constant within a prompt does not matter; here it makes
    Σ π(y) R(y) = W_T(π). For plain sampling R = C, the calibrated reward, at every policy.

    >>> from infalign import Sampling
    >>> coupled_reward([0, 1], [0.25, 0.75], [0.5, 0.5], Sampling()).tolist()
    [0.25, 0.75]
    """
    world, rows = _placed(reward, policy, reference)
    problem = Problem.of(world, procedure, against)
    policy = problem.columns(rows)
    coupled = problem.gradient(policy, problem.win_rate(policy))
    return world.as_given(problem.at_outcomes(coupled))


def kl(policy, reference):
    """KL(policy ‖ reference) in nats for each prompt; inf where the reference lacks an outcome.

    >>> round(kl([1.0, 0.0], [0.5, 0.5]), 6)
    0.693147
    """
    world, rows = _placed(np.zeros(np.shape(reference)), policy, reference)
    return as_numbers(world, rel_entr(rows, world.reference).sum(1))


def as_numbers(world: World, per_prompt: np.ndarray):
    """One number per prompt; a plain float where there is one prompt without an axis."""
    return float(per_prompt[0]) if world.single else per_prompt


def _placed(reward, policy, reference) -> tuple[World, np.ndarray]:
    world = World.of(reward, reference)
    shape = world.as_given(world.reward).shape
    return world, np.atleast_2d(probabilities("policy", policy, shape))
