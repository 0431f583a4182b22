"""The choice of the best checkpoint of an on-policy training, on validation prompts."""

from collections.abc import Callable, Sequence

from transformers import TrainerCallback

from infalign.config import Training
from infalign.core import RankProcedure
from infalign.evaluation.gold import gold_reward
from infalign.methods import Objective
from infalign.shaping import reward_name
from infalign.shaping.grouping import group_size
from infalign.shaping.reward_function import call, checked_output

from .kl_control import AbstractSteps

__all__ = ["BestObjective", "GoldOfSelected", "metric"]


def metric(train: Training) -> str:
    """The metric of a checkpoint's evaluation whose highest value wins."""
    return "objective" if train.gold is None else "gold"


class BestObjective(TrainerCallback):
    """Evaluates every checkpoint on validation prompts, also the last, and logs the objective
    E[R] − β KL at the β from theory. The trainer loads the best checkpoint at the end."""

    def __init__(self, objective: Objective, steps: AbstractSteps, reward: str):
        self.objective, self.steps = objective, steps
        self.estimate = objective.estimate or f"rewards/{reward}/mean"

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step >= state.max_steps:  # the last checkpoint competes too
            control.should_evaluate = True

    def on_evaluate(self, args, state, control, metrics=None, **kwargs):
        kl = self.steps.sequence_kl(metrics, "eval_")
        if kl is None:  # not an evaluation on samples of the policy
            return
        value = metrics[f"eval_{self.estimate}"] - self.objective.beta * kl
        metrics["eval_objective"] = value
        state.log_history[-1] |= {"eval_objective": value, "eval_sequence_kl": kl}


class GoldOfSelected:
    """A training reward that, when the trainer evaluates, also logs `gold`: the mean of a held-out
    reward over the responses that the procedure selects from each group.

    - `proxy`: the raw reward, by which the procedure selects.
    - `gold`: the held-out reward.
    - `steps`: the trainer's.
    """

    def __init__(
        self,
        reward: Callable[..., Sequence[float]],
        proxy: Callable,
        gold: Callable,
        procedure: RankProcedure,
        steps: AbstractSteps,
    ):
        self.reward, self.proxy, self.gold = reward, proxy, gold
        self.procedure, self.steps = procedure, steps
        self.__name__ = reward_name(reward)

    def __call__(self, *, log_metric: Callable[[str, float], None], **given) -> Sequence[float]:
        """The training rewards; arguments as TRL passes them."""
        if not self.steps.trainer.model.training:
            m = group_size(given["prompt_id"])
            gold, proxy = (self._scored(r, given).reshape(-1, m) for r in (self.gold, self.proxy))
            log_metric("gold", gold_reward(gold, proxy, self.procedure).value)
        return call(self.reward, {"log_metric": log_metric, **given})

    @staticmethod
    def _scored(reward: Callable, given: dict):
        name, ids = reward_name(reward), given["prompt_id"]
        return checked_output(call(reward, given), given["completions"], name, ids)
