"""A small share of the campaign, and that each of its checks sees a wrong number."""

import dataclasses
import inspect
import json
import sys
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import imported
import numpy as np
import pytest

import infalign as ia
from infalign import _moved
from infalign.errors import SolveError
from verify import binary, campaign, designs, few_samples, finite_sets, laws, page, transforms
from verify.check import DEFECTS, Outcome
from verify.families import FAMILIES
from verify.procedures import Pair, best, worst
from verify.quadrature import Tilt
from verify.shooting import at_budget, stationary

SEED = 20_260_101

SHARE = {
    "designs": 4,
    "verifiable rewards": 25,
    "finite outcome sets": 10,
    "few calibration samples": 2,
    "estimators": 150,
    "small worlds": 150,
    "transforms and quantiles": 100,
    "intervals": 6,
}
"""Problems of each family; a second or two of processor time each, designs a little more."""


def test_every_family_has_a_share():
    assert list(SHARE) == list(FAMILIES)


@contextmanager
def watched():
    """Files whose functions run."""
    files, before = set(), sys.getprofile()
    sys.setprofile(lambda frame, event, _: files.add(frame.f_code.co_filename))
    try:
        yield files
    finally:
        sys.setprofile(before)


@cache
def tried(name):
    """The verdicts on a family's share, and the files whose functions ran for the first."""
    with watched() as ran:
        first = FAMILIES[name].try_(SEED, 0)
    return [first, *(FAMILIES[name].try_(SEED, n) for n in range(1, SHARE[name]))], ran


@pytest.mark.parametrize("name", FAMILIES)
def test_answers_to_random_problems_are_right(name):
    rows, _ = tried(name)
    assert [row["words"] for row in rows if row["outcome"] in DEFECTS] == []
    assert any(row["outcome"] == Outcome.confirmed for row in rows)


@pytest.mark.parametrize("name", FAMILIES)
def test_a_journal_belongs_to_all_code_that_decides_its_verdicts(name):
    _, ran = tried(name)
    folders, own = imported.PACKAGES.values(), Path(inspect.getfile(FAMILIES[name].draw))
    ours = {file for file in map(Path, ran) if any(map(file.is_relative_to, folders))}
    looking_up = {Path(ia.__file__), Path(_moved.__file__)}  # of names; they compute nothing
    assert own in ours
    assert ours - looking_up - {Path(__file__)} <= set(FAMILIES[name].files)


def test_an_edit_leaves_the_journals_of_families_that_do_not_import_it():
    def of(folder):
        return {n for n, f in FAMILIES.items() if any(folder in p.parts for p in f.files)}

    assert of("evaluation") == {"estimators", "intervals"}
    assert of("benchmarks") == {"intervals"}
    assert of("calibration") == {"transforms and quantiles"}
    assert "designs" in of("_solvers") - of("finite")


def changed(**change):
    """The answer with other values of some fields, computed from the old ones."""
    return lambda answer: dataclasses.replace(
        answer, **{name: of(getattr(answer, name)) for name, of in change.items()}
    )


def entry(name):
    """Answers with one of them changed a little."""
    return lambda answers: {**answers, name: answers[name] + 1e-6}


def other_budget(design):
    """The same numbers, with the policy of another budget."""
    return dataclasses.replace(design, solution=ia.design(design.procedure, kl=0.501).solution)


