"""The shaped reward as OpenRLHF's `reward_func`: no import of OpenRLHF, one response a call.

A file of two lines names the run, and `--reward.remote_url` the file; `infalign export-prompts`
writes it:

    from infalign.frameworks.openrlhf import reward_function
    reward_func = reward_function(run="/runs/mine")

OpenRLHF calls it in threads, one for each response; they are scored together.
"""

import json
import logging
import math
from collections.abc import Callable

from infalign.errors import DataError

from .microbatch import MicroBatcher
from .opened import open_run, open_scorer, policy_text
from .policy_text import PolicyText
from .scorer import Asked, Scorer, ShapedScorer
from .stopping import loudly

CLIP = 10.0
"""OpenRLHF cuts a reward less its baseline to ± this, unless told otherwise."""


def reward_function(
    *, window: float = 0.005, batch: int = 256, model: str | None = None, **source
) -> Callable[[list, list, list], dict]:
    """A `reward_func(queries, prompts, labels)`.

    Labels are prompt ids, or JSON with a `prompt_id`; without one the prompt's text names it.

    - `source`: arguments of `open_scorer`: `run` or `server`, or the pieces.
    - `model`: folder or hub id of the policy, whose special tokens end responses; the run's own
      with `run`.
    - `window`, `batch`: seconds and responses, as of `MicroBatcher`.

    The function raises TrainingStopped for whatever goes wrong, an unknown prompt for one: OpenRLHF
    would note an `Exception` in its log and go on without a reward.
    """
    with loudly():
        score = MicroBatcher(open_scorer(**source), window=window, batch=batch)
        text = _text(model, source.get("run"), source.get("directory"))
    _warn_of_clipping(score.call)

    def reward_func(queries, prompts, labels) -> dict:
        """`rewards`; quantiles as `scores`, which filters of prompts read; both in the log."""
        import torch

        with loudly():
            asked = [
                score.call.resolve(Asked(_key(label, prompt), text.response(query, prompt)))
                for query, prompt, label in zip(queries, prompts, labels, strict=True)
            ]
            found = score.submit(asked).result()
        columns = {name: torch.tensor([f[name] for f in found]) for name in found[0]}
        rewards = columns.pop("score")
        return {
            "rewards": rewards,
            "scores": columns.get("quantile", rewards),
            "extra_logs": columns,
        }

    return reward_func


def clip_range(transform, samples: int) -> float:
    """The smallest whole number, 10 or more, that no reward less its baseline goes beyond.

    - `samples`: reference samples per prompt, which bound the quantiles an infinite transform is
      given.
    """
    end = 0.0 if transform.bounded else 0.5 / (samples + 1)
    low, high = transform(end), transform(1 - end)
    return max(CLIP, float(math.ceil(abs(high - low))))


def _warn_of_clipping(scorer: Scorer) -> None:
    if not isinstance(scorer, ShapedScorer):
        return
    needed = clip_range(scorer.shaper.transform, scorer.shaper.store.samples)
    if needed > CLIP:
        logging.getLogger(__name__).warning(
            "Shaped rewards of one prompt differ by more than %g, where OpenRLHF clips them unless "
            "it is given --reward.clip_range -%g %g",
            CLIP,
            needed,
            needed,
        )


def _text(model: str | None, run, directory) -> PolicyText:
    text = PolicyText(model) if model else None
    if text is None and run is not None:
        text = policy_text(open_run(run, directory))
    if text is None:
        raise DataError(
            "OpenRLHF's queries hold special tokens, and nothing says which. Name the policy: "
            "reward_function(model=...)"
        )
    return text


def _key(label, prompt: str) -> str:
    """The prompt's name: its label, the `prompt_id` of a label in JSON, or its text."""
    if isinstance(label, str) and label.lstrip().startswith("{"):
        try:
            label = json.loads(label)
        except ValueError:
            pass  # an id that begins so
    if isinstance(label, dict):
        label = label.get("prompt_id")
    return prompt if label is None or label == "" else str(label)
