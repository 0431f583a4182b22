"""Samples of the bundled policy, the states it sees, and worlds made of them."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from scipy.optimize import brentq
from transformers import AutoModelForCausalLM

import infalign as ia
from infalign.config import Prompts
from infalign.demo import bundled
from infalign.models.classifier import ClassifierReward
from infalign.models.hf import LanguageModel
from infalign.models.loading import load_tokenizer, prompt_text, tokenize
from infalign.prompts import Prompt, load_prompts

PATH = bundled("bundled:language-model", "model")
TOKENIZER = load_tokenizer(PATH)
TEMPERATURE, LONGEST, SEED = 0.7, 32, 11
LAYERS = (0, 2, 4)


def reward_model(task: str = "harmless") -> ClassifierReward:
    """The bundled reward of a task."""
    return ClassifierReward(bundled(f"bundled:{task}", "reward"))


def policy(path=PATH):
    """The network at `path`, by default the reference."""
    return AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32)


@dataclass(frozen=True)
class Samples:
    """K reference responses to each prompt of a split."""

    split: str
    prompts: Sequence[Prompt]
    """In the order of the rows."""

    tokens: np.ndarray
    """Shape (prompts, K, most tokens), −1 beyond the end."""

    logprobs: np.ndarray
    rewards: np.ndarray

    @classmethod
    def of(cls, work: Path, split: str, prompts: int, k: int) -> "Samples":
        """To the first harmlessness prompts; drawn once, then read from `work`."""
        chosen = prompts_of("harmless", split)[:prompts]
        return cls.drawn(work / f"{split}.npz", chosen, k, split=split)

    @classmethod
    def drawn(
        cls,
        path: Path,
        prompts: Sequence[Prompt],
        k: int,
        *,
        split: str,
        task: str = "harmless",
        longest: int = LONGEST,
    ) -> "Samples":
        """K responses to each prompt, with the reward of a task; drawn once, then read."""
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            np.savez(path, **_draw(prompts, k, task, longest))
        return cls(split, prompts, **np.load(path))

    def first(self, prompts: int) -> "Samples":
        """The samples of the first prompts."""
        parts = (self.prompts, self.tokens, self.logprobs, self.rewards)
        return Samples(self.split, *(x[:prompts] for x in parts))

    @cached_property
    def prompt_ids(self) -> list[list[int]]:
        """The prompts as the policy reads them."""
        texts = [prompt_text(TOKENIZER, p.messages) for p in self.prompts]
        return tokenize(TOKENIZER, texts)["input_ids"]

    def response(self, prompt: int, k: int) -> list[int]:
        """Token ids of one response."""
        row = self.tokens[prompt, k]
        return row[row >= 0].tolist()

    @cached_property
    def quantiles(self) -> np.ndarray:
        """Mid-ranks among the prompt's own K rewards."""
        return quantiles(self.rewards)

    def scored(self, work: Path, reward: Path, prompts: int, k: int) -> np.ndarray:
        """Rewards by another classifier of the first k responses to the first `prompts` prompts."""
        path = work / f"{self.split}_{reward.name}.npy"
        if not path.exists():
            classifier, rows = ClassifierReward(reward, batch_size=64), []
            for prompt in range(prompts):
                texts = [self._text(prompt, j) for j in range(k)]
                rows.append(classifier([list(self.prompts[prompt].messages)] * k, texts))
            np.save(path, np.array(rows))
        return np.load(path)

    def _text(self, prompt: int, k: int) -> str:
        return TOKENIZER.decode(self.response(prompt, k), skip_special_tokens=True)

    def states(self, work: Path, k: int) -> np.ndarray:
        """What the frozen reference sees of its first k responses, shape (prompts, k, features):
        means of three layers over the response, two layers at its end, and its length."""
        path = work / f"{self.split}_states.npy"
        if not path.exists():
            np.save(path, np.stack([self._states(i, k) for i in range(len(self.rewards))]))
        return np.load(path)

    @torch.no_grad()
    def _states(self, prompt: int, k: int) -> np.ndarray:
        network, start = _reference(), self.prompt_ids[prompt]
        rows = [start + self.response(prompt, j) for j in range(k)]
        lengths = torch.tensor([len(row) for row in rows])
        ids = torch.zeros(k, int(lengths.max()), dtype=torch.long)
        for i, row in enumerate(rows):
            ids[i, : len(row)] = torch.tensor(row)
        place = torch.arange(ids.shape[1])
        inside = place < lengths[:, None]
        of_response = (inside & (place >= len(start))).float()[..., None]
        hidden = network.model(
            input_ids=ids, attention_mask=inside.long(), output_hidden_states=True, use_cache=False
        ).hidden_states
        size = of_response.sum(1)
        means = [(hidden[i] * of_response).sum(1) / size for i in LAYERS]
        ends = [hidden[i][torch.arange(k), lengths - 1] for i in LAYERS[1:]]
        return torch.cat([*means, *ends, size / LONGEST], 1).numpy()


