"""The page of the trained study: its numbers are those of its results, its verdicts follow."""

import pytest

from infalign import storage
from infalign.config import Prompts
from infalign.core import parse_procedure
from infalign.prompts import load_prompts
from infalign.study.archive import Archive


def test_the_page_is_that_of_the_committed_results():
    from trained_cells import HERE
    from trained_page import page

    assert page(storage.read_json(HERE / "trained.json")) == (HERE / "trained.md").read_text()


def test_every_archived_cell_has_the_win_rate_of_the_page():
    from trained_cells import CELLS, HERE, STUDIES, grid_of

    page = storage.read_json(HERE / "trained.json")
    archived = 0
    for name in (name for name in STUDIES if (CELLS / name).exists()):
        archive = Archive(CELLS / name)
        tasks = {task["task"]: task for task in page[name]["tasks"]}
        for task in grid_of(name).tasks:
            spec, procedure = task.config.procedure, parse_procedure(task.config.procedure)
            arms = {(arm["method"], arm["target_kl"]): arm for arm in tasks[task.name]["arms"]}
            for cell in task.cells:
                if own := archive.read(cell):
                    rate = own.samples.win_rate(cell.method, procedure, procedure)
                    cells = {c["seed"]: c for c in arms[cell.method, cell.kl]["cells"]}
                    shown = cells[cell.seed]["win_rates"][spec]
                    assert rate.value == pytest.approx(shown, abs=1e-12), cell.path
                    archived += 1
    assert archived == len(list(CELLS.rglob("*.parquet")))


def test_results_without_an_archived_cell_are_those_of_the_earlier_page():
    from trained_cells import with_former

    def task(*cells):
        arms = {(m, kl) for m, kl, _ in cells}
        return {
            "task": "a",
            "settings": {"on-policy steps": 10},
            "kls": [0.5, 1.0],
            "ranks": {"reward": {"sampling": {f"{kl:g}": cells for kl in {c[1] for c in cells}}}},
            "arms": [
                {"method": m, "target_kl": kl, "cells": own}
                for m, kl in sorted(arms)
                for own in [
                    [{"seed": s, "finished": True} for n, at, s in cells if (n, at) == (m, kl)]
                ]
            ],
        }

    former = task(("rlhf", 0.5, 0), ("rlhf", 0.5, 1), ("rloo", 0.5, 0))
    now = task(("rlhf", 0.5, 0), ("rlhf", 1.0, 0))
    made = with_former({"finished": 2, "tasks": [now]}, {"finished": 3, "tasks": [former]})
    (own,) = made["tasks"]
    assert own["not_archived"] == {"0.5": [1, 3]} and made["finished"] == 4
    assert own["arms"] == [*former["arms"], now["arms"][1]]
    kept = own["ranks"]["reward"]["sampling"]
    assert kept["0.5"] == former["ranks"]["reward"]["sampling"]["0.5"] and "1" in kept
    whole = task(("rlhf", 0.5, 0), ("rlhf", 0.5, 1), ("rloo", 0.5, 0), ("rloo", 0.5, 1))
    (own,) = with_former({"finished": 4, "tasks": [whole]}, {"tasks": [former]})["tasks"]
    assert own["not_archived"] == {} and own["arms"] == whole["arms"]
    other = now | {"settings": {"on-policy steps": 12}}
    (own,) = with_former({"finished": 2, "tasks": [other]}, {"tasks": [former]})["tasks"]
    assert own == other


