"""Curves over n agree with the estimators, and say rightly where their verdict flips."""

from itertools import combinations, pairwise

import numpy as np
import pytest
from scipy.special import betaln

from infalign import BestOfN, OrderStatistic, majority_vote, pass_all, pass_at, win_rate
from infalign.analysis import Samples, curve, measures, read_measure
from infalign.analysis.curve import sizes_up_to
from infalign.errors import ArgumentError
from infalign.evaluation import simultaneous as together


def samples(name, scores, **more):
    ids = tuple(f"p{i}" for i in range(len(scores)))
    return Samples(name, ids, scores, **more)


def drawn(seed=0, prompts=30, m=8, binary=True):
    rng = np.random.default_rng(seed)
    if not binary:
        return [samples(name, rng.normal(i, size=(prompts, m))) for i, name in enumerate("ab")]
    rate = rng.beta(1, 2, (prompts, 1))
    return [
        samples(
            name,
            (hits := rng.random((prompts, m)) < rate + gain),
            answers=np.where(hits, "right", rng.integers(0, 3, hits.shape).astype(str)),
        )
        for name, gain in (("a", 0.1), ("b", 0.0))
    ]


def test_a_curve_holds_the_estimators_at_every_n():
    a, b = drawn()
    wins = curve("best-of-n", a, b)
    assert wins.sizes == tuple(range(1, 9))
    for n in wins.sizes:
        expected = win_rate(a.scores, b.scores, BestOfN(n))
        alone, joint = wins.at(n)
        assert (alone.value, alone.low, alone.high) == (expected.value, expected.low, expected.high)
        assert joint.value == expected.value
        assert joint.low <= expected.low
        assert joint.high >= expected.high
    for name, level in (
        ("pass@n", lambda p, n: pass_at(p.scores, n)),
        ("pass^n", lambda p, n: pass_all(p.scores, n)),
        ("majority-of-n", lambda p, n: majority_vote(p.answers, p.scores, n)),
    ):
        own = curve(name, a, b)
        for n, (ours, theirs) in zip(own.sizes, own.levels, strict=True):
            assert ours.value == level(a, n).value
            assert own.at(n)[0].value == pytest.approx(level(a, n).value - level(b, n).value)
            assert theirs.value == level(b, n).value


def test_with_0_and_1_a_win_rate_is_half_the_difference_of_pass_rates():
    """The best of n is correct with chance pass@n on each side, and ties count one half."""
    a, b = drawn(1)
    best, passes = curve("best-of-n", a, b), curve("pass@n", a, b)
    assert best.values == pytest.approx(0.5 + passes.values / 2, abs=1e-12)
    worst, every = curve("worst-of-n", a, b), curve("pass^n", a, b)
    assert worst.values == pytest.approx(0.5 + every.values / 2, abs=1e-12)
    assert best.verdicts == passes.verdicts


def test_pass_all_counts_subsets():
    correct = np.array([[1, 1, 0, 1], [0, 1, 0, 0]])
    for k in range(1, 5):
        expected = [np.mean([all(s) for s in combinations(row, k)]) for row in correct]
        assert pass_all(correct, k).per_prompt == pytest.approx(expected)


def pass_rate(a, b, n):
    """E[1 − (1 − r)^n] for r ~ Beta(a, b)."""
    return 1 - np.exp(betaln(a, b + n) - betaln(a, b))


def test_the_first_n_at_which_the_policy_loses_lies_in_its_confidence_set(monkeypatch):
    """A policy that is right more often, on fewer prompts: it wins at first and loses later."""
    monkeypatch.setattr(together, "DRAWS", 2_000)
    ours, theirs, m, runs = (0.5, 0.7), (1.2, 2.2), 16, 120
    truth = [pass_rate(*ours, n) - pass_rate(*theirs, n) for n in range(1, m + 1)]
    first = next(n for n, gap in enumerate(truth, 1) if gap < 0)
    assert 1 < first < m
    rng = np.random.default_rng(2)
    inside = sharp = 0
    for _ in range(runs):
        a, b = (
            samples(name, rng.random((400, m)) < rng.beta(*law, (400, 1)))
            for name, law in (("a", ours), ("b", theirs))
        )
        flip = curve("pass@n", a, b).first_loss
        assert flip.earliest is not None
        inside += flip.earliest <= first <= (flip.latest or np.inf)
        sharp += flip.latest is not None
    assert inside / runs > 0.95 - 3 * np.sqrt(0.95 * 0.05 / runs)
    assert sharp / runs > 0.5  # and it is not always open


def test_a_flip_says_what_the_set_is():
    a, b = drawn(3, prompts=60, binary=False)
    assert str(curve("best-of-n", b, a).first_loss) == "nowhere"
    lost = curve("best-of-n", a, b)
    assert str(lost.first_loss) == "n = 1"
    assert "loses='1–8'" in repr(lost)
    same = curve("best-of-n", a, a)
    assert set(same.verdicts) == {"cannot tell"}
    assert str(same.first_loss) == "not seen (possible from n = 1 on)"


def test_one_member_of_a_family_and_other_procedures_have_one_n():
    a, b = drawn(4, binary=False)
    assert curve("best-of-n:4", a, b).sizes == (4,)
    own = curve("order-statistic:5:2", a, b)
    expected = win_rate(a.scores, b.scores, OrderStatistic(5, 2))
    assert own.sizes == (5,)
    assert own.values[0] == expected.value


def test_sizes_beyond_128_grow_by_equal_ratios():
    sizes = sizes_up_to(10_000)
    assert sizes[:128] == tuple(range(1, 129))
    assert sizes[-1] == 10_000
    assert len(sizes) < 260
    assert max(b / a for a, b in pairwise(sizes[128:])) < 1.05


def test_a_curve_is_a_table_and_a_picture():
    a, b = drawn(5)
    own = curve("pass@n", a, b)
    frame = own.to_frame()
    assert list(frame["n"]) == list(range(1, 9))
    assert frame["value"].tolist() == pytest.approx((frame["policy"] - frame["reference"]).tolist())
    assert own.plot().get_xlabel() == "n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("best", "measure"),
        ("pass@", "measure"),
        ("pass@0", "measure"),
        ("soft-best-of-n:4:0.1", "by rank"),
        (3, "measure"),
    ],
)
def test_measures_that_cannot_be_read_are_refused(text, message):
    with pytest.raises(ArgumentError, match=message):
        read_measure(text)


def test_samples_without_what_a_measure_reads_are_refused():
    a, b = drawn(6, binary=False)
    with pytest.raises(ArgumentError, match="scores of 0 and 1 for pass@n"):
        curve("pass@n", a, b)
    c, d = (samples(name, np.ones((3, 2))) for name in "cd")
    with pytest.raises(ArgumentError, match="answers"):
        curve("majority-of-n", c, d)
    with pytest.raises(ArgumentError, match="at most 2"):
        curve("pass@n", c, d, sizes=[1, 3])
    with pytest.raises(ArgumentError, match="same order"):
        curve("best-of-n", c, d.rows([2, 1, 0]))
    fitting = [name for name, measure in measures().items() if measure.fits([a, b])]
    assert fitting == ["best-of-n", "worst-of-n"]
