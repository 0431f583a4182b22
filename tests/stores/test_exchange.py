"""Rewards as a column of a data set: every number comes back, or an error says which does not."""

import json
import os
import shutil
import signal
import subprocess
import sys

import datasets
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from contracts import law
from hypothesis import given, settings
from hypothesis import strategies as st

from infalign import CalibrationStore, DataError
from infalign.stores import StoreWriter, columns, exchange, read_samples
from infalign.stores.exchange import export_rewards, export_samples, import_rewards
from infalign.stores.integrity import check
from infalign.stores.manifest import read_manifest

PROVENANCE = {"model": "tiny", "sampling": {"temperature": 1.0}}
ROWS = {"a": [2.0, 1.0], "b": [5.0, 5.0], "ü": [0.5]}


@pytest.fixture
def folder(tmp_path):
    with StoreWriter(tmp_path / "store", PROVENANCE, 3) as out:
        out.add(["a", "b"], [["x", "xx"], ["y", "yy"]], [[2, 1], [5, 5]], {"logprob": [-1.0] * 4})
        out.add(["ü"], [["é\n"]], [[0.5]], {"logprob": [-2.0]})
    return tmp_path / "store"


def rows_of(store):
    return {prompt: row.tolist() for prompt, row in store.rewards.items()}


def table(rows, **more):
    return pa.table({"prompt_id": list(rows), "reference_rewards": list(rows.values())} | more)


# --- There and back. ---

numbers = st.floats(allow_nan=False, allow_infinity=False) | st.integers(-3, 3).map(float)
any_rows = st.dictionaries(
    st.text(st.characters(exclude_categories=["Cs"]), max_size=5),
    st.lists(numbers, min_size=1, max_size=5),
    min_size=1,
    max_size=9,
)


@settings(law, max_examples=25)
@given(rows=any_rows, small=st.booleans(), cut=st.integers(0, 9), held=st.integers(1, 9))
def test_every_bit_comes_back(tmp_path_factory, rows, small, cut, held):
    """From disk and memory, through files and data sets, in shards and imports of any size."""
    if small:
        rows = {p: [float(np.float32(x % 1000)) for x in row] for p, row in rows.items()}
    sorted_rows, place = {p: sorted(row) for p, row in rows.items()}, tmp_path_factory.mktemp("x")
    with StoreWriter(place / "store", PROVENANCE, len(rows)) as out:
        for part in (list(rows)[:cut], list(rows)[cut:]):
            if part:
                out.add(part, None, [rows[p] for p in part])
    store = CalibrationStore.open(place / "store")
    again = CalibrationStore.from_dataset(store.to_table())
    assert rows_of(again) == sorted_rows and again.provenance == PROVENANCE
    wrapped = datasets.Dataset(store.to_table())
    assert rows_of(CalibrationStore.from_dataset(wrapped)) == sorted_rows
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(exchange, "SHARD_VALUES", held)
        patch.setattr(exchange, "LARGEST", 100)
        for out in (place / "one.parquet", place / "many"):
            export_rewards(place / "store", out)
            import_rewards(out, place / f"{out.name}-back")
            back = CalibrationStore.open(place / f"{out.name}-back", verify=True)
            assert rows_of(back) == sorted_rows and list(back.rewards) == list(rows)
            assert back.provenance == PROVENANCE


def test_a_data_set_gets_the_column_by_prompt_id_and_gives_it_back(folder):
    mine = datasets.Dataset.from_dict({"prompt_id": ["ü", "a", "b", "a"], "prompt": list("wxyz")})
    store = CalibrationStore.open(folder)
    joined = mine.add_column("reference_rewards", store.column(mine["prompt_id"]))
    assert joined["reference_rewards"] == [[0.5], [1, 2], [5, 5], [1, 2]]
    again = CalibrationStore.from_dataset(joined.select(range(3)), provenance=PROVENANCE)
    assert rows_of(again) == {"ü": [0.5], "a": [1, 2], "b": [5, 5]}
    again.require(**PROVENANCE)
    with pytest.raises(DataError, match=r"'a' occurs more than once"):
        CalibrationStore.from_dataset(joined)
    with pytest.raises(DataError, match=r"prompt_id 'q' is not in .*\(2 of 3 are unknown"):
        store.column(["a", "q", "r"])
    assert store.column([]).to_pylist() == []


