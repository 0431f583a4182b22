"""The exact world against enumeration, simulation, other optimizers and the quantile axis."""

from itertools import product

import numpy as np
import pytest
from contracts import law
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy.optimize import brentq, minimize
from scipy.special import expit, softmax
from scipy.stats import binom

from infalign import BestOfN, Mixture, OrderStatistic, Sampling, SolveError, WorstOfN, design
from infalign.core import finite
from infalign.core.finite import Custom, MajorityVote

# A world of six outcomes with ties and an outcome that the reference never gives.
REWARD = np.array([2.0, -1.0, 2.0, 0.5, 7.0, 0.5])
REFERENCE = np.array([0.15, 0.3, 0.1, 0.25, 0.2, 0.0])
POLICY = np.array([0.1, 0.2, 0.3, 0.15, 0.25, 0.0])
LABELS = ["a", "b", "c", "b", "a", "c"]
RANDOM = np.random.default_rng(11)


# --- Procedures that are no rank laws, by their own formulas. ---


def rewind(good, tries):
    """Draw until a good response comes, at most `tries` times; keep the last draw."""

    def apply(policy):
        bad = (policy * ~good).sum(-1, keepdims=True)
        # Good at the first, second, … try; or bad to the end.
        return policy * np.where(good, sum(bad**j for j in range(tries)), bad ** (tries - 1))

    def pullback(policy, utility):
        bad = (policy * ~good).sum(-1, keepdims=True)
        some = sum(bad**j for j in range(tries))
        d_some = sum(j * bad ** (j - 1) for j in range(1, tries))
        worth = (policy * utility * good).sum(-1, keepdims=True)
        loss = (policy * utility * ~good).sum(-1, keepdims=True)
        direct = utility * np.where(good, some, bad ** (tries - 1))
        through = worth * d_some + (tries - 1) * bad ** (tries - 2) * loss
        return direct + ~good * through

    return apply, pullback


def soft_best_of_2(score, temperature):
    """Draw two, keep one with odds e^{score / temperature}."""

    def apply(policy):
        first = 1 / (1 + np.exp((score - score[:, None]) / temperature))
        return 2 * policy * (first @ policy)

    return apply


GOOD = REWARD >= 2
REWIND = Custom(*rewind(GOOD, 4))
SOFT = Custom(soft_best_of_2(finite.calibrated_reward(REWARD, REFERENCE), 0.2))
BY_RANK = [Sampling(), BestOfN(2), BestOfN(3), WorstOfN(2), WorstOfN(3)]
OTHERS = [MajorityVote(LABELS, 3), MajorityVote(LABELS, 4), REWIND, SOFT]
EVERY = [*BY_RANK, *OTHERS]
names = {"ids": lambda p: f"{type(p).__name__}{getattr(p, 'n', '')}"}


def best(drawn):
    return [i for i in drawn if REWARD[i] == max(REWARD[j] for j in drawn)]


def worst(drawn):
    return [i for i in drawn if REWARD[i] == min(REWARD[j] for j in drawn)]


def winners(drawn):
    """One list of candidates per winning label, so that labels tie before responses do."""
    said = [LABELS[i] for i in drawn]
    most = max(map(said.count, said))
    return [[i for i in drawn if LABELS[i] == a] for a in set(said) if said.count(a) == most]


KEEP = {
    Sampling: lambda drawn: [list(drawn)],
    BestOfN: lambda drawn: [best(drawn)],
    WorstOfN: lambda drawn: [worst(drawn)],
    MajorityVote: winners,
}
"""Lists of candidates; one list is drawn at random, then one of its members."""


def enumerate_kept(procedure, policy):
    """T(π) by all n-tuples of outcomes."""
    kept = np.zeros(len(policy))
    for drawn in product(range(len(policy)), repeat=getattr(procedure, "n", 1)):
        groups = KEEP[type(procedure)](drawn)
        for group in groups:
            for i in group:
                kept[i] += np.prod(policy[list(drawn)]) / len(groups) / len(group)
    return kept


def beats(reward):
    """w(y, z) for all pairs of outcomes."""
    return (reward[:, None] > reward) + 0.5 * (reward[:, None] == reward)


# --- Laws and win rates. ---


@pytest.mark.parametrize("procedure", [*BY_RANK, MajorityVote(LABELS, 3)], **names)
@pytest.mark.parametrize("against", [None, WorstOfN(2)], **names)
def test_laws_and_win_rates_are_those_of_all_tuples(procedure, against):
    kept = enumerate_kept(procedure, POLICY)
    np.testing.assert_allclose(finite.selected(REWARD, POLICY, procedure), kept, atol=1e-14)
    opponent = enumerate_kept(against or procedure, REFERENCE)
    expected = kept @ beats(REWARD) @ opponent
    win_rate = finite.win_rate(REWARD, POLICY, REFERENCE, procedure, against=against)
    assert win_rate == pytest.approx(expected, abs=1e-14)


