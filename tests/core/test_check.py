"""Checks know numbers and shapes only: what an argument means, and its remedy, the caller says."""

import ast
import inspect
import re

import pytest

import infalign as ia
from infalign import _check
from infalign.core import samples_needed

VOCABULARY = re.compile(r"reward|quantile|calibrat|smoothing|transform|score", re.IGNORECASE)


def test_checks_speak_no_vocabulary_of_their_callers():
    tree = ast.parse(inspect.getsource(_check))
    texts = [node.value for node in ast.walk(tree) if isinstance(node, ast.Constant)]
    assert [text for text in texts if isinstance(text, str) and VOCABULARY.search(text)] == []


@pytest.mark.parametrize(
    "call",
    [
        lambda: ia.Rewind(1.0, 3),
        lambda: ia.Rewind(1.5, 3),
        lambda: ia.BestOfN(0.5),
        lambda: ia.Power(-1),
        lambda: ia.Identity().below_1([2.0]),
        lambda: ia.Identity().average([2.0], [3.0]),
        lambda: ia.verifiable.win_rate(1.5, 0.2, ia.BestOfN(2)),
    ],
)
def test_what_is_no_reward_is_not_called_one(call):
    with pytest.raises(ValueError) as caught:
        call()
    assert not re.search("reward|calibrate", str(caught.value), re.IGNORECASE)


def test_what_is_a_quantile_can_be_calibrated():
    with pytest.raises(
        ValueError, match=r"Raw rewards become quantiles with `infalign\.quantiles`"
    ):
        ia.Identity()([2.0])


def test_samples_needed_advises_on_its_own_arguments():
    with pytest.raises(ia.SolveError) as caught:
        samples_needed(ia.BestOfN(2), ia.Identity(), kl=0.5, loss=0.001, exact=0.9, most=4)
    named = set(re.findall(r"`(\w+)`", str(caught.value))) - {"identity"}
    assert named == {"exact", "loss", "most"} <= set(inspect.signature(samples_needed).parameters)


def test_a_seed_may_be_larger_than_any_count():
    assert _check.seed("seed", 2**63 + 1) == 2**63 + 1
    for wrong in (-1, 1.0, True, None, "1"):
        with pytest.raises(ValueError, match=r"`seed` must be a whole number of at least 0"):
            _check.seed("seed", wrong)
    with pytest.raises(ValueError, match="`n` must be at most"):
        _check.count("n", 2**63 + 1)
