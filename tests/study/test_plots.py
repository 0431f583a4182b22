"""The figure of a study that is under way shows what is finished."""

from infalign.core import families
from infalign.study.plots import by_kl
from infalign.study.tables import _off_target


def arm(kl, value):
    ends = {"value": value, "low": value - 0.02, "high": value + 0.02}
    return {
        "method": "rloo",
        "target_kl": kl,
        "kl": {"value": kl, "low": kl, "high": kl},
        "win_rates": {"reward": {"best-of-n:8": ends}},
        "by_n": {"reward": {name: [{"n": n} | ends for n in (1, 2)] for name in families()}},
    }


def test_curves_over_n_are_those_of_the_largest_kl_with_a_finished_cell():
    unfinished = {"method": "rloo", "target_kl": 1.0, "kl": None}
    task = {
        "task": "helpful",
        "procedure": "best-of-n:8",
        "methods": ["rloo"],
        "kls": [0.25, 0.5, 1.0],
        "frontier": {"kl": [], "win_rate": []},
        "arms": [arm(0.25, 0.6), arm(0.5, 0.7), unfinished],
    }
    for panel in by_kl(task, evidence=True).axes[1:]:
        assert panel.get_title(loc="left").endswith("at 0.5 nats")
        curve = panel.lines[0]
        assert list(curve.get_xdata()) == [1, 2] and list(curve.get_ydata()) == [0.7, 0.7]
    for panel in by_kl(task, evidence=True, over_n=0.25).axes[1:]:
        assert panel.get_title(loc="left").endswith("at 0.25 nats")
        assert list(panel.lines[0].get_ydata()) == [0.6, 0.6]


def test_a_kl_that_is_off_its_target_is_said():
    exact = arm(0.5, 0.7)
    off = arm(0.5, 0.7) | {"method": "ipo", "kl": {"value": 0.6, "low": 0.56, "high": 0.64}}
    noisy = arm(0.5, 0.7) | {"method": "rlhf", "kl": {"value": 0.6, "low": 0.49, "high": 0.71}}
    (said,) = _off_target({"arms": [exact, off, noisy]})
    assert said.endswith(
        "than chance: ipo 0.600 instead of 0.5 nats. A larger KL wins more by itself"
    )
    assert not list(_off_target({"arms": [exact, noisy]}))
