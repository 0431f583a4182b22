"""A study ends with the same results however it was interrupted, and makes no cell twice."""

import os
import shutil
import signal
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml
from quick_studies import HELD_OUT, METHODS, PROMPTS, K, M, counted, make_files, study
from runs import kill_at_file_operation

from infalign import storage
from infalign.core import BestOfN, WorstOfN
from infalign.errors import ConfigError, DataError
from infalign.evaluation.estimators import win_rate, win_rate_difference
from infalign.study.dry import dry_study
from infalign.study.folder import StudyFolder
from infalign.study.origin import origin_words
from infalign.study.page import build_page, write_page
from infalign.study.plan import tasks_left
from infalign.study.quantities import Arm, Quantity
from infalign.study.run import run_study
from infalign.study.table import summarize
from infalign.study.tables import study_tables

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return make_files(tmp_path_factory.mktemp("files"))


@pytest.fixture
def counts(monkeypatch):
    """Counts of what the cells are asked, which take no time."""
    return counted(monkeypatch)


@pytest.fixture(scope="module")
def finished(files, tmp_path_factory):
    """The results of an uninterrupted study, its folder, and what it asked of the cells."""
    folder = tmp_path_factory.mktemp("finished") / "study"
    with pytest.MonkeyPatch.context() as patched:
        counts = counted(patched)
        return run_study(study(files), folder), folder, counts


@pytest.fixture
def whole(finished, counts, tmp_path):
    """The results of an uninterrupted study, and a copy of its folder."""
    results, folder, _ = finished
    shutil.copytree(folder, tmp_path / "whole")
    return results, tmp_path / "whole"


def test_cells_share_a_calibration_and_reference_samples_and_differ_in_their_seeds(finished):
    results, folder, counts = finished
    drawn = dict(counts.drawn)
    assert drawn.pop("base") == K * PROMPTS + M * HELD_OUT, "once for all cells"
    assert drawn == dict.fromkeys(METHODS, 2 * M * HELD_OUT)
    assert sorted(counts.trained) == sorted(2 * METHODS)
    cells = [folder / c["folder"] for arm in results["tasks"][0]["arms"] for c in arm["cells"]]
    shared = (folder / "tasks/a/reference/evaluation/reference.parquet").read_bytes()
    assert all((c / "evaluation/reference.parquet").read_bytes() == shared for c in cells)
    own = [storage.read_table(c / "evaluation/rloo.parquet")["completion"] for c in cells[:2]]
    assert own[0] != own[1]
    assert results["finished"] == results["cells"] == 4


def test_every_number_is_that_of_the_stored_samples(whole):
    results, folder = whole
    (task,) = results["tasks"]

    def rewards(path):
        column = storage.read_table(folder / "tasks/a" / path)["reward"]
        return column.to_numpy().reshape(HELD_OUT, M)

    reference = rewards("reference/evaluation/reference.parquet")
    of = {
        m: [rewards(f"{m}-kl0.1-seed{s}/evaluation/{m}.parquet") for s in (0, 1)] for m in METHODS
    }
    by_method = {arm["method"]: arm for arm in task["arms"]}
    for family, kind in (("best-of-n", BestOfN), ("worst-of-n", WorstOfN)):
        for n in range(1, M + 1):
            row = by_method["rloo"]["by_n"]["reward"][family][n - 1]
            expected = [win_rate(r, reference, kind(n)).value for r in of["rloo"]]
            assert row["n"] == n and row["value"] == pytest.approx(sum(expected) / 2)
            differences = [
                win_rate_difference(a, b, reference, kind(n)).value
                for a, b in zip(of["rloo"], of["rlhf"], strict=True)
            ]
            assert row["to_best"]["rival"] == "rlhf"
            assert row["to_best"]["value"] == pytest.approx(sum(differences) / 2)
            assert row["to_rivals"]["rlhf"]["low"] == row["to_best"]["low"]
    assert by_method["rloo"]["by_n"]["b"].keys() == {"best-of-n", "worst-of-n"}
    cells = [folder / f"tasks/a/rloo-kl0.1-seed{seed}" for seed in (0, 1)]
    verdicts = [storage.read_table(c / "evaluation/judge-rloo.parquet") for c in cells]
    ours, theirs = (
        np.array([t[name].to_numpy() for t in verdicts])
        for name in ("policy_first", "reference_first")
    )
    judge = by_method["rloo"]["judge"]
    rate = judge["win_rates"]["best-of-n:2"]
    assert rate["value"] == pytest.approx(((1 + ours - theirs) / 2).mean())
    assert rate["to_best"]["rival"] == "rlhf"
    assert judge["consistency"]["value"] == 1 and judge["pairs"] == 2 * HELD_OUT
    titles = [table.title for table in study_tables(results)]
    assert any("verdicts of the judge" in title for title in titles)
    beside = next(t for t in study_tables(results) if "by the reward and by others" in t.title)
    assert beside.head[2:5] == ("by the reward", "by b", "by the judge")


