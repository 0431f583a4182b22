"""Settings that make TRL's trainers maximize E[R] − β KL, and steer them to a target KL.

If the KL of the whole sequence is part of the reward, with k1 = Σ_t log π/π_ref, the expected
gradient is that of the objective itself (arXiv:2512.21852). If the KL is a per-token loss instead,
it is not.
"""

import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from peft import PeftModel
from transformers import TrainerCallback
from transformers.trainer_callback import ExportableState
from trl import GRPOConfig, RLOOConfig

from infalign.models.loading import prompt_text, tokenize
from infalign.models.logits import collate, response_logits

from .groups import GroupGRPO, GroupRLOO

__all__ = ["AbstractSteps", "GRPOSteps", "KLController", "LogRatioReward", "RLOOSteps"]

LOG = logging.getLogger(__name__)

SHARE, LEAST_STEPS, FAR = 0.1, 5, 4.0
"""Share of the steps, and number of steps, after which the KL is judged; and the factor that is far
from the target."""

logging.getLogger("trl.trainer.rloo_trainer").addFilter(
    lambda record: "`model_init_kwargs` will be ignored" not in record.getMessage()
)  # they are not: TRL loads the reference with them

BATCH = 64
"""Maximum number of sequences whose logits are in memory at once."""


class AbstractSteps(ABC):
    """How one trainer takes β and reports the KL."""

    trainer_type: type
    arguments_type: type
    trainer: Any = None
    """Set once the trainer exists."""

    @abstractmethod
    def options(self, beta: float) -> dict:
        """Trainer arguments that keep the objective."""

    @abstractmethod
    def rewards(self, reward: Callable) -> list[Callable]:
        """The trainer's reward functions, `reward` first."""

    @abstractmethod
    def steer(self, beta: float) -> None:
        """Set β for the steps to come."""

    @abstractmethod
    def sequence_kl(self, logs: Mapping[str, float], prefix: str = "") -> float | None:
        """Nats per sequence from the trainer's log; None if the log has no KL."""


class RLOOSteps(AbstractSteps):
    """Unchanged RLOO, which subtracts β k1 from the reward before the leave-one-out baseline."""

    trainer_type, arguments_type = GroupRLOO, RLOOConfig

    def options(self, beta):
        # TRL loads the reference itself, and would spread it over all GPUs that it sees, or leave a
        # part in the memory of the processor.
        return {"beta": beta, "model_init_kwargs": {"device_map": None}}

    def rewards(self, reward):
        return [reward]

    def steer(self, beta):
        self.trainer.beta = beta

    def sequence_kl(self, logs, prefix=""):
        if f"{prefix}kl" not in logs:
            return None
        # TRL logs the mean per token; the objective is per sequence.
        return logs[f"{prefix}kl"] * logs[f"{prefix}completions/mean_length"]


class GRPOSteps(AbstractSteps):
    """GRPO without the parts that change the objective.

    A second reward, k1 with weight −β, replaces GRPO's own KL, which is a per-token loss. Rewards
    are not divided by their standard deviation, and token losses are summed. GRPO's baseline is the
    mean of the whole group, so all advantages are (m − 1)/m times RLOO's.
    """

    trainer_type, arguments_type = GroupGRPO, GRPOConfig

    def __init__(self, log_ratio: "LogRatioReward"):
        self.log_ratio = log_ratio

    def options(self, beta):
        return {
            "beta": 0.0,
            "reward_weights": [1.0, -beta],
            "scale_rewards": "none",
            "loss_type": "dr_grpo",
        }

    def rewards(self, reward):
        return [reward, self.log_ratio]

    def steer(self, beta):
        self.log_ratio.trainer = self.trainer
        self.trainer.reward_weights[1] = -beta

    def sequence_kl(self, logs, prefix=""):
        return logs.get(f"{prefix}rewards/{self.log_ratio.__name__}/mean")


