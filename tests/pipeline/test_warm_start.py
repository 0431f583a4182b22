"""Trainings that differ only after their warm start share it."""

import json
import shutil
from pathlib import Path

import pytest
from enumerable import EnumerableModel
from quick_runs import REWARD

from infalign.config import parse_config
from infalign.pipeline import warm_start
from infalign.pipeline.run import run
from infalign.training import policy

pytestmark = pytest.mark.filterwarnings("ignore")

METHODS = ("rloo", "rlhf")


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("files")
    EnumerableModel.make(folder / "base", seed=1)
    (folder / "rewards.py").write_text(REWARD)
    texts = ["ab", "ba", "aab", "bba", "abab", "bb", "aaa", "bbb"]
    rows = [
        {"prompt_id": f"p{i}", "prompt": text, "split": "train" if i < 6 else "test"}
        for i, text in enumerate(texts)
    ]
    (folder / "prompts.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return folder


def configuration(files, **train):
    return parse_config(
        {
            "model": str(files / "base"),
            "reward": f"{files}/rewards.py:a",
            "prompts": {"file": str(files / "prompts.jsonl")},
            "procedure": "best-of-n:2",
            "kl": 0.03,
            "sampling": {"max_new_tokens": 4},
            "calibration": {"samples": 8, "calibrator": "ecdf"},
            "train": {
                "baselines": list(METHODS[1:]),
                "steps": 2,
                "batch_size": 8,
                "group": 2,
                "warm_start": 2,
                "warm_start_batch_size": 8,
            }
            | {
                "validation": 0.34,
                "learning_rate": 1e-3,
                "warm_start_learning_rate": 2e-2,
                "save_steps": 1,
            }
            | train,
            "evidence": False,
        }
    )


@pytest.fixture
def warmed(monkeypatch):
    """The folders in which a warm start was trained."""
    folders, trained = [], policy.train_offline

    def train_offline(*arguments, out, **options):
        folders.append(out.parent.name)
        return trained(*arguments, out=out, **options)

    monkeypatch.setattr(policy, "train_offline", train_offline)
    return folders


@pytest.fixture(scope="module")
def finished(files, tmp_path_factory):
    folder = tmp_path_factory.mktemp("finished") / "run"
    run(configuration(files), folder, until="train")
    return folder


@pytest.fixture
def folder(finished, tmp_path):
    return Path(shutil.copytree(finished, tmp_path / "run"))


def contents(folder):
    return {
        path.relative_to(folder): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.mark.parametrize(
    "changed", [{"learning_rate": 2e-3}, {"steps": 3}, {"trl": {"max_grad_norm": 0.5}}], ids=str
)
def test_other_steps_on_policy_begin_with_the_same_warm_start(
    files, folder, warmed, tmp_path, changed
):
    run(configuration(files, **changed), folder, until="train")
    assert not warmed
    run(configuration(files, **changed), tmp_path / "anew", until="train")
    assert warmed == list(METHODS)
    for method in METHODS:
        own, anew = folder / f"train/{method}-2", tmp_path / "anew/train" / method
        assert contents(own) == contents(anew)


@pytest.mark.parametrize(
    "changed",
    [{"warm_start_learning_rate": 3e-2}, {"warm_start": 3}, {"validation": 0.17}],
    ids=str,
)
def test_what_the_warm_start_reads_trains_it_again(files, folder, warmed, changed):
    run(configuration(files, **changed), folder, until="train")
    assert warmed == [f"{method}-2" for method in METHODS]


def test_a_copy_that_was_killed_is_made_again(files, folder, warmed, monkeypatch):
    copy, left = warm_start._copy, [2]

    def killed(*arguments):
        if not left[0]:
            raise KeyboardInterrupt
        left[0] -= 1
        copy(*arguments)

    changed = configuration(files, learning_rate=2e-3)
    with monkeypatch.context() as patched:
        patched.setattr(warm_start, "_copy", killed)
        with pytest.raises(KeyboardInterrupt):
            run(changed, folder, until="train")
    run(changed, folder, until="train")
    assert not warmed
    first, second = (folder / f"train/{name}/warm_start" for name in ("rloo", "rloo-2"))
    assert contents(first) == contents(second)


def test_a_damaged_warm_start_is_trained_again(files, folder, warmed):
    (folder / "train/rloo/warm_start/model/model.safetensors").write_bytes(b"damaged")
    run(configuration(files, learning_rate=2e-3), folder, until="train")
    assert warmed == ["rloo-2"]
