"""The headline of the README: that of the committed results, without a lead that is not there."""

import pytest

from infalign import storage


@pytest.fixture
def results():
    from headline import ROOT

    return storage.read_json(ROOT / "evidence" / "trained.json")


def test_the_readme_has_the_headline_of_the_committed_results(results):
    from headline import HEADLINE, ROOT, headline

    assert HEADLINE.findall((ROOT / "README.md").read_text()) == [headline(results)]


def test_the_picture_has_every_method_of_every_panel_at_its_win_rate(results):
    from headline import panels, picture

    drawn = [axes for axes in picture(results).axes if axes.lines]
    for axes, panel in zip(drawn, panels(results), strict=True):
        names = [label.get_text().partition(" ")[0] for label in axes.get_yticklabels()]
        dots = [line.get_xdata() for line in axes.lines if line.get_marker() == "o"]
        shown = dict(zip(names, (float(x[0]) for x in dots), strict=True))
        assert shown == {name: panel.rate(name)["value"] for name in panel.arms}
        assert list(shown.values()) == sorted(shown.values())


def arm(method, seeds, value, best=None, kl=0.5):
    rate = {"value": value, "low": value - 0.1, "high": value + 0.1, "to_best": best}
    return {
        "method": method,
        "target_kl": 0.5,
        "kl": {"value": kl, "low": kl - 0.01, "high": kl + 0.01},
        "cells": [{"seed": seed, "finished": seed < seeds} for seed in range(3)],
        "win_rates": {"reward": {"best-of-n:8": rate, "sampling": rate}},
    }


def test_a_loss_is_said_as_one_and_the_seeds_are_those_both_have():
    from headline import headline

    to_best = {"rival": "ipo", "value": -0.02, "low": -0.03, "high": -0.01, "ahead": False}
    arms = [arm("rloo", 3, 0.7, to_best, kl=0.6), arm("ipo", 1, 0.72), arm("rlhf", 2, 0.6)]
    arms[0]["to_all"] = {"best-of-n:8": {"pkpo": {"value": 0.01, "low": 0, "high": 0.02}}}
    task = {"task": "helpful-8", "procedure": "best-of-n:8", "arms": arms}
    rivals = ["ipo", "rlhf", "vbon"]
    said = headline({"bundled-helpful": {"rivals": rivals, "tasks": [task]}}).splitlines()
    columns = said[2].strip("| ").split(" | ")
    cells = dict(zip(columns, said[4].strip("| ").split(" | "), strict=True))
    assert cells == {
        "task": "helpfulness, best-of-8, bundled model",
        "policy": "`rloo`, 1 seed",
        "over the best baseline": "-2.0 [-3.0, -1.0] (`ipo`, at 0.60 and 0.50 nats)",
        "over `pkpo`": "+1.0 [+0.0, +2.0]",
        "over `rs-grpo`": "–",
        "baselines not trained yet": "`vbon`; fewer seeds of `ipo` and `rlhf`",
    }
    assert said[-1].endswith("the best baseline of each by -2.0 points under plain sampling.")


def test_another_recipe_of_a_task_is_a_sentence_and_no_row():
    from headline import headline, panels

    to_best = {"rival": "ipo", "value": 0.01, "low": -0.02, "high": 0.03, "ahead": False}
    arms = [arm("rloo", 3, 0.7, to_best), arm("ipo", 3, 0.69)]
    task = {"task": "harmless-8", "procedure": "worst-of-n:8", "arms": arms}
    for own in arms:
        own["win_rates"]["reward"]["worst-of-n:8"] = own["win_rates"]["reward"]["best-of-n:8"]
    study = {"rivals": ["ipo"], "tasks": [task]}
    results = {"bundled-harmless": study, "bundled-harmless-regression": study}
    assert len(panels(results)) == 1
    assert (
        "With other recipes: harmlessness, worst-of-8, bundled model (warm start by regression), "
        "`rloo`, 3 seeds: +1.0 [-2.0, +3.0] over `ipo`. By other measures, "
    ) in headline(results)


def test_tasks_without_a_rival_and_other_budgets_or_settings_are_left_out():
    from headline import panels

    lone = arm("rloo", 3, 0.7)
    other = arm("rloo", 3, 0.7, {"rival": "ipo", "value": 0.1, "low": 0, "high": 1})
    tasks = [
        {"task": "helpful-8", "procedure": "best-of-n:8", "arms": [lone]},
        {"task": "helpful-8", "procedure": "best-of-n:8", "arms": [other | {"target_kl": 1.0}]},
        {"task": "helpful", "procedure": "best-of-n:8", "arms": [other]},
        {"task": "helpful-8", "procedure": "best-of-n:8", "arms": [other], "now": {"lora": 16}},
    ]
    assert not panels({"bundled-helpful": {"rivals": ["ipo"], "tasks": tasks}})


def test_without_a_rival_the_headline_stays(tmp_path):
    from headline import write

    (tmp_path / "evidence").mkdir()
    storage.write_json(tmp_path / "evidence" / "trained.json", {})
    (tmp_path / "README.md").write_text("At 0.5 nats, as it was.\n")
    write(tmp_path)
    assert (tmp_path / "README.md").read_text() == "At 0.5 nats, as it was.\n"


def test_a_readme_without_the_line_is_refused(tmp_path, results):
    import typer
    from headline import write

    (tmp_path / "evidence").mkdir()
    (tmp_path / "docs" / "images").mkdir(parents=True)
    storage.write_json(tmp_path / "evidence" / "trained.json", results)
    (tmp_path / "README.md").write_text("# infalign\n")
    with pytest.raises(typer.BadParameter, match="0 headlines"):
        write(tmp_path)
    assert (tmp_path / "README.md").read_text() == "# infalign\n"
