"""Every file of a run that is read back is verified: damage is named with its stage."""

import json
import shutil

import pytest
import yaml

from infalign import DataError
from infalign.config import load_config
from infalign.manifest import FILE, Manifest, Stage
from infalign.pipeline import stages
from infalign.pipeline.folder import Run, require_run
from infalign.pipeline.history import place
from infalign.pipeline.read import read_design

CONFIG = {
    "model": "bundled:language-model",
    "reward": "bundled:harmless",
    "prompts": {"file": "bundled:harmless", "limit": 8},
    "procedure": "best-of-n:2",
    "kl": 0.3,
    "sampling": {"max_new_tokens": 4, "batch_size": 32},
    "calibration": {"samples": 8, "calibrator": "ecdf"},
    "train": {
        "baselines": [],
        "warm_start": 4,
        "warm_start_learning_rate": 1e-3,
        "warm_start_batch_size": 16,
        "steps": 1,
        "batch_size": 8,
        "group": 4,
        "validation": 0,
    },
    "evaluate": {"prompts": {"limit": 4}, "samples": 2},
    "evidence": False,
}

STORE = "calibration/"
"""A calibration store has a manifest of its own, which its own tests damage."""

WRITTEN_ONLY = (
    ".lock",
    "costs.jsonl",
    FILE,
    "evaluation/" + FILE,
    "report.html",
    "README.md",
    ".png",
)
"""Ends of the names of files that nothing reads back, or that carry their own checksum."""


@pytest.fixture(scope="module")
def finished(runs, tmp_path_factory):
    """A finished run, and its configuration."""
    folder = tmp_path_factory.mktemp("damage")
    (folder / "config.yaml").write_text(yaml.safe_dump(CONFIG))
    ended = runs("run", folder / "config.yaml", "--out", folder / "run")
    assert ended.code == 0, ended.stderr
    return folder / "run"


def listed(folder):
    """Every listed path of a run, with the manifest that lists it."""
    for manifest in (Manifest(folder), Manifest(folder / "evaluation")):
        for path in manifest.listed(manifest.folder):
            yield manifest, path


def files_of(path):
    return sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]


def flip(file):
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 0x40
    file.write_bytes(content)


def truncate(file):
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def empty(file):
    file.write_bytes(b"")


def swap(file):
    file.write_bytes(b"of another run")


def replace_by_folder(file):
    file.unlink()
    file.mkdir()


def restore(file, content):
    if file.is_dir():
        file.rmdir()
    file.write_bytes(content)


def test_every_file_of_a_run_is_listed_or_never_read(finished):
    known = {file for _, path in listed(finished) for file in files_of(path)}
    others = [
        str(file.relative_to(finished))
        for file in finished.rglob("*")
        if file.is_file() and file not in known
    ]
    unknown = [n for n in others if not n.startswith(STORE) and not n.endswith(WRITTEN_ONLY)]
    assert unknown == [], [str(path) for _, path in listed(finished)]


DAMAGES = (flip, truncate, empty, swap, replace_by_folder, lambda file: file.unlink())


def test_whatever_happens_to_a_listed_file_is_named_with_its_stage(finished):
    tried = 0
    for manifest, path in listed(finished):
        manifest.require(path)
        for file in files_of(path):
            content = file.read_bytes()
            for damage in DAMAGES:
                damage(file)
                with pytest.raises(DataError) as caught:
                    manifest.require(path)
                assert str(file) in str(caught.value) and "` again" in str(caught.value)
                restore(file, content)
                tried += 1
            manifest.require(path)
        if path.is_dir():
            (path / "foreign").write_text("")
            with pytest.raises(DataError, match="foreign was not written by it"):
                manifest.require(path)
            (path / "foreign").unlink()
    assert tried > 60


def test_the_manifest_carries_its_own_checksum(finished):
    for folder in (finished, finished / "evaluation"):
        content = (folder / FILE).read_bytes()
        for damage in (flip, truncate, empty, swap):
            damage(folder / FILE)
            with pytest.raises(DataError, match=FILE):
                Manifest(folder).listed(folder)
        (folder / FILE).write_bytes(content)


@pytest.fixture
def copied(finished, tmp_path):
    shutil.copytree(finished, tmp_path / "run")
    return tmp_path / "run"


def again(runs, folder, *overrides):
    return runs("run", folder.parent / "mine.yaml", *overrides, "--out", folder)


@pytest.fixture
def config(copied):
    (copied.parent / "mine.yaml").write_text(yaml.safe_dump(CONFIG))
    return load_config(copied.parent / "mine.yaml")


def test_changed_weights_are_named_before_they_are_evaluated(runs, copied, config):
    shutil.rmtree(copied / "evaluation")
    flip(copied / "train" / "rloo" / "model" / "model.safetensors")
    ended = again(runs, copied)
    assert ended.code == 1 and "Traceback" not in ended.stderr
    assert "rloo/model/model.safetensors is not what was written" in ended.stderr
    assert "run `train` again" in " ".join(ended.stderr.split())
    assert not (copied / "evaluation" / "results.json").exists()


def test_a_removed_design_is_made_again(copied, config):
    run, before = Run(config, copied), (copied / "design.json").read_text()
    run.design_file.unlink()
    stages.design(run, lambda *_: None)
    assert run.design_file.read_text() == before
    design = json.loads(before)
    with run.design_stage().recording(run.design_file):
        run.design_file.write_text(json.dumps(design | {"beta": 9.3}))
    assert read_design(run).beta == 9.3
    # The training that was made from the former design is not that of this one.
    at = place(run.train_stage("rloo"), copied / "train" / "rloo")
    assert (at.path.name, at.begun, at.former) == ("rloo-2", False, copied / "train" / "rloo")


def test_a_design_of_other_settings_is_not_read_as_that_of_the_configuration(copied, config):
    with pytest.raises(DataError, match=r"made from other settings: kl 0.3, not 0.5"):
        read_design(Run(config.model_copy(update={"kl": 0.5}), copied))


def test_a_folder_of_version_0_1_0_is_refused_with_what_to_do(copied, config):
    (copied / FILE).unlink()
    with pytest.raises(DataError) as caught:
        require_run(copied)
    assert "infalign 0.1.0 made it" in str(caught.value)
    assert "remove design.json, train, evaluation and run the stages again" in str(caught.value)
    shutil.rmtree(copied / "train")
    shutil.rmtree(copied / "evaluation")
    (copied / "design.json").unlink()
    require_run(copied)


def test_a_stage_has_what_it_wrote_from_the_same_inputs(tmp_path):
    stage = Stage(Manifest(tmp_path), "train", {"design": "a"})
    file = tmp_path / "file"
    assert not stage.has(file)
    with stage.recording(file):
        file.write_text("text")
    assert stage.has(file) and stage.is_current(file)
    other = Stage(stage.manifest, "train", {"design": "b"})
    assert not other.is_current(file)
    with pytest.raises(DataError, match=r"file was made from other inputs: design 'a', not 'b'"):
        other.has(file)
    file.unlink()
    assert not stage.has(file) and not stage.is_current(file)
    stage.forget_removed(tmp_path)
    assert file not in stage.manifest
