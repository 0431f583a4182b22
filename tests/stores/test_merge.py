"""Merged stores: the union of what they hold, or an error that says what is in the way."""

import hashlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from contracts import law
from hypothesis import given, settings
from hypothesis import strategies as st

from infalign import CalibrationStore, DataError
from infalign.stores import StoreWriter, prompt_sets, read_samples, shards
from infalign.stores import merge as merging
from infalign.stores.integrity import check
from infalign.stores.manifest import read_manifest
from infalign.stores.merge import merge

PROVENANCE = {"model": "tiny", "sampling": {"temperature": 1.0}}


def save(folder, rows, provenance=PROVENANCE, *, texts=True, size=2, **extra):
    """A store of some rows of rewards, `size` prompts a shard."""
    names = list(rows)
    with StoreWriter(folder, provenance, len(rows)) as out:
        for start in range(0, len(names), size):
            part = names[start : start + size]
            completions = [[f"{p} {k}" for k in range(len(rows[p]))] for p in part]
            count = sum(len(rows[p]) for p in part)
            more = {name: [value] * count for name, value in extra.items()}
            out.add(part, completions if texts else None, [rows[p] for p in part], more)
    return folder


def rows_of(store):
    return {prompt: row.tolist() for prompt, row in store.rewards.items()}


A = {"a": [2.0, 1.0], "b": [5.0, 5.0], "c": [0.5]}
B = {"d": [3.0], "e": [1e300, 0.1, 0.2]}


@pytest.fixture
def two(tmp_path):
    return save(tmp_path / "a", A), save(tmp_path / "b", B)


def test_merged_is_what_one_writer_had_written(two, tmp_path):
    merge(two, tmp_path / "out")
    save(tmp_path / "whole", A | B)
    one, other = (CalibrationStore.open(tmp_path / n, verify=True) for n in ("out", "whole"))
    assert rows_of(one) == rows_of(other) and list(one.rewards) == ["a", "b", "c", "d", "e"]
    assert read_samples(tmp_path / "out") == read_samples(tmp_path / "whole")
    assert one.provenance == other.provenance == PROVENANCE
    asked = list("adeb"), np.array([[1.0], [3.0], [0.15], [5.0]])
    assert np.array_equal(one.quantiles(*asked), other.quantiles(*asked))
    assert {f.name for f in tmp_path.iterdir()} == {"a", "b", "out", "whole"}


@settings(law, max_examples=20)
@given(
    sizes=st.lists(st.lists(st.integers(1, 5), min_size=1, max_size=5), min_size=2, max_size=4),
    texts=st.lists(st.booleans(), min_size=4, max_size=4),
    largest=st.sampled_from([1, 5000, 2**28]),
    wide=st.integers(0, 4),
)
def test_the_union_of_any_stores_is_whole(tmp_path_factory, sizes, texts, largest, wide):
    """Rewards of two widths, prompts of any K, samples or none, output shards of any size."""
    folder, rng, union, stores = tmp_path_factory.mktemp("m"), np.random.default_rng(0), {}, []
    for number, counts in enumerate(sizes):
        rows = {f"{number}-{i}": rng.normal(size=k) for i, k in enumerate(counts)}
        if number != wide:
            rows = {p: row.astype(np.float32).astype(float) for p, row in rows.items()}
        stores.append(save(folder / str(number), rows, texts=texts[number], size=2))
        union |= rows
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(merging, "LARGEST", largest)
        patch.setattr(shards, "GROUP_VALUES", 3)
        merge(stores, folder / "out")
    found = check(folder / "out")
    assert found.problems == () and found.prompts == len(union)
    drawn = sum(map(len, union.values()))
    assert (found.rewards, found.samples) == (drawn, drawn * all(texts[: len(sizes)]))
    assert rows_of(CalibrationStore.open(folder / "out")) == {
        p: sorted(row) for p, row in union.items()
    }
    files = len(read_manifest(folder / "out")["rewards"])
    given = sum(len(read_manifest(store)["rewards"]) for store in stores)
    assert files == {1: given, 2**28: 1}.get(largest, files) <= given


