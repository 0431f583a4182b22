"""Reward hacking: planted faults do what they say, and gold win rates are those of enumeration."""

from itertools import product

import numpy as np
import pytest

from infalign import BestOfN, storage


def world(gold, tokens=None, marked=None):
    from reward_faults import Responses

    gold = np.array(gold, float)
    tokens = np.arange(gold.size).reshape(*gold.shape, 1) if tokens is None else np.array(tokens)
    return Responses(gold, tokens, np.zeros(gold.shape, bool) if marked is None else marked)


def test_gold_win_rates_are_those_of_all_draws():
    from exact_methods import METHODS
    from hacking import judged

    gold, proxy = np.array([[3.0, 1.0, 2.0], [0.0, 1.0, 1.0]]), np.array([[0.0, 1, 1], [2, 1, 0.0]])
    entry = judged(gold, proxy, 2, 0.2)
    policy = METHODS["raw"](proxy, BestOfN(2), 0.2)

    def chosen(row, values):
        law = np.zeros(3)
        for draws in product(range(3), repeat=2):
            best = [d for d in draws if values[d] == max(values[list(draws)])]
            for d in best:
                law[d] += np.prod(row[list(draws)]) / len(best)
        return law

    rates, rises = [], []
    for g, p, row in zip(gold, proxy, policy, strict=True):
        ours, theirs = chosen(row, p), chosen(np.full(3, 1 / 3), p)
        rates.append(ours @ (1 + np.sign(g[:, None] - g)) @ theirs / 2)
        rises.append((ours - theirs) @ g)
    assert entry["raw"]["gold_win_rate"][0] == pytest.approx(np.mean(rates), rel=1e-3)
    assert entry["raw"]["gold_reward"][0] == pytest.approx(np.mean(rises), rel=1e-3)
    assert entry["raw"]["gain"] == [0, 0, 0]


def test_faults_plant_what_they_say():
    from reward_faults import length, phrase, scales, tails

    rng = np.random.default_rng(0)
    gold, marked = rng.normal(size=(4, 6)), rng.random((4, 6)) < 0.5
    tokens = np.full((4, 6, 5), -1)
    lengths = rng.integers(1, 6, (4, 6))
    for place in np.ndindex(4, 6):
        tokens[place][: lengths[place]] = 7
    on = world(gold, tokens, marked)
    assert np.array_equal(phrase(on, 2.0) - gold, 2.0 * marked)
    assert np.corrcoef((length(on, 1.0) - gold)[0], lengths[0])[0, 1] == pytest.approx(1)
    assert np.array_equal(scales(on, 1.5).argsort(1), gold.argsort(1))
    noise = tails(on, 1.0) - gold
    same = tokens[1, :, None] == tokens[1, None, :]
    assert (np.isclose(noise[1][:, None], noise[1]) == same.all(-1)).all()


def test_labels_that_are_all_flipped_teach_the_opposite():
    from reward_faults import flips

    rng = np.random.default_rng(1)
    tokens = rng.integers(0, 5, (30, 8, 4))
    on = world((tokens == 3).sum(2), tokens)
    right, wrong = (flips(on, share, on) for share in (0.0, 1.0))
    assert np.corrcoef(right.ravel(), on.gold.ravel())[0, 1] > 0.8
    assert np.allclose(right, -wrong, atol=1e-3)


def test_the_page_is_that_of_the_results(scripts, tmp_path):
    import hacking
    import hacking_page

    hacking_page.write(storage.read_json(hacking.FOLDER / "hacking.json"), tmp_path)
    written = (tmp_path / "hacking.md").read_text()
    assert written == (hacking.FOLDER / "hacking.md").read_text()


def test_trained_policies_are_judged_by_gold_beside_rlhf():
    from claims import hacking
    from hacking import FOLDER
    from hacking_page import as_rows, trained

    def rate(value, **rivals):
        own = {
            name: dict(zip(("value", "low", "high"), r, strict=True)) for name, r in rivals.items()
        }
        return {"value": value, "low": value - 0.1, "high": value + 0.1, "to_rivals": own}

    def arm(method, gold):
        rates = {"reward": {"best-of-n:4": rate(0.9)}, "gold": {"best-of-n:4": gold}}
        kl = {"value": 0.99, "low": 0.9, "high": 1.1}
        return {"method": method, "target_kl": 1.0, "seeds": [0], "kl": kl, "win_rates": rates}

    arms = [
        arm("rlhf", rate(0.4)),
        arm("identity", rate(0.5, rlhf=(0.1, 0.02, 0.2), rloo=(0, 0, 0))),
        {"method": "rloo", "target_kl": 1.0, "seeds": []},
    ]
    tasks = [
        {"task": t, "procedure": "best-of-n:4", "arms": arms} for t in ("phrase", "phrase-gold")
    ]
    rows = as_rows({"tasks": tasks})
    assert [(row["method"], row["task"]) for row in rows] == [
        (m, t) for t in ("phrase", "phrase-gold") for m in ("rlhf", "identity")
    ]
    said = trained(rows)
    assert said.count("+10.0 [+2.0, +20.0]: better") == 2 and said.count("gold reward |") == 2
    assert "None of them is finished" in trained([])
    known = {"hacking": storage.read_json(FOLDER / "hacking.json")}
    claim = "`identity` +10.0 [+2.0, +20.0]‡ (checkpoint by gold reward)"
    assert claim in hacking(known | {"hacked": rows}).number
    assert "Trained on a bonus" not in hacking(known).number
