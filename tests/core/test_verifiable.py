"""Atoms: rewards that pass or fail, and transforms averaged over what ties share."""

import numpy as np
import pytest
from contracts import law
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import brentq, minimize_scalar
from scipy.special import expit, logit, rel_entr

import infalign as ia
from infalign.core import verifiable

PROCEDURES = [
    ia.Sampling(),
    ia.BestOfN(4),
    ia.WorstOfN(3),
    ia.OrderStatistic(5, 2),
    ia.BestOfPoisson(3.0),
]
every_procedure = pytest.mark.parametrize("procedure", PROCEDURES, ids=repr)
chance = st.floats(0.01, 0.99)


def objective(p, reference, procedure, beta):
    kl = p * np.log(p / reference) + (1 - p) * np.log((1 - p) / (1 - reference))
    return verifiable.win_rate(p, reference, procedure) - beta * kl


@law
@given(chance, chance, st.integers(1, 64))
def test_winning_with_best_of_n_is_pass_at_n(p, reference, n):
    # W - 1/2 = 1/2 (P(a pass among n of the policy's) - P(one among n of the reference's)).
    passing, reference_passing = 1 - (1 - p) ** n, 1 - (1 - reference) ** n
    optimum = verifiable.win_rate(p, reference, ia.BestOfN(n))
    assert optimum == pytest.approx(0.5 + (passing - reference_passing) / 2, abs=1e-12)


@every_procedure
def test_winning_against_simulation(procedure):
    # Policy and reference draw passes as quantiles above 1 - p; what is kept passes or not.
    from contracts import keep

    rng, p, reference = np.random.default_rng(3), 0.6, 0.25
    drawn = iter(rng.random, None)
    ours = np.array([keep(procedure, drawn, rng) >= 1 - p for _ in range(20_000)], float)
    theirs = np.array([keep(procedure, drawn, rng) >= 1 - reference for _ in range(20_000)], float)
    wins = (ours > theirs) + 0.5 * (ours == theirs)
    stderr = wins.std() / np.sqrt(wins.size)
    assert abs(verifiable.win_rate(p, reference, procedure) - wins.mean()) < 4 * stderr


@every_procedure
@law
@given(reference=chance, beta=st.floats(0.05, 3))
def test_no_other_pass_rate_is_better(procedure, reference, beta):
    best = verifiable.solve(reference, procedure, beta=beta)
    grid = np.linspace(1e-6, 1 - 1e-6, 4001)
    at = grid[np.argmax(objective(grid, reference, procedure, beta))]
    near = (max(at - 5e-4, 1e-9), min(at + 5e-4, 1 - 1e-9))
    other = minimize_scalar(
        lambda p: -objective(p, reference, procedure, beta), bounds=near, method="bounded"
    )
    assert best.win_rate - beta * best.kl >= -other.fun - 1e-10


@every_procedure
@pytest.mark.parametrize("beta", [0.1, 0.6])
def test_the_finite_world_has_the_same_optimum(procedure, beta):
    optimum = verifiable.solve([0.3], procedure, beta=beta)
    world = ia.finite.solve([0.0, 1.0], [0.7, 0.3], procedure, beta)
    assert world.policy[1] == pytest.approx(optimum.pass_rate[0], abs=1e-9)
    assert world.win_rate == pytest.approx(optimum.win_rate, abs=1e-9)
    assert world.kl == pytest.approx(optimum.kl, abs=1e-9)
    # The coupled reward's gap is the training reward.
    gap = world.coupled_reward[1] - world.coupled_reward[0]
    assert gap == pytest.approx(optimum.reward_gap[0], abs=1e-8)


def test_the_reward_gap_makes_ordinary_rl_find_the_optimum():
    optimum = verifiable.solve([0.1, 0.4, 0.7], ia.BestOfN(4), kl=0.2)
    odds = np.log([1 / 9, 2 / 3, 7 / 3]) + optimum.reward_gap / optimum.beta
    np.testing.assert_allclose(optimum.pass_rate, 1 / (1 + np.exp(-odds)), rtol=1e-9)
    assert optimum.kl == pytest.approx(0.2, rel=1e-9)
    # By hand: pass@4 training pays n/2 (1 - p)^3 for a pass.
    np.testing.assert_allclose(optimum.reward_gap, 2 * (1 - optimum.pass_rate) ** 3, rtol=1e-12)


def test_prompts_that_always_pass_or_fail_are_left_alone():
    optimum = verifiable.solve([0.0, 0.5, 1.0], ia.BestOfN(2), beta=0.2)
    assert optimum.pass_rate[[0, 2]].tolist() == [0, 1]
    assert optimum.pass_rate[1] > 0.5


