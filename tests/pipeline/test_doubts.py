"""What makes a run doubtful before it trains: on the terminal, and in the report."""

import logging
from types import SimpleNamespace

import numpy as np
import pytest

from infalign import BestOfN, CalibrationStore, Sampling, WorstOfN
from infalign.calibration.outlook import RankOutlook
from infalign.cli.messages import messages
from infalign.cli.progress import quiet_libraries
from infalign.methods import training_design
from infalign.pipeline.doubts import doubts


def doubted(samples, procedure, *, levels=None, transform="optimal", kl=0.3):
    rng = np.random.default_rng(0)
    rewards = (
        rng.normal(size=(20, samples))
        if levels is None
        else rng.integers(levels, size=(20, samples))
    )
    store = CalibrationStore.from_rewards([f"p{i}" for i in range(20)], rewards.astype(float))
    config = SimpleNamespace(transform=transform)
    run = SimpleNamespace(procedure=procedure, against=procedure, config=config)
    designed = training_design(
        procedure, procedure, transform, kl=kl, beta=None, outlook=RankOutlook(samples)
    )
    return list(doubts(run, store, designed))


def test_a_run_with_enough_samples_is_not_doubted():
    assert doubted(64, BestOfN(2)) == []
    assert doubted(16, Sampling()) == []
    assert doubted(8, BestOfN(8), transform="identity") == []


def test_fewer_samples_than_the_procedure_draws():
    (message,) = doubted(8, BestOfN(16))
    assert "K = 8" in message and "16 responses that best-of-n:16 draws" in message
    assert "Calibrate with 64 or more (`calibration.samples`)" in message


@pytest.mark.parametrize("procedure", [BestOfN(8), BestOfN(4)], ids=str)
def test_samples_that_cost_much_of_the_win_rate(procedure):
    (message,) = doubted(8, procedure)
    assert "in theory the best transform wins" in message and "with exact quantiles" in message


def test_ties():
    (message,) = doubted(64, WorstOfN(2), levels=3)
    assert "the same reward 3" in message and "infalign.verifiable" in message


def test_a_warning_reaches_the_terminal_although_libraries_are_quiet(capsys):
    quiet_libraries()
    with messages():
        for doubt in doubted(8, BestOfN(16)):
            logging.getLogger("infalign.pipeline.stages").warning(doubt)
    assert "K = 8 reference samples" in " ".join(capsys.readouterr().err.split())
