"""The prompts that calibrators are judged on: known laws, bundled models, and public samples."""

import json
from pathlib import Path

import numpy as np
from scipy import stats
from scipy.special import ndtri

from infalign import storage
from infalign.calibration.assessment import AbstractWorld, KnownWorld, SampledWorld

SHAPE_SHARED = ("normal, one scale", "normal", "skewed", "heavy-tailed")
"""Worlds whose prompts differ by location, and where not said otherwise scale: the targets'."""

BATCH = 8
"""Prompts that are sampled and saved at once."""


def known_worlds(prompts: int, seed: int = 0) -> dict[str, AbstractWorld]:
    """Prompts with known quantile functions; half of the location's variance is in the features."""
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(prompts, 4))
    place = (features[:, :1] + features[:, 1:2]) / 2 + rng.normal(size=(prompts, 1)) / np.sqrt(2)
    scale = np.exp(0.25 * rng.normal(size=(prompts, 1)))
    kind = np.arange(prompts) % 4
    laws = (ndtri, _skewed, lambda u: -_skewed(1 - u), _two_peaks)

    def different(u):
        z = np.empty_like(u)
        for k, law in enumerate(laws):
            z[kind == k] = law(u[kind == k])
        return place + scale * z

    quantiles = {
        "normal, one scale": lambda u: place + ndtri(u),
        "normal": lambda u: place + scale * ndtri(u),
        "skewed": lambda u: place + scale * _skewed(u),
        "heavy-tailed": lambda u: place + scale * stats.t.ppf(u, 3),
        "own shapes": different,
        "levels": lambda u: np.round(place + scale * ndtri(u)),
    }
    return {name: KnownWorld(q, prompts, features) for name, q in quantiles.items()}


def _skewed(u):
    """A gamma law of shape 2, standardized."""
    return (stats.gamma.ppf(u, 2) - 2) / np.sqrt(2)


def _two_peaks(u):
    """0.7 N(−1, 0.35²) + 0.3 N(1.3, 0.35²)."""
    at = np.linspace(-3, 4, 4001)
    return np.interp(
        u, 0.7 * stats.norm.cdf(at, -1, 0.35) + 0.3 * stats.norm.cdf(at, 1.3, 0.35), at
    )


def bundled_world(cache: Path, prompts: int, samples: int) -> AbstractWorld:
    """Bundled language model and harmlessness reward; features are the model's last hidden state.

    Drawn once, by batches of prompts, and kept in `cache`: what is there is not drawn again.
    """
    from infalign.demo import bundled

    lines = bundled("bundled:harmless", "prompts").read_text(encoding="utf-8").splitlines()
    asked = [line["prompt"] for line in map(json.loads, lines) if line["split"] == "train"]
    cache.mkdir(parents=True, exist_ok=True)
    rewards, features = [], []
    models = None
    for start in range(0, prompts, BATCH):
        batch = asked[start : min(start + BATCH, prompts)]
        path = cache / f"bundled-{samples}-{start}-{len(batch)}.npz"
        if not path.exists():
            models = models or _models()
            drawn = _drawn(*models, batch, samples, start)
            with storage.replacing(path) as temporary, open(temporary, "wb") as file:
                np.savez_compressed(file, **drawn)
        with np.load(path) as saved:
            rewards.append(saved["rewards"]), features.append(saved["features"])
    return SampledWorld(np.concatenate(rewards), np.concatenate(features))


def _models():
    from infalign.demo import bundled
    from infalign.models.classifier import ClassifierReward
    from infalign.models.hf import LanguageModel

    model = LanguageModel(
        bundled("bundled:language-model", "model"), temperature=0.7, max_new_tokens=32
    )
    return model, ClassifierReward(bundled("bundled:harmless", "reward"))


def _drawn(model, reward, prompts: list[str], samples: int, seed: int) -> dict[str, np.ndarray]:
    import torch

    chats = [[{"role": "user", "content": text}] for text in prompts]
    features = []
    for chat in chats:
        ids = model.tokenizer(model.prompt_text(chat), add_special_tokens=False)["input_ids"]
        with torch.no_grad():
            features.append(model.model.base_model(input_ids=torch.tensor([ids]))[0][0, -1].numpy())
    drawn = model.sample(chats, samples, seed=seed, batch_size=512)
    scores = reward(
        prompts=[chat for chat, row in zip(chats, drawn, strict=True) for _ in row],
        completions=[[{"role": "assistant", "content": d.text}] for row in drawn for d in row],
    )
    return {"rewards": np.reshape(scores, (-1, samples)), "features": np.array(features)}


def public_worlds(data: Path) -> dict[str, AbstractWorld]:
    """Judged samples of reward-bench's best-of-16, and pass or fail of game 24 by two methods."""
    import pyarrow.parquet as pq

    judged = pq.read_table(data / "samples/rewardbench_bon16/samples.parquet").to_pandas()
    # Samples 11 to 15 were not judged.
    scores = judged.pivot(index="prompt_id", columns="sample", values="reward").iloc[:, :11]
    games = pq.read_table(data / "samples/game24_tot/samples.parquet").to_pandas()
    correct = games.pivot(index=["method", "puzzle"], columns="sample", values="correct")
    return {
        "rewardbench_bon16": SampledWorld(scores.dropna().to_numpy(float)),
        "game24": SampledWorld(correct.to_numpy(float)),
    }