def test_results_say_what_made_them(whole, files):
    results, folder = whole
    made = results["made"]
    resolved = StudyFolder(study(files), folder).resolved
    assert made["configuration"] == storage.fingerprint(resolved)
    assert made["machines"] and made["dtype"] == {"a": "float32"}
    assert made["began"] <= made["ended"] and made["versions"]["infalign"]
    words = " ".join(origin_words(made))
    assert made["machines"][0] in words and "float32" in words and made["began"][:10] in words
    assert all(sentence in build_page(results) for sentence in origin_words(made))


def test_a_mean_over_seeds_is_over_the_prompts_that_have_a_value_under_each():
    arm = Arm("a", 0.5, dict.fromkeys(range(2)))
    values = {0: np.array([0.0, 1.0, np.nan, 0.5]), 1: np.array([1.0, np.nan, 0.0, 0.5])}
    assert Quantity({id(arm): values}, None).estimate(arm).per_prompt.tolist() == [0.5, 0.5]
    with pytest.raises(DataError, match="No prompt has a verdict"):
        Quantity({id(arm): {0: values[0][2:3], 1: values[1][2:3]}}, None).estimate(arm)


def test_a_finished_cell_is_never_made_again_and_more_seeds_make_only_their_own(
    whole, files, counts
):
    _, folder = whole
    run_study(study(files), folder)
    assert not counts.drawn and not counts.trained
    more = run_study(study(files, seeds=(0, 1, 2)), folder)
    assert sorted(counts.trained) == sorted(METHODS)
    assert dict(counts.drawn) == dict.fromkeys(METHODS, M * HELD_OUT)
    assert more["finished"] == 6


def test_a_changed_setting_makes_what_reads_it_again(whole, files, counts):
    _, folder = whole
    run_study(study(files, task={"transform": "exponential:3"}), folder)
    assert counts.trained == ["rloo", "rloo"], "rlhf does not read the transform"
    assert "base" not in counts.drawn


def test_a_cell_stays_finished_when_a_new_version_has_more_keys(whole, files):
    _, folder = whole
    grid = study(files)
    for cell, key in zip(grid.cells, ("seed", "prompts", "evidence", "dtype"), strict=False):
        path = folder / "tasks" / cell.path / "config.yaml"
        begun = yaml.safe_load(path.read_text())
        begun.pop("trust_remote_code")
        before = StudyFolder(grid, folder).stage(cell).made_from["configuration"]
        section = begun["prompts"] if key == "prompts" else begun
        given = section.pop("test_fraction" if key == "prompts" else key)
        path.write_text(yaml.safe_dump(begun))
        made_from = StudyFolder(grid, folder).stage(cell).made_from["configuration"]
        if key == "evidence":  # the study gives it, so that it is not its default
            assert given is False and made_from == before
        else:
            assert made_from == storage.fingerprint(begun) != before


MOMENTS = (
    "tasks/a/reference/current.json",
    "tasks/a/reference/evaluation/reference.parquet",
    "tasks/a/rloo-kl0.1-seed0",
    "tasks/a/rloo-kl0.1-seed0/train/rloo/landing.json",
    "tasks/a/rlhf-kl0.1-seed0/evaluation/results.json",
    "results.json",
)