@pytest.mark.parametrize("procedure", [BestOfN(8), WorstOfN(8), MajorityVote(LABELS, 8)], **names)
def test_laws_are_those_of_a_simulation(procedure):
    rng, draws = np.random.default_rng(5), 20_000
    counts = np.zeros(len(POLICY))
    for drawn in rng.choice(len(POLICY), p=POLICY, size=(draws, 8)):
        groups = KEEP[type(procedure)](list(drawn))
        counts[rng.choice(groups[rng.integers(len(groups))])] += 1
    truth = finite.selected(REWARD, POLICY, procedure)
    stderr = np.sqrt(truth * (1 - truth) / draws)
    assert (np.abs(counts / draws - truth) <= 4 * stderr).all()


def test_the_law_of_rewinding_by_hand():
    # Good outcomes have 1/4; three tries: 1 - (3/4)³ = 37/64.
    good = np.array([True, False])
    custom = Custom(*rewind(good, 3))
    assert finite.selected([1, 0], [0.25, 0.75], custom).tolist() == [37 / 64, 27 / 64]


@pytest.mark.parametrize("procedure", EVERY, **names)
def test_the_reference_ties_with_itself(procedure):
    win_rate = finite.win_rate(REWARD, REFERENCE, REFERENCE, procedure)
    assert win_rate == pytest.approx(0.5, abs=1e-15)


@pytest.mark.parametrize("n", [1, 2, 8, 128])
def test_a_binary_reward_is_pass_at_n(n):
    # W - 1/2 = ½ [(1 - p0)ⁿ - (1 - p)ⁿ]
    p0, p = 0.1, 0.35
    win_rate = finite.win_rate([0, 1], [1 - p, p], [1 - p0, p0], BestOfN(n))
    assert win_rate == pytest.approx(0.5 + ((1 - p0) ** n - (1 - p) ** n) / 2, abs=1e-15)


def test_calibrated_rewards_by_hand():
    # Mass below plus half the mass at the level; the order of outcomes is the caller's.
    expected = [0.675, 0.15, 0.675, 0.425, 0.9, 0.425]
    calibrated = finite.calibrated_reward(REWARD, REFERENCE)
    np.testing.assert_allclose(calibrated, expected, atol=1e-15)
    assert REFERENCE @ calibrated == pytest.approx(0.5, abs=1e-15)


def test_kl_by_hand():
    assert finite.kl([[0.5, 0.5], [1, 0]], [[0.25, 0.75], [0.5, 0.5]]) == pytest.approx(
        [0.5 * np.log(4 / 3), np.log(2)], abs=1e-15
    )
    assert finite.kl([0.5, 0.5], [1, 0]) == np.inf


# --- The coupled reward is the gradient. ---


def slopes(function, policy, step=1e-3):
    """Derivatives of `function` towards each outcome, third order, on the simplex only."""

    def towards(y, share):
        return function((1 - share) * policy + share * (np.arange(len(policy)) == y))

    return np.array(
        [
            -11 * towards(y, 0) + 18 * towards(y, step) - 9 * towards(y, 2 * step)
            + 2 * towards(y, 3 * step)
            for y in range(len(policy))
        ]
    ) / (6 * step)  # fmt: skip


@pytest.mark.parametrize("procedure", [*EVERY, MajorityVote(LABELS, 9)], **names)
@pytest.mark.parametrize("against", [None, BestOfN(3)], **names)
def test_the_coupled_reward_is_the_gradient(procedure, against):
    where = {"reference": REFERENCE, "procedure": procedure, "against": against}
    coupled = finite.coupled_reward(REWARD, POLICY, **where)
    value = finite.win_rate(REWARD, POLICY, **where)
    assert POLICY @ coupled == pytest.approx(value, abs=1e-14)
    expected = value + slopes(lambda p: finite.win_rate(REWARD, p / p.sum(), **where), POLICY)
    np.testing.assert_allclose(coupled, expected, atol=1e-6)


def test_sampling_is_coupled_to_the_calibrated_reward():
    coupled = finite.coupled_reward(REWARD, POLICY, REFERENCE, Sampling())
    np.testing.assert_allclose(coupled, finite.calibrated_reward(REWARD, REFERENCE), atol=1e-15)
    solved = finite.solve(REWARD, REFERENCE, Sampling(), beta=0.3)
    np.testing.assert_allclose(solved.coupled_reward, solved.calibrated_reward, atol=1e-14)


