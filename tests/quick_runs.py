"""Runs that take no time: models, trainers and figures that only count what they are asked."""

import shutil
from collections import Counter
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from infalign import storage
from infalign.comparison import sampling
from infalign.models.fingerprints import policy_fingerprints
from infalign.models.interfaces import Response
from infalign.pipeline import folder as folder_of_a_run
from infalign.pipeline import run as running
from infalign.pipeline import stages
from infalign.seeds import uniforms

REWARD = """
def a(prompts, completions, **columns):
    return [float(c.count("a")) + 0.001 * len(c) for c in completions]
def b(prompts, completions, **columns):
    return [float(c.count("b")) - 0.001 * len(c) for c in completions]
def c(prompts, completions, **columns):
    return [float(len(c)) for c in completions]
def first(text):
    return text[:1] or None
def judge(prompts, first, second):
    return [0.5 if x == y else float(x > y) for x, y in zip(first, second)]
"""


@dataclass
class Counts:
    """What a call of `run` does."""

    drawn: Counter = field(default_factory=Counter)
    """Responses, by the name of the policy's folder."""

    scored: Counter = field(default_factory=Counter)
    trained: list = field(default_factory=list)
    designed: int = 0
    summarized: int = 0


class Policy:
    """Texts of the letters a and b that depend on the weights, the seed, the prompt and the number
    of the response."""

    def __init__(self, path, counts):
        self.path, self.counts = Path(str(path)), counts
        weights = load_file(self.path / "model.safetensors")
        self.shift = float(sum(w.double().sum() for w in weights.values())) % 1

    def sample(self, conversations, n, *, seed, keys, first=0):
        self.counts.drawn[self.path.parent.name if self.path.name == "model" else "base"] += (
            n * len(keys)
        )
        numbers = [(uniforms(seed, key, first, n, 6) + self.shift) % 1 for key in keys]
        texts = [["".join("ab"[int(2 * x)] for x in row) for row in own] for own in numbers]
        return [[Response(t, (1, 2, 3), -1.0) for t in own] for own in texts]


def counting(monkeypatch):
    """Models, trainers and figures that take no time, and counts of what they are asked."""
    counts = Counts()
    monkeypatch.setattr(stages, "load_sampler", lambda path, **_: Policy(path, counts))
    monkeypatch.setattr(sampling, "load_sampler", lambda path, **_: Policy(path, counts))
    monkeypatch.setattr(running, "check", lambda checks: [])
    monkeypatch.setattr(folder_of_a_run, "_git_revision", lambda: None)
    known = cache(policy_fingerprints)

    def fingerprints(spec, *, dtype, trust_remote_code):
        return known(spec, dtype=dtype)

    monkeypatch.setattr(folder_of_a_run, "policy_fingerprints", fingerprints)

    def no_kl(comparison, models, sampler, conversations, drawn, first=0):
        zeros = np.zeros((len(drawn), len(drawn[0])))
        return {"kl": zeros, "kl_sampled": zeros}

    def train(recipe, samples, method, setting, *, landing_seed, out, stage, report, gold):
        counts.trained.append(method)
        (out / "model").mkdir(parents=True, exist_ok=True)
        weights = load_file(Path(recipe.model_path) / "model.safetensors")
        # Other inputs train other weights.
        seed = int(storage.fingerprint(storage.as_json(dict(stage.made_from))), 16) % 2**31
        moved = torch.rand(1, generator=torch.Generator().manual_seed(seed))
        with stage.recording(out / "model"):
            for path in Path(recipe.model_path).iterdir():
                shutil.copy(path, out / "model" / path.name)
            save_file({k: v + moved for k, v in weights.items()}, out / "model/model.safetensors")
        with stage.recording(out / "landing.json"):
            storage.write_json(out / "landing.json", {})

    def design(*arguments, **options):
        counts.designed += 1
        return true_design(*arguments, **options)

    def summarize(run, measured, selected):
        counts.summarized += 1
        return {"trained": {m: run.attempt(m).name for m in run.config.methods}}

    true_design = stages.training_design
    monkeypatch.setattr(sampling, "_kl", no_kl)
    monkeypatch.setattr("infalign.training.policy.train_policy", train)
    monkeypatch.setattr(stages, "training_design", design)
    monkeypatch.setattr(stages, "summarize_run", summarize)
    monkeypatch.setattr("infalign.pipeline.run.origin_of", lambda run, command: None)
    monkeypatch.setattr("infalign.reports.page.build_report", lambda folder, origin: None)
    return counts
