"""What stops a training before a number that is none reaches a weight."""

import math

import torch
from transformers import TrainerCallback

from infalign.errors import DataError
from infalign.shaping import reward_name

LARGEST = 1e30
"""Size of a reward from which on trainers, which add them up in single precision, overflow and make
zeros of what comes out, without a word."""

SHOWN = 5
"""Prompt ids that a message names."""


class CheckedReward:
    """A reward function whose rewards must be numbers; it remembers the prompts it was asked of."""

    def __init__(self, reward, *, key: str = "prompt_id"):
        self.reward, self.key, self.prompt_ids = reward, key, []
        self.__name__ = reward_name(reward)

    def __call__(self, prompts, completions, **columns) -> list[float]:
        """The rewards, as they are. Raises DataError naming the first prompt of a bad one."""
        self.prompt_ids = list(columns[self.key])
        rewards = self.reward(prompts=prompts, completions=completions, **columns)
        bad = [i for i, r in enumerate(rewards) if not (math.isfinite(r) and abs(r) < LARGEST)]
        if bad:
            raise DataError(
                f"The training reward `{self.__name__}` is {rewards[bad[0]]} for a completion of "
                f"prompt {self.prompt_ids[bad[0]]!r} ({len(bad)} of {len(rewards)} are infinite, "
                f"no number or beyond {LARGEST:g}): {str(completions[bad[0]])[:80]!r}. No step was "
                "taken; use a bounded transform."
            )
        return rewards


class FiniteGradients(TrainerCallback):
    """Raises DataError before a step whose gradient is not finite.

    - `prompt_ids`: returns the prompts of the step.
    """

    def __init__(self, prompt_ids):
        self.prompt_ids = prompt_ids

    def on_pre_optimizer_step(self, args, state, control, model=None, **kwargs):
        gradients = [p.grad for p in model.parameters() if p.grad is not None]
        # Where a norm is infinite, clipping has made zeros of most gradients, and nan of that one.
        if torch.isfinite(torch.nn.utils.get_total_norm(gradients)):
            return
        ids = list(dict.fromkeys(self.prompt_ids()))
        names = ", ".join(map(repr, ids[:SHOWN])) + (" …" if len(ids) > SHOWN else "")
        raise DataError(
            f"The gradient of step {state.global_step + 1} is not finite, from prompts {names} "
            f"({len(ids)} in all). No weight was changed by it; the last checkpoint is kept. Use "
            "a smaller step size, or look at these prompts."
        )
