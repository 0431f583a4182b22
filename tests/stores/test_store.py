"""Calibration stores on disk: what comes back is what was written, or an error that says why."""

import json
import os
import pickle
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from contracts import law
from hypothesis import given
from hypothesis import strategies as st

from infalign import CalibrationStore, DataError, quantiles
from infalign.core import interval, mid_rank
from infalign.stores import StoreWriter, ragged, read_samples, shards, writer
from infalign.stores import ids as ids_module
from infalign.stores import manifest as manifests
from infalign.stores.integrity import check

PROVENANCE = {"model": "tiny", "reward": "length", "sampling": {"temperature": 1.0}}


def fill(folder):
    """A store of two shards: three prompts, the last with more samples."""
    writer = StoreWriter(folder, PROVENANCE, 3)
    writer.add(["a", "b"], [["x", "xx"], ["y", "yy"]], [[2.0, 1.0], [5.0, 5.0]])
    writer.add(["c"], [["p", "q", "r"]], [[9.0, 7.0, 8.0]])
    return folder


@pytest.fixture
def folder(tmp_path):
    return fill(tmp_path / "store")


def contents(folder):
    return {file.name: file.read_bytes() for file in folder.iterdir() if file.suffix}


def edit(folder, **changes):
    """Another manifest that says it is the right one."""
    manifests.write_manifest(folder, manifests.read_manifest(folder) | changes)


def rows_of(store):
    return {prompt: row.tolist() for prompt, row in store.rewards.items()}


def save(folder, rows, provenance=PROVENANCE):
    """A store of rewards alone."""
    StoreWriter(folder, provenance, len(rows)).add(list(rows), None, list(rows.values()))
    return folder


# --- What was written is what opens. ---


def test_what_was_written_is_what_opens(folder):
    store = CalibrationStore.open(folder)
    assert rows_of(store) == {"a": [1, 2], "b": [5, 5], "c": [7, 8, 9]}
    assert store.provenance == PROVENANCE
    assert (store.samples, len(store.rewards), "a" in store.rewards) == (2, 3, True)
    assert "x" not in store.rewards and 7 not in store.rewards and store.rewards.get("x") is None
    assert store.rewards["c"].tolist() == [7, 8, 9] and store.rewards["c"].dtype == float
    assert store.quantiles(["a", "c"], [1.5, 9.0]).tolist() == pytest.approx([0.5, 2.5 / 3])
    assert check(folder).whole and check(folder).rewards == check(folder).samples == 7


def test_samples_keep_their_order_and_texts(tmp_path):
    writer = StoreWriter(tmp_path, PROVENANCE, 3)
    writer.add(
        ["a", "b"], [["x", "xx"], ["y", "yy"]], [[2.0, 1.0], [5.0, 4.0]], {"kl": [1, 2, 3, 4]}
    )
    writer.add(["c"], [["p", "q"]], [[9.0, 7.0]], {"kl": [5, 6]})
    assert read_samples(tmp_path).to_pydict() == {
        "prompt_id": ["a", "a", "b", "b", "c", "c"],
        "sample": [0, 1, 0, 1, 0, 1],
        "completion": ["x", "xx", "y", "yy", "p", "q"],
        "reward": [2.0, 1.0, 5.0, 4.0, 9.0, 7.0],
        "kl": [1, 2, 3, 4, 5, 6],
    }
    assert read_samples(tmp_path, ["reward"]).column_names == ["reward"]


ragged_rows = st.lists(
    st.lists(st.integers(-5, 5) | st.floats(-1e300, 1e300), min_size=1, max_size=9),
    min_size=1,
    max_size=12,
)