WRONG = {
    "designs": (
        designs.Question(best(4), best(4), {"kl": 0.5}),
        [
            changed(win_rate=lambda w: w + 1e-8),
            changed(kl=lambda kl: kl * (1 + 1e-6)),
            changed(beta=lambda beta: beta * (1 + 1e-6)),
            other_budget,
        ],
    ),
    "verifiable rewards": (
        binary.Question((0.2, 0.4, 1.0), best(4), worst(3), {"beta": 0.3}),
        [
            changed(win_rate=lambda w: w + 1e-9),
            changed(kl=lambda kl: kl + 1e-8),
            changed(pass_rate=lambda p: 0.999 * p),
        ],
    ),
    "finite outcome sets": (
        finite_sets.Question((0, 1, 1, 2), (0.4, 0.2, 0.2, 0.2), worst(3), best(2), {"beta": 0.3}),
        [
            changed(win_rate=lambda w: w + 1e-8),
            changed(kl=lambda kl: kl + 1e-8),
            changed(policy=lambda p: p[::-1]),
            changed(coupled_reward=lambda r: 2 * r),
        ],
    ),
    "few calibration samples": (
        few_samples.Question(best(2), best(2), 0.3, 2),
        [
            changed(win_rate=lambda w: w + 0.05),
            changed(kl=lambda kl: 1.001 * kl),
            changed(beta=lambda beta: beta / 2),
        ],
    ),
    "estimators": (
        FAMILIES["estimators"].problem(SEED, 0),
        [entry(name) for name in FAMILIES["estimators"].limits],
    ),
    "small worlds": (
        FAMILIES["small worlds"].problem(SEED, 0),
        [entry(name) for name in FAMILIES["small worlds"].limits],
    ),
    "transforms and quantiles": (
        transforms.Question(ia.Exponential(3.0), 0.3, best(4), worst(2), [1.0, 2.0], [1.0, 1.0]),
        [
            entry(name)
            for name in (
                *("values", "average", "kl", "win rate", "cdf", "density"),
                *("quantiles", "smoothed", "calibrated"),
            )
        ],
    ),
    "intervals": (
        FAMILIES["intervals"].problem(SEED, 0),
        [lambda coverage: {**coverage, "holds": 0.8}],
    ),
}
"""A problem of each family, and wrong answers that it must notice."""


@cache
def right(name):
    """The answer to the problem, which is confirmed."""
    problem, _ = WRONG[name]
    assert FAMILIES[name].verdict(problem)[0] == Outcome.confirmed
    return FAMILIES[name].answer(problem)


@pytest.mark.parametrize(
    ("name", "place"), [(name, i) for name, own in WRONG.items() for i in range(len(own[1]))]
)
def test_a_wrong_number_is_noticed(name, place):
    problem, changes = WRONG[name]
    answer = changes[place](right(name))
    family = dataclasses.replace(FAMILIES[name], answer=lambda _: answer)
    assert family.verdict(problem)[0] == Outcome.wrong


BEYOND_SHOTS = (
    designs.Question(worst(67), worst(67), {"kl": 1.319}),  # β = 1e-37; one solution by theory
    designs.Question(worst(77), best(78), {"kl": 0.01368}),  # W = 0 for all policies of that KL
)


@pytest.mark.parametrize("problem", BEYOND_SHOTS, ids=str)
def test_where_shots_end_quadrature_confirms_a_design_and_notices_another_policy(problem):
    family, design = FAMILIES["designs"], designs.answer(problem)
    outcome, errors, _ = family.verdict(problem)
    assert outcome == Outcome.confirmed and "log f off Φ/β" in errors
    other = changed(beta=lambda beta: beta * (1 + 1e-4))(design)
    family = dataclasses.replace(family, answer=lambda _: other)
    assert family.verdict(problem)[0] == Outcome.wrong


def test_no_policy_of_a_kl_wins_more_than_its_bound():
    # Against plain sampling, best-of-1 wins 1 − ∫ F, and the best F is the tilt f ∝ e^{u/β}.
    tilt = ia.design(ia.Sampling(), kl=0.3)
    assert tilt.win_rate < designs.bound_of_kl(laws.best(1), laws.best(1), 0.3) < 1
    assert designs.bound_of_kl(laws.best(1), laws.best(1), 1e-12) == pytest.approx(0.5, abs=1e-5)


def test_a_policy_that_is_not_the_best_is_noticed():
    family, reference = FAMILIES["verifiable rewards"], np.array([0.3])
    problem = binary.Question((0.3,), worst(8), worst(8), {"beta": 0.05})
    small = 0.35  # the numbers are this policy's own; all but one passing wins far more
    kl = float(np.sum(binary.kls(np.array([small]), np.array([1 - small]), reference)))
    win_rate = float(problem.win_rates(np.array([1 - small]), reference)[0])
    answer = ia.verifiable.VerifiableOptimum(np.array([small]), np.array([0.0]), win_rate, kl, 0.05)
    outcome, errors, _ = dataclasses.replace(family, answer=lambda _: answer).verdict(problem)
    assert outcome == Outcome.wrong and errors["J below the best"] > 0.4


