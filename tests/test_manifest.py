"""The manifest of a folder names every file that is not what was written."""

import json
import os
import shutil
from pathlib import Path

import pytest
from kills import killed_at

from infalign import storage
from infalign.errors import DataError
from infalign.manifest import FILE, Manifest, require_as_written


@pytest.fixture
def folder(tmp_path):
    """A folder with a listed file, a listed folder, and a file that is not listed."""
    manifest = Manifest(tmp_path)
    for name in ("one.json", "two.json"):
        with manifest.recording(tmp_path / name, stage="design", made_from={"kl": 0.5}):
            storage.write_json(tmp_path / name, name)
    with manifest.recording(tmp_path / "train/model", stage="train"):
        (tmp_path / "train/model/adapter").mkdir(parents=True)
        for name in ("config.json", "adapter/weights", "weights"):
            (tmp_path / "train/model" / name).write_bytes(f"bytes of {name}".encode())
    (tmp_path / "notes.txt").write_text("a user's own")
    return tmp_path


def flip(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def swap(path):
    shutil.copy(
        path.parent.parent / "two.json" if path.name != "one.json" else path.with_name("two.json"),
        path,
    )


def truncate(path):
    os.truncate(path, path.stat().st_size - 1)


def make_folder(path):
    path.unlink()
    path.mkdir()


DAMAGES = [flip, truncate, make_folder, lambda path: path.unlink(), lambda p: p.write_bytes(b"")]
LISTED = [
    "one.json",
    "train/model/config.json",
    "train/model/weights",
    "train/model/adapter/weights",
]


def entry_of(folder, file):
    return folder / "train/model" if file.startswith("train") else folder / file


@pytest.mark.parametrize("file", LISTED)
@pytest.mark.parametrize("damage", DAMAGES)
def test_every_damage_of_a_listed_file_is_named_with_its_stage(folder, file, damage):
    manifest, path = Manifest(folder), entry_of(folder, file)
    manifest.require(path)
    damage(folder / file)
    stage = "train" if file.startswith("train") else "design"
    with pytest.raises(DataError, match=rf"{file}.*run `{stage}` again"):
        manifest.require(path)


def test_swapped_files_are_named(folder):
    swap(folder / "one.json")
    with pytest.raises(DataError, match=r"one\.json is not what was written"):
        Manifest(folder).require(folder / "one.json")


def test_a_foreign_file_in_a_listed_folder_is_named(folder):
    (folder / "train/model/extra.safetensors").write_bytes(b"x")
    with pytest.raises(DataError, match=r"extra\.safetensors was not written by it"):
        Manifest(folder).require(folder / "train/model")


def test_a_file_that_is_not_listed_is_refused(folder):
    with pytest.raises(DataError, match=r"notes\.txt is not listed"):
        Manifest(folder).require(folder / "notes.txt")


def test_no_byte_of_the_manifest_changes_unnoticed(folder):
    path = folder / FILE
    whole = path.read_bytes()
    before = json.loads(whole)
    for place in range(len(whole)):
        changed = bytearray(whole)
        changed[place] ^= 1
        path.write_bytes(changed)
        try:
            Manifest(folder).require(folder / "one.json")
        except DataError as error:
            assert FILE in str(error)
        else:
            assert json.loads(bytes(changed)) == before, f"byte {place}"


def test_a_block_that_fails_leaves_its_file_unlisted(folder):
    manifest = Manifest(folder)
    with pytest.raises(ZeroDivisionError), manifest.recording(folder / "one.json", stage="design"):
        raise ZeroDivisionError
    assert folder / "one.json" not in manifest
    assert manifest.made_from(folder / "one.json") is None
    assert folder / "two.json" in manifest


def test_an_entry_holds_what_its_file_was_made_from(folder):
    assert Manifest(folder).made_from(folder / "one.json") == {"kl": 0.5}


def test_a_file_is_read_once_by_a_process(folder, monkeypatch):
    reads = []
    real = storage.sha256
    monkeypatch.setattr(storage, "sha256", lambda path: reads.append(path) or real(path))
    for _ in range(3):
        Manifest(folder).require(folder / "one.json")
    assert reads == [folder / "one.json"]


def test_a_moved_folder_is_still_what_was_written(folder, tmp_path_factory):
    moved = tmp_path_factory.mktemp("moved") / "run"
    shutil.copytree(folder, moved)
    Manifest(moved).require(moved / "train/model")


def test_a_manifest_of_another_version_is_named(folder):
    path = folder / FILE
    path.write_text(path.read_text().replace('"schema_version": 1', '"schema_version": 99'))
    with pytest.raises(DataError, match="schema_version 99"):
        Manifest(folder).require(folder / "one.json")


@pytest.mark.parametrize("read", ["train/model", "train/model/adapter", "one.json"])
def test_a_path_read_by_itself_is_verified_by_the_folder_that_lists_it(folder, read):
    require_as_written(folder / read)
    flip(folder / (read if read.endswith("json") else "train/model/adapter/weights"))
    with pytest.raises(DataError, match="is not what was written"):
        require_as_written(folder / read)


def test_a_path_that_no_folder_lists_passes(folder, tmp_path_factory):
    require_as_written(folder / "notes.txt")
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    (elsewhere / FILE).write_text('{"name": "another tool\'s"}')
    (elsewhere / "weights").write_bytes(b"x")
    require_as_written(elsewhere / "weights")
    require_as_written(elsewhere / "missing")


@pytest.mark.parametrize("operation", range(7))
def test_a_kill_while_a_file_is_replaced_leaves_the_old_or_the_new_one(folder, operation):
    def replace():
        Manifest(folder).replace(
            folder / "one.json", lambda path: path.write_text("new"), stage="design"
        )

    old = (folder / "one.json").read_bytes()
    with killed_at(operation, (Path, "write_text"), (Path, "replace")) as kill:
        replace()
    assert kill.came == (operation < 6)  # three files are written, and each is put in its place
    manifest = Manifest(folder)
    manifest.require(folder / "one.json")
    is_new = operation >= 4
    assert (folder / "one.json").read_bytes() == (b"new" if is_new else old)
    assert manifest.made_from(folder / "one.json") == ({} if is_new else {"kl": 0.5})
    replace()
    assert (folder / "one.json").read_bytes() == b"new"
    manifest.require(folder / "one.json")


def test_a_write_that_fails_leaves_the_old_file_listed(folder):
    def full(path):
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    manifest, old = Manifest(folder), (folder / "one.json").read_bytes()
    with pytest.raises(DataError, match="the disk is full"):
        manifest.replace(folder / "one.json", full, stage="design")
    manifest.require(folder / "one.json")
    assert (folder / "one.json").read_bytes() == old
