"""Folders that `datasets` saved, and Arrow files."""

import json

import pyarrow as pa
import pytest

from infalign import DataError
from infalign.config import Prompts
from infalign.prompts import load_prompts

TURNS = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
ROWS = [
    {"prompt": [{"role": "user", "content": "How?"}], "answer": 1},
    {"prompt": [*TURNS, {"role": "user", "content": "Why?"}], "answer": 2},
]


def saved(folder, splits=("train", "test")):
    import datasets

    datasets.disable_progress_bars()
    parts = {s: datasets.Dataset.from_list(ROWS[i:]) for i, s in enumerate(splits)}
    data = datasets.DatasetDict(parts) if len(parts) > 1 else parts[splits[0]]
    data.save_to_disk(folder)
    return str(folder)


@pytest.mark.parametrize("key", ["file", "dataset"])
def test_saved_splits_are_read_under_either_key(tmp_path, key):
    folder = saved(tmp_path / "saved")
    prompts = load_prompts(Prompts(**{key: folder}))
    assert [list(p.messages) for p in prompts] == [row["prompt"] for row in ROWS]
    assert [p.columns for p in prompts] == [{"answer": 1}, {"answer": 2}]
    assert [p.text for p in load_prompts(Prompts(**{key: folder}, split="test"))] == ["Why?"]
    with pytest.raises(DataError, match=r"its splits are train \(2\), test \(1\)"):
        load_prompts(Prompts(**{key: folder}, split="dev"))


def test_a_saved_data_set_without_splits_belongs_to_all(tmp_path):
    folder = saved(tmp_path / "saved", ["any"])
    for split in ("train", "test"):
        assert len(load_prompts(Prompts(file=folder, split=split))) == 2


@pytest.mark.parametrize("kind", [pa.ipc.new_file, pa.ipc.new_stream])
def test_arrow_files_are_read(tmp_path, kind):
    table = pa.Table.from_pylist(ROWS)
    with kind(tmp_path / "a.arrow", table.schema) as out:
        out.write_table(table)
    assert len(load_prompts(Prompts(file=str(tmp_path / "a.arrow")))) == 2


def test_damaged_folders_and_files_are_named(tmp_path):
    folder = saved(tmp_path / "saved")
    (shard,) = (tmp_path / "saved/train").glob("*.arrow")
    shard.write_bytes(b"ARROW1\x00\x00\x84\xff")
    with pytest.raises(DataError, match=f"{shard.name} is not a readable Arrow file"):
        load_prompts(Prompts(file=folder))
    shard.unlink()
    with pytest.raises(DataError, match=shard.name):
        load_prompts(Prompts(file=folder))
    (tmp_path / "saved/train/state.json").write_text(json.dumps({"_data_files": 3}))
    with pytest.raises(DataError, match=r"state\.json must list `_data_files`; got 3"):
        load_prompts(Prompts(file=folder))