def test_killed_at_any_moment_it_ends_as_if_nothing_had_happened(whole, files, tmp_path):
    expected, _ = whole
    folder = tmp_path / "killed"
    for moment in MOMENTS:
        if not (pid := os.fork()):
            try:
                kill_at_file_operation((folder / moment).exists)
                run_study(study(files), folder)
            finally:
                os._exit(70)
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        assert code == -signal.SIGKILL, moment
    again = run_study(study(files), folder)
    assert again["made"]["ended"] >= expected["made"]["ended"]
    assert again == {**expected, "made": again["made"]}
    assert not list(folder.rglob("*.part"))


def test_a_failing_cell_leaves_the_others_alone_and_is_tried_again(
    files, counts, tmp_path, monkeypatch
):
    import infalign.training.policy as policy

    true = policy.train_policy

    def failing(recipe, samples, method, *arguments, **options):
        if method == "rlhf" and recipe.seed == 1:
            raise DataError("out of reach")
        true(recipe, samples, method, *arguments, **options)

    with monkeypatch.context() as patched:
        patched.setattr(policy, "train_policy", failing)
        results = run_study(study(files), tmp_path / "study")
    rloo, rlhf = results["tasks"][0]["arms"]
    assert (rloo["seeds"], rlhf["seeds"]) == ([0, 1], [0])
    assert rlhf["cells"][1]["error"] == "out of reach"
    assert any("seed1 failed: out of reach" in n for t in study_tables(results) for n in t.notes)
    assert_missing_seeds_are_said(results, study(files), tmp_path / "study")
    counts.__init__()
    again = run_study(study(files), tmp_path / "study")
    assert counts.trained == ["rlhf"] and again["finished"] == 4


def assert_missing_seeds_are_said(results, grid, folder):
    """rloo has both seeds and rlhf one of them."""
    main = study_tables(results)[0]
    notes = " ".join(main.notes)
    assert "‡ 1 of 2 seeds finished: the interval lacks the variance" in notes
    assert "(rlhf at 0.1 nats)" in notes and "(rloo at 0.1 nats)" in notes
    rloo, rlhf = (dict(zip(main.head, row, strict=True)) for row in main.rows)
    assert rlhf["seeds"] == "1 of 2" and rlhf["win rate, %"].endswith("‡")
    assert not rloo["win rate, %"].endswith("‡") and rloo["to best rival, points"].endswith("‡")
    page = build_page(results)
    assert notes.split("‡")[1].strip() in page and "other seeds would differ is not known" in page
    pooled = replace(grid, study=grid.study.model_copy(update={"seed_variance": "pooled"}))
    pooled = replace(pooled, tasks=[replace(t, study=pooled.study) for t in grid.tasks])
    shared = study_tables(summarize(StudyFolder(pooled, folder), {}))[0]
    assert "that of all methods (pooled)" in shared.notes[0] and "‡" not in shared.rows[1][4]


def test_a_page_that_cannot_be_drawn_ends_no_study_and_is_drawn_by_the_next_call(
    files, counts, tmp_path
):
    def broken(folder, results):
        raise ModuleNotFoundError("No module named 'matplotlib'")

    with pytest.raises(DataError, match=r"could not be drawn.*ModuleNotFoundError: No module"):
        run_study(study(files), tmp_path / "study", write=broken)
    assert sorted(counts.trained) == sorted(2 * METHODS)
    assert storage.read_json(tmp_path / "study/results.json")["finished"] == 4
    counts.__init__()
    run_study(study(files), tmp_path / "study", write=write_page)
    assert not counts.trained and not counts.drawn
    assert (tmp_path / "study/report.html").exists()


def test_what_is_left_is_known_before_anything_runs(files, counts, tmp_path):
    grid = study(files)
    names, tasks = tasks_left(StudyFolder(grid, tmp_path / "new"), list(grid.cells))
    assert names == ["a/reference", *(cell.path for cell in grid.cells)]
    steps = [t for t in tasks if t.name.endswith(" on policy")]
    assert len(steps) == 4 and all(t.kind == "step" and t.responses for t in steps)


