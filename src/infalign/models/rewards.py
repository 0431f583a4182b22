"""A reward by name: a classifier, a Python function, or a bundled one."""

import importlib
from collections.abc import Callable, Sequence

import numpy as np

from infalign.demo import bundled
from infalign.errors import DataError
from infalign.shaping import checked_rewards, reward_name


def load_reward(spec: str, *, trust_remote_code: bool = False) -> Callable[..., Sequence[float]]:
    """The TRL reward function that `spec` names.

    - `python:package.module:function`: called with `prompts`, `completions` and keyword columns.
    - `bundled:helpful`, `bundled:harmless`: the demonstration reward models.
    - anything else: folder or hub id of a sequence classifier with one output.

    Raises DataError when there is no such reward.
    """
    if spec.startswith("python:"):
        return _python_function(spec)
    from .classifier import ClassifierReward

    path = bundled(spec, "reward") or spec
    return ClassifierReward(path, trust_remote_code=trust_remote_code)


def score(reward, conversations, texts: Sequence[Sequence[str]], prompt_ids) -> np.ndarray:
    """Raw rewards of each prompt's responses, shape (prompts, responses), checked."""
    n = len(texts[0])
    prompts = [list(c) for c in conversations for _ in range(n)]
    flat = [text for row in texts for text in row]
    completions = [[{"role": "assistant", "content": text}] for text in flat]
    ids = [i for i in prompt_ids for _ in range(n)]
    values = reward(prompts=prompts, completions=completions, prompt_id=ids)
    return checked_rewards(values, flat, reward_name(reward)).reshape(len(texts), n)


def _python_function(spec):
    try:
        _, module, name = spec.split(":")
        return getattr(importlib.import_module(module), name)
    except ValueError:
        wrong = "it must read python:package.module:function"
    except (ImportError, AttributeError) as error:
        wrong = str(error)
    raise DataError(f"The reward {spec!r} cannot be loaded: {wrong}.")