def test_a_pullback_and_finite_differences_agree():
    apply, pullback = rewind(GOOD, 4)
    exact = finite.coupled_reward(REWARD, POLICY, REFERENCE, Custom(apply, pullback))
    differences = finite.coupled_reward(REWARD, POLICY, REFERENCE, Custom(apply))
    np.testing.assert_allclose(differences, exact, atol=1e-10)


@pytest.mark.parametrize("n", [2, 5, 17])
def test_a_vote_of_one_label_and_of_all_labels(n):
    # One label: nothing to decide. Two labels: the binomial's upper tail, ties one half.
    one = MajorityVote(["x"] * 6, n)
    np.testing.assert_allclose(one.selected(POLICY), POLICY, atol=1e-14)
    wins = binom.sf(n / 2, n, 0.3) + 0.5 * (binom.pmf(n // 2, n, 0.3) if n % 2 == 0 else 0)
    np.testing.assert_allclose(
        MajorityVote([1, 0], n).selected(np.array([0.3, 0.7])), [wins, 1 - wins], atol=1e-13
    )


@pytest.mark.parametrize("n", [64, 129])
def test_votes_of_many_labels_sum_to_one(n):
    policy = RANDOM.dirichlet(np.ones(40))
    kept = MajorityVote(np.arange(40) // 2, n).selected(policy)
    assert kept.sum() == pytest.approx(1, abs=1e-12) and kept.min() >= -1e-15


# --- The theorem. ---


def objective(policy, procedure, beta, against=None):
    return finite.win_rate(
        REWARD, policy, REFERENCE, procedure, against=against
    ) - beta * finite.kl(policy, REFERENCE)


@pytest.mark.parametrize("beta", [0.03, 0.2, 2.0])
@pytest.mark.parametrize("procedure", [*EVERY, BestOfN(16), WorstOfN(16)], **names)
def test_no_optimizer_finds_a_better_policy(procedure, beta):
    solution = finite.solve(REWARD, REFERENCE, procedure, beta)
    inside = REFERENCE > 0

    def loss(logits):
        policy = np.zeros(6)
        policy[inside] = softmax(logits)
        return -objective(policy / policy.sum(), procedure, beta)

    rng = np.random.default_rng(3)
    starts = [np.log(REFERENCE[inside]) + rng.normal(scale=2, size=5) for _ in range(4)]
    runs = [minimize(loss, start, method="L-BFGS-B", options={"ftol": 1e-14}) for start in starts]
    top = -min(run.fun for run in runs)
    value = objective(solution.policy, procedure, beta)
    assert value == pytest.approx(solution.objective, abs=1e-12)
    assert solution.objective >= top - 1e-12
    assert solution.objective == pytest.approx(top, abs=2e-5)


@pytest.mark.parametrize("procedure", EVERY, **names)
def test_the_optimum_solves_ordinary_rl_with_its_coupled_reward(procedure):
    # Theorem 1: for the fixed reward R, max <π, R> - β KL is the tilt, and equals β log Z.
    beta = 0.1
    solution = finite.solve(REWARD, REFERENCE, procedure, beta)
    coupled = finite.coupled_reward(REWARD, solution.policy, REFERENCE, procedure)
    np.testing.assert_allclose(solution.coupled_reward, coupled, atol=1e-9)
    weight = REFERENCE * np.exp(coupled / beta)
    np.testing.assert_allclose(solution.policy, weight / weight.sum(), atol=1e-8)
    assert solution.residual < 1e-8
    assert solution.objective == pytest.approx(beta * np.log(weight.sum()), abs=1e-9)
    assert solution.win_rate == pytest.approx(solution.policy @ coupled, abs=1e-12)

    def rl(logits):  # an independent road to the same policy: SLSQP on that linear reward
        policy = np.abs(logits)
        inside = REFERENCE > 0
        logs = np.log(np.maximum(policy[inside], 1e-300) / REFERENCE[inside])
        return -(policy[inside] @ (coupled[inside] - beta * logs))

    total = {"type": "eq", "fun": lambda p: p.sum() - 1}
    bounds = [(1e-12 if r else 0, 1 if r else 0) for r in REFERENCE]
    run = minimize(rl, REFERENCE, method="SLSQP", bounds=bounds, constraints=total,
                   options={"ftol": 1e-13, "maxiter": 500})  # fmt: skip
    np.testing.assert_allclose(run.x, solution.policy, atol=1e-4)


def shoot(log_start, mass, steps, h, beta):
    """F_m - 1 of the policy whose lowest level has π = e^{log_start} π_ref and whose neighbors
    obey log(π_{a+1} / π_ref) - log(π_a / π_ref) = h(F_a) steps_a / β."""
    psi, cdf = log_start, 0.0
    for a, q in enumerate(mass):
        cdf += q * np.exp(psi)
        if cdf > 1:
            return cdf - 1
        psi += h(cdf) * steps[a] / beta if a < len(steps) else 0
    return cdf - 1


@pytest.mark.parametrize("beta", [0.02, 0.1, 1.0])
@pytest.mark.parametrize("n", [1, 2, 8])
@pytest.mark.parametrize("kind", [BestOfN, WorstOfN])
def test_the_optimum_against_shooting(kind, n, beta):
    # Every stationary point is a root in one number; here there is one root, scanned for.
    mass = np.array([0.3, 0.2, 0.1, 0.25, 0.15])
    big_h = (lambda s: s**n) if kind is BestOfN else (lambda s: 1 - (1 - s) ** n)
    h = (lambda s: n * s ** (n - 1)) if kind is BestOfN else (lambda s: n * (1 - s) ** (n - 1))
    cdf = big_h(np.append(0, np.cumsum(mass)))
    steps = np.diff((cdf[1:] + cdf[:-1]) / 2)
    lowest = np.linspace(-n / beta - 1, 0, 400)
    ends = np.array([shoot(a, mass, steps, h, beta) for a in lowest])
    (crossing,) = np.flatnonzero(np.diff(np.sign(ends)))
    start = brentq(
        shoot, *lowest[crossing : crossing + 2], (mass, steps, h, beta), xtol=1e-14, rtol=1e-14
    )
    solution = finite.solve(np.arange(5), mass, kind(n), beta)
    assert np.log(solution.policy[0] / mass[0]) == pytest.approx(start, abs=1e-9)


@pytest.mark.parametrize("n", [2, 8, 128])
@pytest.mark.parametrize("against", [None, Sampling(), WorstOfN(4)], **names)
def test_the_gap_is_a_certificate(n, against):
    # Any policy's J is below J + gap, and the bound is not idle: it is tiny at the optimum.
    solution = finite.solve(REWARD, REFERENCE, BestOfN(n), 0.05, against=against)
    assert 0 <= solution.gap < 1e-12
    policies = RANDOM.dirichlet(np.ones(5), size=200)
    for policy in np.insert(policies, 5, 0.0, axis=1):
        value = objective(policy / policy.sum(), BestOfN(n), 0.05, against)
        assert value <= solution.objective + solution.gap + 1e-14


def test_where_nothing_is_certified_the_gap_is_nan():
    many = finite.solve(np.arange(12), np.full(12, 1 / 12), WorstOfN(2), 0.1)
    vote = finite.solve(REWARD, REFERENCE, MajorityVote(LABELS, 3), 0.1)
    for solution in (many, vote):
        assert np.isnan(solution.gap) and not solution.certified
        assert "certified=False" in repr(solution)
    assert finite.solve(REWARD, REFERENCE, MajorityVote(LABELS, 2), 0.1).gap < 1e-12


def drawn_world(seed, most_levels):
    """A reference on few levels, a procedure that is not concave, an opponent and a β."""
    rng = np.random.default_rng(seed)
    levels = int(rng.integers(2, most_levels + 1))
    procedure = [
        WorstOfN(int(rng.integers(2, 64))),
        OrderStatistic(9, int(rng.integers(2, 9))),
        Mixture((WorstOfN(8), BestOfN(8)), (0.5, 0.5)),
    ][seed % 3]
    against = [None, Sampling(), BestOfN(8)][rng.integers(3)]
    return rng.dirichlet(np.ones(levels)), procedure, against, float(np.exp(rng.uniform(-5, 0)))


@pytest.mark.parametrize("seed", range(24))
def test_few_levels_are_certified_and_no_policy_is_better(seed):
    reference, procedure, against, beta = drawn_world(seed, 3)
    levels = np.arange(reference.size)
    best = finite.solve(levels, reference, procedure, beta, against=against)
    assert best.certified and best.gap <= 1e-8 and best.residual < 1e-7
    # All policies on a grid that is dense at the corners.
    side = expit(np.linspace(-18, 18, 161))
    rest = np.meshgrid(*[side] * (reference.size - 1), indexing="ij")
    first, *others = (axis.ravel() for axis in rest)
    rows = [first, *((1 - first) * other for other in others)]
    policies = np.stack([*rows, 1 - np.sum(rows, axis=0)], axis=1)
    shape = policies.shape
    references = np.broadcast_to(reference, shape)
    scores = np.broadcast_to(levels, shape)
    wins = finite.win_rate(scores, policies, references, procedure, against=against)
    values = wins - beta * finite.kl(policies, references)
    assert values.max() <= best.objective + best.gap + 1e-12


@pytest.mark.parametrize(
    ("n", "reference", "kl"),
    [
        (15, (0.2165902, 0.292580441, 0.490829359), 0.1494),
        (4, (0.27458951, 0.24331852, 0.22459389, 0.25749808), 1.325),
    ],
)
def test_a_budget_whose_beta_is_next_to_the_limit_is_spent(n, reference, kl):
    best = finite.solve(range(len(reference)), reference, BestOfN(n), kl=kl)
    assert best.kl == pytest.approx(kl, rel=1e-7)
    assert 1e-8 < best.beta < 3e-8


@pytest.mark.parametrize("seed", range(4))
def test_up_to_six_levels_are_certified(seed):
    reference, procedure, against, beta = drawn_world(seed, 6)
    best = finite.solve(np.arange(reference.size), reference, procedure, beta, against=against)
    assert best.certified
    policies = np.random.default_rng(seed).dirichlet(np.full(reference.size, 0.4), size=500)
    for policy in policies[(policies > 0).all(1)]:
        wins = finite.win_rate(
            np.arange(reference.size), policy, reference, procedure, against=against
        )
        assert wins - beta * finite.kl(policy, reference) <= best.objective + best.gap + 1e-12


def test_a_maximum_far_from_the_reference_is_reached():
    best = finite.solve(range(3), [0.546, 0.253, 0.201], WorstOfN(14), 0.3147)
    assert best.objective == pytest.approx(0.7514867, abs=1e-7)


def test_a_vote_may_have_two_hills_and_the_higher_one_is_reached():
    # The best answer, b, is rare: votes of the reference never elect it, so the way up from there
    # leads to a. Electing b costs more and wins more.
    reward, reference = [1.0, 2.0, 0.0], np.array([0.45, 0.1, 0.45])
    vote, beta = MajorityVote(["a", "b", "c"], 25), 0.1

    def hill(start):
        def loss(logits):
            policy = softmax(logits)
            won = finite.win_rate(reward, policy, reference, vote)
            return beta * finite.kl(policy, reference) - won

        return -minimize(loss, np.log(start), options={"gtol": 1e-7}).fun

    lower, higher = hill(reference), hill([0.25, 0.5, 0.25])
    assert higher - lower > 0.1
    solution = finite.solve(reward, reference, vote, beta)
    assert solution.objective == pytest.approx(higher, abs=1e-9)


@pytest.mark.parametrize("beta", [1e-3, 0.1, 10])
@pytest.mark.parametrize("n", [2, 128])
@pytest.mark.parametrize("kind", [BestOfN, WorstOfN])
@pytest.mark.parametrize("against", [None, Sampling()], **names)
def test_skewed_references_and_extreme_settings_are_solved(kind, n, beta, against):
    rng = np.random.default_rng(1)
    reward = rng.integers(0, 40, size=(12, 60)).astype(float)
    reference = rng.dirichlet(np.full(60, 0.05), size=12) * (rng.random((12, 60)) < 0.9) + 1e-14
    reference /= reference.sum(1, keepdims=True)
    solution = finite.solve(reward, reference, kind(n), beta, against=against)
    assert solution.residual.max() < 1e-9
    assert (solution.objective >= finite.win_rate(
        reward, reference, reference, kind(n), against=against) - 1e-12).all()  # fmt: skip


# --- Budgets. ---


@pytest.mark.parametrize("procedure", EVERY, **names)
def test_a_budget_is_spent_and_its_beta_gives_the_same_policy(procedure):
    solution = finite.solve(REWARD, REFERENCE, procedure, kl=0.2)
    assert solution.kl == pytest.approx(0.2, abs=1e-8)
    again = finite.solve(REWARD, REFERENCE, procedure, solution.beta)
    np.testing.assert_allclose(again.policy, solution.policy, atol=1e-6)


def test_prompts_share_the_budget_through_one_beta():
    reward, reference = np.array([REWARD, -REWARD]), np.array([REFERENCE, REFERENCE])
    both = finite.solve(reward, reference, BestOfN(3), kl=0.3)
    assert both.kl.mean() == pytest.approx(0.3, abs=1e-9)
    for row in (0, 1):
        alone = finite.solve(reward[row], REFERENCE, BestOfN(3), both.beta)
        np.testing.assert_allclose(both.policy[row], alone.policy, atol=1e-9)
        assert both.kl[row] == pytest.approx(alone.kl, abs=1e-9)


# --- The quantile axis is the limit of many small atoms. ---


@pytest.mark.parametrize("procedure", [Sampling(), BestOfN(4), BestOfN(8), WorstOfN(4)], **names)
def test_many_atoms_approach_the_quantile_axis_with_order_two(procedure):
    # Mid-ranks are the midpoint rule: halving the atoms divides the distance by four, once an atom
    # is finer than the steepest part of the policy.
    limit = design(procedure, beta=0.5).win_rate
    distance = [
        finite.solve(np.arange(m), np.full(m, 1 / m), procedure, 0.5).win_rate - limit
        for m in (400, 800, 1600)
    ]
    assert abs(distance[0]) < 1e-3
    assert np.divide(distance[:-1], distance[1:]) == pytest.approx([4, 4], rel=0.05)


# --- Laws that hold in every world. ---


@st.composite
def worlds(draw):
    size = draw(st.integers(2, 7))
    reward = draw(st.lists(st.integers(-3, 3), min_size=size, max_size=size))
    mass = draw(st.lists(st.integers(0, 9), min_size=size, max_size=size))
    assume(sum(mass) > 0)
    return np.array(reward, dtype=float), np.array(mass) / sum(mass)


any_procedure = st.sampled_from([Sampling(), BestOfN(2), BestOfN(9), WorstOfN(2), WorstOfN(5)])
any_beta = st.sampled_from([0.01, 0.2, 3.0])


@law
@given(worlds(), any_procedure, any_beta)
def test_what_rises_with_the_reward_changes_nothing(world, procedure, beta):
    reward, reference = world
    solution = finite.solve(reward, reference, procedure, beta)
    again = finite.solve(1e4 * np.exp(reward) - 7, reference, procedure, beta)
    np.testing.assert_array_equal(solution.policy, again.policy)
    assert solution.win_rate == again.win_rate


@law
@given(worlds(), any_procedure, any_beta, st.randoms(use_true_random=False))
def test_outcomes_have_no_order(world, procedure, beta, random):
    reward, reference = world
    order = random.sample(range(len(reward)), len(reward))
    solution = finite.solve(reward, reference, procedure, beta)
    again = finite.solve(reward[order], reference[order], procedure, beta)
    np.testing.assert_allclose(solution.policy[order], again.policy, atol=1e-9)


@law
@given(worlds(), any_procedure, any_beta)
def test_an_outcome_split_in_two_is_the_same_world(world, procedure, beta):
    reward, reference = world
    solution = finite.solve(reward, reference, procedure, beta)
    share = np.append(reference, reference[0] / 4)
    share[0] *= 3 / 4
    split = finite.solve(np.append(reward, reward[0]), share, procedure, beta)
    merged = split.policy[:-1].copy()
    merged[0] += split.policy[-1]
    np.testing.assert_allclose(merged, solution.policy, atol=1e-9)
    assert split.win_rate == pytest.approx(solution.win_rate, abs=1e-9)


@law
@given(worlds(), any_procedure, any_beta)
def test_the_optimum_is_no_worse_than_the_reference(world, procedure, beta):
    solution = finite.solve(*world, procedure, beta)
    assert solution.objective >= 0.5 - 1e-12 and solution.win_rate >= 0.5 - 1e-12
    assert solution.policy.sum() == pytest.approx(1, abs=1e-12)
    assert (solution.policy[world[1] == 0] == 0).all()


@law
@given(worlds(), any_procedure)
def test_worst_of_n_mirrors_best_of_n(world, procedure):
    # The worst by r is the best by -r, and losing is winning from the other side.
    assume(isinstance(procedure, BestOfN))
    reward, _ = world
    policy = softmax(np.arange(len(reward)))
    kept = finite.selected(reward, policy, procedure)
    mirror = finite.selected(-reward, policy, WorstOfN(procedure.n))
    np.testing.assert_allclose(kept, mirror, atol=1e-14)


def test_prompts_do_not_mix_and_padding_counts_for_nothing():
    reward = np.array([[3.0, 1, 2, 0], [1, 1, 5, 9]])
    reference = np.array([[0.2, 0.3, 0.5, 0], [0.5, 0.25, 0.125, 0.125]])
    labels = [["x", "y", "x", "x"], [7, 8, 9, 9]]
    for procedure, alone in [
        (WorstOfN(3), WorstOfN(3)),
        (MajorityVote(labels, 4), MajorityVote(labels[0][:3], 4)),
    ]:
        both = finite.solve(reward, reference, procedure, 0.2)
        first = finite.solve(reward[0, :3], reference[0, :3], alone, 0.2)
        np.testing.assert_allclose(both.policy[0], np.append(first.policy, 0), atol=1e-9)
        assert both.win_rate.shape == both.kl.shape == both.gap.shape == (2,)
        assert isinstance(first.win_rate, float) and first.policy.shape == (3,)


def test_rewards_that_all_tie_leave_the_reference_alone():
    solution = finite.solve([1, 1, 1], [0.2, 0.3, 0.5], BestOfN(4), 0.1)
    assert solution.policy == pytest.approx([0.2, 0.3, 0.5]) and solution.win_rate == 0.5


# --- Bad input. ---


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([], [], Sampling(), 1), r"`reward` must be a non-empty array .* got shape \(0,\)"),
        (([0, np.nan], [0.5, 0.5], Sampling(), 1),
         r"`reward` must be finite; got nan at outcome 1 \(1 of 2 entries\).*probability of 0"),
        (([0, 1], [0.5, 0.25, 0.25], Sampling(), 1),
         r"`reference` must have the shape of `reward`, \(2,\); got shape \(3,\)"),
        (([0, 1], [-0.5, 1.5], Sampling(), 1),
         r"`reference` must hold probabilities; got -0.5 at outcome 0 \(1 of 2"),
        (([[0, 1], [0, 1]], [[0.5, 0.5], [0.5, 0.4]], Sampling(), 1),
         r"`reference` must sum to 1 .* got 0.9 at prompt 1 \(1 of 2 prompts\). Divide each row"),
        (([0, 1], [0.5, 0.5], Sampling(), 0), r"`beta` must be above 0; got 0"),
        (([0, 1], [0.5, 0.5], Sampling()), r"exactly one of `kl` .nats. and `beta`"),
        (([0, 1], [0.5, 0.5], "best-of-n:4", 1),
         r"`procedure` must be a rank-based .* got 'best-of-n:4'. .*`finite.Custom`"),
        (([0, 1], [0.5, 0.5], MajorityVote(["a"], 2), 1),
         r"`labels` must have one label per outcome, shape \(2,\); got shape \(1,\)"),
        (([0, 1], [0.5, 0.5], Custom(lambda p: p[:1]), 1), r"`apply` must return a law .* \(1,\)"),
        (([0, 1], [0.5, 0.5], Custom(lambda p: p / 2), 1), r"`apply` must .* sums of 0.5 to 0.5"),
    ],
)  # fmt: skip
def test_bad_input_is_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        finite.solve(*arguments)