def test_results_of_earlier_settings_stay_until_a_cell_is_finished_and_do_not_count():
    from trained_cells import earlier_settings, is_current, with_former

    def task(prompts, finished):
        cells = [{"seed": 0, "finished": finished}]
        return {
            "task": "a",
            "settings": {"training prompts": prompts},
            "kls": [0.5],
            "arms": [{"method": "rlhf", "target_kl": 0.5, "cells": cells}],
        }

    none = {"finished": 0, "tasks": [task(256, False)]}
    made = with_former(none, {"tasks": [task(64, True)]})
    (own,) = made["tasks"]
    assert (made["finished"], made["archived"], is_current(own)) == (0, 0, False)
    assert earlier_settings(own) == "training prompts 64 instead of 256"
    assert with_former(none, made)["tasks"] == [own], "again"
    (same,) = with_former(none, {"tasks": [task(256, True)]})["tasks"]
    assert same["not_archived"] == {"0.5": [0, 1]} and is_current(same)
    done = {"finished": 1, "tasks": [task(256, True)]}
    assert with_former(done, made)["tasks"] == done["tasks"]


def test_theory_leaves_more_where_n_is_larger():
    from trained_page import over_identity, room

    assert over_identity("best-of-n:4") == pytest.approx(0.0734, abs=1e-4)
    assert over_identity("best-of-n:8") == pytest.approx(0.1263, abs=1e-4)
    arms = {"rloo": {"theory": 0.85}, "rlhf": {"theory": 0.8}, "vbon": {"theory": None}}
    said = room("worst-of-n:4", arms, ["rlhf", "vbon", "ipo"])
    assert said == "+5.0 over `rlhf` with these samples; +6.2 over `identity`"


@pytest.mark.parametrize(
    ("value", "low", "high", "seeds", "verdict"),
    [
        (0.05, 0.01, 0.09, "own", "reached"),
        (0.02, 0.01, 0.03, "own", "ahead, by less"),
        (0.05, -0.01, 0.09, "own", "not shown"),
        (0.01, -0.01, 0.029, "own", "missed"),
        (0.01, None, None, "own", "not shown"),
        (0.05, 0.01, 0.09, None, "one seed"),
        (0.01, -0.01, 0.029, None, "one seed"),
    ],
)
def test_the_target_is_missed_only_if_the_whole_interval_is_below_it(
    value, low, high, seeds, verdict
):
    from trained_page import lead

    def arm(by):
        best = {"rival": "ipo", "value": by, "low": low, "high": high, "seed_variance": seeds}
        best["ahead"] = low is not None and low > 0
        rates = {"reward": {"best-of-n:8": {"to_best": best}}}
        return {"win_rates": rates, "kl": {"value": 0.5}}

    arms = {"rloo": arm(value - 0.01), "group": arm(value), "ipo": arm(value)}
    said, of = lead(arms, "best-of-n:8", ["ipo"])
    assert said.endswith(f": {verdict}") and of == "`group` over `ipo`"
    said, of = lead(arms | {"ipo": arm(value) | {"kl": {"value": 0.4}}}, "best-of-n:8", ["vbon"])
    assert said.endswith(f": {verdict}; no `vbon` yet") and of.endswith(", at 0.50 and 0.40 nats")
    assert lead({"pkpo": arm(value)}, "best-of-n:8") == ("not yet", "")


def test_every_wave_asks_for_cells_that_its_studies_have():
    from trained import WAVES
    from trained_cells import STUDIES, grid_of

    for wave in WAVES:
        for name in wave.studies:
            study = grid_of(name).study
            asked = dict(zip(*[iter(wave.options())] * 2, strict=True))
            for option, known in (
                ("--methods", study.methods),
                ("--kl", map(str, study.kl)),
                ("--seeds", map(str, study.seeds)),
            ):
                assert set(asked.get(option, "").split(",")) <= {"", *known}, (name, option)
    assert set(WAVES[-1].studies) == set(STUDIES) and not WAVES[-1].options()


def test_tasks_of_all_studies_have_titles_and_labels_of_their_own():
    from trained_cells import STUDIES, label, none_of, title

    tasks = [(name, task) for name in STUDIES for task in none_of(name)["tasks"]]
    for names in (title, label):
        assert len({names(*task) for task in tasks}) == len(tasks)


