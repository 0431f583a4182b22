"""Tables in parts: resumed, keyed by what they come from, set aside and brought back."""

import os
from pathlib import Path

import pyarrow as pa
import pytest
from kills import killed_at

from infalign import DataError, storage
from infalign.manifest import Manifest
from infalign.stores.resumable import Origin, ResumableTable, Source

IDS = [f"p{i}" for i in range(5)]
SIZE = 2


def origin(weights="w1", score="s1", **settings):
    sources = {
        "policy": Source({"weights": weights, "tokenizer": "t"}, "policies.mine", "models/mine"),
        "score": Source({"code": score}, "reward", "python:a:b"),
    }
    return Origin({"samples": 1} | settings, sources)


class Drawing:
    """Draws rows that state what they come from, and counts the prompts asked for."""

    def __init__(self, folder, of, killed_at=None):
        self.table = ResumableTable(Manifest(folder), folder / "mine.parquet", "evaluate", "policy")
        self.of, self.drawn, self.numbers, self.killed_at = of, [], [], killed_at

    def __call__(self, places, number):
        if self.killed_at == len(self.drawn):
            raise KeyboardInterrupt
        self.drawn += [IDS[i] for i in places]
        self.numbers.append(number)
        rows = len(places)
        return pa.table(
            {
                "prompt_id": [IDS[i] for i in places],
                "text": [self.of.sources["policy"].parts["weights"]] * rows,
                "score": [self.of.sources["score"].parts["code"]] * rows,
            }
        )

    def write(self):
        changed, aside = self.table.renew(self.of)
        self.table.write(IDS, SIZE, self, self.of, lambda done, total: None)
        return changed, aside

    @property
    def stored(self):
        return storage.read_table(self.table.path)


