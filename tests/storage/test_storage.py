"""Files are whole or absent; what a disk refuses is one sentence with the path."""

import errno
import os
import re
import resource
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from infalign import DataError, disk, storage
from infalign.json_lines import read_rows, read_text
from infalign.reports import drawing


def contents(folder):
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path):
    file = tmp_path / "deep" / "file.txt"
    storage.write_text(file, "before")
    with pytest.raises(RuntimeError, match="killed"), storage.replacing(file) as part:
        part.write_text("half")
        raise RuntimeError("killed")
    assert contents(file.parent) == {"file.txt": b"before"}
    storage.write_text(file, "after")
    assert contents(file.parent) == {"file.txt": b"after"}


@pytest.mark.parametrize("mask", [0o022, 0o077, 0o002])
def test_a_file_has_the_mode_that_the_umask_leaves(tmp_path, mask):
    before = os.umask(mask)
    try:
        storage.write_text(tmp_path / "file.txt", "text")
    finally:
        os.umask(before)
    assert (tmp_path / "file.txt").stat().st_mode & 0o777 == 0o666 & ~mask


def test_what_a_killed_process_left_is_swept_away_and_nothing_else(tmp_path):
    kept = ("a.json", "film.part", "film.x1.part", "films.part/a.txt", "train/model/weights")
    left = (".a.json.0123abcd.part", "train/.model.89abcdef.part/weights", ".b.0_a1b2c3.part")
    for name in (*kept, *left):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("")
    (tmp_path / ".link.01234567.part").symlink_to(tmp_path / "films.part")
    storage.sweep(tmp_path)
    files = {str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*") if p.is_file()}
    assert files - {".link.01234567.part"} == set(kept)
    assert (tmp_path / "films.part" / "a.txt").exists()
    assert not (tmp_path / "train/.model.89abcdef.part").exists()


KILLED = """
import os, signal, sys
from pathlib import Path
from infalign import storage
with storage.replacing(Path(sys.argv[1])) as part:
    part.write_text("half")
    if sys.argv[2] == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    print("writing", flush=True)
    sys.stdin.read()
"""


def test_the_next_write_removes_what_a_killed_one_left_but_not_what_is_being_written(tmp_path):
    file = tmp_path / "out.parquet"
    command = [sys.executable, "-c", KILLED, str(file)]
    assert subprocess.run([*command, "kill"]).returncode == -9
    (left,) = tmp_path.iterdir()
    assert disk.LEFT.fullmatch(left.name)
    (tmp_path / ".other.0123abcd.part").write_text("of another file")
    with subprocess.Popen(
        [*command, "wait"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as alive:
        assert alive.stdout.readline() == "writing\n"
        storage.write_text(file, "whole")
        names = {p.name for p in tmp_path.iterdir()}
        assert left.name not in names and len(names) == 3
        alive.stdin.close()
    assert alive.returncode == 0 and file.read_text() == "half"
    assert {p.name for p in tmp_path.iterdir()} == {file.name, ".other.0123abcd.part"}


def test_nan_is_no_json(tmp_path):
    storage.write_json(tmp_path / "a.json", {"value": np.float64(0.5), "row": np.arange(2)})
    assert storage.read_json(tmp_path / "a.json") == {"value": 0.5, "row": [0, 1]}
    before = contents(tmp_path)
    with pytest.raises(ValueError, match="not JSON compliant"):
        storage.write_json(tmp_path / "a.json", {"value": float("nan")})
    assert contents(tmp_path) == before


def test_a_fingerprint_ignores_the_order_of_keys_and_nothing_else():
    assert storage.fingerprint({"a": 1, "b": [1, 2]}) == storage.fingerprint({"b": [1, 2], "a": 1})
    assert storage.fingerprint({"a": 1, "b": [1, 2]}) != storage.fingerprint({"a": 1, "b": [2, 1]})


# --- Reading. ---

READERS = [storage.read_json, read_text, storage.read_table, storage.sha256]
every_reader = pytest.mark.parametrize("read", READERS, ids=lambda f: f.__name__)


@every_reader
@pytest.mark.parametrize(
    ("put", "words"),
    [
        (lambda file: None, "does not exist"),
        (os.mkdir, "is a folder where a file is expected"),
        (os.mkfifo, "is a device, pipe or socket where a file is expected"),
        (lambda file: file.symlink_to(file), "its symbolic links lead in a circle"),
    ],
    ids=["missing", "folder", "pipe", "circle"],
)
def test_what_cannot_be_read_is_named(tmp_path, read, put, words):
    put(tmp_path / "x")
    with pytest.raises(DataError, match=re.escape(str(tmp_path / "x")) + ".* ?" + words):
        read(tmp_path / "x")


@every_reader
def test_a_name_that_is_too_long_is_shortened(tmp_path, read):
    with pytest.raises(DataError, match="could not be read: its name is too long") as caught:
        read(tmp_path / ("x" * 5000))
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize("text", [b"\xff\xfe", b"{", b"[" * 100_000, b""])
def test_a_damaged_file_says_so(tmp_path, text):
    (tmp_path / "x").write_bytes(text)
    with pytest.raises(DataError, match=r"x is not valid JSON"):
        storage.read_json(tmp_path / "x")
    with pytest.raises(DataError, match=r"x is not a readable Parquet file"):
        storage.read_table(tmp_path / "x")
    if text:
        with pytest.raises(DataError, match=r"x, line 1: |x is one JSON array"):
            list(read_rows(tmp_path / "x"))


# --- Writing. ---


@pytest.fixture
def small_files():
    """No file of this process may grow beyond 4096 bytes, as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


RANDOM = np.random.default_rng(0).random(10_000)


def _text(file):
    storage.write_text(file, "x" * 10_000)


def _table(file):
    storage.write_table(file, pa.table({"x": RANDOM}))


def _torch(file):
    import torch

    with storage.replacing(file) as part:
        torch.save({"x": torch.from_numpy(RANDOM)}, part)


def _safetensors(file):
    from safetensors.numpy import save_file

    with storage.replacing(file) as part:
        save_file({"x": RANDOM}, part)


def _figure(file):
    from matplotlib.figure import Figure

    figure = Figure()
    figure.add_subplot().plot(RANDOM)
    drawing.save_png(figure, file)


every_writer = pytest.mark.parametrize("write", [_text, _table, _torch, _safetensors, _figure])


@every_writer
def test_a_full_disk_is_one_sentence_with_the_path_and_changes_nothing(
    tmp_path, small_files, write
):
    file = tmp_path / "file"
    file.write_text("before")
    with pytest.raises(DataError) as caught:
        write(file)
    message = str(caught.value)
    assert message.startswith(f"{file} could not be written: ")
    assert "largest size" in message or "disk is probably full" in message
    assert message.endswith("unchanged. Mend that and run the same command again.")
    assert contents(tmp_path) == {"file": b"before"}


@pytest.mark.parametrize("number", disk.REASONS, ids=errno.errorcode.get)
@pytest.mark.parametrize("moment", ["open", "fsync", "replace"])
def test_whatever_a_disk_refuses_names_the_file_and_leaves_nothing(
    tmp_path, monkeypatch, number, moment
):
    def refuse(*_, **__):
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patch:
        patch.setattr(Path if moment == "replace" else os, moment, refuse)
        with pytest.raises(DataError) as caught:
            storage.write_text(tmp_path / "file", "text")
    assert str(tmp_path / "file") in str(caught.value)
    assert disk.REASONS[number] in str(caught.value)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (OSError("[Errno 28] Error writing bytes. Detail: [errno 28] No space"), "disk is full"),
        (RuntimeError("I/O error: No space left on device (os error 28)"), "disk is full"),
        (RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos"), "probably"),
        (ConnectionRefusedError(errno.ECONNREFUSED, "refused"), None),
        (FileNotFoundError(errno.ENOENT, "none"), None),
        (RuntimeError("CUDA error"), None),
        (DataError("[Errno 28] quoted"), None),
    ],
)
def test_errors_of_libraries_are_recognized_and_others_are_not(error, words):
    reason = disk.reason(error)
    assert reason is None if words is None else words in reason


def test_a_file_in_the_place_of_a_folder_is_named(tmp_path):
    (tmp_path / "run").write_text("")
    with pytest.raises(DataError, match=r"run could not be written: .*folder is expected"):
        storage.write_text(tmp_path / "run" / "file", "text")
    (tmp_path / "folder").mkdir()
    with pytest.raises(DataError, match="folder could not be written: it is a folder where"):
        storage.write_text(tmp_path / "folder", "text")