@law
@given(
    rows=ragged_rows,
    m=st.integers(0, 4),
    smoothing=st.sampled_from(["none", "add-half"]),
    seed=st.integers(0, 99),
    group=st.integers(1, 20),
)
def test_look_ups_are_ranks_prompt_by_prompt(tmp_path_factory, rows, m, smoothing, seed, group):
    """In memory and mapped, from shards and row groups of any size, with ties and extremes."""
    rng = np.random.default_rng(seed)
    known = {f"p{i}": np.sort(np.array(row, float)) for i, row in enumerate(rows)}
    asked = [f"p{i}" for i in rng.integers(len(rows), size=7)]
    pool = np.concatenate([*known.values(), [0.0, -1e300, 1e300]])
    rewards = rng.choice(pool, (7, m))
    expected = [mid_rank(known[p], r, smoothing) for p, r in zip(asked, rewards, strict=True)]
    ends = [interval(known[p], r, smoothing) for p, r in zip(asked, rewards, strict=True)]
    folder = tmp_path_factory.mktemp("store") / "s"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shards, "GROUP_VALUES", group)
        patch.setattr(shards, "GROUP_PROMPTS", 3)
        out = StoreWriter(folder, {}, len(rows))
        half = len(rows) // 2
        for part in (slice(0, half), slice(half, None)):
            if list(known)[part]:
                out.add(list(known)[part], None, rows[part])
    held = CalibrationStore.from_rewards(list(known), rows)
    for store in (held, CalibrationStore.open(folder), pickle.loads(pickle.dumps(held))):
        assert store.quantiles(asked, rewards, smoothing=smoothing).tolist() == [
            e.tolist() for e in expected
        ]
        low, high = store.intervals(asked, rewards, smoothing=smoothing)
        assert np.array_equal(low, [a for a, _ in ends])
        assert np.array_equal(high, [b for _, b in ends])
        assert {p: r.tolist() for p, r in store.rewards.items()} == {
            p: r.tolist() for p, r in known.items()
        }
    assert check(folder).problems == ()


def test_look_ups_equal_the_quantiles_of_arrays():
    rng = np.random.default_rng(0)
    rewards, reference = rng.normal(size=(50, 6)).round(1), rng.normal(size=(50, 17)).round(1)
    store = CalibrationStore.from_rewards([str(i) for i in range(50)], reference)
    found = store.quantiles([str(i) for i in range(50)], rewards)
    assert found.tolist() == quantiles(rewards, reference).tolist()


def test_many_ids_of_any_kind_are_found_and_others_are_not(tmp_path):
    ids = [f"{'é' * (i % 3)}{i}" for i in range(40_000)]
    save(tmp_path, dict(zip(ids, np.arange(40_000.0)[:, None], strict=True)))
    rewards = CalibrationStore.open(tmp_path).rewards
    order = np.random.default_rng(0).permutation(40_000)
    assert rewards.find([ids[i] for i in order]).tolist() == order.tolist()
    assert rewards.find(["", "40001", 7, None, "\ud800", "5", ""]).tolist() == (
        [-1, -1, -1, -1, -1, ids.index("5") if "5" in ids else -1, -1]
    )
    assert list(rewards) == ids and rewards.find([]).tolist() == []


def test_ids_of_one_hash_are_told_apart(folder, monkeypatch):
    monkeypatch.setattr(ids_module, "_hashes", lambda p: np.zeros(len(p), np.uint64))
    store = CalibrationStore.open(folder)
    assert rows_of(store)["b"] == [5, 5] and "x" not in store.rewards


def test_an_unknown_id_with_a_known_hash_is_unknown(folder, monkeypatch):
    monkeypatch.setattr(
        ids_module, "_hashes", lambda p: np.array([len(x) and ord(x[0]) for x in p], np.uint64)
    )
    store = CalibrationStore.open(folder)
    assert store.rewards.find(["a", "abc", "c"]).tolist() == [0, -1, 2]


def test_rewards_take_four_bytes_where_that_is_exact(tmp_path):
    single = np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32)
    for name, rewards, kind in (
        ("single", single, "float32"),
        ("double", np.where(np.eye(3, 4), 0.1, single.astype(float)), "float64"),
        ("beyond", np.where(np.eye(3, 4), 1e300, single.astype(float)), "float64"),
        ("whole", np.array([[2**24, 2**24 + 1]]), "float64"),
    ):
        ids = [str(i) for i in range(len(rewards))]
        save(tmp_path / name, dict(zip(ids, rewards, strict=True)))
        (shard,) = manifests.read_manifest(tmp_path / name)["rewards"]
        assert (shard["dtype"], shard["mapped"]) == (kind, True)
        found = list(CalibrationStore.open(tmp_path / name).rewards.values())
        assert np.array_equal(found, np.sort(np.asarray(rewards, float), axis=1))