def test_rewards_alone_are_merged_where_one_store_has_no_samples(two, tmp_path):
    merge([*two, save(tmp_path / "c", {"f": [1.0]}, texts=False)], tmp_path / "out")
    assert check(tmp_path / "out").whole
    with pytest.raises(DataError, match="holds rewards only"):
        read_samples(tmp_path / "out")


def test_a_merged_store_takes_more_prompts_and_merges_again(two, tmp_path):
    merge(two, tmp_path / "out")
    with StoreWriter(tmp_path / "out", PROVENANCE) as out:
        assert len(out) == 3  # two shards and one
        out.add(["f"], [["x"]], [[1.0]])
    merge([tmp_path / "out", save(tmp_path / "c", {"g": [4.0]})], tmp_path / "again")
    assert check(tmp_path / "again").whole
    assert list(CalibrationStore.open(tmp_path / "again").rewards) == list("abcdefg")


# --- The fingerprint of the union. ---


def test_the_fingerprint_of_the_prompts_is_that_of_the_union(tmp_path):
    asked = {p: [{"role": "user", "content": f"{p}?"}] for p in "abcde"}
    parts = []
    for rows in (A, B):
        own = prompt_sets.of_members([p, asked[p]] for p in rows)
        parts.append(save(tmp_path / own[-8:], rows, PROVENANCE | {"prompts": own}))
    merge(parts, tmp_path / "out")
    whole = prompt_sets.of_members([p, asked[p]] for p in reversed("abcde"))
    CalibrationStore.open(tmp_path / "out").require(prompts=whole, model="tiny")


def test_sets_of_prompts_by_hand():
    # One member: the SHA-256 of its JSON; two: the sum, which for these exceeds 2²⁵⁶.
    sums = [int(hashlib.sha256(text).hexdigest(), 16) for text in (b'"a"', b'"c"')]
    assert prompt_sets.of_members(["a"]) == f"set:{sums[0]:064x}"
    assert prompt_sets.of_members(["a", "c"]) == f"set:{sum(sums) % 2**256:064x}"
    assert prompt_sets.of_members([]) == "set:" + 64 * "0"


members = st.lists(st.text(max_size=3), unique=True, max_size=8)


@law
@given(members=members, others=members, cut=st.integers(0, 8))
def test_only_the_set_counts(members, others, cut):
    found = prompt_sets.of_members(members)
    parts = members[:cut], members[cut:]
    assert found == prompt_sets.union(map(prompt_sets.of_members, parts))
    assert found == prompt_sets.of_members(members[::-1])
    assert (found == prompt_sets.of_members(others)) == (set(members) == set(others))


def test_other_fingerprints_are_joined_in_any_steps():
    a, b, c = "0123", "4567", prompt_sets.of_members(["x"])
    whole = prompt_sets.union([a, b, c])
    assert whole == prompt_sets.union([prompt_sets.union([c, a]), b])
    assert whole != prompt_sets.union([a, c]) and len(whole) == 4 + 64


# --- Refusals. ---


@pytest.mark.parametrize(
    ("provenance", "words"),
    [
        (PROVENANCE | {"model": "big"}, r"model 'big', not 'tiny'"),
        (PROVENANCE | {"sampling": {"temperature": 0.7}}, r"sampling.temperature 0.7, not 1.0"),
        ({"model": "tiny"}, r"sampling None, not"),
        (PROVENANCE | {"prompts": "abc"}, r"prompts 'abc', not None"),
        (PROVENANCE | {"seed": 3}, r"seed 3, not None"),
    ],
)
def test_stores_made_otherwise_are_refused_and_the_difference_is_named(
    two, tmp_path, provenance, words
):
    other = save(tmp_path / "c", {"f": [1.0]}, provenance)
    with pytest.raises(DataError, match=words) as error:
        merge([*two, other], tmp_path / "out")
    assert f"compared with {two[0]}, {other} has" in str(error.value)
    assert not (tmp_path / "out").exists()


def test_a_prompt_in_two_stores_is_refused(two, tmp_path):
    other = save(tmp_path / "c", {"x": [1.0], "d": [1.0], "b": [1.0]})
    with pytest.raises(DataError, match=rf"'d' is in {two[1]} and in {other} \(2 such prompts\)"):
        merge([*two, other], tmp_path / "out")
    with pytest.raises(DataError, match=rf"'a' is in {two[0]} and in {two[0]} \(3 such prompts\)"):
        merge([two[0], two[0]], tmp_path / "out")