def test_more_arguments_that_are_named():
    with pytest.raises(ValueError, match="`n` must be a whole number of at least 1; got 0"):
        MajorityVote(["a"], 0)
    with pytest.raises(ValueError, match="`against` must be a rank-based"):
        finite.solve([0, 1], [0.5, 0.5], Sampling(), 1, against="sampling")
    with pytest.raises(ValueError, match="`policy` must sum to 1 over the outcomes; got 2"):
        finite.win_rate([0, 1], [1, 1], [0.5, 0.5], Sampling())
    with pytest.raises(ValueError, match=r"`starts` must be above 0 .* 1 of 2 entries. Mix in"):
        finite.solve([0, 1], [0.5, 0.5], WorstOfN(2), 1, starts=[[0, 1]])


def test_a_budget_beyond_the_best_answer_is_refused():
    with pytest.raises(ValueError, match=r"`kl` must be below 1.60944 nats.* got 2"):
        finite.solve(REWARD, REFERENCE, BestOfN(2), kl=2.0)


def test_a_budget_that_cannot_be_spent_is_explained():
    with pytest.raises(SolveError, match=r"does not depend on the policy. Leave out prompts"):
        finite.solve([0, 1], [0.5, 0.5], Custom(lambda p: 0 * p + 0.5), kl=0.1)


