"""The lock of a folder: one writer at a time, whatever lies in its place."""

import errno
import fcntl
import os
import socket
from concurrent.futures import ThreadPoolExecutor

import pytest

from infalign import disk, storage
from infalign.errors import DataError


def test_a_folder_has_one_writer_until_that_writer_ends(tmp_path):
    with storage.locked(tmp_path / "new" / "folder"):
        with pytest.raises(DataError, match=f"is being written by process {os.getpid()} on "):
            storage.lock(tmp_path / "new" / "folder")
    with storage.locked(tmp_path / "new" / "folder"):
        pass


def _link(file):
    (file.parent / "precious").write_text("text")
    file.symlink_to(file.parent / "precious")


def _dangling(file):
    file.symlink_to(file.parent / "nowhere")


def _socket(file):
    os.chdir(file.parent)  # the name of a socket has at most 107 bytes
    with socket.socket(socket.AF_UNIX) as opened:
        opened.bind(file.name)


@pytest.mark.parametrize("put", [_link, _dangling, os.mkdir, os.mkfifo, _socket])
def test_something_else_in_the_place_of_the_lock_is_refused_and_left_alone(
    tmp_path, monkeypatch, put
):
    monkeypatch.chdir(tmp_path)
    put(tmp_path / ".lock")
    before = os.lstat(tmp_path / ".lock")
    with pytest.raises(DataError, match=r"\.lock is not a regular file, so it cannot lock its"):
        storage.lock(tmp_path)
    assert os.lstat(tmp_path / ".lock").st_ino == before.st_ino
    assert {p.name for p in tmp_path.iterdir()} <= {".lock", "precious"}
    assert not (tmp_path / "precious").exists() or (tmp_path / "precious").read_text() == "text"


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS, errno.EIO])
def test_a_file_system_without_locks_is_named(tmp_path, monkeypatch, number):
    def refused(descriptor, operation):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", refused)
    opened = len(os.listdir("/proc/self/fd"))
    with pytest.raises(DataError) as caught:
        storage.lock(tmp_path)
    assert str(tmp_path) in str(caught.value)
    assert disk.REASONS.get(number, os.strerror(number)) in str(caught.value)
    assert "lack locks (flock)" in str(caught.value) and "local folder" in str(caught.value)
    assert len(os.listdir("/proc/self/fd")) == opened


def test_a_folder_that_cannot_exist_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match=r"file/run cannot be locked for writing: a part of its"):
        storage.lock(tmp_path / "file" / "run")
    with pytest.raises(DataError, match="cannot be locked for writing: its name is too long"):
        storage.lock(tmp_path / ("x" * 300))


def test_the_holder_is_named_only_if_its_name_can_be_printed(tmp_path):
    with storage.locked(tmp_path):
        (tmp_path / ".lock").write_text("process 1\x1b[2J")
        with pytest.raises(DataError, match="is being written by another process"):
            storage.lock(tmp_path)


def test_a_thread_may_lock_its_folder_again_and_another_may_not(tmp_path):
    with storage.locked(tmp_path / "run"), storage.locked(tmp_path / "run"):
        with ThreadPoolExecutor(1) as pool:
            refused = pool.submit(lambda: storage.locked(tmp_path / "run").__enter__()).exception()
        assert isinstance(refused, DataError)
    with storage.locked(tmp_path / "run"):
        pass


@pytest.mark.parametrize("existed", [True, False])
def test_a_folder_that_was_made_for_the_lock_goes_with_a_failure(tmp_path, existed):
    if existed:
        (tmp_path / "run").mkdir()
    with pytest.raises(RuntimeError), storage.locked(tmp_path / "run"):
        raise RuntimeError
    assert (tmp_path / "run").exists() == existed
    with pytest.raises(RuntimeError), storage.locked(tmp_path / "run"):
        (tmp_path / "run" / "file").write_text("")
        raise RuntimeError
    assert (tmp_path / "run" / "file").exists()
