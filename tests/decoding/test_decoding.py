"""Decoders that run: what each keeps has its law, on outcomes that can be listed."""

from collections import Counter
from dataclasses import dataclass, field
from math import factorial

import numpy as np
import pytest
from contracts import implementations, law, procedures
from enumerable import EnumerableModel
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chi2

import infalign as ia
from infalign import AbstractProcedure
from infalign.core.finite import MajorityVote as ExactMajorityVote
from infalign.core.finite import kept as exact_kept
from infalign.decoding import (
    FORMS,
    MajorityVote,
    decode,
    draw_calibration,
    numeric_answer,
    parse_decoder,
    reads,
    select,
)
from infalign.errors import DataError
from infalign.models.interfaces import Response
from infalign.stores import CalibrationStore

TEXTS = ["one 1", "uno 1", "two 2", "three 3", "none"]
REWARDS = dict(zip(TEXTS, [0.0, -3.0, 7.5, 7.5, 7.5], strict=True))  # a tie of three
REFERENCE = np.array([0.3, 0.2, 0.1, 0.15, 0.25])
POLICY = np.array([0.25, 0.1, 0.3, 0.2, 0.15])
ANSWERED = np.array([0.25, 0.1, 0.4, 0.25])
CALIBRATED = ia.finite.calibrated_reward(list(REWARDS.values()), REFERENCE)
PROMPT = [{"role": "user", "content": "How many?"}]
VOTES = [MajorityVote(n) for n in (1, 2, 3, 5)]
DECODERS = [*procedures, *VOTES]


@dataclass
class Listed:
    """A sampler of listed texts with known chances; remembers what it was asked for."""

    texts: list
    chances: np.ndarray
    asked: list = field(default_factory=list)

    def sample(self, conversations, n, *, seed, keys=None):
        self.asked.append((len(conversations), n, seed))
        drawn = np.random.default_rng(seed).choice(
            len(self.texts), (len(conversations), n), p=self.chances
        )
        return [[Response(self.texts[i]) for i in row] for row in drawn]


def by_table(*, prompts, completions, **columns):
    return [REWARDS[c[0]["content"]] for c in completions]


def store(prompts):
    """Reference rewards in exactly the reference's proportions, for prompts "0", "1", …"""
    row = np.repeat(list(REWARDS.values()), np.rint(20 * REFERENCE).astype(int))
    return CalibrationStore.from_rewards([str(i) for i in range(prompts)], [row] * prompts)


def run(procedure, prompts=1, *, seed=0, policy=POLICY, calibration="own", scorer=by_table):
    sampler = Listed(TEXTS[: len(policy)], policy)
    calibration = store(prompts) if calibration == "own" else calibration
    given = [PROMPT] * prompts
    return decode(procedure, sampler, scorer, given, seed=seed, calibration=calibration), sampler


def enumerated(procedure, values, policy):
    """Law of the kept outcome by going through all counts of `n` draws."""
    kept = np.zeros_like(policy)
    for counts in compositions(procedure.draws, policy.size):
        chance = factorial(procedure.draws) * np.prod(
            [p**c / factorial(c) for p, c in zip(policy, counts, strict=True)]
        )
        if isinstance(procedure, ia.SoftBestOfN):
            weight = counts * np.exp(values / procedure.temperature)
        else:
            votes = Counter()
            for label, count in zip(values, counts, strict=True):
                votes[label] += count if label is not None else 0
            most = max(votes.values())
            winners = [a for a in votes if most and votes[a] == most] or [None]
            weight = np.array(
                [
                    c / sum(counts[np.array([v == label for v in values])])
                    if label in winners
                    else 0
                    for label, c in zip(values, counts, strict=True)
                ]
            ) / len(winners)
        kept += chance * weight / weight.sum()
    return kept


def compositions(n, parts):
    if parts == 1:
        yield np.array([n])
        return
    for first in range(n + 1):
        for rest in compositions(n - first, parts - 1):
            yield np.array([first, *rest])


