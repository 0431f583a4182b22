"""What a calibration store notes of where its rewards come from, and what it refuses by name."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from enumerable import EnumerableModel

from infalign import DataError, storage
from infalign.config import parse_config
from infalign.models import fingerprints
from infalign.models.fingerprints import (
    artifact,
    judge_parts,
    policy_fingerprints,
    reward_fingerprint,
)
from infalign.models.model_server import ServerModel
from infalign.models.reward_server import ServerReward
from infalign.pipeline.folder import Run
from infalign.pipeline.read import open_store
from infalign.pipeline.run import run
from infalign.stores import CalibrationStore

TEMPLATE = "{% for message in messages %}{{ message['content'] }}{% endfor %}"
REWARD = "def reward(prompts, completions, **columns):\n    return [{} for c in completions]\n"


@pytest.fixture
def model(tmp_path):
    return EnumerableModel.make(tmp_path / "model", seed=1).path


@pytest.fixture
def config(tmp_path, model, monkeypatch):
    """A configuration whose model, reward and prompts are files that a test may change."""
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    (tmp_path / "own_reward.py").write_text(REWARD.format("float(len(c[0]['content']))"))
    words = [{"prompt": word} for word in ("ab", "c", "cabba", "bcacb")]
    (tmp_path / "prompts.jsonl").write_text("\n".join(map(json.dumps, words)))
    yield parse_config(
        {
            "model": str(model),
            "reward": "python:own_reward:reward",
            "prompts": {"file": str(tmp_path / "prompts.jsonl")},
            "procedure": "best-of-n:2",
            "kl": 0.3,
            "sampling": {"max_new_tokens": 3, "batch_size": 8, "temperature": 0.9},
            "calibration": {"samples": 4},
            "train": {"batch_size": 4, "group": 2},
            "evaluate": {"prompts": {"file": "bundled:harmless", "limit": 4}},
        }
    )
    sys.modules.pop("own_reward", None)


def calibrated(config, folder) -> Path:
    run(config, folder, until="calibrate")
    return folder / "calibration"


def test_a_store_notes_all_that_its_rewards_follow_from(config, tmp_path):
    store = calibrated(config, tmp_path / "run")
    noted = CalibrationStore.open(store).provenance
    assert noted["sampling"] == {
        "temperature": 0.9,
        "top_p": 1.0,
        "max_new_tokens": 3,
        "batch_size": 8,
        "strip": False,
        "answer": "whole",
        "ask_again": 0,
    }
    assert noted["samples"] == 4 and isinstance(noted["seed"], int)
    assert {"model", "tokenizer", "chat_template", "reward", "prompts"} <= set(noted)
    packages = json.loads((store / "manifest.json").read_text())["packages"]
    assert {"python", "infalign", "numpy", "pyarrow", "torch", "transformers"} <= set(packages)


def with_a_template(folder):
    (folder / "model" / "chat_template.jinja").write_text(TEMPLATE)


def with_other_tokens(folder):
    path = folder / "model" / "tokenizer.json"
    text = json.loads(path.read_text())
    vocabulary = text["model"]["vocab"]
    vocabulary["a"], vocabulary["b"] = vocabulary["b"], vocabulary["a"]
    path.write_text(json.dumps(text))


def with_other_weights(folder):
    EnumerableModel.make(folder / "model", seed=2)


def with_another_reward(folder):
    (folder / "own_reward.py").write_text(REWARD.format("float(c[0]['content'].count('a'))"))
    sys.modules.pop("own_reward", None)


def with_other_prompts(folder):
    path = folder / "prompts.jsonl"
    path.write_text(path.read_text().replace("cabba", "cab"))


@pytest.mark.parametrize(
    ("change", "names"),
    [
        (with_a_template, {"model", "chat_template"}),
        (with_other_tokens, {"model", "tokenizer"}),
        (with_other_weights, {"model"}),
        (with_another_reward, {"reward"}),
        (with_other_prompts, {"prompts"}),
    ],
)
@pytest.mark.parametrize("finished", [True, False])
def test_what_has_changed_since_is_refused_by_name(config, tmp_path, change, names, finished):
    store = calibrated(config, tmp_path / "run")
    if not finished:  # as a kill after the first of two shards leaves it
        manifest = json.loads((store / "manifest.json").read_text())
        manifest.pop("checksum")
        manifest["prompts"] += 1
        storage.write_json(
            store / "manifest.json", manifest | {"checksum": storage.fingerprint(manifest)}
        )
    before = {p.name: p.read_bytes() for p in store.iterdir() if p.name != ".lock"}
    change(tmp_path)
    if finished:
        with pytest.raises(DataError, match=f"The calibration store was made with.*{max(names)}"):
            open_store(Run(config, tmp_path / "run"))
    if names != {"prompts"}:
        given = config.calibration.model_copy(update={"store": str(store)})
        with pytest.raises(DataError, match="does not fit this run") as caught:
            run(config.model_copy(update={"calibration": given}), tmp_path / "b", until="calibrate")
        told = str(caught.value).split("made with ")[1].split(". Restore")[0].split("; ")
        assert {part.split()[0] for part in told} == names
    calibrated(config, tmp_path / "run")
    assert {p.name: p.read_bytes() for p in store.iterdir() if p.name != ".lock"} == before
    own = Run(config, tmp_path / "run")
    assert own.store_path.name == "calibration-2"
    assert open_store(own).provenance["prompts"] == own.fingerprints["prompts"]


@pytest.mark.parametrize(
    ("section", "key", "value"),
    [
        ("sampling", "temperature", 0.7),
        ("sampling", "max_new_tokens", 2),
        ("calibration", "samples", 8),
        (None, "seed", 5),
    ],
)
def test_another_setting_makes_another_store(config, tmp_path, section, key, value):
    store = calibrated(config, tmp_path / "run")
    before = {p.name: p.read_bytes() for p in store.iterdir()}
    own = config.model_dump(exclude_none=True)
    (own[section] if section else own)[key] = value
    other = parse_config(own)
    if section == "sampling":  # the store of another run, put there by hand, is refused
        with pytest.raises(DataError, match=f"made with sampling.{key} .*, not {value}"):
            open_store(Run(other, tmp_path / "run"))
    calibrated(other, tmp_path / "run")
    assert Run(other, tmp_path / "run").store_path.name == "calibration-2"
    calibrated(config, tmp_path / "run")
    assert Run(config, tmp_path / "run").store_path.name == "calibration"
    assert {p.name: p.read_bytes() for p in store.iterdir()} == before


@pytest.mark.parametrize(("section", "key", "value"), [("sampling", "batch_size", 16)])
def test_the_size_of_batches_makes_no_other_store(config, tmp_path, section, key, value):
    calibrated(config, tmp_path / "run")
    own = config.model_dump(exclude_none=True)
    own[section][key] = value
    calibrated(parse_config(own), tmp_path / "run")
    assert not (tmp_path / "run" / "calibration-2").exists()


def test_the_name_of_a_folder_says_nothing_and_its_content_all(model, tmp_path):
    shutil.copytree(model, tmp_path / "copy")
    assert policy_fingerprints(str(model)) == policy_fingerprints(str(tmp_path / "copy"))
    assert artifact(str(model)) == artifact(str(tmp_path / "copy"))
    own = policy_fingerprints(str(model))
    under_vllm = policy_fingerprints(f"vllm:{model}")
    assert policy_fingerprints(f"vllm:{model}#gpu_memory_utilization=0.5") == under_vllm
    assert own.pop("dtype") == "float32"  # vLLM chooses its own
    assert under_vllm == own | {"model": f"vllm:{own['model']}"}
    with_a_template(tmp_path)
    with_template = policy_fingerprints(str(model))
    assert with_template["tokenizer"] == own["tokenizer"] and own["chat_template"] == "none"
    assert with_template["chat_template"] == storage.fingerprint(TEMPLATE)


@pytest.fixture
def answers(monkeypatch):
    """What servers answer to a probe, by the class that asks."""
    told = {ServerModel: "I am seven", ServerReward: "[0.5]"}
    for kind in told:
        monkeypatch.setattr(kind, "probe", lambda self: told[type(self)], raising=False)
    return told


def test_servers_are_their_urls_and_what_they_answer(answers):
    url, reward = "http://127.0.0.1:9/v1#m", "https://127.0.0.1:9/score"
    assert policy_fingerprints(url) == {"model": url, "probe": "I am seven"}
    before = reward_fingerprint(reward), judge_parts(url)
    assert before[0].startswith(reward) and reward_fingerprint(reward) == before[0]
    answers[ServerReward], answers[ServerModel] = "[0.6]", "I am eight"
    assert policy_fingerprints(url)["probe"] == "I am eight"
    after = reward_fingerprint(reward), judge_parts(url)
    assert before[0] != after[0] and before[1] != after[1]


def test_a_judge_is_its_question_too(answers, monkeypatch):
    before = judge_parts("http://127.0.0.1:9/v1#m")
    monkeypatch.setattr(fingerprints, "INSTRUCTION", "Which is longer? {material}")
    assert judge_parts("http://127.0.0.1:9/v1#m") != before
    assert judge_parts("reward:bundled:harmless") != judge_parts("reward:bundled:helpful")


def test_what_is_not_there_is_called_by_its_kind(tmp_path):
    with pytest.raises(DataError, match=r"^The model .* is not a folder"):
        policy_fingerprints(str(tmp_path / "nothing"))
    with pytest.raises(DataError, match=r"^The reward .* is not a folder"):
        reward_fingerprint(str(tmp_path / "nothing"))


def test_a_hub_model_is_its_name_and_commit(model, tmp_path):
    commit = "0123456789abcdef0123456789abcdef01234567"
    there = tmp_path / "cache" / "models--someone--tiny"
    shutil.copytree(model, there / "snapshots" / commit)
    (there / "refs").mkdir()
    (there / "refs" / "main").write_text(commit)
    code = (
        "from infalign.models.fingerprints import *\n"
        "print(policy_fingerprints('someone/tiny')['model'], reward_fingerprint('someone/tiny'))"
    )
    offline = {"HF_HUB_CACHE": str(tmp_path / "cache"), "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-c", code]
    told = subprocess.run(command, env=os.environ | offline, capture_output=True, text=True)
    assert told.stdout.split() == [f"someone/tiny@{commit}"] * 2, told.stderr