def test_readers_of_parquet_read_an_export(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(exchange, "LARGEST", 1)
    export_rewards(folder, tmp_path / "r", rewards="r", key="id")
    assert sorted(f.name for f in (tmp_path / "r").iterdir()) == [
        "part-00000.parquet",
        "part-00001.parquet",
    ]
    found = datasets.load_dataset(
        str(tmp_path / "r"), split="train", cache_dir=str(tmp_path / "cache")
    )
    assert dict(zip(found["id"], found["r"], strict=True)) == {
        "a": [1, 2],
        "b": [5, 5],
        "ü": [0.5],
    }
    frame = pd.read_parquet(tmp_path / "r")
    assert frame["id"].tolist() == ["a", "b", "ü"] and frame["r"][0].tolist() == [1, 2]
    assert rows_of(CalibrationStore.from_dataset(frame, "r", "id"))["a"] == [1, 2]


def test_samples_are_exported_with_all_that_was_kept(folder, tmp_path):
    export_samples(folder, tmp_path / "s.parquet")
    assert pq.read_table(tmp_path / "s.parquet") == read_samples(folder)
    assert pq.read_table(tmp_path / "s.parquet").to_pylist()[-1] == {
        "prompt_id": "ü",
        "sample": 0,
        "completion": "é\n",
        "reward": 0.5,
        "logprob": -2.0,
    }
    with StoreWriter(tmp_path / "bare", {}, 1) as out:
        out.add(["a"], None, [[1.0]])
    with pytest.raises(DataError, match="holds rewards only, no samples"):
        export_samples(tmp_path / "bare", tmp_path / "none.parquet")


@pytest.mark.parametrize(
    "column",
    [
        pa.array([[1, 2], [3]]),
        pa.array([[1.0, 2.0], [3.0]], pa.large_list(pa.float32())),
        pa.array([[1.0, 2.0], [3.0]], pa.list_(pa.float16())),
        pa.chunked_array([pa.array([[1, 2]]), pa.array([[3]])]),
    ],
)
@pytest.mark.parametrize(
    "ids", [pa.array([7, 8]), pa.array(["7", "8"]).dictionary_encode(), pa.array(["7", "8"])]
)
def test_columns_of_any_width_are_read(column, ids):
    found = pa.table({"prompt_id": ids, "reference_rewards": column})
    assert rows_of(CalibrationStore.from_dataset(found)) == {"7": [1, 2], "8": [3]}


@pytest.mark.parametrize("kind", [pa.float16(), pa.float32(), pa.float64()], ids=str)
@pytest.mark.parametrize("form", ["decimals", "whole", "scores"])
def test_rewards_that_a_narrow_column_has_rounded_are_said(caplog, kind, form):
    rng = np.random.default_rng(0)
    values = {
        "decimals": rng.integers(0, 11, 40) / 10,
        "whole": rng.integers(0, 11, 40) / 2,
        "scores": rng.normal(size=40),
    }[form].astype(kind.to_pandas_dtype())
    rows = pa.ListArray.from_arrays(pa.array([0, 20, 40], pa.int32()), pa.array(values))
    CalibrationStore.from_dataset(pa.table({"prompt_id": ["a", "b"], "reference_rewards": rows}))
    said = [m for m in caplog.messages if "were rounded to" in m]
    assert len(said) == (form == "decimals" and kind != pa.float64())
    assert all("Write the column as float64" in m for m in said)


def test_lists_of_one_length_and_streams_are_read():
    fixed = pa.array([[2.0, 1.0], [3.0, 4.0]], pa.list_(pa.float64(), 2))
    found = pa.table({"prompt_id": ["a", "b"], "reference_rewards": fixed})
    assert rows_of(CalibrationStore.from_dataset(found)) == {"a": [1, 2], "b": [3, 4]}
    assert len(CalibrationStore.from_dataset(found.to_reader()).rewards) == 2
    streamed = datasets.Dataset(found).to_iterable_dataset()
    assert len(CalibrationStore.from_dataset(streamed).rewards) == 2
    made = datasets.IterableDataset.from_generator(lambda: iter(found.to_pylist()))
    assert len(CalibrationStore.from_dataset(made).rewards) == 2  # tells no columns beforehand


@pytest.mark.parametrize(("reward", "kind"), [(0.5, pa.float32()), (0.1, pa.float64())])
def test_rewards_are_exported_as_wide_as_they_are_stored(tmp_path, reward, kind):
    with StoreWriter(tmp_path / "s", {}, 1) as out:
        out.add(["a"], None, [[reward]])
    export_rewards(tmp_path / "s", tmp_path / "s.parquet")
    assert pq.read_schema(tmp_path / "s.parquet").field(1).type.value_type == kind


# --- What cannot be read is named, in a data set and in a file. ---

BAD = [
    ({"a": [1.0], "b": []}, r"at least one reward .*; it has none for prompt_id 'b' \(1 of 2"),
    ({"a": [1.0], "b": None}, r"at least one reward .*; it has none for prompt_id 'b' \(1 of 2"),
    ({"a": [1.0, np.nan]}, r"must hold finite rewards; it has nan for prompt_id 'a' \(1 of 2"),
    ({"a": [1.0], "b": [0.0, np.inf]}, r"must hold finite rewards; it has inf for prompt_id 'b'"),
    ({"a": [1.0, None]}, r"must hold finite rewards; it has nan for prompt_id 'a'"),
    ({"a": 1.0}, r"must be a column of lists of numbers; it holds double"),
    ({"a": ["1"]}, r"must be a column of lists of numbers; it holds list<(item|element): string>"),
    ({"a": [2**53 + 1]}, r"holds a number that float64 cannot represent"),
    ({"a": [1.0], None: [2.0]}, r"'prompt_id' has no value in row 1 \(1 such"),
    ({1.5: [1.0]}, r"'prompt_id' must be a column of strings or whole numbers; it holds double"),
]  # fmt: skip


@pytest.mark.parametrize(("rows", "words"), BAD)
def test_what_is_no_reward_is_refused_by_name(tmp_path, rows, words):
    with pytest.raises(DataError, match=words):
        CalibrationStore.from_dataset(table(rows))
    pq.write_table(table(rows), tmp_path / "t.parquet")
    with pytest.raises(DataError, match=rf"t\.parquet: .*{words}"):
        import_rewards(tmp_path / "t.parquet", tmp_path / "out")
    assert [f.name for f in tmp_path.iterdir()] == ["t.parquet"]


def test_an_id_that_stands_there_twice_is_refused(tmp_path):
    twice = pa.concat_tables([table(ROWS), table({"b": [1.0]})])
    with pytest.raises(DataError, match=r"'b' occurs more than once"):
        CalibrationStore.from_dataset(twice)
    pq.write_table(twice, tmp_path / "t.parquet")
    with pytest.raises(DataError, match=r"t\.parquet: prompt_id 'b' occurs more than once"):
        import_rewards(tmp_path / "t.parquet", tmp_path / "out")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"rewards": "r"}, r"`rewards` must be a column of the data set; got 'r'. Its columns are"),
        ({"key": "id"}, r"`key` must be a column of the data set; got 'id'. .* prompt_id, refer"),
    ],
)
def test_a_column_that_is_not_there_is_named(tmp_path, arguments, words):
    for data in (table(ROWS), datasets.Dataset(table(ROWS))):
        with pytest.raises(DataError, match=words):
            CalibrationStore.from_dataset(data, **arguments)
    pq.write_table(table(ROWS), tmp_path / "t.parquet")
    with pytest.raises(DataError, match=words):
        import_rewards(tmp_path / "t.parquet", tmp_path / "out", **arguments)