def exact(procedure, policy, rewards, calibrated):
    """Law of the kept outcome."""
    if isinstance(procedure, ia.RankProcedure):
        return exact_kept(rewards, policy, procedure)
    if isinstance(procedure, ia.Rewind):
        failed = calibrated < procedure.threshold
        a, tries = policy[failed].sum(), procedure.max_tries
        return policy * np.where(failed, a ** (tries - 1), sum(a**j for j in range(tries)))
    if isinstance(procedure, MajorityVote):
        return enumerated(procedure, [numeric_answer(t) for t in TEXTS[: policy.size]], policy)
    return enumerated(procedure, calibrated, policy)


def assert_law(counts, expected):
    """A chi-square test of counts against chances; what cannot occur does not."""
    counts, total = np.asarray(counts, float), np.sum(counts)
    assert counts[expected < 1e-12].sum() == 0
    rare = total * expected < 5
    seen, due = np.append(counts[~rare], counts[rare].sum()), total * expected
    due = np.append(due[~rare], due[rare].sum())
    seen, due = seen[due > 0], due[due > 0]
    statistic = np.sum((seen - due) ** 2 / due)
    assert statistic < chi2.isf(1e-4, max(seen.size - 1, 1)), (seen, due)


@pytest.mark.parametrize("procedure", DECODERS, ids=lambda p: p.spec)
def test_the_selected_response_has_the_law_of_its_procedure(procedure):
    results, _ = run(procedure, 1000)
    counts = Counter(r.response.text for r in results)
    expected = exact(procedure, POLICY, list(REWARDS.values()), CALIBRATED)
    assert expected.sum() == pytest.approx(1)
    assert_law([counts[t] for t in TEXTS], expected)
    for r in results[:50]:
        assert r.response == r.candidates[r.index] and r.reward == REWARDS[r.response.text]
        assert r.rewards == tuple(REWARDS[c.text] for c in r.candidates)


def test_every_procedure_of_the_package_has_a_decoder():
    assert {type(p) for p in procedures} == implementations(AbstractProcedure)
    for procedure in procedures:
        assert reads(procedure) in ("nothing", "rewards", "quantiles")


@pytest.mark.parametrize("n", [1, 2, 4, 7])
def test_a_vote_of_answers_that_all_exist_has_the_exact_law_of_finite(n):
    results, _ = run(MajorityVote(n), 2000, policy=ANSWERED)
    counts = Counter(r.response.text for r in results)
    expected = ExactMajorityVote([1, 1, 2, 3], n).selected(ANSWERED)
    assert_law([counts[t] for t in TEXTS[:4]], expected)


CONTINUOUS = [ia.SoftBestOfN(4, 0.1), ia.Rewind(0.8, 5), ia.BestOfPoisson(3.0), ia.WorstOfN(6)]


@pytest.mark.parametrize("procedure", CONTINUOUS, ids=lambda p: p.spec)
def test_among_many_outcomes_quantiles_follow_the_law_on_the_quantile_axis(procedure):
    prompts, fine = 800, (np.arange(2000) + 0.5) / 2000
    calibration = CalibrationStore.from_rewards(
        [str(i) for i in range(prompts)], np.broadcast_to(fine, (prompts, 2000))
    )

    def own_text(*, completions, **columns):
        return [float(c[0]["content"]) for c in completions]

    class Uniform:
        def sample(self, conversations, n, *, seed, keys=None):
            u = np.random.default_rng(seed).random((len(conversations), n))
            return [[Response(repr(x)) for x in row] for row in u.tolist()]

    conversations = [PROMPT] * prompts
    results = decode(procedure, Uniform(), own_text, conversations, seed=1, calibration=calibration)
    u = np.sort([r.reward for r in results])
    empirical = (np.arange(prompts) + 0.5) / prompts
    # Kolmogorov: the largest deviation exceeds 2 / √N once in 1500 times.
    assert np.abs(procedure.cdf(u) - empirical).max() < 2 / np.sqrt(prompts)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return EnumerableModel.make(tmp_path_factory.mktemp("tiny"), seed=3, max_new_tokens=2)