def test_a_refusal_without_a_reason_is_a_defect():
    family = FAMILIES["verifiable rewards"]

    def refuse(_):
        raise SolveError("No.")

    problem = next(p for p in (family.problem(SEED, n) for n in range(99)) if "beta" in p.asked)
    assert dataclasses.replace(family, answer=refuse).verdict(problem)[0] == Outcome.wrong


PLACE_42 = Pair(ia.OrderStatistic(162, 42), laws.place(162, 42))


@pytest.mark.parametrize(
    ("problem", "outcome"),
    [
        (designs.Question(PLACE_42, worst(191), {"kl": 2.597}), Outcome.refused),
        (designs.Question(best(4), best(4), {"kl": 0.5}), Outcome.wrong),
    ],
    ids=str,
)
def test_a_budget_may_be_refused_only_if_its_win_rate_is_1_to_rounding(problem, outcome):
    def refuse(_):
        raise SolveError("No.")

    family = dataclasses.replace(FAMILIES["designs"], answer=refuse)
    assert family.verdict(problem)[0] == outcome


def test_any_other_error_is_a_defect():
    family = dataclasses.replace(FAMILIES["estimators"], answer=lambda _: 1 / 0)
    assert family.verdict(family.problem(SEED, 0))[0] == Outcome.raw


def test_shots_against_plain_sampling_agree_with_the_closed_form():
    # f = c + H(F)/β: with best-of-2, ∫ dF / (c + F²/β) = √(β/c) atan(1/√(βc)) = 1.
    (only,) = stationary(laws.best(2), laws.best(1), 0.5, scanned=60)
    c = np.exp(only.start) if only.up else np.exp(only.start) - 2
    assert np.sqrt(0.5 / c) * np.arctan(1 / np.sqrt(0.5 * c)) == pytest.approx(1, rel=1e-12)
    again = at_budget(laws.best(2), laws.best(1), only.kl)
    assert again.beta == pytest.approx(0.5, rel=1e-9)


def test_a_campaign_continues_and_its_page_has_the_counts(tmp_path, capsys):
    words = ["--families", "estimators", "--jobs", "1", "--seed", "3"]
    words += ["--work", str(tmp_path / "work"), "--out", str(tmp_path)]
    assert campaign.main([*words, "--problems", "2"]) == 0
    assert campaign.main([*words, "--problems", "5"]) == 0
    (journal,) = (tmp_path / "work").rglob("*.jsonl")
    lines = [json.loads(line) for line in journal.read_text().splitlines() if line]
    assert [row["case"] for row in lines] == [0, 1, 2, 3, 4]
    text = (tmp_path / "docs/verified.md").read_text()
    assert "**5 problems: 5 confirmed" in text
    assert "Seed 3" in text
    assert capsys.readouterr().out.rstrip().endswith(text.rstrip())


def test_the_page_shows_the_largest_errors_and_the_defects():
    row = {"case": 0, "outcome": "confirmed", "errors": {"win rate": 1e-15}, "seconds": 1.0}
    rows = [row, row | {"case": 1, "errors": {"win rate": 3e-14}}]
    rows.append(row | {"case": 2, "outcome": "wrong", "errors": {"win rate": 0.5}})
    own = page.summary(rows)
    assert (own["problems"], own["confirmed"], own["wrong"]) == (3, 2, 1)
    assert own["largest"]["win rate"] == 0.5
    text = page.page(
        {
            "seed": 0,
            "date": "d",
            "machine": dict.fromkeys(
                ("processor", "cores", "system", "python", "infalign", *page.LIBRARIES), 1
            ),
            "families": {"designs": own},
            "defects": [{"family": "designs", "words": "design(x): win rate", **rows[-1]}],
        }
    )
    assert "| win rate | 5.0e-01 | 1e-09 |" in text
    assert "- wrong: designs 2: `design(x): win rate`" in text


def test_a_policy_is_stationary_by_quadrature_for_its_own_strength_only():
    design = ia.design(ia.BestOfN(4), kl=0.5)
    law = laws.best(4)
    tilt = Tilt.of(lambda u: design.transform(u) / design.beta, law)
    assert tilt.residual(law, law, design.beta) < 1e-8
    assert tilt.residual(law, law, 1.001 * design.beta) > 1e-4
    assert tilt.residual(laws.best(5), law, design.beta) > 1e-2