def test_what_is_no_table_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"`dataset` must be a data set .*; got list"):
        CalibrationStore.from_dataset([1])
    with pytest.raises(DataError, match="at least one row"):
        CalibrationStore.from_dataset(table(ROWS).slice(0, 0))
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.parquet").write_text("no")
    pq.write_table(table(ROWS).slice(0, 0), tmp_path / "rows.parquet")
    for name, words in (
        ("gone.parquet", "does not exist"),
        ("empty", "holds no file"),
        ("text.parquet", "is not a readable Parquet file"),
        ("rows.parquet", "has no rows"),
    ):
        with pytest.raises(DataError, match=f"{name}.* {words}"):
            import_rewards(tmp_path / name, tmp_path / "out")


def test_a_table_is_not_said_to_be_of_another_model(folder, tmp_path):
    found = CalibrationStore.open(folder).to_table()
    with pytest.raises(DataError, match=r"which has model 'tiny', not 'big'\. Leave it out"):
        CalibrationStore.from_dataset(found, provenance=PROVENANCE | {"model": "big"})
    assert CalibrationStore.from_dataset(found, provenance=PROVENANCE).provenance == PROVENANCE
    assert CalibrationStore.from_dataset(table(ROWS)).provenance == {}
    said = CalibrationStore.from_dataset(table(ROWS), provenance={"model": "mine"})
    assert said.provenance == {"model": "mine"}


