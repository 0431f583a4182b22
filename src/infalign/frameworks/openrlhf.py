"""The shaped reward as OpenRLHF's `reward_func`: no import of OpenRLHF, one response per call.

`--reward.remote_url` points to a two-line file that names the run. `infalign export-prompts` writes
the file:

    from infalign.frameworks.openrlhf import reward_function
    reward_func = reward_function(run="/runs/mine")

OpenRLHF calls the function in one thread per response; the responses are scored together.
"""

import logging
import math
from collections.abc import Callable, Mapping
from typing import Any

from infalign.errors import DataError

from .callback import stops_training
from .microbatch import MicroBatcher
from .opened import open_run, open_scorer, policy_text
from .prompt_text import PolicyText
from .scorer import Asked, Scored, Scorer, ShapedScorer, label_of

__all__ = [
    "clip_range",
    "reward_function",
]

LOG = logging.getLogger(__name__)

CLIP = 10.0
"""OpenRLHF clips a reward minus its baseline to ±`CLIP` by default."""


def reward_function(
    *, window: float = 0.005, batch: int = 256, model: str | None = None, **source
) -> Callable[[list, list, list], dict]:
    """A `reward_func(queries, prompts, labels)`.

    Labels are prompt ids, or JSON with a `prompt_id` and columns for the reward. Without either,
    the response's prompt is identified by its text.

    - `source`: arguments of `open_scorer`: `run`, `server`, or the parts.
    - `model`: folder or hub id of the policy, whose special tokens end responses. Default with
      `run`: the run's own.
    - `window`, `batch`: seconds and responses, as in `MicroBatcher`.

    The function raises TrainingStopped for every error, such as an unknown prompt: OpenRLHF would
    log an `Exception` and continue without a reward.
    """
    with stops_training():
        scorer = open_scorer(**source)
        text = _text(model, source)
    batcher: MicroBatcher[Asked, Scored] = MicroBatcher(scorer, window=window, batch=batch)
    _warn_of_clipping(scorer)

    def reward_func(queries, prompts, labels) -> dict:
        """The `rewards`, and the quantiles as `scores`, which prompt filters read; both are
        logged."""
        import torch

        with stops_training():
            asked = [
                scorer.resolve(_asked(label, prompt, text.response(query, prompt)))
                for query, prompt, label in zip(queries, prompts, labels, strict=True)
            ]
            scored = batcher.submit(asked).result()
        columns = {name: torch.tensor([dict(s)[name] for s in scored]) for name in scored[0]}
        rewards = columns.pop("score")
        return {
            "rewards": rewards,
            "scores": columns.get("quantile", rewards),
            "extra_logs": columns,
        }

    return reward_func


def clip_range(transform, samples: int) -> float:
    """An integer, at least 10, that no reward minus its baseline exceeds in absolute value.

    - `samples`: reference samples per prompt, which bound the quantiles that an unbounded transform
      receives.
    """
    end = 0.0 if transform.bounded else 0.5 / (samples + 1)
    low, high = transform(end), transform(1 - end)
    return max(CLIP, float(math.ceil(abs(high - low))))


def _warn_of_clipping(scorer: Scorer) -> None:
    if not isinstance(scorer, ShapedScorer):
        return
    needed = clip_range(scorer.shaper.transform, scorer.shaper.store.samples)
    if needed > CLIP:
        LOG.warning(
            "Shaped rewards of one prompt differ by more than %g, where OpenRLHF clips them unless "
            "it is given --reward.clip_range -%g %g",
            CLIP,
            needed,
            needed,
        )


def _text(model: str | None, source: Mapping[str, Any]) -> PolicyText:
    trusted = source.get("trust_remote_code", False)
    text = PolicyText(model, trusted) if model else None
    if text is None and source.get("run") is not None:
        run = open_run(source["run"], source.get("directory"), trust_remote_code=trusted)
        text = policy_text(run)
    if text is None:
        raise DataError(
            "OpenRLHF's queries contain special tokens, which only the policy's tokenizer knows. "
            "Name the policy: reward_function(model=...)"
        )
    return text


def _asked(label, prompt: str, response: str) -> Asked:
    """A response to the prompt that its label names, or its text, with the label's columns."""
    key, columns = label_of(label)
    if key is None:
        return Asked(prompt, response, by_text=True, columns=columns)
    return Asked(key, response, columns=columns)