def test_a_budget_between_two_hills_is_explained():
    # As beta falls, the optimum leaves the hill of a for that of b: no policy in between is best.
    vote = MajorityVote(["a", "b", "c"], 9)
    message = r"No beta spends kl=0.3: at beta=0.\d+ the optimum jumps from 0.[01]\d+ to 0.[3-6]"
    with pytest.raises(SolveError, match=message):
        finite.solve([1.0, 2.0, 0.0], [0.45, 0.1, 0.45], vote, kl=0.3)


def test_a_budget_within_a_jump_has_a_best_policy():
    reference, budget = np.array([0.3, 0.45, 0.25]), 0.35
    best = finite.solve(range(3), reference, WorstOfN(7), kl=budget)
    assert best.kl == pytest.approx(budget, abs=1e-9) and best.residual < 1e-10
    # The policy is the optimum of KL-regularized RL for its own coupled reward.
    tilted = reference * np.exp(best.coupled_reward / best.beta)
    assert tilted / tilted.sum() == pytest.approx(best.policy, abs=1e-8)

    # Of all policies of that KL, a curve on the simplex, none wins more.
    def policy(last, share):
        return np.array([1 - last - share, share, last])

    for share in np.linspace(1e-6, 0.7, 400):

        def excess(last, share=share):
            return finite.kl(policy(last, share), reference) - budget

        top = 1 - share - 1e-12
        if excess(top) < 0 or excess(min(reference[2], top)) > 0:
            continue
        last = brentq(excess, min(reference[2], top), top)
        wins = finite.win_rate(range(3), policy(last, share), reference, WorstOfN(7))
        assert wins <= best.win_rate + 1e-9
    assert best.gap > 0  # the optimum of W - beta KL jumps over it