def count_a(*, completions, **columns):
    return [float(c[0]["content"].count("a")) for c in completions]


@pytest.mark.parametrize(
    "procedure",
    [ia.Sampling(), ia.BestOfN(3), ia.WorstOfN(2), ia.SoftBestOfN(3, 0.2), ia.Rewind(0.7, 3)],
    ids=lambda p: p.spec,
)
def test_a_language_model_is_decoded_by_the_law(tiny, procedure):
    table = tiny.law("ab")
    texts, policy = list(table), np.array(list(table.values()))
    policy /= policy.sum()
    rewards = np.array([t.count("a") for t in texts], float)
    ids = [str(i) for i in range(1200)]
    row = np.repeat(rewards, np.rint(5000 * policy).astype(int))
    calibration = CalibrationStore.from_rewards(ids, np.broadcast_to(row, (1200, row.size)))
    calibrated = calibration.quantiles(["0"] * rewards.size, rewards)
    results = decode(
        procedure,
        tiny.language_model(),
        count_a,
        [tiny.conversation("ab")] * 1200,
        seed=2,
        calibration=calibration,
    )
    counts = Counter(r.response.text for r in results)
    assert_law([counts[t] for t in texts], exact(procedure, policy, rewards, calibrated))


@pytest.mark.parametrize("procedure", [ia.SoftBestOfN(3, 0.2), ia.Rewind(0.7, 3)])
def test_a_prompts_result_does_not_depend_on_what_is_asked_beside_it(tiny, procedure):
    ids, words = ["x", "y", "z"], ["ab", "c", "ba"]
    given = [tiny.conversation(w) for w in words]
    calibration = CalibrationStore.from_rewards(ids, [[0.0, 0.0, 1.0, 2.0]] * 3)
    together = decode(
        procedure,
        tiny.language_model(),
        count_a,
        given,
        seed=2,
        prompt_ids=ids,
        calibration=calibration,
    )
    for i in (2, 0, 1):
        (alone,) = decode(
            procedure,
            tiny.language_model(),
            count_a,
            [given[i]],
            seed=2,
            prompt_ids=[ids[i]],
            calibration=calibration,
        )
        assert [r.text for r in alone.candidates] == [r.text for r in together[i].candidates]
        assert alone.index == together[i].index


@pytest.mark.parametrize("procedure", DECODERS, ids=lambda p: p.spec)
def test_the_same_seed_gives_the_same_result_and_another_one_another(procedure):
    first, _ = run(procedure, 40, seed=7)
    assert run(procedure, 40, seed=7)[0] == first
    assert run(procedure, 40, seed=8)[0] != first


def test_choosing_does_not_move_what_is_sampled():
    soft, _ = run(ia.SoftBestOfN(4, 0.3), 20)
    best, _ = run(ia.BestOfN(4), 20)
    assert [r.candidates for r in soft] == [r.candidates for r in best]
    assert [r.index for r in soft] != [r.index for r in best]


def test_rewind_draws_in_rounds_for_prompts_not_yet_done():
    results, sampler = run(ia.Rewind(0.7, 4), 200)
    waiting = [asked for asked, n, _ in sampler.asked if n == 1]
    assert len(waiting) == len(sampler.asked) == 4
    for turn, asked in enumerate(waiting):
        assert asked == sum(len(r.candidates) > turn for r in results)
    for r in results:
        assert all(q < 0.7 for q in r.quantiles[:-1]) and r.index == len(r.candidates) - 1
        assert r.quantiles[-1] >= 0.7 or len(r.candidates) == 4
    assert len({seed for *_, seed in sampler.asked}) == 4


def test_a_response_right_at_the_threshold_passes():
    threshold = float(CALIBRATED[0])  # 0.2 + 0.15
    results, _ = run(ia.Rewind(threshold, 50), 50)
    assert {r.response.text for r in results} == set(TEXTS) - {"uno 1"}


