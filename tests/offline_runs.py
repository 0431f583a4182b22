"""Offline training on what a small model drew."""

from pathlib import Path

import numpy as np
from enumerable import EnumerableModel

from infalign.manifest import Manifest, Stage
from infalign.methods import Task
from infalign.prompts import Prompt
from infalign.training.offline import StoredSamples, train_offline
from infalign.training.recipe import Recipe

PROMPTS = [Prompt(w, ({"role": "user", "content": w},)) for w in ("ab", "c")]


def drawn_from(made: EnumerableModel, n: int) -> StoredSamples:
    """`n` responses to each of `PROMPTS`, with rewards that say nothing about them."""
    policy = made.language_model(dtype="float32")
    drawn = policy.sample([p.messages for p in PROMPTS], n, seed=0)
    return StoredSamples(
        PROMPTS,
        [[r.tokens for r in row] for row in drawn],
        np.array([[r.logprob for r in row] for row in drawn]),
        np.random.default_rng(0).normal(size=(len(PROMPTS), n)),
    )


def log_ratios_in_training(recipe: Recipe, samples: StoredSamples, folder: Path, passes: int = 1):
    """The log-ratios of each batch of a training toward the reference, on one response a row."""
    seen = []

    def loss(log_ratio, rows):
        seen.append(log_ratio.detach())
        return log_ratio.square().mean()

    train_offline(
        recipe,
        samples,
        Task(np.arange(samples.rewards.size)[:, None], {}, loss),
        passes=passes,
        out=folder / "out",
        stage=Stage(Manifest(folder), "train", {}),
        report=lambda done, total: None,
    )
    return seen