@pytest.mark.parametrize(
    ("first", "other", "recipe"),
    [
        ("bundled-harmless", "bundled-harmless-regression", {"warm_start_loss"}),
        ("bundled-harmless-regression", "bundled-harmless-long", {"steps", "save_steps"}),
    ],
)
def test_a_study_of_another_recipe_differs_in_it_alone(first, other, recipe):
    from trained_cells import grid_of

    grids = [grid_of(name) for name in (first, other)]
    methods = {"train": {"method", "baselines"}}
    configs = [grid.tasks[0].config.model_dump(exclude=methods) for grid in grids]
    changed = [{key: config["train"].pop(key) for key in recipe} for config in configs]
    assert configs[0] == configs[1] and all(changed[0][key] != changed[1][key] for key in recipe)
    assert grids[0].study.rivals == grids[1].study.rivals


def test_real_studies_train_for_both_n_and_allow_for_them():
    from trained_cells import REAL, grid_of, label

    for name in REAL:
        eight, four = grid_of(name).tasks
        assert label(name, {"task": four.name}) == name
        assert (eight.name, eight.config.procedure) == (
            f"{four.name}-8",
            four.config.procedure.replace(":4", ":8"),
        )
        different = {"procedure": True, "transform": True, "train": True}
        different["evaluate"] = {"prompts": {"limit"}}
        shared = [t.config.model_dump(exclude=different) for t in (eight, four)]
        assert shared[0] == shared[1]


@pytest.mark.parametrize("task", ["helpful", "harmless"])
def test_the_bundled_studies_judge_on_prompts_that_nothing_was_chosen_on(task):
    from trained_cells import grid_of

    own = grid_of(f"bundled-{task}").tasks[0]
    prompts = load_prompts(own.config.evaluate.prompts, own.folder)
    held_out = {str(p.messages) for p in prompts}
    known = {
        str(p.messages)
        for split in ("train", "test")
        for p in load_prompts(Prompts(file=f"bundled:{task}", split=split))
    }
    assert len(held_out) == 384 and not held_out & known


@pytest.mark.parametrize(
    ("low", "high", "said"),
    [
        (0.01, 0.02, "above"),
        (-0.009, 0.02, "not below"),
        (-0.02, 0.05, "not shown"),
        (None, None, "not shown"),
        (-0.03, -0.001, "below"),
    ],
)
def test_not_below_needs_an_interval_that_says_so(low, high, said):
    from trained_page import plain

    best = {"rival": "ipo", "value": 0.0, "low": low, "high": high}
    arms = {"identity": {"win_rates": {"reward": {"sampling": {"to_best": best}}}}}
    assert plain(arms).endswith(f"to `ipo`: {said}") and plain({}) == "not yet"


def test_a_method_without_a_cell_and_a_lead_beyond_theory_are_named():
    from trained_page import beyond_theory, others

    to_best = {"rival": "rlhf", "value": 0.02, "low": 0.01, "high": 0.03, "ahead": True}
    rates = {"reward": {"best-of-n:8": {"to_best": to_best}}}
    rloo = {"method": "rloo", "target_kl": 0.5, "win_rates": rates, "theory": 0.85}
    rloo |= {"to_all": {"best-of-n:8": {"pkpo": to_best}}, "cells": [{"finished": True}]}
    assert [*others({"rloo": rloo}, "best-of-n:8")] == [
        "`pkpo` +2.0 [+1.0, +3.0]: above; no `rs-grpo` yet"
    ]
    for theory, said in ((0.83, "helpfulness, best-of-8, bundled model."), (0.81, "")):
        arms = [rloo, rloo | {"method": "rlhf", "theory": theory}]
        task = {"task": "helpful-8", "procedure": "best-of-n:8", "arms": arms}
        known = {"bundled-helpful": {"rivals": ["rlhf"], "tasks": [task]}}
        assert said in beyond_theory(known) and bool(said) is bool(beyond_theory(known))