def test_any_reader_of_parquet_reads_the_rewards(folder):
    assert pq.read_table(folder / "rewards-00001.parquet").to_pydict() == {
        "prompt_id": ["c"],
        "samples": [3],
        "rewards": [[7.0, 8.0, 9.0]],
    }


def test_a_shard_that_cannot_be_mapped_is_read(tmp_path, monkeypatch):
    """Should a Parquet writer compress pages all the same, values are not where they would be."""
    monkeypatch.setattr(shards, "_find_values", lambda *_: False)
    fill(tmp_path)
    assert not manifests.read_manifest(tmp_path)["rewards"][0]["mapped"]
    store = CalibrationStore.open(tmp_path)
    assert rows_of(store) == {"a": [1, 2], "b": [5, 5], "c": [7, 8, 9]}
    assert store.quantiles(["c"], [[7.5, 9]])[0] == pytest.approx([1 / 3, 2.5 / 3])
    assert check(tmp_path).whole
    flip(tmp_path / "rewards-00000.parquet", 20)
    with pytest.raises(DataError, match="is not the file that was written"):
        CalibrationStore.open(tmp_path)


def test_a_store_on_disk_pickles_as_its_place(folder):
    store = CalibrationStore.open(folder)
    data = pickle.dumps(store)
    code = f"import pickle; print(pickle.loads({data!r}).quantiles(['b', 'c'], [5, 7.5]).tolist())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == str([0.5, 1 / 3]), done.stderr
    with StoreWriter(folder, PROVENANCE) as out:
        out.add(["d"], [["z"]], [[1.0]])
    with pytest.raises(DataError, match=r"is not the store that was pickled.*Open it again"):
        pickle.loads(data)


def test_ties_are_counted_over_all_prompts(folder):
    # One pair of b's one is equal, none of the one and three of a and c: 1/3.
    assert CalibrationStore.open(folder).tied() == pytest.approx(1 / 3)
    # 1, 1, 1, 2: three of six pairs. 3: none. 4, 4: all.
    values, counts = np.array([1.0, 1, 1, 2, 3, 4, 4]), np.array([4, 1, 2])
    assert ragged.tied_pairs(values, counts).tolist() == [0.5, 0, 1]


# --- Damage. ---


def flip(file, at):
    """Change one bit of one byte."""
    data = bytearray(file.read_bytes())
    data[at % len(data)] ^= 1
    file.write_bytes(data)


def use(folder):
    """Everything that a store is for."""
    store = CalibrationStore.open(folder)
    return rows_of(store), store.provenance, read_samples(folder).to_pydict()


FILES = ("rewards-00000.parquet", "rewards-00001.parquet", "samples-00001.parquet", "manifest.json")


