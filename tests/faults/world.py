"""The small world that faults happen in: a random model, prompts, rewards, and finished folders.

Everything is made by commands from a configuration. Each folder is made once, and every case works
on a copy.
"""

import json
import shutil
import string
import sys
from dataclasses import dataclass
from pathlib import Path

import yaml

from .processes import Setup, infalign

LETTERS = string.ascii_letters + "`{@["
"""The model's tokens: what the red team makes of a few letters too."""

REWARDS = '''\
"""Rewards and a judge of texts over a few letters."""


def early(*, completions, **columns):
    """Larger for letters early in the alphabet; different texts get different rewards."""
    texts = [c if isinstance(c, str) else c[-1]["content"] for c in completions]
    return [-sum((ord(x) - 96) * 0.91**i for i, x in enumerate(t)) - 0.01 * len(t) for t in texts]


def late(*, completions, **columns):
    return [-x for x in early(completions=completions)]


def judge(prompts, first, second):
    return [0.5 if a == b else float(a < b) for a, b in zip(first, second)]


def broken(prompt, response):
    """Whether an attack succeeded."""
    return ord(response[:1] or "a") % 3 == 0
'''

CONFIG = {
    "model": "model",
    "reward": "python:rewards:early",
    "prompts": {"file": "prompts.jsonl", "limit": 12},
    "procedure": "best-of-n:2",
    "kl": 0.1,
    "sampling": {"max_new_tokens": 4, "batch_size": 8},
    "calibration": {"samples": 4, "calibrator": "ecdf"},
    "train": {
        "baselines": ["identity"],
        "warm_start": 1,
        "warm_start_batch_size": 16,
        "warm_start_learning_rate": 0.03,
        "steps": 2,
        "batch_size": 8,
        "group": 4,
        "save_steps": 1,
        "learning_rate": 0.03,
    },
    "evaluate": {
        "prompts": {"limit": 4},
        "samples": 4,
        "gold": {"late": "python:rewards:late"},
        "judge": "python:rewards:judge",
    },
    "evidence": False,
}
"""A run with two methods, a gold reward and a judge, in seconds."""

STAGES = ("calibrate", "design", "train", "evaluate", "report")
"""The stages of a run."""

EVALUATE = (
    *("evaluate", "--policy", "mine=other", "--reference", "model"),
    *("--reward", "python:rewards:early", "--gold", "late=python:rewards:late"),
    *("--judge", "python:rewards:judge", "--prompts", "prompts.jsonl", "--limit", "4"),
    *("--procedure", "best-of-n:2", "--samples", "4", "--max-new-tokens", "4"),
)
RED_TEAM = (
    *("red-team", "--model", "model", "--success", "python:rewards:broken", "--augment", "all"),
    *("--augment", "none", "--prompts", "prompts.jsonl", "--limit", "4", "--attempts", "6"),
    *("--max-new-tokens", "4"),
)


@dataclass(frozen=True)
class World:
    """A folder with `model`, `other`, `prompts.jsonl`, `rewards.py` and `config.yaml`."""

    folder: Path

    @classmethod
    def make(cls, folder: Path) -> "World":
        """Write the world's files."""
        folder.mkdir(parents=True, exist_ok=True)
        ended = infalign("--version", setup=Setup(before=lambda: _models(folder)))
        assert ended.code == 0, ended.stderr
        (folder / "rewards.py").write_text(REWARDS)
        (folder / "config.yaml").write_text(yaml.safe_dump(CONFIG))
        rows = [
            {"prompt_id": f"p{i}", "split": split, "prompt": LETTERS[i] + LETTERS[i * 5 % 7]}
            for i, split in enumerate(["train"] * 12 + ["test"] * 6)
        ]
        # Held-out prompts have three letters, and so none of them is a training prompt.
        for row in rows[12:]:
            row["prompt"] += "h"
        lines = "".join(json.dumps(row) + "\n" for row in rows)
        (folder / "prompts.jsonl").write_text(lines)
        return cls(folder)

    def setup(self, **changes) -> Setup:
        """Surroundings of a command in this world: its folder, and its rewards importable."""
        also = changes.pop("before", None)

        def before() -> None:
            sys.path.insert(0, str(self.folder))
            if also is not None:
                also()

        return Setup(**{"folder": self.folder, "before": before, **changes})

    def run(self, *arguments, **changes):
        """A command in this world, to its end."""
        return infalign(*arguments, setup=self.setup(**changes))

    def made(self, name: str, *arguments) -> Path:
        """The folder `name`, made once by a command that must succeed."""
        folder = self.folder / name
        if not (self.folder / f"{name}.done").exists():
            ended = self.run(*arguments, "--out", folder)
            assert ended.code == 0, f"{name}: {ended.stderr}"
            (self.folder / f"{name}.done").write_text(ended.stdout)
        return folder

    def stage(self, name: str) -> Path:
        """The folder of a run that has finished this stage, continued from the stage before."""
        folder, at = self.folder / f"run-{name}", STAGES.index(name)
        if at and not (self.folder / f"{folder.name}.done").exists():
            before = self.stage(STAGES[at - 1])
            shutil.rmtree(folder, ignore_errors=True)
            shutil.copytree(before, folder)
        return self.made(folder.name, "run", "config.yaml", "--until", name)


def _models(folder: Path) -> None:
    from enumerable import EnumerableModel

    first = EnumerableModel.make(folder / "model", seed=1, letters=LETTERS)
    EnumerableModel.make(folder / "other", seed=2, letters=LETTERS, near=first, scale=0.3)