def _reference():
    if not _CACHE:
        _CACHE.append(policy().eval())
    return _CACHE[0]


_CACHE: list = []


def prompts_of(task: str, split: str) -> list[Prompt]:
    """The bundled prompts of a task."""
    return load_prompts(Prompts(file=f"bundled:{task}", split=split))


def _draw(prompts: Sequence[Prompt], k: int, task: str, longest: int) -> dict[str, np.ndarray]:
    model = LanguageModel(PATH, temperature=TEMPERATURE, max_new_tokens=longest)
    rows = model.sample(
        [p.messages for p in prompts], k, seed=SEED, keys=[p.id for p in prompts], batch_size=512
    )
    asked = [list(p.messages) for p in prompts for _ in range(k)]
    rewards = reward_model(task)(asked, [r.text for row in rows for r in row])
    tokens = np.full((len(prompts), k, longest), -1, np.int16)
    for i, row in enumerate(rows):
        for j, response in enumerate(row):
            tokens[i, j, : len(response.tokens)] = response.tokens
    logprobs = np.array([[r.logprob for r in row] for row in rows])
    return {
        "tokens": tokens,
        "logprobs": logprobs,
        "rewards": np.reshape(rewards, (len(prompts), k)),
    }


def quantiles(rewards: np.ndarray) -> np.ndarray:
    """Mid-ranks of rewards among their row."""
    below = (rewards[:, None, :] < rewards[:, :, None]).mean(-1)
    return below + (rewards[:, None, :] == rewards[:, :, None]).mean(-1) / 2


# A prompt's responses are a finite world in which a log-ratio is a policy. Win rates and KLs in it
# are exact, so nothing but the responses of the world is random, and policies are compared on the
# same ones.


def normalized(log_ratio: np.ndarray) -> np.ndarray:
    """Log-ratios to the reference whose ratios have mean 1 in each world."""
    shifted = log_ratio - log_ratio.max(1, keepdims=True)
    return shifted - np.log(np.exp(shifted).mean(1, keepdims=True))


def kl(log_ratio: np.ndarray) -> np.ndarray:
    """KL in each world, nats."""
    exact = normalized(log_ratio)
    return (np.exp(exact) * exact).mean(1)


def landed(log_ratio: np.ndarray, target: float) -> np.ndarray:
    """The multiple of a log-ratio whose mean KL is `target`."""
    scale = brentq(lambda a: kl(np.exp(a) * log_ratio).mean() - target, -12, 8, xtol=1e-10)
    return np.exp(scale) * log_ratio


def win_rate(rewards: np.ndarray, log_ratio: np.ndarray, procedure) -> np.ndarray:
    """The win rate in each world against the reference, both decoded by `procedure`."""
    weights = np.exp(normalized(log_ratio))
    weights /= weights.sum(1, keepdims=True)
    even = np.full(weights.shape, 1 / weights.shape[1])
    return np.asarray(ia.finite.win_rate(rewards, weights, even, procedure))


def correlation(one: np.ndarray, other: np.ndarray) -> float:
    """The correlation within prompts."""
    a, b = (x - x.mean(1, keepdims=True) for x in (one, other))
    return float((a * b).sum() / np.sqrt((a * a).sum() * (b * b).sum()))


def mean(values: np.ndarray) -> dict[str, float]:
    """A mean over prompts and its standard error."""
    return {
        "value": float(values.mean()),
        "stderr": float(values.std(ddof=1) / np.sqrt(len(values))),
    }
