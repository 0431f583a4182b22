"""Numbers of the exact study, by a second road: enumeration, direct search, theory."""

from itertools import product

import numpy as np
import pytest
from scipy.optimize import minimize

import infalign as ia
from infalign.core import at_kl

REWARDS = np.array([[0.3, 2.0, 2.0, 5.0], [1.0, 1.1, 1.2, -4.0]])
"""Two prompts of different scale, one with a tie."""


def enumerated(rewards, policy, n, pick):
    """Win rate of one prompt by going through all draws of both sides."""
    chances = {"policy": policy, "reference": np.full(len(policy), 1 / len(policy))}
    laws = {}
    for side, p in chances.items():
        laws[side] = {}
        for draws in product(range(len(p)), repeat=n):
            value = pick(rewards[list(draws)])
            laws[side][value] = laws[side].get(value, 0) + np.prod(p[list(draws)])
    return sum(
        a * b * (1 + np.sign(x - y)) / 2
        for (x, a), (y, b) in product(laws["policy"].items(), laws["reference"].items())
    )


def nats(policy):
    policy = np.maximum(policy, 1e-300)
    return (policy * np.log(policy * policy.shape[-1])).sum(-1)


def searched(value, kl):
    """The largest `value(policy)` within the KL, from several starts."""

    def policy(x):
        e = np.exp(x.reshape(REWARDS.shape))
        return e / e.sum(1, keepdims=True)

    limit = {"type": "ineq", "fun": lambda x: kl - nats(policy(x)).mean()}
    rng = np.random.default_rng(0)
    ends = [
        minimize(lambda x: -value(policy(x)), rng.normal(size=REWARDS.size), constraints=limit)
        for _ in range(6)
    ]
    return max(-end.fun for end in ends if limit["fun"](end.x) > -1e-6)


@pytest.mark.parametrize("procedure", [ia.BestOfN(2), ia.WorstOfN(3)], ids=str)
@pytest.mark.parametrize("method", ["optimum", "design", "identity", "log", "raw", "utility"])
def test_each_methods_win_rate_and_kl_are_those_of_enumeration(method, procedure):
    from exact import result
    from exact_methods import METHODS

    policy = METHODS[method](REWARDS, procedure, 0.2)
    pick = max if isinstance(procedure, ia.BestOfN) else min
    won = [enumerated(r, p, procedure.n, pick) for r, p in zip(REWARDS, policy, strict=True)]
    entry = result(REWARDS, method, procedure, 0.2)
    assert entry["win_rate"] == pytest.approx(np.mean(won), abs=1e-9)
    assert entry["kl"] == pytest.approx(nats(policy).mean(), abs=1e-9)
    assert entry["kl"] == pytest.approx(0.2, abs=1e-5)
    assert entry["top_kl"] == pytest.approx(nats(policy).max() / nats(policy).sum())
    raw = METHODS["raw"](REWARDS, procedure, 0.2)
    rival = [enumerated(r, p, procedure.n, pick) for r, p in zip(REWARDS, raw, strict=True)]
    assert entry["gain"][0] == pytest.approx(np.mean(won) - np.mean(rival), abs=1e-9)


@pytest.mark.parametrize("procedure", [ia.BestOfN(2), ia.WorstOfN(2)], ids=str)
def test_no_policy_that_a_search_reaches_beats_the_optimum(procedure):
    from exact_methods import optimum, reference

    def win_rate(policy):
        rows = reference(REWARDS)
        return ia.finite.win_rate(REWARDS, policy, rows, procedure).mean()

    best = searched(win_rate, 0.2)
    assert win_rate(optimum(REWARDS, procedure, 0.2)) == pytest.approx(best, abs=1e-5)


def test_max_at_n_has_the_largest_mean_reward_of_the_best():
    from exact_methods import identity, max_at_n

    def mean_of_best(policy):
        pairs = [np.maximum.outer(row, row) for row in REWARDS]
        return np.mean([p @ best @ p for p, best in zip(policy, pairs, strict=True)])

    policy = max_at_n(REWARDS, ia.BestOfN(2), 0.2)
    best = searched(mean_of_best, 0.2)
    assert mean_of_best(policy) == pytest.approx(best, abs=3e-4)
    assert mean_of_best(identity(REWARDS, ia.BestOfN(2), 0.2)) < best - 3e-3


