"""Functionals of a policy on a finite outcome set: exact laws, win rates and their gradient.

`reward`, `policy` and `reference` always have one shape, (outcomes,) or (prompts, outcomes).
Rewards have any scale and may tie; probabilities sum to 1 over the outcomes and may be 0.
"""

import numpy as np
from scipy.special import rel_entr

from infalign import _check
from infalign.core._shapes import ArrayLike, Float, Real
from infalign.errors import ArgumentError

from .problem import Problem, Procedure, as_map
from .problem import selected as selection_law
from .world import World, probabilities

__all__ = ["as_numbers", "calibrated_reward", "coupled_reward", "kl", "selected", "win_rate"]

Input = Real[ArrayLike, "*prompts outcomes"]
Rows = Float[np.ndarray, "*prompts outcomes"]
PerPrompt = float | Float[np.ndarray, "prompts"]
"""One number per prompt; a float for a single prompt without a prompt axis."""


def calibrated_reward(reward: Input, reference: Input) -> Rows:
    """C(y) = E_{z ~ π_ref} w(y, z): the chance to beat a reference response; ties count one half.

    InfAlign, arXiv:2412.19792, eq. (4). Its mean under the reference is 1/2.

    >>> calibrated_reward([-3, 7, 7, 1e9], [0.25, 0.25, 0.25, 0.25]).tolist()
    [0.125, 0.5, 0.5, 0.875]
    """
    world = World.of(reward, reference)
    return world.as_given(world.at_outcomes(world.mid_rank(world.reference)))


def selected(reward: Input, policy: Input, procedure: Procedure) -> Rows:
    """T(π): the law of the response that `procedure` selects from its draws from the policy.

    If selection is by rank, a level of the reward gets H(F) − H(F⁻), split in proportion to the
    policy, since ties among the draws are broken at random.

    >>> from infalign import BestOfN
    >>> selected([0, 1, 1], [0.5, 0.25, 0.25], BestOfN(2)).tolist()
    [0.25, 0.375, 0.375]
    """
    world = World.of(reward, policy, name="policy")
    return world.as_given(selection_law(world, world.reference, as_map("procedure", procedure)))


def win_rate(
    reward: Input,
    policy: Input,
    reference: Input,
    procedure: Procedure,
    *,
    against: Procedure | None = None,
) -> PerPrompt:
    """W_T(π) = E_{y ~ T(π), z ~ T(π_ref)} w(y, z); ties count one half.

    - `procedure`: how the policy is decoded.
    - `against`: how the reference is decoded. Default: `procedure`.

    Returns one number per prompt; 1/2 for the reference against itself.

    >>> from infalign import BestOfN
    >>> win_rate([0, 1], [0.25, 0.75], [0.5, 0.5], BestOfN(2))      # ½ + ½ (0.5² - 0.25²)
    0.59375
    """
    world, rows = _placed(reward, policy, reference)
    problem = Problem.of(world, procedure, against)
    return as_numbers(world, problem.win_rate(problem.columns(rows)))


def coupled_reward(
    reward: Input,
    policy: Input,
    reference: Input,
    procedure: Procedure,
    *,
    against: Procedure | None = None,
) -> Rows:
    """R(y) = ∂W_T(π) / ∂π(y): a best policy is the KL-regularized optimum of its own R.

    InfAlign, arXiv:2412.19792, theorem 1. R is defined up to a constant per prompt, which is chosen
    such that Σ π(y) R(y) = W_T(π). For plain sampling R = C, the calibrated reward, at every
    policy.

    >>> from infalign import Sampling
    >>> coupled_reward([0, 1], [0.25, 0.75], [0.5, 0.5], Sampling()).tolist()
    [0.25, 0.75]
    """
    world, rows = _placed(reward, policy, reference)
    problem = Problem.of(world, procedure, against)
    columns = problem.columns(rows)
    coupled = problem.gradient(columns, problem.win_rate(columns))
    return world.as_given(problem.at_outcomes(coupled))


def kl(policy: Input, reference: Input) -> PerPrompt:
    """KL(policy ‖ reference) in nats for each prompt; inf if the policy has an outcome that the
    reference lacks.

    >>> round(kl([1.0, 0.0], [0.5, 0.5]), 6)
    0.693147
    """
    reference = _check.numbers("reference", reference)
    if reference.ndim not in (1, 2) or not reference.size:
        raise ArgumentError(
            "reference",
            "must be a non-empty array of shape (outcomes,) or (prompts, outcomes); got shape "
            f"{reference.shape}.",
        )
    world, rows = _placed(np.zeros(reference.shape), policy, reference)
    return as_numbers(world, rel_entr(rows, world.reference).sum(1))


def as_numbers(world: World, per_prompt: np.ndarray) -> PerPrompt:
    """One number per prompt; a plain float for a single prompt without a prompt axis."""
    return float(per_prompt[0]) if world.single else per_prompt


def _placed(reward: Input, policy: Input, reference: Input) -> tuple[World, np.ndarray]:
    """The world, and the policy as rows."""
    world = World.of(reward, reference)
    shape = world.as_given(world.reward).shape
    return world, np.atleast_2d(probabilities("policy", policy, shape))
