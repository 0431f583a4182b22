"""The page of claims: that of the committed results, and honest about what is missing."""

import pytest

from infalign import storage


def test_the_pages_are_those_of_the_committed_results(tmp_path):
    import ablations_page
    from claims_page import FOLDER, PAGE
    from claims_page import page as claims_page

    assert claims_page() == PAGE.read_text()
    ablations_page.write(storage.read_json(FOLDER / "ablations.json"), tmp_path)
    page = (FOLDER / "ablations.md").read_text()
    assert (tmp_path / "ablations.md").read_text() == page


def test_a_study_that_is_absent_leaves_its_claims_open(tmp_path):
    from claims import CLAIMS, OPEN
    from claims_page import page
    from trained_cells import STUDIES, none_of

    text = page(tmp_path)
    tasks = sum(len(none_of(study)["tasks"]) for study in STUDIES)
    assert text.lower().count(f"**{OPEN}.**") == len(CLAIMS)
    assert text.count(f" | {OPEN} | {OPEN} | {OPEN} |") == tasks
    assert f"{len(CLAIMS)} are {OPEN}." in text.replace("\n", " ")


def rate(value, rival, low, high, seeds="own", ahead=None):
    ahead = low > 0 if ahead is None else ahead
    best = {"rival": "identity", "value": rival, "low": low, "high": high, "ahead": ahead}
    best["seed_variance"] = seeds
    return {"value": value, "to_best": best, "to_rivals": {"identity": best}}


@pytest.mark.parametrize(
    ("ends", "verdict"),
    [
        ([(0.1, 0.3)], "reproduced"),
        ([(-0.1, 3.0)], "undecided"),
        ([(-0.3, -0.1)], "not reproduced"),
        ([(0.1, 0.3), (-0.1, 0.2)], "reproduced in part"),
        ([(0.1, 0.3), (-0.3, -0.1)], "reproduced in part"),
        ([(-0.3, -0.1), (-0.1, 0.2)], "not reproduced"),
        ([(None, None)], "undecided"),
        ([], "undecided"),
    ],
)
def test_a_claim_is_refuted_only_by_an_interval_that_excludes_it(ends, verdict):
    from claims import verdict_on

    assert verdict_on(ends) == verdict


def trained_task(finished, rivals, seeds="own", ahead=None):
    """The only task with a cell, of a study with two methods whose leads are all the same."""
    from trained_claims import trained

    arms = [
        {
            "method": method,
            "target_kl": 0.5,
            "kl": {"value": 0.5},
            "kl_efficiency": 0.39,
            "theory": theory,
            "cells": [{"finished": finished}],
            "win_rates": rivals
            and {
                "reward": {
                    "best-of-n:4": rate(0.8, *rivals, seeds, ahead),
                    "sampling": rate(0.7, *rivals, seeds),
                }
            },
        }
        for method, theory in (("rloo", 0.85), ("identity", 0.79), ("group", 0.85))
    ]
    task = {"task": "helpful", "procedure": "best-of-n:4", "arms": arms}
    rows = list(trained({"trained": {"real-helpful": {"tasks": [task]}}}))
    (own,) = [row for row in rows if row.name == "helpfulness, best-of-4, SmolLM2-135M"]
    return own


@pytest.mark.parametrize(
    ("finished", "rivals", "verdicts"),
    [
        (True, (0.04, 0.01, 0.07), ("reproduced", "holds", "reproduced")),
        (True, (0.02, 0.01, 0.03), ("reproduced in part", "holds in part", "reproduced")),
        (True, (0.02, -0.001, 0.05), ("undecided", "undecided", "reproduced")),
        (True, (0.02, -0.02, 0.05), ("undecided", "undecided", "undecided")),
        (True, (-0.02, -0.03, -0.01), ("not reproduced", "does not hold", "not reproduced")),
        (False, (0.04, 0.01, 0.07), ("reproduced, so far", "holds, so far", "reproduced, so far")),
        (False, (0.02, -0.02, 0.05), ("undecided", "undecided", "undecided")),
        (False, None, ("not run yet", "not run yet", "not run yet")),
    ],
)
def test_verdicts_on_trained_policies_follow_from_their_intervals(finished, rivals, verdicts):
    from trained_claims import CTRL

    own = trained_task(finished, rivals)
    assert tuple(own.verdicts) == verdicts
    if rivals:
        number, _ = own.said[CTRL]
        lead = "] over `identity`. In theory, exact training for `rloo` leads that for `identity`"
        assert f"{lead} by 6.0 points. The KL efficiency is 39 %." in number
        assert "Under plain sampling: " in number


def test_a_lead_that_is_one_at_the_level_of_a_single_candidate_is_undecided_and_says_so():
    own = trained_task(True, (0.02, 0.001, 0.04), ahead=False)
    assert own.verdicts[:2] == ["undecided"] * 2
    text = " ".join(own.text().split())
    assert text.count("+2.0 [+0.1, +4.0] over `identity`; at 97.5 %, the interval includes 0.") == 2
    assert "97.5" not in trained_task(True, (0.02, 0.01, 0.03)).text()


def test_an_interval_without_the_seeds_decides_nothing():
    own = trained_task(True, (0.04, 0.01, 0.07), seeds=None)
    assert own.verdicts == ["undecided"] * 3 and "]‡ over `identity`" in own.text()


def test_results_of_earlier_settings_decide_nothing(monkeypatch):
    import trained_claims

    task = {"now": {"training prompts": 256}, "settings": {"training prompts": 64}}
    monkeypatch.setattr(trained_claims, "_lead_of", lambda *_: ("+9.9", trained_claims.SHOWN))
    arms = [{"method": "rloo", "target_kl": 0.5, "cells": [], "win_rates": {"reward": {}}}]
    task |= {"arms": arms, "procedure": "sampling"}
    own = trained_claims._trained("a", "real-helpful", task, {})
    assert own.verdicts == [trained_claims.OPEN] * 3
    assert "With earlier settings (training prompts 64 instead of 256), `rloo`: +9.9" in own.left


def test_what_was_learned_stands_beside_its_own_procedure_only():
    from trained_claims import _learned

    rows = [{"correlation": r, "left": {"best": 70 + r, "identity": 69, "raw": 68}} for r in (0, 1)]
    seen = {"tasks": {"tldr": {"procedure": "best-of-n:8", "learned": rows}}}
    eight = {"task": "tldr-8", "procedure": "best-of-n:8"}
    said = _learned("real-tldr", eight, seen)
    assert "of 0.00 to 1.00 with" in said and "leads by 2.0 points" in said
    assert _learned("real-tldr", {"task": "tldr", "procedure": "best-of-n:4"}, seen) == ""
    assert _learned("bundled-tldr", eight, seen) == _learned("real-tldr", eight, {}) == ""