def test_other_held_out_prompts_are_judged_without_another_training(files, whole, counts):
    _, folder = whole
    grid = study(files, task={"evaluate": {"prompts": {"limit": HELD_OUT - 1}, "samples": M}})
    other = StudyFolder(grid, folder)
    due = [cell for cell in grid.cells if not other.is_finished(cell)]
    assert len(due) == 4
    _, tasks = tasks_left(other, due)
    assert [t.name for t in tasks] == [f"{cell.path} evaluation" for cell in due]
    dry = dry_study(grid, folder, seconds=0).tasks["a"]
    expected = ["calibrate × 0", "reference × 0", *(f"train {m} × 0" for m in METHODS)]
    assert [work.name for work in dry.works] == [*expected, "evaluate × 4"]
    counts.__init__()
    assert run_study(grid, folder)["finished"] == 4
    assert not counts.trained and not counts.drawn

    more = study(files, task={"evaluate": {"prompts": {"limit": HELD_OUT}, "samples": M + 2}})
    dry = dry_study(more, folder, seconds=0).tasks["a"]
    assert [work.name for work in dry.works][1:3] == ["reference", "train rloo × 0"]
    counts.__init__()
    run_study(more, folder)
    drawn = dict.fromkeys(METHODS, 2 * 2 * HELD_OUT)
    assert counts.drawn == {"base": 2 * HELD_OUT, **drawn}, "once for all cells"
    shared = (folder / "tasks/a/reference/evaluation/reference.parquet").read_bytes()
    for cell in more.cells:
        own = folder / "tasks/a" / cell.name / "evaluation/reference.parquet"
        assert own.read_bytes() == shared


@pytest.fixture
def edited(files):
    """Replaces text in a file of the studies, until the test ends."""
    before = {}

    def edit(name, old, new):
        before[files / name] = (files / name).read_text()
        assert old in before[files / name]
        (files / name).write_text(before[files / name].replace(old, new))

    yield edit
    for path, text in before.items():
        path.write_text(text)


def test_finished_cells_are_judged_again_by_a_changed_gold_reward(
    files, whole, counts, edited, tmp_path
):
    results, folder = whole
    edited("gold.py", 'float(c.count("b"))', 'float(-c.count("b"))')
    again = run_study(study(files), folder)
    assert not counts.drawn and not counts.trained
    assert again["tasks"] == run_study(study(files), tmp_path / "new")["tasks"] != results["tasks"]


def test_finished_cells_are_judged_again_by_a_changed_judge(files, whole, edited):
    _, folder = whole
    task = {"evaluate": {"judge": f"{files}/gold.py:judge", "samples": M}}
    run_study(study(files, [0], task), folder)
    assert StudyFolder(study(files, [0], task), folder).due() == []
    edited("gold.py", "float(x > y)", "float(x < y)")
    assert len(StudyFolder(study(files, [0], task), folder).due()) == len(METHODS)


def test_held_out_prompts_of_another_text_are_drawn_for_again(files, whole, counts, edited):
    _, folder = whole
    edited("prompts.jsonl", '"abba"', '"b"')
    assert run_study(study(files), folder)["finished"] == 4
    assert counts.drawn == {"base": M, **dict.fromkeys(METHODS, 2 * M)} and not counts.trained