class LogRatioReward:
    """k1 = Σ_t log π/π_ref of each completion at the sampling temperature, in nats, as a reward.

    Its mean over samples of π is KL(π ‖ π_ref). The policy is the model of `trainer`, which is set
    when training begins.

    - `reference`: the reference, or None for the policy without its adapters.
    """

    def __init__(self, reference, tokenizer, temperature: float):
        self.reference, self.tokenizer, self.temperature = reference, tokenizer, temperature
        self.trainer: Any = None
        self.__name__ = "sequence_kl"

    @torch.no_grad()
    def __call__(self, prompts, completions, *, completion_ids, **columns) -> list[float]:
        """One log-ratio per completion."""
        model = self.trainer.model
        texts = [p if isinstance(p, str) else prompt_text(self.tokenizer, p) for p in prompts]
        pairs = list(zip(tokenize(self.tokenizer, texts)["input_ids"], completion_ids, strict=True))
        log_ratios: list[float] = []
        size = min(BATCH, self.trainer.args.per_device_train_batch_size)
        for start in range(0, len(pairs), size):
            batch = [x.to(model.device) for x in self._collate(pairs[start : start + size])]
            if isinstance(model, PeftModel):
                with model.disable_adapter():
                    reference = self._logprob(model, *batch)
            else:
                reference = self._logprob(self.reference.to(model.device), *batch)
            log_ratios += (self._logprob(model, *batch) - reference).tolist()
        return log_ratios

    def _collate(self, pairs):
        prompts, completions = zip(*pairs, strict=True)
        return collate(prompts, completions, self.tokenizer.pad_token_id)

    def _logprob(self, model, ids, mask, in_response) -> torch.Tensor:
        length = in_response.shape[1]
        logits = response_logits(model, ids, mask, length, self.temperature)
        logprobs = logits.log_softmax(-1).gather(2, ids[:, -length:, None])[..., 0]
        return (logprobs * in_response).sum(1)


class KLController(TrainerCallback, ExportableState):
    """Control of β: it is higher while the measured sequence KL is above the target.

    log β is the sum of two parts: a proportional one, `response` times the relative excess of a
    running mean of the KL, which is at most 1 either way; and an integral one, which starts from
    theory's β and moves by `gain` times the excess in each step in which the KL does not come
    nearer to the target. A policy is slower than β, so an integral alone winds up: it goes on until
    the KL is there, by when β may be a hundred times too high and the reward counts for nothing.

    The controller's state is saved in checkpoints. Source: PID control of Lagrange multipliers,
    arXiv:2007.03964; conditional integration is a usual remedy for windup.
    """

    def __init__(
        self,
        target_kl: float,
        beta: float,
        steps: AbstractSteps,
        *,
        gain: float = 0.05,
        response: float = 1.0,
        memory: float = 0.8,
    ):
        self.target_kl, self.gain, self.response, self.memory = target_kl, gain, response, memory
        self.integral = beta
        self.average: float | None = None
        self.steps = steps
        self.warned = False

    @property
    def beta(self) -> float:
        """β for the steps to come."""
        return self.integral * float(np.exp(self.response * self.excess))

    @property
    def excess(self) -> float:
        """Relative excess of the mean KL over the target, in [-1, 1]; 0 before the first step."""
        average = self.target_kl if self.average is None else self.average
        return float(np.clip(average / self.target_kl - 1, -1, 1))

    def state(self):
        """The controller's state for a checkpoint."""
        return {"args": {}, "attributes": {"integral": self.integral, "average": self.average}}

    def _doubt(self, step: int, steps: int, rate: float | None) -> None:
        """Warn once, after a tenth of the steps, if the KL is far from the target."""
        if self.warned or self.average is None or not LEAST_STEPS <= step or step < SHARE * steps:
            return
        self.warned = True
        ratio = self.average / self.target_kl
        if 1 / FAR < ratio < FAR:
            return
        verb, factor = ("Raise", 4.0) if ratio < 1 else ("Lower", 0.25)
        change = "" if rate is None else f", such as train.learning_rate={factor * rate:.2g}"
        LOG.warning(
            "After %d of %d steps the KL is %.2g nats, far from the target of %g. %s "
            "train.learning_rate%s. Stop with Ctrl-C and run the same command with that setting: "
            "the calibration and the warm start are kept, and the steps start again.",
            *(step, steps, self.average, self.target_kl, verb, change),
        )

    def on_train_begin(self, args, state, control, **kwargs):
        # To restore a callback, the trainer would create a new one, which has no reference to the
        # trainer.
        saved = state.stateful_callbacks.get("KLController") if state.global_step else None
        if saved:
            own = saved["attributes"]
            self.average = own["average"]
            self.integral = own["integral"] if "integral" in own else own["beta"]  # former versions
        self.steps.steer(self.beta)

    def on_log(self, args, state, control, logs=None, **kwargs):
        kl = self.steps.sequence_kl(logs or {})
        if kl is None:
            return
        before, beta = kl if self.average is None else self.average, self.beta
        self.average = self.memory * before + (1 - self.memory) * kl
        # The trainer has already stored its log row, so the values are added to the stored row as
        # well.
        logs |= {"infalign/sequence_kl": kl, "infalign/average_kl": self.average}
        state.log_history[-1] |= {
            "infalign/sequence_kl": kl,
            "infalign/average_kl": self.average,
            "infalign/beta": beta,
        }
        self._doubt(state.global_step, state.max_steps, getattr(args, "learning_rate", None))
        if (self.average - before) * self.excess >= 0:
            self.integral *= float(np.exp(self.gain * self.excess))
        self.steps.steer(self.beta)
