"""A run killed in every stage ends with what an uninterrupted one gives."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest
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

# Where each kill falls: as soon as this file is there, the stage it belongs to is under way.
MOMENTS = {
    "calibrate": "calibration/rewards-00001.parquet",
    "design": "design.json",
    "warm start": "train/rloo/warm_start/checkpoint-2/trainer_state.json",
    "on policy": "train/rloo/on_policy/checkpoint-2/trainer_state.json",
    "landing": "train/rloo/on_policy/done.json",
    "baseline": "train/rlhf/warm_start/checkpoint-2/model.safetensors",
    "evaluate": "evaluation/reference.parquet",
    "results": "evaluation/rlhf.parquet",
    "report": "evaluation/results.json",
}


def start(config: Path, out: Path) -> subprocess.Popen:
    command = [Path(sys.executable).with_name("infalign"), "run", config, "--out", out]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    path = tmp_path_factory.mktemp("resume") / "config.yaml"
    path.write_text(yaml.safe_dump(CONFIG))
    return path


def test_killed_in_every_stage_it_ends_as_if_nothing_had_happened(config, tmp_path):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    _, errors = (process := start(config, whole)).communicate()
    assert process.returncode == 0, errors

    for stage, name in MOMENTS.items():
        process = start(config, killed)
        deadline = time.monotonic() + 120
        while not (killed / name).exists():
            assert process.poll() is None, f"ended before {stage}: {process.stderr.read()}"
            assert time.monotonic() < deadline, f"{name} did not appear"
            time.sleep(0.002)
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()
    _, errors = (process := start(config, killed)).communicate()
    assert process.returncode == 0, errors

    found, expected = contents(killed), contents(whole)
    assert found.keys() == expected.keys()
    assert [name for name in expected if found[name] != expected[name]] == []
    assert not list(killed.rglob("*.part")), "what a kill left unfinished is swept away"


def contents(folder: Path) -> dict:
    """Everything a run leaves that must not depend on interruptions, by content."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if path.suffix == ".parquet":
            found[name] = pq.read_table(path).to_pydict()
        elif path.suffix == ".safetensors":
            found[name] = {k: v.tobytes() for k, v in load_file(path).items()}
        elif path.suffix == ".json" and "model/" not in name:
            found[name] = json.loads(path.read_text())
        elif path.suffix in (".html", ".png", ".jsonl"):
            found[name] = path.suffix  # drawn from the results; logs carry wall-clock times
    return found