@pytest.mark.parametrize("name", FILES)
def test_a_flipped_bit_anywhere_is_never_used(folder, name):
    whole = use(folder)
    file = folder / name
    data = file.read_bytes()
    step = max(1, len(data) // 60)
    offset = manifests.read_manifest(folder)["rewards"][0]["groups"][0]["offset"]
    for at in {*range(0, len(data), step), offset, offset + 7, len(data) - 1, len(data) - 6}:
        flip(file, at)
        try:
            assert use(folder) == whole, at  # a blank of the manifest may be another
            found = None
        except DataError as error:
            found = str(error)
        assert name == "manifest.json" or found == (
            f"{file} is not the file that was written: its checksum differs from the manifest's. "
            f"Remove {folder} and calibrate again."
        )
        assert found is None or str(folder) in found
        assert check(folder).whole == (found is None)
        with pytest.raises(DataError) if found else open(os.devnull):
            CalibrationStore.open(folder, verify=True)
        file.write_bytes(data)
    assert use(folder) == whole


def cut(file):
    with file.open("rb+") as opened:
        opened.truncate(100)


def overwrite(file):
    with file.open("rb+") as opened:
        opened.write(b"\0" * 40)


@pytest.mark.parametrize("change", [cut, overwrite])
def test_a_file_that_is_changed_while_it_is_open_is_named(folder, change):
    # Without a check, the first kills the process and the second gives other rewards.
    store = CalibrationStore.open(folder)
    whole = {prompt: list(row) for prompt, row in store.rewards.items()}
    file = folder / manifests.read_manifest(folder)["rewards"][0]["file"]
    content = file.read_bytes()
    change(file)
    for use_again in (
        lambda: store.rewards[next(iter(whole))],
        lambda: list(store.rewards.blocks()),
    ):
        with pytest.raises(DataError, match=f"{file.name} was overwritten while it was open"):
            use_again()
    file.unlink()  # what is mapped of a file that was removed or replaced stays as it was
    file.write_bytes(content)
    again = CalibrationStore.open(folder)
    shutil.rmtree(folder)
    assert {prompt: list(row) for prompt, row in again.rewards.items()} == whole


def test_rewards_are_verified_where_they_are_used(tmp_path, monkeypatch):
    monkeypatch.setattr(shards, "GROUP_PROMPTS", 1)
    fill(tmp_path)
    groups = manifests.read_manifest(tmp_path)["rewards"][0]["groups"]
    flip(tmp_path / "rewards-00000.parquet", groups[1]["offset"])
    store = CalibrationStore.open(tmp_path)
    assert store.quantiles(["a", "c"], [1.5, 9.5]).tolist() == [0.5, 1]
    for _ in range(2):
        with pytest.raises(DataError, match=r"rewards-00000\.parquet is not the file that was"):
            store.quantiles(["a", "b"], [1.5, 9.5])
    with pytest.raises(DataError, match=r"rewards-00000\.parquet"):
        CalibrationStore.open(tmp_path, verify=True)


@pytest.mark.parametrize("name", FILES[:3])
@pytest.mark.parametrize("keep", [0, 0.5, -1])
def test_a_file_that_was_cut_is_named(folder, name, keep):
    data = (folder / name).read_bytes()
    (folder / name).write_bytes(data[: int(keep * len(data)) if keep >= 0 else -1])
    with pytest.raises(DataError, match=rf"{name} has \d+ bytes of {len(data)} that were written"):
        use(folder)
    assert not check(folder).whole


@pytest.mark.parametrize("name", FILES[:3])
def test_a_missing_file_is_named(folder, name):
    (folder / name).unlink()
    with pytest.raises(DataError) as caught:
        use(folder)
    assert str(caught.value) == (
        f"{folder}/{name} is missing. Remove {folder} and calibrate again."
    )
    assert check(folder).problems == (str(caught.value),)


def test_a_shard_of_another_store_is_refused(folder, tmp_path):
    other = save(tmp_path / "other", {"a": [1.0, 2.5], "b": [5.0, 5.0]})
    (folder / "rewards-00000.parquet").write_bytes((other / "rewards-00000.parquet").read_bytes())
    with pytest.raises(DataError, match=r"rewards-00000\.parquet is not the file|has \d+ bytes of"):
        use(folder)


def rewrite(folder, rows, monkeypatch, counts=None):
    """The first shard with these rows, whatever they are, and a manifest that agrees."""
    counts = counts if counts is not None else [len(r) for r in rows.values()]
    block = (
        pa.array(list(rows), pa.large_string()),
        np.array(counts),
        np.concatenate([*rows.values()]),
    )
    shard = shards.write_rewards(folder / "rewards-00000.parquet", [block], np.dtype("<f8"))
    edit(folder, rewards=[shard, *manifests.read_manifest(folder)["rewards"][1:]])


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ({"a": [2.0, 1.0], "b": [5.0, 5.0]}, r"prompt_id 'a' that are not sorted \(1 of 2 prompts"),
        ({"a": [1.0, 2.0], "b": [5.0, np.nan]}, r"holds nan for prompt_id 'b' \(1 of 4 rewards"),
        ({"a": [1.0, 2.0], "c": [5.0, 5.0]}, "prompt_id 'c' occurs more than once"),
        ({"a": [1.0, 2.0]}, "holds 2 of 3 prompts"),
        ({"a": [1.0], "b": [5.0], "d": [3.0]}, "its shards hold 4 prompts"),
        ({"a": [1.0, 2.0], "b": [5.0, 6.0]}, "samples of prompt_id 'b' have other rewards"),
        ({"a": [1.0, 2.0], "d": [5.0, 5.0]}, "samples are of other prompts or numbers"),
    ],
)
def test_check_finds_what_checksums_do_not(folder, monkeypatch, rows, words):
    rewrite(folder, rows, monkeypatch)
    with pytest.raises(DataError, match=words):
        CalibrationStore.open(folder, verify=True)
    assert len(check(folder).problems) == 1


