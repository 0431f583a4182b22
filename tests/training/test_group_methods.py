"""Methods that read whole groups or stored samples only, through the whole pipeline, made tiny."""

import json
import math

import pytest
import yaml

LABELS = {
    "group": "exact group objective",
    "bonbon": "best-of-n likelihood and IPO (BonBon)",
}

CONFIG = {
    "model": "bundled:language-model",
    "reward": "bundled:harmless",
    "prompts": {"file": "bundled:harmless", "limit": 16},
    "procedure": "best-of-n:2",
    "kl": 0.1,
    "sampling": {"max_new_tokens": 4, "batch_size": 64},
    "calibration": {"samples": 8},
    "train": {
        "method": "group",
        "baselines": ["bonbon"],
        "passes": 4,
        "warm_start_learning_rate": 3e-4,
        "warm_start_batch_size": 32,
        "steps": 1,
        "batch_size": 16,
        "group": 4,
    },
    "evaluate": {"prompts": {"limit": 4}, "samples": 4},
    "evidence": False,
}


@pytest.fixture(scope="module")
def folder(runs, tmp_path_factory):
    path = tmp_path_factory.mktemp("methods")
    (path / "config.yaml").write_text(yaml.safe_dump(CONFIG))
    ended = runs("run", path / "config.yaml", "--out", path / "run")
    assert ended.code == 0, ended.stderr
    return path / "run"


def test_every_method_is_trained_brought_to_the_kl_and_compared(folder):
    results = json.loads((folder / "evaluation/results.json").read_text())
    policies = {policy["method"]: policy for policy in results["policies"]}
    assert policies.keys() == LABELS.keys()
    page = (folder / "report.html").read_text()
    for method, label in LABELS.items():
        assert policies[method]["label"] == label and label in page
        landing = json.loads((folder / "train" / method / "landing.json").read_text())
        assert landing["kl"] == pytest.approx(0.1, rel=0.1)


def test_measurements_during_training_are_saved(folder):
    lines = (folder / "train/group/on_policy/metrics.jsonl").read_text().splitlines()
    row = next(r for r in map(json.loads, lines) if "infalign/sequence_kl" in r)
    logged = {"infalign/raw_reward", "infalign/quantile", "infalign/saturated"}
    assert logged <= row.keys() and 0 < row["infalign/win_rate"] < 1
    lines = (folder / "train/bonbon/offline/metrics.jsonl").read_text().splitlines()
    assert any(math.isfinite(json.loads(line).get("loss", math.nan)) for line in lines)
