"""Small studies, whose cells train for two steps on a model of a few tokens."""

import json

from enumerable import EnumerableModel
from quick_runs import REWARD, counting

from infalign.config import read_study
from infalign.pipeline import stages
from infalign.study import run as studies

PROMPTS, HELD_OUT, K, M = 5, 4, 4, 6
METHODS = ("rloo", "rlhf")


def make_files(folder):
    """The model, rewards and prompts of a study."""
    EnumerableModel.make(folder / "base", seed=1)
    (folder / "rewards.py").write_text(REWARD)
    (folder / "gold.py").write_text(REWARD)
    texts = ["ab", "ba", "aab", "bba", "abab", "bb", "aaa", "bbb", "abba", "baab"]
    rows = [
        {"prompt_id": f"p{i}", "prompt": t, "split": "train" if i < 6 else "test"}
        for i, t in enumerate(texts)
    ]
    (folder / "prompts.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return folder


def counted(patched):
    """Counts of what the cells are asked, which take no time."""
    counts = counting(patched)
    patched.setattr(studies, "check", lambda checks: [])

    def summarize(run, measured, selected):
        own = {"kl": None, "win_rates": {}}
        return {"policies": [{"method": m} | own for m in run.config.methods]}

    patched.setattr(stages, "summarize_run", summarize)
    return counts


def study(files, seeds=(0, 1), task=None):
    values = {
        "model": str(files / "base"),
        "reward": f"{files}/rewards.py:a",
        "prompts": {"file": str(files / "prompts.jsonl"), "limit": PROMPTS},
        "procedure": "best-of-n:2",
        "transform": "exponential:2",
        "sampling": {"max_new_tokens": 6, "batch_size": 8},
        "calibration": {"samples": K, "calibrator": "ecdf"},
        "train": {"steps": 2, "batch_size": 4, "group": 2, "save_steps": 1},
        "evaluate": {
            "prompts": {"limit": HELD_OUT},
            "samples": M,
            "gold": {"b": f"{files}/gold.py:b"},
            "judge": f"{files}/rewards.py:judge",
        },
        "evidence": False,
    }
    tasks = {"a": values | (task or {})}
    return read_study({"tasks": tasks, "methods": METHODS, "kl": 0.1, "seeds": seeds})
