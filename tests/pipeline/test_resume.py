"""A run killed in every stage ends with what an uninterrupted one gives."""

import json
import signal
from pathlib import Path

import pyarrow.parquet as pq
import yaml
from safetensors.numpy import load_file

CONFIG = {
    "model": "bundled:language-model",
    "reward": "bundled:harmless",
    "prompts": {"file": "bundled:harmless", "limit": 24},
    "procedure": "worst-of-n:2",
    "kl": 0.3,
    "sampling": {"max_new_tokens": 8, "batch_size": 16},
    "calibration": {"samples": 8},
    "train": {
        "warm_start": 2,
        "warm_start_learning_rate": 1e-3,
        "steps": 4,
        "learning_rate": 1e-4,
        "batch_size": 32,
        "group": 4,
        "save_steps": 2,
    },
    "evaluate": {"prompts": {"limit": 8}, "samples": 4},
    "evidence": False,
}

# Where each kill falls: at the first file operation once this file is there.
MOMENTS = {
    "calibrate": "calibration/rewards-00001.parquet",
    "design": "design.json",
    "warm start": "train/rloo/warm_start/checkpoint-2/trainer_state.json",
    "on policy": "train/rloo/on_policy/checkpoint-2/trainer_state.json",
    "landing": "train/rloo/on_policy/done.json",
    "a part of landing": "train/rloo/landing/first.parquet",
    "baseline": "train/rlhf/warm_start/checkpoint-2/model.safetensors",
    "evaluate": "evaluation/reference.parquet",
    "results": "evaluation/rlhf.parquet",
    "report": "evaluation/results.json",
}


def test_killed_in_every_stage_it_ends_as_if_nothing_had_happened(runs, tmp_path):
    config, whole, killed = (tmp_path / name for name in ("config.yaml", "whole", "killed"))
    config.write_text(yaml.safe_dump(CONFIG))
    ended = runs("run", config, "--out", whole)
    assert ended.code == 0, ended.stderr

    for stage, name in MOMENTS.items():
        ended = runs("run", config, "--out", killed, killed_after=killed / name)
        assert ended.code == -signal.SIGKILL, f"ended before {stage}: {ended.stderr}"
        assert (killed / name).exists()
    ended = runs("run", config, "--out", killed)
    assert ended.code == 0, ended.stderr

    left, expected = contents(killed), contents(whole)
    assert left.keys() == expected.keys()
    assert [name for name in expected if left[name] != expected[name]] == []
    assert not list(killed.rglob("*.part")), "a later run removes what a kill left unfinished"


def contents(folder: Path) -> dict:
    """Everything a run leaves that must not depend on interruptions, by content."""
    by_name = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if name == "costs.jsonl":  # seconds, of every call
            continue
        if path.suffix == ".parquet":
            by_name[name] = pq.read_table(path).to_pydict()
        elif path.suffix == ".safetensors":
            by_name[name] = {k: v.tobytes() for k, v in load_file(path).items()}
        elif path.suffix == ".json" and "model/" not in name:
            by_name[name] = json.loads(path.read_text())
        elif path.suffix == ".jsonl":
            by_name[name] = path.read_text()
        elif path.suffix in (".html", ".png"):
            by_name[name] = path.suffix  # drawn from the results
    return by_name
