"""The table of methods: what reads it finds a method that only this test knows."""

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from scripts import load_script

from infalign import BestOfN, ConfigError, Exponential, Identity
from infalign.calibration.outlook import RankOutlook
from infalign.config import describe, parse_config
from infalign.methods import METHODS, Objective, OnPolicy, TrainingDesign, labels
from infalign.pipeline.results import Theory

ROOT = Path(__file__).parents[2]
CONFIG = {
    "model": "none",
    "reward": "none",
    "kl": 0.5,
    "prompts": {"file": "none"},
    "train": {"method": "toy", "baselines": ["rloo"]},
}
TOY = OnPolicy(
    "toy",
    "a toy's label",
    "the reward of a toy",
    objective=lambda setting: Objective(setting.reward, 1.0, np.zeros_like),
    trained_on=Exponential(3.0),
    source="nobody",
)


@pytest.fixture
def toy(monkeypatch):
    monkeypatch.setitem(METHODS, "toy", TOY)


def docs():
    return load_script("docs/methods.py")


def test_without_the_toy_no_one_knows_it():
    with pytest.raises(ConfigError, match=r"`train.method` .* must be one of rloo, .*; got 'toy'"):
        parse_config(CONFIG)
    assert "toy" not in "\n".join(describe()) + docs().table("on-policy")


def test_a_method_is_known_to_configuration_help_docs_and_labels(toy):
    assert parse_config(CONFIG).methods == ("toy", "rloo")
    assert "      toy: the reward of a toy" in list(describe())
    assert "| `toy` | the reward of a toy | nobody |" in docs().table("on-policy")
    assert labels()["toy"] == "a toy's label"
    with pytest.raises(ConfigError, match=r"must be one of .*, toy; got 'tyo'"):
        parse_config(CONFIG | {"train": {"method": "tyo"}})


def test_theory_is_that_of_what_a_method_trains_on(toy):
    best = BestOfN(4)
    pairs = {best.spec: (best, best)}
    run = SimpleNamespace(
        config=parse_config(CONFIG | {"train": {"method": "toy", "baselines": ["rloo", "dpo"]}}),
        comparison=SimpleNamespace(theory_pairs=pairs),
        attempt=lambda name: Path("train", f"{name}-2"),
    )
    theory = Theory(run, None, TrainingDesign(Identity(), 0.2, 0.5, 0.8), RankOutlook(16))
    expected = {
        name: RankOutlook(16).achieved(transform, best, best, kl=0.4).win_rate
        for name, transform in (("toy", Exponential(3.0)), ("rloo", Identity()))
    }
    for name, words in (("toy", "exponential:3"), ("rloo", "optimal")):
        assert theory.of(name, 0.4) == {
            "model": f"train/{name}-2/model",
            "trained": f"{name}-2",
            "transform": words,
            "theory": {best.spec: expected[name]},
        }
    assert theory.of("dpo", 0.4)["theory"] == {}
    assert theory.of("ipo", 0.4) == {"transform": "trained elsewhere", "theory": {}}


BOTH = """
import sys
from dataclasses import dataclass
import infalign as ia
from infalign.methods import METHODS, RAW, OnPolicy

@ia.register_procedure("toy-of-n", words="a toy of {n}")
@dataclass(frozen=True)
class ToyOfN(ia.BestOfN):
    '''A toy.'''

METHODS["toy"] = OnPolicy("toy", "a label", "the reward of a toy", objective=len, trained_on=RAW)
from infalign.cli.app import main
main()
"""


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (("run", "--help"), ["toy: the reward of a toy", "toy-of-n:N"]),
        (("design", "--help"), ["toy-of-n:N"]),
        (("design", "--procedure", "toy-of-n:4", "--kl", "0.5"), ["0.8733"]),
    ],
)
def test_commands_know_a_method_and_a_procedure_that_were_just_added(command, words):
    done = subprocess.run(
        [sys.executable, "-c", BOTH, *command], capture_output=True, text=True, check=True
    )
    printed = " ".join(done.stdout.split())
    for word in words:
        assert word in printed


def test_the_tables_of_the_page_are_those_of_today():
    page = (ROOT / "docs/training.md").read_text()
    assert page == docs().written(page), "run: python docs/methods.py"
    assert all(f"| `{name}` |" in page for name in METHODS)