def test_a_budget_within_a_jump_is_shared_by_prompts_at_one_beta():
    reference = np.array([[0.3, 0.45, 0.25], [0.31, 0.44, 0.25], [0.2, 0.2, 0.6]])
    best = finite.solve(np.tile(np.arange(3), (3, 1)), reference, WorstOfN(7), kl=0.25)
    assert best.kl.mean() == pytest.approx(0.25, abs=1e-8)
    assert best.residual.max() < 1e-8
    assert (best.gap == best.gap[0]).all()


def test_a_budget_within_a_jump_of_many_draws_has_the_best_policy_of_its_kl():
    reference = np.array([0.29, 0.098, 0.034, 0.515, 0.017, 0.046])
    budget, procedure = 2.115, WorstOfN(45)
    best = finite.solve(range(6), reference, procedure, kl=budget, against=WorstOfN(5))
    assert best.kl == pytest.approx(budget, rel=1e-9) and best.residual < 1e-9
    rng = np.random.default_rng(0)
    corners = reference * np.exp(rng.choice([3, 30], (150, 1)) * rng.normal(size=(150, 6)))
    for corner in corners / corners.sum(1, keepdims=True):
        if finite.kl(corner, reference) > budget:
            share = brentq(
                lambda s, c=corner: finite.kl((1 - s) * reference + s * c, reference) - budget, 0, 1
            )
            policy = (1 - share) * reference + share * corner
            wins = finite.win_rate(range(6), policy, reference, procedure, against=WorstOfN(5))
            assert wins <= best.win_rate + 1e-9