# --- Damage. ---


@pytest.fixture
def exported(folder, tmp_path):
    """An export as a file, whose parts hold one shard each."""
    export_rewards(folder, tmp_path / "export.parquet")
    return tmp_path / "export.parquet"


def test_a_part_that_cannot_be_read_is_named(folder, tmp_path):
    export_rewards(folder, tmp_path / "parts")
    (part,) = (tmp_path / "parts").iterdir()
    at = pq.ParquetFile(part).metadata.row_group(0).column(0).data_page_offset
    damaged = bytearray(part.read_bytes())
    damaged[at : at + 8] = b"\xff" * 8
    part.write_bytes(damaged)
    with pytest.raises(DataError, match=f"{part.name} cannot be read"):
        import_rewards(tmp_path / "parts", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_every_flipped_byte_is_named_or_changes_nothing(folder, exported, tmp_path):
    own, whole = CalibrationStore.open(folder), exported.read_bytes()
    rng, named = np.random.default_rng(0), 0
    for place in rng.permutation(len(whole))[:120]:
        damaged = bytearray(whole)
        damaged[place] ^= 1 << rng.integers(8)
        exported.write_bytes(damaged)
        try:
            import_rewards(exported, tmp_path / "out")
        except DataError as error:
            assert "export.parquet" in str(error)
            named += 1
            continue
        store = CalibrationStore.open(tmp_path / "out")
        assert rows_of(store) == rows_of(own) and store.provenance == own.provenance, place
        shutil.rmtree(tmp_path / "out")
    assert named > 50


def test_rows_that_were_changed_and_files_of_other_tools_are_told_apart(exported, tmp_path, caplog):
    metadata = dict(pq.read_metadata(exported).metadata)
    del metadata[b"ARROW:schema"]
    changed = pq.read_table(exported).slice(1)
    pq.write_table(changed.replace_schema_metadata(metadata), tmp_path / "changed.parquet")
    with pytest.raises(DataError, match=r"changed\.parquet: it is not what was exported: its che"):
        import_rewards(tmp_path / "changed.parquet", tmp_path / "out")
    import_rewards(exported, tmp_path / "own")
    assert not caplog.records
    pq.write_table(changed, tmp_path / "changed.parquet")
    import_rewards(tmp_path / "changed.parquet", tmp_path / "out")
    assert "changed.parquet has no checksum of an export" in caplog.text


def test_parts_that_are_missing_foreign_or_of_another_store_are_named(
    folder, tmp_path, monkeypatch
):
    monkeypatch.setattr(exchange, "LARGEST", 1)
    monkeypatch.setattr(columns, "tables", split(columns.tables))
    export_rewards(folder, tmp_path / "parts")
    parts = sorted((tmp_path / "parts").iterdir())
    assert len(parts) == 3
    import_rewards(tmp_path / "parts", tmp_path / "whole")
    content = parts[1].read_bytes()
    parts[1].unlink()
    with pytest.raises(DataError, match="holds 2 prompts in 2 files, of an export of 3"):
        import_rewards(tmp_path / "parts", tmp_path / "out")
    pq.write_table(table({"z": [1.0]}).replace_schema_metadata(MADE_WITH), parts[1])
    with pytest.raises(DataError, match=r"and part-00001\.parquet is of another tool"):
        import_rewards(tmp_path / "parts", tmp_path / "out")
    pq.write_table(table({"z": [1.0]}), parts[1])
    with pytest.raises(DataError, match="state different provenances"):
        import_rewards(tmp_path / "parts", tmp_path / "out")
    parts[1].write_bytes(content)
    import_rewards(tmp_path / "parts", tmp_path / "out")
    assert not list(tmp_path.rglob("*.part"))


MADE_WITH = {columns.MADE_WITH: json.dumps(PROVENANCE)}


def split(tables):
    """Tables of one row each."""

    def one_by_one(*arguments):
        schema, parts = tables(*arguments)
        return schema, (part.slice(i, 1) for part in parts for i in range(len(part)))

    return one_by_one


# --- Whole or absent. ---


def test_what_is_there_is_not_overwritten(folder, tmp_path):
    (tmp_path / "mine.parquet").write_text("mine")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "text").write_text("mine")
    for out in (tmp_path / "mine.parquet", tmp_path / "mine"):
        for export in (export_rewards, export_samples):
            with pytest.raises(DataError, match="exists already"):
                export(folder, out)
    export_rewards(folder, tmp_path / "r.parquet")
    with pytest.raises(DataError, match="exists already"):
        import_rewards(tmp_path / "r.parquet", folder)
    assert check(folder).whole and (tmp_path / "mine.parquet").read_text() == "mine"