def test_check_names_every_problem(folder):
    (folder / "rewards-00000.parquet").unlink()
    flip(folder / "samples-00000.parquet", 30)
    found = check(folder)
    assert len(found.problems) == 2 and (found.rewards, found.samples) == (3, 3)
    assert "missing" in found.problems[0] and "samples-00000" in found.problems[1]


def test_a_folder_that_is_no_store_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"manifest\.json does not exist.*Calibrate first"):
        CalibrationStore.open(tmp_path)


@pytest.mark.parametrize("text", ["", "{", "[]", "7", '{"shards": []}', '{"schema_version": 1}'])
def test_a_manifest_that_is_none_is_refused(folder, text):
    (folder / "manifest.json").write_text(text)
    for what in (CalibrationStore.open, read_samples, lambda f: StoreWriter(f, PROVENANCE, 3)):
        with pytest.raises(DataError, match=str(folder)):
            what(folder)


def test_an_empty_store_is_refused(folder):
    edit(folder, rewards=[], samples=[])
    with pytest.raises(DataError, match=r"holds no prompts\. Calibrate with at least one"):
        CalibrationStore.open(folder)


@pytest.mark.parametrize("version", [2, 99])
def test_a_store_of_another_schema_is_refused(folder, version):
    edit(folder, schema_version=version)
    with pytest.raises(DataError, match=f"schema {version}; this version reads 3. Calibrate again"):
        CalibrationStore.open(folder)


def test_a_manifest_that_was_edited_is_refused(folder):
    text = (folder / "manifest.json").read_text()
    (folder / "manifest.json").write_text(text.replace('"tiny"', '"huge"'))
    with pytest.raises(DataError, match=r"manifest\.json is not the file that was written"):
        CalibrationStore.open(folder)


# --- Provenance. ---


def test_the_provenance_is_compared_entry_by_entry(folder):
    store = CalibrationStore.open(folder)
    store.require(model="tiny", sampling={"temperature": 1.0})
    with pytest.raises(DataError) as caught:
        store.require(model="tiny", reward="brevity", sampling={"temperature": 0.7, "stop": (1,)})
    assert str(caught.value) == (
        "The calibration store was made with reward 'length', not 'brevity'; sampling.temperature "
        "1.0, not 0.7; sampling.stop None, not [1]. Calibrate again, or restore these settings."
    )
    with pytest.raises(DataError, match="was made with seed None, not 1"):
        store.require(seed=1)


def test_a_collection_with_other_settings_is_not_continued(folder):
    before = contents(folder)
    with pytest.raises(DataError) as caught:
        StoreWriter(folder, PROVENANCE | {"model": "other"}, 4)
    assert str(caught.value) == (
        f"{folder} was collected with other settings: model 'tiny', not 'other'; number of prompts "
        "3, not 4. Remove it, or restore them."
    )
    assert contents(folder) == before


def test_settings_that_json_writes_otherwise_still_continue(tmp_path):
    provenance = {"stop": ("a", "b"), "file": tmp_path / "prompts.jsonl"}
    StoreWriter(tmp_path / "store", provenance, 1).add(["a"], [["x"]], [[1.0]])
    assert len(StoreWriter(tmp_path / "store", provenance, 1)) == 1


# --- Writing. ---


def test_a_killed_collection_continues_with_the_first_missing_shard(tmp_path):
    StoreWriter(tmp_path, PROVENANCE, 2).add(["a"], [["x"]], [[1.0]])
    # Killed between a shard and the manifest: the shard's file is there but does not count.
    (tmp_path / "rewards-00001.parquet").write_bytes(b"half")
    (tmp_path / ".rewards-00001.parquet.0123abcd.part").write_bytes(b"half")
    (tmp_path / "rewards-mine.parquet").write_bytes(b"of the user")
    writer = StoreWriter(tmp_path, PROVENANCE, 2)
    assert len(writer) == writer.prompts == 1 and "a" in writer and "b" not in writer and writer
    writer.add(["b"], [["z"]], [[2.0]])
    assert list(CalibrationStore.open(tmp_path).rewards) == ["a", "b"]
    assert sorted(contents(tmp_path)) == [
        "manifest.json",
        *(f"rewards-{n}.parquet" for n in ("00000", "00001", "mine")),
        *(f"samples-{n}.parquet" for n in ("00000", "00001")),
    ]