def test_other_columns_of_samples_are_refused(two, tmp_path):
    other = save(tmp_path / "c", {"f": [1.0]}, logprob=-1.0)
    with pytest.raises(DataError, match=r"c keeps .*logprob \(double\).*a with .*Collect one"):
        merge([*two, other], tmp_path / "out")


def test_what_is_there_is_not_overwritten(two, tmp_path):
    with pytest.raises(DataError, match="exists already"):
        merge(two, two[0])
    (tmp_path / "out").mkdir()
    merge(two, tmp_path / "out")  # an empty folder is as good as none
    assert check(tmp_path / "out").whole
    with pytest.raises(DataError, match=r"out exists already\. Remove it"):
        merge(two, tmp_path / "out")


def test_one_store_is_none_to_merge(two, tmp_path):
    with pytest.raises(ValueError, match="`stores` must be two or more; got 1"):
        merge(two[:1], tmp_path / "out")


def test_an_unfinished_store_is_refused(two, tmp_path):
    StoreWriter(tmp_path / "c", PROVENANCE, 2).add(["x"], [["x"]], [[1.0]])
    with pytest.raises(DataError, match="c holds 1 of 2 prompts"):
        merge([*two, tmp_path / "c"], tmp_path / "out")


@pytest.mark.parametrize("kind", ["rewards", "samples"])
def test_a_damaged_store_leaves_nothing_merged(two, tmp_path, kind):
    file = two[1] / read_manifest(two[1])[kind][0]["file"]
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)
    with pytest.raises(DataError, match=f"{file.name} is not the file that was written"):
        merge(two, tmp_path / "out")
    assert {f.name for f in tmp_path.iterdir()} == {"a", "b"}


# --- Killed at any moment. ---

MERGING = """
import itertools
import sys
from runs import kill_at_file_operation
from infalign.stores import merge as merging
from infalign.stores import shards
merging.LARGEST, shards.GROUP_PROMPTS = 1, 50
operations = itertools.count()
kill_at_file_operation(lambda: next(operations) == int(sys.argv[1]))
merging.merge(sys.argv[2:-1], sys.argv[-1])
print(next(operations))
"""


def test_killed_at_any_moment_nothing_opens_and_the_next_attempt_succeeds(tmp_path):
    rng = np.random.default_rng(0)
    for name in "ab":
        rows = {f"{name}{i}": rng.normal(size=4) for i in range(200)}
        save(tmp_path / name, rows, size=20)

    def merging(out, killed_at=-1):
        """A merge that is killed at this one of its file operations, or at none."""
        command = [sys.executable, "-c", MERGING, killed_at, tmp_path / "a", tmp_path / "b", out]
        path = os.pathsep.join([str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")])
        return subprocess.run(
            list(map(str, command)), env=os.environ | {"PYTHONPATH": path}, stdout=-1, text=True
        )

    whole = merging(tmp_path / "whole")
    assert whole.returncode == 0
    operations = int(whole.stdout)
    killed = (0, *rng.integers(1, operations - 10, 3))  # the last few follow the final rename
    for killed_at in killed:
        out = tmp_path / "out" / str(killed_at)
        assert merging(out, killed_at).returncode == -signal.SIGKILL
        with pytest.raises(DataError, match="does not exist"):
            CalibrationStore.open(out)
        assert merging(out).returncode == 0
        assert check(out).whole and rows_of(CalibrationStore.open(out)) == rows_of(
            CalibrationStore.open(tmp_path / "whole")
        )
    assert {f.name for f in (tmp_path / "out").iterdir()} == {str(i) for i in killed}


def test_two_processes_do_not_make_one_folder(two, tmp_path, monkeypatch):
    write = merging._write_rewards

    def write_and_try_again(file, group):
        with pytest.raises(DataError, match=r"\.out\.part is being written by process"):
            merge(two, tmp_path / "out")
        return write(file, group)

    monkeypatch.setattr(merging, "_write_rewards", write_and_try_again)
    merge(two, tmp_path / "out")
    assert check(tmp_path / "out").whole
    assert json.loads((tmp_path / "out" / "manifest.json").read_text())["prompts"] == 5