@pytest.mark.parametrize("procedure", [ia.BestOfN(4), ia.WorstOfN(4)], ids=str)
def test_a_world_of_many_normal_rewards_is_the_theory(procedure):
    from exact import result
    from exact_worlds import normal

    rewards = normal().rewards
    expected = {
        "design": ia.design(procedure, kl=0.5).win_rate,
        "identity": at_kl(ia.Identity(), 0.5).win_rate(procedure),
        "raw": at_kl(ia.Probit(), 0.5).win_rate(procedure),
    }
    for method, win_rate in expected.items():
        assert result(rewards, method, procedure, 0.5)["win_rate"] == pytest.approx(
            win_rate, abs=1e-3
        )


def test_prompts_that_repeat_have_the_optimum_of_the_one_prompt():
    from exact_methods import optimum

    rng = np.random.default_rng(0)
    several = np.array([rng.permutation(REWARDS[0]) for _ in range(5)])
    for procedure in (ia.BestOfN(4), ia.WorstOfN(2)):
        single = optimum(REWARDS[:1], procedure, 0.2)
        policy = optimum(several, procedure, 0.2)
        for row, rewards in zip(policy, several, strict=True):
            values = dict(zip(REWARDS[0], single[0], strict=True))
            assert row == pytest.approx([values[r] for r in rewards], abs=1e-5)


def test_with_two_levels_the_calibrated_reward_is_the_raw_one():
    from exact_methods import identity, raw

    rewards = (np.arange(8) < np.array([[1], [3], [6]])).astype(float)
    procedure = ia.BestOfN(2)
    assert identity(rewards, procedure, 0.2) == pytest.approx(raw(rewards, procedure, 0.2))


def test_the_facts_of_a_world_are_those_by_hand():
    from exact_worlds import World

    rewards = np.array([[0.0, 0, 0, 4], [0, 2, 4, 6], [1, 1, 1, 1]])
    facts = World("w", rewards).facts
    assert facts["tied_pairs"] == pytest.approx((3 / 6 + 0 + 1) / 3)
    assert facts["constant_prompts"] == pytest.approx(1 / 3)
    assert facts["median_skewness"] == pytest.approx(1.1547 / 2, abs=1e-4)
    scaled = World("w", rewards).one_scale
    assert scaled.rewards.std(1) == pytest.approx([1, 1, 0])
    assert scaled.facts["scale_ratio"] == pytest.approx(1)


@pytest.fixture
def small(monkeypatch):
    import exact
    import exact_worlds

    monkeypatch.setattr(exact, "SIZES", (2, 4))
    monkeypatch.setattr(exact_worlds, "CONTINUOUS", 40)
    monkeypatch.setattr(exact_worlds.normal, "__defaults__", (40,))
    return exact


def test_absent_data_is_named_and_the_page_has_what_is_there(small, tmp_path, capsys):
    scores = tmp_path / "samples.json"
    row = '{"id": "helpful-1", "rewards": {"length": [3, 1, 4, 1, 5]}}'
    scores.write_text(f'{{"prompts": [{row}, {row.replace("5]", "9]")}]}}')
    small.main(data=None, scores=scores, out=tmp_path)
    printed = capsys.readouterr().out
    assert 'Skipped "judge\'s score": no --data folder was given' in printed
    small.main(data=tmp_path, scores=scores, out=tmp_path)
    assert "counts/deepscaler_base.jsonl" in capsys.readouterr().out
    page = (tmp_path / "exact.md").read_text()
    assert "### SmolLM2, length" in page and "judge's score" not in page
    assert (tmp_path / "exact.png").stat().st_size > 5_000


def test_a_result_of_other_rewards_is_computed_again(small):
    from exact_worlds import World

    results: dict = {}
    small.add(results, World("w", REWARDS), ("raw",))
    first = results["w"]
    small.add(results, World("w", REWARDS), ("raw", "identity"))
    assert results["w"] is first and "best-of-n:2 0.5 identity" in first["results"]
    small.add(results, World("w", REWARDS * [[1], [3]]), ("raw",))
    assert results["w"] is not first