def test_the_continuous_theory_is_not_that_of_atoms():
    # Best-of-8 at β = .1, three in ten pass. The quantile axis promises .96; two atoms give .53.
    # Of that, training on the continuous optimum's values at mid-ranks loses a part, on its
    # averages over the atoms hardly any.
    procedure, beta, reference = ia.BestOfN(8), 0.1, 0.3
    exact = verifiable.solve([reference], procedure, beta=beta)
    continuous = ia.design(procedure, beta=beta)
    assert continuous.win_rate - exact.win_rate > 0.3

    def trained(gap):
        odds = np.log(reference / (1 - reference)) + gap / beta
        p = 1 / (1 + np.exp(-odds))
        return float(objective(p, reference, procedure, beta))

    best = exact.win_rate - beta * exact.kl
    phi = continuous.transform
    at_middle = phi(1 - reference / 2) - phi((1 - reference) / 2)
    averaged = phi.average(1 - reference, 1) - phi.average(0, 1 - reference)
    assert trained(exact.reward_gap[0]) == pytest.approx(best, abs=1e-9)
    assert trained(at_middle) < best - 0.01
    assert best - 0.001 < trained(averaged) < best


def test_a_tied_reward_is_shaped_by_the_average_over_its_quantiles():
    # Reference: six fail, two pass. Quantiles of failing: 0 to .75, of passing: .75 to 1.
    store = ia.CalibrationStore.from_rewards(["p"], [[0.0] * 6 + [1.0] * 2])
    transform = ia.Exponential(4.0)
    shaped = ia.ShapedReward(lambda prompts, completions, **_: [0.0, 1.0], store, transform)
    values = shaped(prompts=["?", "?"], completions=["a", "b"], prompt_id=["p", "p"])
    nodes = np.linspace(0, 1, 200_001)
    expected = [transform(0.75 * nodes).mean(), transform(0.75 + 0.25 * nodes).mean()]
    assert values == pytest.approx(expected, abs=1e-5)
    assert values[0] != pytest.approx(float(transform(0.375)), abs=0.01)
    assert store.tied() == pytest.approx((6 * 5 + 2 * 1) / (8 * 7))
    assert store.intervals(["p"], [0.5])[0] == store.intervals(["p"], [0.5])[1] == 0.75


def test_unbounded_transforms_are_averaged_over_atoms_too():
    store = ia.CalibrationStore.from_rewards(["p"], [[0.0] * 3 + [1.0]])
    shaped = ia.ShapedReward(
        lambda prompts, completions, **_: [0.0], store, ia.Log(), smoothing="add-half"
    )
    # Add-half: from (0 + .5)/5 to (3 + .5)/5.
    (value,) = shaped(prompts=["?"], completions=["a"], prompt_id=["p"])
    low, high = 0.1, 0.7
    expected = (high * np.log(high) - high - low * np.log(low) + low) / (high - low)
    assert value == pytest.approx(expected)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"reference": [1.2], "kl": 0.1}, r"`reference` must lie in \[0, 1\]; got 1.2"),
        ({"reference": [0.2]}, r"Give exactly one of `kl` \(nats\) and `beta`"),
        ({"reference": [0.2], "kl": -1.0}, r"`kl` must be above 0; got -1"),
        (
            {"reference": [0.2], "kl": 9.0},
            r"No pass rates cost kl=9 nats on average .* always passes costs 1\.6",
        ),
        (
            {"reference": [0.0], "kl": 0.1},
            r"No pass rates cost kl=0\.1 nats .* always passes costs 0\.",
        ),
        (
            {"reference": [0.2], "kl": 0.1, "procedure": ia.Rewind(0.5, 2)},
            r"`procedure` must be a procedure that selects by rank, such as .*; got Rewind",
        ),
    ],
)
def test_bad_input_is_refused(arguments, message):
    with pytest.raises(ValueError if "No pass" not in message else ia.SolveError, match=message):
        verifiable.solve(**{"procedure": ia.BestOfN(4), **arguments})


def drawn_procedure(rng):
    """A procedure of a random family and size, mixtures of three families included."""
    n = int(rng.integers(2, 80))
    families = [
        ia.WorstOfN(n),
        ia.BestOfN(n),
        ia.OrderStatistic(n, int(rng.integers(1, n + 1))),
        ia.BestOfPoisson(float(rng.uniform(0, 30))),
    ]
    kind = rng.integers(5)
    if kind < 4:
        return families[kind]
    weights = rng.dirichlet([1, 1, 1])
    return ia.Mixture(tuple(families[:3]), tuple(weights / weights.sum()))