def test_a_folder_with_other_files_is_left_alone(files, counts, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(ConfigError, match=r"is not empty and holds no study .* 'notes.txt'"):
        run_study(study(files), tmp_path)


def test_the_page_shows_every_method_and_runs_no_script_but_its_own(whole, tmp_path):
    results, _ = whole
    page = build_page(results)
    assert page.count("<script>") == 1 and "Content-Security-Policy" in page
    assert all(name in page for name in (*METHODS, "rlhf-kl0.1-seed1"))
    assert Path(write_page(tmp_path, results)).read_text() == page
    assert (tmp_path / "plots/a.png").exists()


def null(rng, names, prompts=40):
    """Arms that win alike, and their values."""
    arms = [Arm(name, 0.5, {0: None}) for name in names]
    return arms, Quantity({id(a): {0: rng.normal(0.5, 0.4, prompts)} for a in arms}, None)


def test_any_of_the_candidates_is_called_ahead_of_its_equals_as_rarely_as_promised():
    rng, runs = np.random.default_rng(0), 300
    wrong = {"all": 0, "some": 0, "two": 0}
    for _ in range(runs):
        arms, quantity = null(rng, "abcdef")
        others = [[x for x in arms if x is not a] for a in arms]
        every = [quantity.to_rivals(a, r, arms) for a, r in zip(arms, others, strict=True)]
        wrong["all"] += any(one["to_best"]["ahead"] for one in every)
        # One rival, the best of all there is: each of five can be called ahead by mistake.
        every = [quantity.to_rivals(a, arms[:1], arms[1:]) for a in arms[1:]]
        wrong["some"] += any(one["to_best"]["ahead"] for one in every)
        (a, b), quantity = null(rng, "ab")
        every = [quantity.to_rivals(*own, (a, b)) for own in ((a, [b]), (b, [a]))]
        wrong["two"] += any(one["to_best"]["ahead"] for one in every)
    for name, count in wrong.items():
        assert count / runs < 0.025 + 3 * np.sqrt(0.025 * 0.975 / runs), (name, count)
    assert wrong["some"] > 0.004 * runs, "a bound that is never reached shows nothing"


def test_a_single_candidate_needs_no_allowance_and_others_are_never_ahead():
    rng = np.random.default_rng(1)
    arms, quantity = null(rng, "abcdef", prompts=200)
    ours = arms[0]
    spread = quantity.to_rivals(ours, arms[1:], [ours])["to_best"]
    gain = 1e-6 - spread["low"]
    quantity.values[id(ours)][0] += gain  # its lowest end is now just above 0
    alone = quantity.to_rivals(ours, arms[1:], [ours])["to_best"]
    assert alone["ahead"] and alone["low"] == pytest.approx(1e-6, abs=1e-9)
    assert not quantity.to_rivals(ours, arms[1:], arms[:3])["to_best"]["ahead"]
    quantity.values[id(ours)][0] += 0.2
    assert quantity.to_rivals(ours, arms[1:], arms[:3])["to_best"]["ahead"]
    assert not quantity.to_rivals(ours, arms[1:], arms[1:])["to_best"]["ahead"]


def test_sentences_name_the_candidates_and_say_behind_of_a_loss(whole):
    results, _ = whole
    task = results["tasks"][0]
    best = {"rival": "rlhf", "value": -0.02, "low": -0.03, "high": -0.01}
    best |= {"ahead": False, "seed_variance": "own"}
    for arm in task["arms"]:
        rate = arm["win_rates"]["reward"][task["procedure"]]
        rate.update(value=0.9 if arm["method"] == "rlhf" else 0.6, to_best=best)
    page = build_page({**results, "tasks": [{**task, "candidates": ["rloo"]}]})
    assert "rloo has the highest win rate of rloo, 60.0 %. It is behind its best rival" in page
    assert "by 2.0 points." in page


def test_the_ranks_of_several_methods_allow_for_prompts_and_seeds():
    rng = np.random.default_rng(0)
    prompts = rng.normal(0.5, 0.1, 200)
    arms = [Arm(name, 0.5, dict.fromkeys(range(3))) for name in ("a", "b", "c", "d")]
    means = {"a": 0.2, "b": 0.0, "c": 0.0, "d": -0.2}
    values = {
        id(arm): {s: prompts + means[arm.method] + rng.normal(0, 0.02, 200) for s in range(3)}
        for arm in arms
    }
    ranks = Quantity(values, None).ranks(arms)
    assert {name: (r["best"], r["worst"]) for name, r in ranks.items()} == {
        **{"a": (1, 1), "d": (4, 4)},
        **dict.fromkeys(("b", "c"), (2, 3)),
    }
    assert ranks["b"]["tied"] == ranks["c"]["tied"] not in (ranks["a"]["tied"], ranks["d"]["tied"])
    other = Arm("e", 0.5, {7: None})  # without a common seed
    values[id(other)] = {7: prompts + 9.0}
    ranks = Quantity(values, None).ranks([*arms, other])
    assert (ranks["e"]["best"], ranks["e"]["worst"]) == (1, 5)
