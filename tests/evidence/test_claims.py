"""The page of claims: that of the committed results, and honest about what is missing."""

import pytest

from infalign import storage


def test_the_pages_are_those_of_the_committed_results(tmp_path):
    import ablations_page
    import claims

    assert claims.page() == claims.PAGE.read_text()
    ablations_page.write(storage.read_json(claims.FOLDER / "ablations.json"), tmp_path)
    page = (claims.FOLDER / "ablations.md").read_text()
    assert (tmp_path / "ablations.md").read_text() == page


def test_a_study_that_is_absent_leaves_its_claims_open(tmp_path):
    from claims import CLAIMS, OPEN, TRAINED, page

    assert page(tmp_path).lower().count(f"**{OPEN}.**") == len(CLAIMS) + len(TRAINED)


def rate(value, rival, low, high):
    best = {"rival": "identity", "value": rival, "low": low, "high": high, "ahead": low > 0}
    best["seed_variance"] = None
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


@pytest.mark.parametrize(
    ("finished", "rivals", "verdicts"),
    [
        (True, (0.04, 0.01, 0.07), ("reproduced", "reproduced")),
        (True, (0.02, 0.01, 0.03), ("reproduced in part", "reproduced")),
        (True, (0.02, -0.001, 0.05), ("undecided", "reproduced")),
        (True, (0.02, -0.02, 0.05), ("undecided", "undecided")),
        (True, (-0.02, -0.03, -0.01), ("not reproduced", "not reproduced")),
        (False, (0.04, 0.01, 0.07), ("reproduced, so far", "reproduced, so far")),
        (False, (0.02, -0.02, 0.05), ("undecided", "undecided")),
        (False, None, ("not run yet",)),
    ],
)
def test_verdicts_on_trained_policies_follow_from_their_intervals(finished, rivals, verdicts):
    from claims import trained

    arms = [
        {
            "method": method,
            "target_kl": 0.5,
            "kl_efficiency": 0.39,
            "theory": theory,
            "cells": [{"finished": finished}],
            "win_rates": rivals
            and {
                "reward": {
                    "best-of-n:4": rate(0.8, *rivals),
                    "sampling": rate(0.7, *rivals),
                }
            },
        }
        for method, theory in (("rloo", 0.85), ("identity", 0.79))
    ]
    task = {"task": "helpful", "procedure": "best-of-n:4", "arms": arms}
    rows = list(trained({"trained": {"real-study": {"tasks": [task]}}}))
    own = [row for row in rows if "helpfulness, best-of-4, SmolLM2-135M" in row.claim]
    assert tuple(row.verdict for row in own) == verdicts
    for row in own:
        if "beats" in row.claim:
            assert "]‡ over `identity`. Exact training gains +6.0 over it." in row.number
            assert "The KL efficiency of `rloo` is 39 %." in row.number
