"""Targets of different shapes: tilts of one KL, and policies that follow them exactly."""

import importlib
from pathlib import Path

import numpy as np
import pytest

import infalign as ia

FOLDER = Path(__file__).parents[2] / "evidence" / "worst_of_n"


@pytest.fixture
def script(scripts, monkeypatch):
    monkeypatch.syspath_prepend(str(FOLDER))  # the scripts of the folder import each other
    return importlib.import_module("targets")


def rewards(prompts=20):
    rng = np.random.default_rng(0)
    return rng.normal(size=(prompts, 1)) + rng.normal(size=(prompts, 512))


def test_targets_are_tilts_of_one_kl(script):
    for task in script.TASKS:
        targets = task.targets(rewards())
        assert list(targets) == [
            "identity",
            "raw reward",
            f"exponential:{task.exponent:g}",
            "optimum",
        ]
        for log_weights in targets.values():
            assert np.exp(log_weights).mean(1) == pytest.approx(1)
            spent = (np.exp(log_weights) * log_weights).mean()
            assert spent == pytest.approx(script.KL, abs=0.01)


def test_a_policy_that_follows_a_target_exactly_wins_as_theory_says(script):
    for task in script.TASKS:
        own = rewards()
        test = script.bundled.Samples("test", (), np.zeros(0), np.zeros(0), own)
        targets = task.targets(own)
        exact = {name: script.judged(task, test, x) for name, x in targets.items()}
        theory = {
            row.transform: row.win_rate
            for row in ia.compare(
                task.procedure, [ia.Identity(), ia.Exponential(task.exponent)], kl=script.KL
            )
        }
        for name in ("identity", f"exponential:{task.exponent:g}", "optimum"):
            won, figures = exact[name]
            assert won.mean() == pytest.approx(theory[name.replace("optimum", "optimal")], abs=0.01)
            assert figures["value"] == won.mean()
        # What a tilt raises most are the best responses, except where it is flat at the top.
        assert exact["identity"][1]["mean quantile of the top"] == pytest.approx(1 - 1 / 128)
        assert exact["identity"][1]["correlation with the quantile"] == pytest.approx(1)