@pytest.mark.parametrize(
    ("levels", "reference", "draws", "budget"),
    [
        ([1, 4, 2, 0, 5, 3], [0.0171, 0.0041, 0.6838, 0.29156, 0.00326, 0.00018], 19, 1.404),
        ([0, 1], [0.8, 0.2], 30, 0.15),
    ],
)
def test_a_budget_within_a_jump_at_a_tiny_beta_has_a_best_policy(levels, reference, draws, budget):
    # All that the last nats buy is a chance of (mass moved)^n: beta is below 1e-8.
    best = finite.solve(levels, reference, WorstOfN(draws), kl=budget)
    assert best.kl == pytest.approx(budget, rel=1e-9) and best.beta < 1e-8
    # On the levels with mass, log-ratios are the coupled reward by beta, up to its rounding.
    inside = best.policy > 1e-12
    logs = np.log(best.policy[inside] / np.array(reference)[inside])
    slope = best.coupled_reward[inside] / best.beta
    assert logs - logs[0] == pytest.approx(slope - slope[0], abs=1e-15 / best.beta)
    assert best.residual < 1e-15 / best.beta


def test_a_budget_whose_strength_double_precision_does_not_hold_is_refused():
    # Two levels, F the mass on the lower: beta = h(F) / 2 by the difference of the log-ratios.
    reference, procedure = np.array([0.86, 0.14]), WorstOfN(59)
    share = brentq(lambda q: finite.kl([1 - q, q], reference) - 0.1, 0.15, 0.9)
    ratio = np.log(share / 0.14) - np.log((1 - share) / 0.86)
    beta = float(procedure.density(1 - share)) / 2 / ratio
    with pytest.raises(SolveError, match=f"of kl=0.1 has beta={beta:g}.* outside that interval"):
        finite.solve([0, 1], reference, procedure, kl=0.1)


def test_a_budget_beyond_every_policy_is_explained():
    with pytest.raises(SolveError, match=r"spends kl=3; the largest KL reached is 1.609"):
        finite.solve(REWARD, REFERENCE, MajorityVote(LABELS, 3), kl=3)


def test_a_pullback_that_is_no_derivative_is_noticed():
    wrong = Custom(lambda policy: policy, lambda policy, utility: -utility)
    with pytest.raises(
        SolveError, match=r"stopped at a residual .* \(1 of 1 prompts\).*`pullback`"
    ):
        finite.solve(REWARD, REFERENCE, wrong, 0.1)