def test_an_unfinished_collection_does_not_open(tmp_path):
    StoreWriter(tmp_path, PROVENANCE, 3).add(["a", "b"], [["x"], ["y"]], [[1.0], [2.0]])
    with pytest.raises(DataError) as caught:
        CalibrationStore.open(tmp_path)
    message = (
        f"{tmp_path} holds 2 of 3 prompts: its collection is unfinished. Continue it with the "
        "command that began it."
    )
    assert str(caught.value) == message and check(tmp_path).problems == (message,)
    with pytest.raises(DataError, match="its collection is unfinished"):
        StoreWriter(tmp_path, PROVENANCE)


def test_a_finished_store_takes_more_prompts(folder):
    before = CalibrationStore.open(folder)
    with StoreWriter(folder, PROVENANCE) as out:
        for name in "de":
            out.add([name], [["z"]], [[3.0]])
            assert len(CalibrationStore.open(folder).rewards) == len(before.rewards) + len(out) - 2
    assert list(CalibrationStore.open(folder, verify=True).rewards) == list("abcde")
    assert rows_of(before) == {"a": [1, 2], "b": [5, 5], "c": [7, 8, 9]}
    with pytest.raises(DataError, match="model 'tiny', not 'other'"):
        StoreWriter(folder, PROVENANCE | {"model": "other"})


def test_a_store_need_not_say_how_many_there_will_be(tmp_path):
    StoreWriter(tmp_path, PROVENANCE).add(["a"], None, [[1.0, 2.0]])
    assert rows_of(CalibrationStore.open(tmp_path, verify=True)) == {"a": [1, 2]}
    with pytest.raises(DataError, match="holds rewards only, no samples"):
        read_samples(tmp_path)


def test_a_prompt_is_collected_once(folder):
    for late in (StoreWriter(folder, PROVENANCE, 3), StoreWriter(folder.parent / "new", {}, 9)):
        if not len(late):
            late.add(["a"], None, [[1.0]])
        with pytest.raises(DataError, match=r"has prompt_id 'a' already \(1 of 2 are duplicates\)"):
            late.add(["d", "a"], None, [[100.0], [200.0]])


def test_there_are_no_more_prompts_than_there_were_to_be(tmp_path):
    out = StoreWriter(tmp_path, PROVENANCE, 1)
    with pytest.raises(
        ValueError, match="`prompt_ids` must have at most 1 entries, the rest of `prompts=1`"
    ):
        out.add(["a", "b"], None, [[1.0], [2.0]])


@pytest.mark.parametrize(
    ("ids", "completions", "rewards", "extra", "words"),
    [
        (["d"], [["x"]], [[1.0, 2.0]], None, "`completions` must have one text per reward; got 1"),
        (["d"], [["x"]], [[float("nan")]], None, "`rewards` must hold finite rewards; got nan"),
        (["d"], [["x"]], [1.0], None, "`rewards` must be a non-empty array"),
        (["d", "e"], None, [[1.0], []], None, "`rewards` must hold a list of rewards per prompt"),
        (["d", "e"], None, [[1.0], [2, np.inf]], None, "got inf at prompt 1, sample 1 "),
        (["d"], [["x"]], [[1.0]], {"tokens": [1, 2]}, "`extra` must have one entry per response"),
        (["d"], None, [[1.0]], {"tokens": [1]}, "`extra` must come with `completions`"),
        (["d", "d"], None, [[1.0], [2.0]], None, "`prompt_ids` must be unique, one per row"),
        ([7], None, [[1.0]], None, r"`prompt_ids` must be strings; got 7\. Use str"),
        (["\ud800"], None, [[1.0]], None, "`prompt_ids` must be strings"),
        (["d"], [[object()]], [[1.0]], None, "object"),
    ],
)
def test_a_shard_that_cannot_be_written_leaves_nothing_behind(
    tmp_path, ids, completions, rewards, extra, words
):
    StoreWriter(tmp_path, PROVENANCE, 4).add(["a"], [["x"]], [[1.0]])
    before = contents(tmp_path)
    with pytest.raises((ValueError, pa.ArrowException), match=words):
        StoreWriter(tmp_path, PROVENANCE, 4).add(ids, completions, rewards, extra)
    assert contents(tmp_path) == before


