"""A study goes on from archived cells elsewhere; an archive that does not fit is refused."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from quick_studies import HELD_OUT, METHODS, M, counted, make_files, study

from infalign.comparison.measured import AbstractMeasured
from infalign.core import parse_procedure
from infalign.errors import ConfigError, DataError
from infalign.study.archive import Archive, Ranks, ranks_of
from infalign.study.dry import dry_study
from infalign.study.folder import StudyFolder
from infalign.study.page import build_page
from infalign.study.run import run_study
from infalign.study.table import summarize
from infalign.study.tables import study_tables

pytestmark = pytest.mark.filterwarnings("ignore")

PROCEDURES = [
    parse_procedure(spec)
    for spec in ("sampling", "best-of-n:3", "worst-of-n:6", "order-statistic:5:3")
]


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return make_files(tmp_path_factory.mktemp("files"))


def quick(files, seeds=(0, 1), **evaluate):
    """A study that an archive can hold: it has no judge."""
    changed = study(files, seeds)
    values = dict(changed.tasks[0].values)
    values["evaluate"] = values["evaluate"] | {"judge": None} | evaluate
    task = replace(changed.tasks[0], values=values)
    return replace(changed, tasks=(task,))


@pytest.fixture(scope="module")
def finished(files, tmp_path_factory):
    """The results of a whole study, its folder, and its archive."""
    folder = tmp_path_factory.mktemp("finished")
    with pytest.MonkeyPatch.context() as patched:
        counted(patched)
        results = run_study(quick(files), folder / "study", archive=folder / "cells")
    return results, folder / "study", folder / "cells"


@pytest.fixture
def counts(monkeypatch):
    """Counts of what the cells are asked."""
    return counted(monkeypatch)


@pytest.fixture
def archive(finished, tmp_path):
    """A copy of the archive."""
    return Path(shutil.copytree(finished[2], tmp_path / "cells"))


def numbers(results):
    """All results but what made them."""
    return {key: value for key, value in results.items() if key != "made"}


class Arrays(AbstractMeasured):
    """Rewards in memory."""

    def __init__(self, rewards):
        super().__init__(rewards["mine", "reward"].shape)
        self._rewards = rewards

    def column(self, name, column):
        return self._rewards[name, column]

    _selected = Ranks._selected


@given(st.integers(0, 2**32 - 1), st.sampled_from([2, 5, 1000]))
def test_every_win_rate_by_ranks_is_that_by_rewards(seed, levels):
    rng = np.random.default_rng(seed)
    values = rng.normal(size=levels)
    names = [(n, r) for n in ("mine", "reference") for r in ("reward", "reward_g")]
    measured = Arrays({name: rng.choice(values, (4, M)) for name in names})
    ranks = Ranks("mine", ranks_of(measured, "mine", ["reward", "g"]), np.zeros(4))
    for ours in PROCEDURES:
        for theirs in PROCEDURES:
            for reward in ("reward", "g"):
                estimates = [m.win_rate("mine", ours, theirs, reward) for m in (measured, ranks)]
                assert np.allclose(*(e.per_prompt for e in estimates), rtol=0, atol=1e-12)


def test_a_study_goes_on_elsewhere_from_its_archive(files, finished, counts, archive, tmp_path):
    for file in archive.glob("*/*-seed1.parquet"):
        file.unlink()
    grid = quick(files)
    dry = dry_study(grid, tmp_path / "b", archive=archive, seconds=0)
    assert (dry.cells, dry.finished) == (4, 2)
    results = run_study(grid, tmp_path / "b", archive=archive)
    assert sorted(counts.trained) == sorted(METHODS), "those of the other seed"
    assert numbers(results) == numbers(finished[0])
    both = [sorted(p.relative_to(a) for p in a.rglob("*.parquet")) for a in (archive, finished[2])]
    assert both[0] == both[1] and len(both[0]) == 4


def test_a_whole_archive_is_only_read(files, finished, counts, archive, monkeypatch, tmp_path):
    def refuse(*_):
        raise DataError("read-only")

    monkeypatch.setattr("infalign.storage.require_writable", refuse)
    run_study(quick(files), tmp_path / "whole", archive=archive)
    next(archive.rglob("*.parquet")).unlink()
    with pytest.raises(DataError, match="read-only"):
        run_study(quick(files), tmp_path / "other", archive=archive)


def test_a_whole_archive_needs_neither_models_nor_samples(
    files, finished, counts, archive, tmp_path
):
    results = run_study(quick(files), tmp_path / "b", archive=archive)
    assert not counts.trained and not counts.drawn and not (tmp_path / "b/tasks").exists()
    assert numbers(results) == numbers(finished[0])
    made, before = results["made"], finished[0]["made"]
    assert {k: made[k] for k in ("machines", "versions", "dtype")} == {
        k: before[k] for k in ("machines", "versions", "dtype")
    }
    assert dry_study(quick(files), tmp_path / "c", archive=archive, seconds=0).seconds == 0


def test_finished_cells_of_a_folder_are_archived_later(files, finished, counts, tmp_path):
    folder = Path(shutil.copytree(finished[1], tmp_path / "study"))
    run_study(quick(files), folder, archive=tmp_path / "cells")
    assert not counts.trained
    for file in finished[2].rglob("*.parquet"):
        again = tmp_path / "cells" / file.relative_to(finished[2])
        assert again.read_bytes() == file.read_bytes()


def test_an_archive_of_other_settings_is_refused_before_anything_runs(
    files, counts, archive, tmp_path
):
    with pytest.raises(
        ConfigError, match=r"rloo-kl0\.1-seed0\.parquet comes from other settings: "
    ) as e:
        run_study(quick(files, kl_samples=3), tmp_path / "b", archive=archive)
    assert "evaluate.kl_samples 8, not 3" in str(e.value) and not counts.drawn


def with_training(grid, **settings):
    """A study with other settings of training."""
    values = dict(grid.tasks[0].values)
    values["train"] = values["train"] | settings
    return replace(grid, tasks=(replace(grid.tasks[0], values=values),))


def test_an_archive_serves_settings_that_the_methods_do_not_read(files, finished, counts, archive):
    changed = with_training(quick(files), passes=5)
    assert changed.tasks[0].config.train.passes == 5
    folder = archive.parent / "b"
    assert numbers(run_study(changed, folder, archive=archive)) == numbers(finished[0])
    assert not counts.trained
    with pytest.raises(ConfigError, match=r"train\.steps 2, not 3"):
        run_study(with_training(quick(files), steps=3), archive.parent / "c", archive=archive)


def reversed_tests(text):
    """The prompts with those that are held out in another order."""
    rows = text.splitlines()
    return "\n".join([*rows[:6], *reversed(rows[6:])])


@pytest.mark.parametrize(
    ("file", "change", "named"),
    [
        ("rewards.py", "{}\nOTHER = 1\n".format, "content"),
        ("gold.py", "{}\nOTHER = 1\n".format, "gold b"),
        ("prompts.jsonl", reversed_tests, "held-out prompts"),
    ],
)
def test_an_archive_that_was_made_from_something_else_is_refused(
    files, counts, archive, tmp_path, file, change, named
):
    (archive / "a/rlhf-kl0.1-seed1.parquet").unlink()
    text = (files / file).read_text()
    (files / file).write_text(change(text))
    try:
        with pytest.raises(DataError, match="was not made from the models and samples") as error:
            run_study(quick(files), tmp_path / "b", archive=archive)
    finally:
        (files / file).write_text(text)
    assert f"{named} " in str(error.value) and not counts.trained


def test_rewards_that_are_rounded_differently_are_the_same(
    files, finished, counts, archive, tmp_path
):
    (archive / "a/rlhf-kl0.1-seed1.parquet").unlink()
    folder = Path(shutil.copytree(finished[1], tmp_path / "study"))
    file = folder / "tasks/a/reference/evaluation/reference.parquet"
    table = pq.read_table(file)
    place = table.column_names.index("reward")
    rounded = table["reward"].to_numpy() * (1 + 1e-9)
    grid = quick(files)
    study = StudyFolder(grid, folder, Archive(archive))
    before = study._shared(grid.tasks[0])
    pq.write_table(table.set_column(place, "reward", [rounded]), file)
    assert study._shared(grid.tasks[0]) != before
    assert study.archived(next(iter(grid.cells))) is not None
    texts = table["completion"].to_pylist()
    texts[0] += "a"
    place = table.column_names.index("completion")
    pq.write_table(table.set_column(place, "completion", [texts]), file)
    with pytest.raises(DataError, match="was not made from the models and samples"):
        study.archived(next(iter(grid.cells)))


def test_cells_of_two_origins_do_not_stand_in_one_table(files, archive):
    grid, cells = quick(files), Archive(archive)
    cell = next(iter(grid.cells))
    other = replace(cells.read(cell), made_from={"content": "x", "calibration": "y"})
    cells.write(cell, other)
    with pytest.raises(
        DataError, match="do not come from the same models and samples: content 'x'"
    ):
        summarize(StudyFolder(grid, archive, cells), {})


def restated(file, change):
    """Write a file again, with its metadata changed."""
    table = pq.read_table(file)
    stated = json.loads(table.schema.metadata[b"infalign"])
    change(stated)
    pq.write_table(table.replace_schema_metadata({"infalign": json.dumps(stated)}), file)


@pytest.mark.parametrize(
    ("version", "remedy"),
    [(1, "the same command writes it again from the study's folder"), (99, "that wrote it")],
)
def test_a_file_of_another_format_says_what_to_do(
    files, finished, counts, archive, tmp_path, version, remedy
):
    own = archive / "a/rloo-kl0.1-seed0.parquet"
    restated(own, lambda stated: stated.update(schema_version=version))
    with pytest.raises(DataError, match=remedy):
        run_study(quick(files), tmp_path / "b", archive=archive)
    assert not counts.drawn
    own.unlink()
    folder = Path(shutil.copytree(finished[1], tmp_path / "study"))
    run_study(quick(files), folder, archive=archive)
    assert not counts.trained and own.exists()


def test_an_archive_that_cannot_be_written_is_known_before_anything_runs(files, counts, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="is not a folder"):
        run_study(quick(files), tmp_path / "b", archive=tmp_path / "file")
    assert not counts.drawn


def test_a_study_goes_on_where_a_file_of_the_archive_cannot_be_written(
    files, counts, tmp_path, monkeypatch, caplog
):
    write, failed = Archive.write, []

    def full(self, cell, archived):
        if not failed:
            failed.append(cell)
            raise DataError("No space left.")
        write(self, cell, archived)

    monkeypatch.setattr(Archive, "write", full)
    run_study(quick(files, [0]), tmp_path / "b", archive=tmp_path / "cells")
    assert len(counts.trained) == 2 and "is finished; the study goes on. No space" in caplog.text
    assert len(list((tmp_path / "cells").rglob("*.parquet"))) == 2, "written at the end"


@pytest.mark.parametrize("damage", ["cut", "renamed", "changed", "summary"])
def test_a_damaged_file_is_an_error_that_names_it(files, counts, archive, tmp_path, damage):
    own, other = (archive / f"a/{m}-kl0.1-seed0.parquet" for m in METHODS)
    if damage == "cut":
        own.write_bytes(own.read_bytes()[:-100])
    elif damage == "renamed":
        shutil.copy(other, own)
    elif damage == "summary":
        restated(own, lambda stated: stated["summary"].update(kl=0.2))
    else:
        table = pq.read_table(own)
        kl = table.column_names.index("kl")
        pq.write_table(table.set_column(kl, "kl", [table["kl"].to_numpy() + 1]), own)
    with pytest.raises(DataError, match=own.name):
        run_study(quick(files), tmp_path / "b", archive=archive)
    assert not counts.drawn


def test_what_reads_more_than_ranks_is_not_archived(files, counts, tmp_path):
    with pytest.raises(ConfigError, match="has a judge"):
        run_study(study(files), tmp_path / "b", archive=tmp_path / "cells")
    soft = quick(files, procedures=["soft-best-of-n:2:1"])
    with pytest.raises(ConfigError, match="reads more than the order of rewards"):
        run_study(soft, tmp_path / "b", archive=tmp_path / "cells")
    assert not counts.drawn and not (tmp_path / "cells").exists()


def test_a_file_holds_neither_texts_nor_weights(finished):
    for file in finished[2].rglob("*.parquet"):
        schema = pq.read_schema(file)
        kinds = {name: str(schema.field(name).type) for name in schema.names}
        ranks = f"fixed_size_list<element: uint16>[{M}]"
        sides = ("policy", "reference")
        assert kinds == {f"{own} {r}": ranks for r in ("reward", "b") for own in sides} | {
            "kl": "double"
        }
        assert len(pq.read_table(file)) == HELD_OUT


def test_a_task_without_a_cell_is_shown_where_its_prompts_are_elsewhere(files, archive):
    both = quick(files)
    values = dict(both.tasks[0].values) | {"prompts": {"file": "elsewhere.jsonl"}}
    other = replace(both.tasks[0], name="b", values=values)
    results = summarize(
        StudyFolder(replace(both, tasks=(*both.tasks, other)), archive, Archive(archive)), {}
    )
    assert [task["prompts"] for task in results["tasks"]] == [HELD_OUT, None]
    titles = [table.title for table in study_tables(results)]
    assert any(title.startswith(f"b: held-out prompts × {M} responses") for title in titles)
    assert "held-out prompts ×" in build_page(results)