def test_a_killed_table_repeats_one_part_at_most(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        Drawing(tmp_path, origin(), killed_at=2).write()
    rest = Drawing(tmp_path, origin())
    rest.write()
    assert rest.drawn == IDS[2:] and rest.numbers == [1, 2]
    assert rest.stored["prompt_id"].to_pylist() == IDS
    assert sorted(p.name for p in tmp_path.iterdir()) == ["manifest.json", "mine.parquet"]


@pytest.mark.parametrize("operation", range(45))
def test_a_kill_at_any_file_operation_loses_at_most_one_part(tmp_path, operation):
    first = Drawing(tmp_path, origin())
    first.write()
    second = Drawing(tmp_path, origin("w2"))
    tables = [(storage, "save_table"), (storage, "write_json")]
    with killed_at(operation, *tables, (os, "unlink"), (Path, "unlink")):
        second.write()
    before = len(second.drawn)
    again = Drawing(tmp_path, origin("w2"))
    again.write()
    assert before + len(again.drawn) <= len(IDS) + SIZE
    assert again.stored["text"].to_pylist() == ["w2"] * len(IDS)
    back = Drawing(tmp_path, origin())
    back.write()  # the first samples were set aside, whatever happened
    assert back.drawn == [] and back.stored["text"].to_pylist() == ["w1"] * len(IDS)


@pytest.mark.parametrize("operation", range(4))
def test_parts_that_a_kill_left_do_not_come_back(tmp_path, operation):
    with pytest.raises(KeyboardInterrupt):
        Drawing(tmp_path, origin(), killed_at=4).write()
    with killed_at(operation, (Path, "unlink")):  # while the old parts are removed
        Drawing(tmp_path, origin("w2"), killed_at=0).write()
    with pytest.raises(KeyboardInterrupt):
        Drawing(tmp_path, origin("w2"), killed_at=2).write()
    last = Drawing(tmp_path, origin("w2"))
    last.write()
    assert last.stored["text"].to_pylist() == ["w2"] * len(IDS)


@pytest.mark.parametrize("finished", [True, False])
def test_rows_of_a_source_that_changed_are_set_aside_until_it_comes_back(tmp_path, finished):
    first = Drawing(tmp_path, origin(), killed_at=None if finished else 4)
    if finished:
        first.write()
    else:
        with pytest.raises(KeyboardInterrupt):
            first.write()
    other = Drawing(tmp_path, origin("w2"))
    changed, aside = other.write()
    assert changed == ["weights"] and aside.parent == tmp_path / "replaced"
    assert other.drawn == IDS and set(other.stored["text"].to_pylist()) == {"w2"}
    assert storage.read_table(aside)["text"].to_pylist() == ["w1"] * len(first.drawn)
    back = Drawing(tmp_path, origin())
    assert back.write()[0] == ["weights"]
    assert back.drawn == ([] if finished else IDS[4:])
    assert back.stored["text"].to_pylist() == ["w1"] * 5


def test_a_column_that_parts_have_from_different_sources_is_left_out(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        Drawing(tmp_path, origin(), killed_at=2).write()
    rest = Drawing(tmp_path, origin(score="s2"))
    rest.write()
    assert rest.drawn == IDS[2:] and rest.stored.column_names == ["prompt_id", "text"]
    assert set(rest.table.origin().sources) == {"policy"}


def test_a_column_is_replaced_and_its_rows_stay(tmp_path):
    drawing = Drawing(tmp_path, origin())
    drawing.write()
    assert drawing.table.origin().changes(origin(score="s2")) == {"score": ["code"]}
    scored = drawing.stored.drop_columns(["score"]).append_column("score", [["s2"] * 5])
    drawing.table.replace(scored, origin(score="s2"))
    again = Drawing(tmp_path, origin(score="s2"))
    assert again.write() == ([], None) and again.drawn == []
    assert again.stored["score"].to_pylist() == ["s2"] * 5 and not (tmp_path / "parts").exists()


def test_a_file_that_was_removed_is_made_again_and_said(tmp_path, caplog):
    Drawing(tmp_path, origin()).write()
    (tmp_path / "mine.parquet").unlink()
    again = Drawing(tmp_path, origin())
    again.write()
    assert again.drawn == IDS and "mine.parquet is missing. It is made again." in caplog.text


def test_a_file_from_elsewhere_is_not_overwritten(tmp_path):
    (tmp_path / "mine.parquet").write_bytes(b"my own")
    with pytest.raises(DataError, match=r"mine\.parquet has no checksum"):
        Drawing(tmp_path, origin()).write()
    assert (tmp_path / "mine.parquet").read_bytes() == b"my own"


@pytest.mark.parametrize("damage", [b"", b"PAR1 of another table PAR1"])
@pytest.mark.parametrize("file", ["mine.parquet", "parts/mine-00001.parquet", "replaced"])
def test_damaged_files_are_named(tmp_path, file, damage):
    wanted = origin("w2") if file == "replaced" else origin()
    with pytest.raises(KeyboardInterrupt):
        Drawing(tmp_path, wanted, killed_at=4).write()
    if file == "mine.parquet":
        Drawing(tmp_path, wanted).write()
    if file == "replaced":
        Drawing(tmp_path, origin()).write()
        file = next((tmp_path / file).iterdir()).relative_to(tmp_path)
    (tmp_path / file).write_bytes(damage)
    drawing = Drawing(tmp_path, wanted)
    with pytest.raises(DataError, match=f"{file} is not what was written"):
        drawing.write()
        drawing.table.read()
    assert drawing.drawn == []


def test_conflicts_are_settings_and_names_that_mean_something_else():
    stored = Origin.of(origin().to_json())
    assert stored.conflicts(origin()) == []
    assert stored.conflicts(origin(samples=4)) == ["samples 1, not 4"]
    assert stored.conflicts(origin("w2")) == []  # the same name and path with other content

    def named(weights):
        of = origin(weights).sources
        moved = Source(of["policy"].parts, "policies.mine", "models/other")
        return Origin({"samples": 1}, of | {"policy": moved})

    assert stored.conflicts(named("w1")) == []  # the same model under another path
    assert stored.conflicts(named("w2")) == ["policies.mine 'models/mine', not 'models/other'"]