def test_many_small_shards_become_few(tmp_path, monkeypatch):
    monkeypatch.setattr(writer, "TOGETHER", 3)
    rng = np.random.default_rng(0)
    rows = {f"p{i}": rng.normal(size=1 + i % 3).astype("f4" if i < 15 else "f8") for i in range(25)}
    out = StoreWriter(tmp_path / "s", PROVENANCE, 25)
    for prompt, row in rows.items():
        out.add([prompt], [["x"] * len(row)], [row])
    # 25 is 221 in base three: two shards of nine, two of three and one.
    manifest = manifests.read_manifest(tmp_path / "s")
    for kind in ("rewards", "samples"):
        assert [s["merged"] for s in manifest[kind]] == [2, 2, 1, 1, 0]
    assert [s["dtype"] for s in manifest["rewards"]] == ["float32"] + ["float64"] * 4
    assert len(out) == 25 and len(contents(tmp_path / "s")) == 11
    store = CalibrationStore.open(tmp_path / "s", verify=True)
    assert rows_of(store) == {p: np.sort(r).astype(float).tolist() for p, r in rows.items()}
    assert list(dict.fromkeys(read_samples(tmp_path / "s")["prompt_id"].to_pylist())) == list(rows)
    monkeypatch.setattr(writer, "LARGEST", 1)
    for i in range(4):
        StoreWriter(tmp_path / "s", PROVENANCE).add([f"q{i}"], None, [[1.0]])
    assert len(manifests.read_manifest(tmp_path / "s")["rewards"]) == 9


def test_a_reader_outlives_the_merging_of_what_it_reads(folder, monkeypatch):
    monkeypatch.setattr(writer, "TOGETHER", 3)
    store = CalibrationStore.open(folder)
    StoreWriter(folder, PROVENANCE).add(["d"], [["z"]], [[3.0]])
    assert not (folder / "rewards-00000.parquet").exists()
    assert rows_of(store) == {"a": [1, 2], "b": [5, 5], "c": [7, 8, 9]}


def test_a_reader_that_opens_while_shards_are_merged_opens_what_follows(folder, monkeypatch):
    before = manifests.read_manifest(folder)
    monkeypatch.setattr(writer, "TOGETHER", 3)
    StoreWriter(folder, PROVENANCE).add(["d"], [["z"]], [[3.0]])
    read = iter([before])
    monkeypatch.setattr(
        "infalign.stores.store.read_manifest",
        lambda path: next(read, None) or manifests.read_manifest(path),
    )
    assert list(CalibrationStore.open(folder).rewards) == list("abcd")


# --- Two writers, and killed ones. ---


def test_a_second_writer_is_refused_at_once_and_reading_is_not(folder):
    with StoreWriter(folder, PROVENANCE):
        with pytest.raises(DataError) as caught:
            StoreWriter(folder, PROVENANCE)
        assert str(caught.value) == (
            f"{folder} is being written by process {os.getpid()} on {os.uname().nodename}. Wait "
            "until that ends, or write to another folder."
        )
        assert len(CalibrationStore.open(folder).rewards) == 3
    StoreWriter(folder, PROVENANCE).close()


def test_a_writer_that_was_refused_does_not_stay_in_the_way(folder):
    with pytest.raises(DataError) as kept:
        StoreWriter(folder, {}, 3)
    StoreWriter(folder, PROVENANCE, 3)
    assert kept.value.__traceback__ is not None


def test_a_merge_that_was_cut_off_is_made_by_the_next_writer(tmp_path, monkeypatch):
    monkeypatch.setattr(writer, "TOGETHER", 3)

    def written(folder, killed=False):
        for i in range(7):
            with StoreWriter(folder, PROVENANCE, 7) as out, pytest.MonkeyPatch.context() as patched:
                if killed and i == 2:  # as if it died between its shard and the merge
                    patched.setattr(out, "_merge", lambda: None)
                out.add([f"p{i}"], [["a", "b"]], [[i, i + 1.0]])
        return contents(folder)

    assert written(tmp_path / "killed", killed=True) == written(tmp_path / "whole")