def test_a_damaged_store_is_not_exported(folder, tmp_path):
    for kind, export in (("rewards", export_rewards), ("samples", export_samples)):
        file = folder / read_manifest(folder)[kind][-1]["file"]
        data = bytearray(file.read_bytes())
        data[len(data) // 2] ^= 1
        file.write_bytes(data)
        for name in ("out.parquet", "out"):
            with pytest.raises(DataError, match=f"{file.name} is not the file that was written"):
                export(folder, tmp_path / name)
    assert [f.name for f in tmp_path.iterdir()] == ["store"]


KILLED = """
import os, signal, sys
from infalign.stores import exchange, shards
from infalign.stores import StoreWriter
exchange.SHARD_VALUES, exchange.columns.ROWS = 1, 1
add, seen = StoreWriter.add_sorted, []
def add_and_die(self, *arguments):
    add(self, *arguments)
    seen.append(1)
    if len(seen) == 2:
        os.kill(os.getpid(), signal.SIGKILL)
StoreWriter.add_sorted = add_and_die
exchange.import_rewards(*sys.argv[1:])
"""


def test_a_killed_import_leaves_nothing_that_opens(folder, tmp_path):
    export_rewards(folder, tmp_path / "r.parquet")
    out = tmp_path / "out"
    done = subprocess.run([sys.executable, "-c", KILLED, tmp_path / "r.parquet", out])
    assert done.returncode == -signal.SIGKILL and not out.exists()
    assert (tmp_path / ".out.part").exists()
    import_rewards(tmp_path / "r.parquet", out)
    assert check(out).prompts == 3 and sorted(os.listdir(tmp_path)) == ["out", "r.parquet", "store"]