def test_poisson_and_mixtures_draw_what_each_prompt_needs():
    results, sampler = run(ia.BestOfPoisson(2.0), 400)
    sizes = np.array([len(r.candidates) for r in results])
    assert sum(asked * n for asked, n, _ in sampler.asked) == sizes.sum()
    assert abs(sizes.mean() - 3) < 4 * np.sqrt(2 / 400)
    mixed, _ = run(ia.Mixture((ia.BestOfN(5), ia.Sampling()), (0.5, 0.5)), 200)
    assert {len(r.candidates) for r in mixed} == {1, 5}


def test_without_a_scorer_sampling_and_votes_run_and_the_others_say_what_they_lack():
    results, _ = run(MajorityVote(3), 5, scorer=None)
    assert results[0].rewards is results[0].reward is results[0].rank is None
    assert len(results[0].answers) == 3 and results[0].quantiles is None
    run(ia.Sampling(), scorer=None)
    with pytest.raises(ValueError, match=r"`scorer` must be given: BestOfN\(n=2\) selects"):
        run(ia.BestOfN(2), scorer=None)
    with pytest.raises(ValueError, match=r"`calibration` must be given: Rewind.*draw_calibration"):
        run(ia.Rewind(0.5, 2), calibration=None)


def test_calibration_drawn_on_the_spot_nears_the_calibrated_reward():
    samples = 900
    drawn = draw_calibration(Listed(TEXTS, REFERENCE), by_table, [PROMPT] * 2, samples, seed=4)
    for prompt in "01":
        found = drawn.quantiles([prompt] * 5, list(REWARDS.values()))
        assert np.abs(found - CALIBRATED).max() < 4 * 0.5 / np.sqrt(samples)
    results, _ = run(ia.Rewind(0.4, 60), 2, calibration=drawn)
    assert all(REWARDS[r.response.text] == 7.5 for r in results)


@pytest.mark.parametrize("texts", [True, False])
def test_a_reward_that_reads_messages_as_texts_is_warned_of_when_calibration_is_drawn(
    caplog, texts
):
    def length(*, completions, **columns):
        return [float(len(completion)) for completion in completions]

    prompt = "A color?" if texts else [{"role": "user", "content": "A color?"}]
    draw_calibration(Listed(TEXTS, REFERENCE), length, [prompt], 20, seed=4)
    said = [r.getMessage() for r in caplog.records]
    assert len(said) == (not texts)
    assert all("`completion[-1][" in w and "reward length is constant" in w for w in said)


def test_prompts_the_store_does_not_know_are_named():
    with pytest.raises(DataError, match="prompt_id '3' is not in the calibration store"):
        run(ia.Rewind(0.5, 2), 5, calibration=store(3))


def test_rewards_that_are_not_finite_are_refused():
    def broken(*, completions, **columns):
        return [float("nan")] * len(completions)

    with pytest.raises(DataError, match="`broken` must return finite numbers"):
        run(ia.BestOfN(2), scorer=broken)


def test_a_sampler_that_returns_another_number_is_refused():
    class Short:
        def sample(self, conversations, n, *, seed, keys=None):
            return [[Response("x")] for _ in conversations]

    with pytest.raises(DataError, match=r"Short must return 3 responses to each of 2 .* with 1\."):
        decode(ia.BestOfN(3), Short(), by_table, [PROMPT] * 2, seed=0)
    with pytest.raises(ValueError, match="`prompt_ids` must have one id per conversation"):
        decode(ia.BestOfN(3), Short(), by_table, [PROMPT] * 2, seed=0, prompt_ids=["a"])
    with pytest.raises(ValueError, match=r"all different, and at least one; got 2 \(1 different"):
        decode(ia.BestOfN(3), Short(), by_table, [PROMPT] * 2, seed=0, prompt_ids=["a", "a"])


def test_the_rank_of_the_selected_response_counts_those_above():
    for r in run(ia.WorstOfN(4), 30)[0]:
        assert r.rank == 1 + sum(x > min(r.rewards) for x in r.rewards)
    assert {r.rank for r in run(ia.BestOfN(4), 30)[0]} == {1}