def test_a_merge_that_fails_costs_no_prompt(tmp_path, monkeypatch):
    monkeypatch.setattr(writer, "TOGETHER", 3)
    folder, merged = tmp_path / "store", writer._merged_rewards
    with StoreWriter(folder, PROVENANCE, 4) as out:
        for i in range(2):
            out.add([f"p{i}"], None, [[i, i + 1.0]])

        def full(*_):
            raise DataError("No space left.")

        monkeypatch.setattr(writer, "_merged_rewards", full)
        with pytest.raises(DataError, match="No space left"):
            out.add(["p2"], None, [[2, 3.0]])
        monkeypatch.setattr(writer, "_merged_rewards", merged)
        assert "p2" in out
        with pytest.raises(DataError, match="has prompt_id 'p2' already"):
            out.add(["p2"], None, [[2, 3.0]])
        out.add(["p3"], None, [[3, 4.0]])
    assert len(CalibrationStore.open(folder, verify=True).rewards) == 4


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        ({"a": [1.5, 2.5], "b": ["x", "y"], "c": [1, 2]}, "would have 'c'"),
        ({"a": [1.5, 2.5]}, "would have 'b'"),
        (None, "would have 'a', 'b'"),
        ({"a": ["1", "2"], "b": ["x", "y"]}, "'a' has string, and double"),
    ],
)
def test_other_further_columns_than_before_are_refused(tmp_path, extra, message):
    with StoreWriter(tmp_path / "store", PROVENANCE) as out:
        out.add(["p0"], [["u", "v"]], [[1, 2.0]], {"a": [1.5, 2.5], "b": ["x", "y"]})
        with pytest.raises(DataError, match=message):
            out.add(["p1"], [["u", "v"]], [[1, 2.0]], extra)
        out.add(["p1"], [["u", "v"]], [[1, 2.0]], {"b": [None, None], "a": [1, 2]})
    rows = read_samples(tmp_path / "store").to_pylist()
    values = [(row["a"], row["b"]) for row in rows]
    assert values == [(1.5, "x"), (2.5, "y"), (1.0, None), (2.0, None)]


WRITING = """
import sys
import numpy as np
from infalign.stores import writer
from infalign.stores import StoreWriter

writer.TOGETHER = 3
out = StoreWriter(sys.argv[1], {"model": "m"}, 30)
print("begun", flush=True)
for i in range(len(out), 30):
    rows = np.random.default_rng(i).normal(size=(1, 5))
    out.add([f"p{i}"], [[f"{i} {k}" for k in range(5)]], rows)
    print(i, flush=True)
"""


def test_killed_at_any_moment_it_ends_as_if_nothing_had_happened(tmp_path):
    command = [sys.executable, "-c", WRITING]
    subprocess.run([*command, tmp_path / "whole"], check=True, capture_output=True)
    rng, folder = np.random.default_rng(0), tmp_path / "killed"
    for stop in (2, 9, 17, 25):
        process = subprocess.Popen([*command, folder], stdout=subprocess.PIPE, text=True)
        with process:
            assert process.stdout.readline() == "begun\n"
            with pytest.raises(DataError, match=f"is being written by process {process.pid}"):
                StoreWriter(folder, {"model": "m"}, 30)
            done = -1
            while done < stop:
                line = process.stdout.readline()
                assert line, "ended before it was to be killed"
                done = int(line)
            time.sleep(0.01 * rng.random())
            process.send_signal(signal.SIGKILL)
        found = check(folder)  # what counts is whole, only not all
        assert [p for p in found.problems if "unfinished" not in p] == []
        assert found.prompts > done
    subprocess.run([*command, folder], check=True, capture_output=True)
    assert contents(folder) == contents(tmp_path / "whole")
    assert CalibrationStore.open(folder, verify=True).rewards.counts.tolist() == [5] * 30


def test_the_manifest_is_plain_json(folder):
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["schema_version"] == 3 and manifest["provenance"] == PROVENANCE
    assert set(manifest["packages"]) >= {"python", "infalign", "numpy", "pyarrow"}
    assert (manifest["prompts"], manifest["adds"]) == (3, 2)