def best_on_a_grid(start, procedure, beta):
    """The largest objective over 30,000 changes of the log-odds, dense near 0 and up to 1,400."""
    change = np.concatenate([np.linspace(0, 40, 25_000), np.geomspace(40, 1400, 5000)])
    passing, failing = expit(logit(start) + change), expit(-logit(start) - change)
    kl = rel_entr(passing, start) + rel_entr(failing, 1 - start)
    ours, theirs = procedure.cdf(failing), procedure.cdf(1 - start)
    return (0.5 + 0.5 * (theirs - ours) - beta * kl).max()


@pytest.mark.parametrize("seed", range(60))
def test_no_solution_is_missed_in_any_family(seed):
    rng = np.random.default_rng(seed)
    procedure, start = drawn_procedure(rng), float(expit(rng.normal(0, 2.5)))
    beta = float(np.exp(rng.uniform(-6, 1)))
    best = verifiable.solve([start], procedure, beta=beta)
    assert best.win_rate - beta * best.kl >= best_on_a_grid(start, procedure, beta) - 1e-10
    # The training reward leads to the pass rate.
    change = logit(start) + best.reward_gap[0] / beta
    assert expit(change) == pytest.approx(best.pass_rate[0], abs=1e-12)


def test_a_small_beta_moves_worst_of_n_to_always_passing():
    best = verifiable.solve([0.3], ia.WorstOfN(8), beta=0.05)
    assert best.win_rate - 0.05 * best.kl == pytest.approx(0.93977, abs=1e-5)


@pytest.mark.parametrize("seed", range(40))
def test_every_budget_of_one_prompt_is_answered(seed):
    rng = np.random.default_rng(seed)
    procedure, start = drawn_procedure(rng), float(expit(rng.normal(0, 2.5)))
    budget = float(rng.uniform(0.01, 0.99)) * -np.log(start)
    best = verifiable.solve([start], procedure, kl=budget)
    assert best.kl == pytest.approx(budget, rel=1e-9) and best.gap == 0
    assert best.pass_rate[0] > start


@pytest.mark.parametrize("seed", range(10))
def test_every_budget_of_several_prompts_is_answered_with_its_gap(seed):
    rng = np.random.default_rng(seed)
    procedure, start = drawn_procedure(rng), expit(rng.normal(0, 2, 3))
    budget = float(rng.uniform(0.05, 0.95)) * -np.log(start).mean()
    best = verifiable.solve(start, procedure, kl=budget)
    assert best.kl == pytest.approx(budget, rel=1e-8)
    # Random other divisions of the budget, each spent to the last nat.
    rates = np.concatenate([np.full(1, start[0]), start[0] + (1 - start[0]) * rng.random(40)])
    for first in rates:
        left = 3 * budget - kl_of(first, start[0])
        other = np.array([first, *spending(left, start[1:], rng)])
        if np.isfinite(other).all():
            mean = verifiable.win_rate(other, start, procedure).mean()
            assert mean <= best.win_rate + best.gap + 1e-9


def kl_of(rate, start):
    return rel_entr(rate, start) + rel_entr(1 - rate, 1 - start)


def spending(total, start, rng):
    """Pass rates of two prompts whose KLs sum to `total`, divided at random; nan if none do."""
    parts = total * rng.dirichlet([1, 1])
    if total < 0 or (parts >= -np.log(start)).any():
        return np.full(2, np.nan)
    return [
        brentq(lambda p, k=k, s=s: kl_of(p, s) - k, s, 1) for k, s in zip(parts, start, strict=True)
    ]


def test_the_best_pass_rates_at_a_jump_leave_a_gap_only_where_prompts_share_a_budget():
    start = [0.3, 0.3, 0.3, 0.3]
    inside = verifiable.solve(start, ia.WorstOfN(8), kl=0.4)
    assert inside.gap > 0 and inside.kl == pytest.approx(0.4, rel=1e-9)
    assert verifiable.solve(start[:1], ia.WorstOfN(8), kl=0.4).gap == 0


def test_a_prompt_whose_gradient_is_below_any_number_stays_where_it_is_in_a_jump():
    start = [0.00419576715598, 0.016650579116, 3.16544378781e-08, 0.879798631212, 0.999995959466]
    best = verifiable.solve(start, ia.WorstOfN(89), kl=3.559)  # ½ h(1 − p₀) = 44.5 · (3e-8)⁸⁸
    assert best.kl == pytest.approx(3.559, rel=1e-9)
    assert type(best.beta) is float and type(best.gap) is float