@law
@given(st.lists(st.floats(-1e6, 1e6), min_size=3, max_size=12), st.integers(0, 2**32))
def test_keeping_depends_on_the_order_of_rewards_only(rewards, seed):
    _, ranks = np.unique(rewards, return_inverse=True)
    for procedure in (ia.BestOfN(2), ia.OrderStatistic(3, 2), ia.WorstOfN(3)):
        kept = [select(procedure, x, rng=np.random.default_rng(seed)) for x in (rewards, ranks)]
        assert kept[0] == kept[1]


def test_out_of_more_values_than_it_draws_a_procedure_selects_by_its_unbiased_law():
    rng, procedure, rewards = np.random.default_rng(0), ia.BestOfN(2), [3.0, 1.0, 2.0, 4.0]
    counts = np.bincount([select(procedure, rewards, rng=rng) for _ in range(3000)], minlength=4)
    assert_law(counts[[1, 2, 0, 3]], np.diff(procedure.subset_cdf(4)))


class MedianOfThree(ia.RankProcedure):
    """One of your own, of whose kind the package knows nothing."""

    draws, spec = 3, "median-of-three"

    def cdf(self, u):
        return 3 * np.square(u) - 2 * np.power(u, 3)

    def density(self, u):
        return 6 * np.asarray(u) - 6 * np.square(u)

    def slope(self, u):
        return 6 - 12 * np.asarray(u)


def test_your_own_rank_procedure_runs_from_its_law_alone():
    for r in run(MedianOfThree(), 30)[0]:
        assert r.reward == sorted(r.rewards)[1]


def test_values_that_cannot_be_selected_from_are_refused():
    rng = np.random.default_rng(0)
    with pytest.raises(ValueError, match=r"`BestOfN\(n=4\)` needs at least 4 values; got 3"):
        select(ia.BestOfN(4), [1.0, 2.0, 3.0], rng=rng)
    with pytest.raises(ValueError, match="needs at least 5 values; got 2"):
        select(ia.Rewind(0.9, 5), [0.1, 0.2], rng=rng)
    with pytest.raises(ValueError, match="`values` must hold finite values; got nan"):
        select(ia.BestOfN(2), [1.0, float("nan")], rng=rng)
    with pytest.raises(ValueError, match=r"`values` must lie in \[0, 1\]; got 2"):
        select(ia.SoftBestOfN(2, 0.1), [0.5, 2.0], rng=rng)
    with pytest.raises(ValueError, match="`procedure` must select by rank or be SoftBestOfN"):
        select("best-of-n:4", [1.0], rng=rng)
    with pytest.raises(DataError, match="An answer must be hashable"):
        select(MajorityVote(2), [["4"], ["4"]], rng=rng)


def test_a_vote_without_voters_is_plain_sampling():
    rng = np.random.default_rng(0)
    counts = np.bincount([select(MajorityVote(3), [None] * 3, rng=rng) for _ in range(600)])
    assert_law(counts, np.full(3, 1 / 3))
    assert select(MajorityVote(3), [None, 0, None], rng=rng) == 1  # one that is falsy votes
    assert select(MajorityVote(4), [np.nan, "a", np.nan, np.nan], rng=rng) == 1


def test_the_text_forms_read_back_and_name_what_there_is():
    vote = parse_decoder("majority-vote:8", answer=len)
    assert (vote.n, vote.answer, vote.spec, vote.draws) == (8, len, "majority-vote:8", 8)
    for procedure in procedures:
        assert parse_decoder(procedure.spec) == procedure
    assert FORMS.endswith(" or majority-vote:N")
    for wrong in ("majority-vote", "majority-vote:x", "best"):
        with pytest.raises(ValueError, match="or majority-vote:N"):
            parse_decoder(wrong)
    with pytest.raises(ValueError, match="`n` must be a whole number of at least 1"):
        parse_decoder("majority-vote:0")
