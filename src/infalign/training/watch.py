"""The inference-time win rate during training, on held-out prompts."""

import random
from collections.abc import Sequence
from contextlib import contextmanager

import numpy as np
import torch
from transformers import TrainerCallback
from transformers.trainer_callback import ExportableState

from infalign import _check
from infalign.core import AbstractProcedure, finite_rewards, require_by_rank
from infalign.errors import DataError
from infalign.evaluation.divergence import nats_per_sequence
from infalign.evaluation.estimators import win_rate
from infalign.models.hf import LanguageModel
from infalign.models.interfaces import Scorer
from infalign.models.kl import sequence_kl
from infalign.models.logits import check_top_p
from infalign.prompts import Prompt, require_scorable, score_responses
from infalign.seeds import derived
from infalign.stores import CalibrationStore

__all__ = [
    "WinRateCallback",
    "undisturbed",
]


class WinRateCallback(TrainerCallback, ExportableState):
    """Measures the causal language model that a transformers trainer trains.

    Before the first step, and then every `every` steps, the policy answers held-out prompts, a few
    times each. The responses are scored and compared with reference rewards under the procedure.
    Each measurement adds a row to the trainer's log: `infalign/win_rate` with its 95 % interval,
    `infalign/win_rate_low` and `infalign/win_rate_high`; `infalign/mean_tokens`; and, with a
    reference model, `infalign/kl` in nats per sequence.

    Training is bit-for-bit the same with and without this callback: it uses its own random numbers
    and restores the model's mode. The interval is that of a single measurement. A change between
    measurements can be significant sooner than the interval suggests, since the prompts are the
    same each time; `evaluation.power` gives the prompts and samples that a difference needs. In
    distributed training every process makes the same measurement.

    - `reward`: a TRL reward function; it gets every prompt in its own form, a text or messages,
      its id as the column `prompt_id`, and its other columns.
    - `prompts`: at least 2, none of them trained on.
    - `procedure`, `against`: how policy and reference are decoded; they must select by rank.
      Default of `against`: `procedure`.
    - `every`: steps between measurements.
    - `samples`: responses per prompt, at least as many as the procedures draw.
    - `reference`: rewards of the reference, shape (prompts, k), or a store that has the prompts.
      Default: the rewards of `samples` responses of the policy before the first step, which is
      wrong for a policy that does not start from the reference. Checkpoints include these rewards.
    - `reference_model`: for the KL, on the policy's device.
    - `temperature`, `top_p`, `max_new_tokens`, `strip`, `batch_size`: as in `LanguageModel`.
    - `seed`: the seed and the number of the step determine the responses.

    To also report every row to the trainer's trackers, set the attribute `trainer` to the trainer.
    """

    def __init__(
        self,
        reward: Scorer,
        prompts: Sequence[Prompt],
        procedure: AbstractProcedure,
        *,
        every: int,
        samples: int,
        against: AbstractProcedure | None = None,
        reference: np.ndarray | CalibrationStore | None = None,
        reference_model: LanguageModel | None = None,
        temperature: float = 1.0,
        top_p: float = 1.0,
        max_new_tokens: int = 128,
        strip: bool = False,
        batch_size: int = 256,
        seed: int = 0,
    ):
        self.reward, self.prompts, self.procedure = reward, list(prompts), procedure
        self.against = against or procedure
        require_scorable(reward, self.prompts)
        require_by_rank("procedure", procedure)
        require_by_rank("against", self.against)
        self.every = _check.count("every", every)
        self.samples = _check.count("samples", samples)
        if len(self.prompts) < 2:
            raise ValueError(
                f"`prompts` must be at least 2 for an interval; got {len(self.prompts)}."
            )
        self.reference_model, self.batch_size, self.seed = reference_model, batch_size, seed
        self.sampling = {
            "temperature": _check.positive("temperature", temperature),
            "top_p": check_top_p("top_p", top_p),
            "max_new_tokens": _check.count("max_new_tokens", max_new_tokens),
            "strip": _check.truth("strip", strip),
        }
        self.reference = None if reference is None else self._rewards(reference)
        drawn = np.full(len(self.prompts), self.samples)
        _check.enough_samples("samples", drawn, procedure.draws, procedure)
        if self.reference is None:
            _check.enough_samples("samples", drawn, self.against.draws, self.against)
        self.trainer = None

    def state(self):
        """The callback's state for a checkpoint: the reference rewards."""
        rewards = None if self.reference is None else self.reference.tolist()
        return {"args": {}, "attributes": {"reference": rewards}}

    def on_train_begin(self, args, state, control, model=None, processing_class=None, **kwargs):
        if state.global_step == 0:
            self._measure(args, state, control, model, processing_class)
        elif self.reference is None:
            saved = state.stateful_callbacks.get(type(self).__name__)
            if not saved:
                raise DataError(
                    "The checkpoint has no reference rewards to go on with, since it was made "
                    "without this callback. Pass `reference`."
                )
            self.reference = self._rewards(np.array(saved["attributes"]["reference"]))

    def on_step_end(self, args, state, control, model=None, processing_class=None, **kwargs):
        if state.global_step % self.every == 0:
            self._measure(args, state, control, model, processing_class)

    def _measure(self, args, state, control, model, tokenizer) -> None:
        conversations = [p.messages for p in self.prompts]
        with undisturbed(model):
            policy = LanguageModel.of(model, tokenizer, **self.sampling)
            if self.reference is None:
                _, self.reference = self._draw(policy, conversations, 0)
            responses, rewards = self._draw(policy, conversations, 1 + state.global_step)
            kl = None
            if self.reference_model is not None:
                kl = sequence_kl(policy, self.reference_model, conversations, responses)
        estimate = win_rate(rewards, self.reference, self.procedure, against=self.against)
        row = {
            "infalign/win_rate": estimate.value,
            "infalign/win_rate_low": estimate.low,
            "infalign/win_rate_high": estimate.high,
            "infalign/mean_tokens": float(np.mean([len(r.tokens) for x in responses for r in x])),
        }
        if kl is not None:
            row["infalign/kl"] = nats_per_sequence(kl.exact).value
        row["step"] = state.global_step
        state.log_history.append(row)
        if self.trainer is not None:
            # Bypasses `Trainer.log`, where TRL's trainers reset their own averages, and the
            # handler's `on_log`, which would cancel a log that is due at this step.
            handler = self.trainer.callback_handler
            handler.call_event("on_log", args, state, control, logs=dict(row))

    def _draw(self, policy, conversations, number: int):
        """Responses, and their rewards of shape (prompts, samples)."""
        seed = derived(self.seed, number)
        responses = policy.sample(
            conversations, self.samples, seed=seed, batch_size=self.batch_size
        )
        texts = [[r.text for r in row] for row in responses]
        return responses, np.array(score_responses(self.reward, self.prompts, texts))

    def _rewards(self, reference) -> np.ndarray:
        """Reference rewards as a checked array with a row for each prompt."""
        if isinstance(reference, CalibrationStore):
            reference.require_strip(bool(self.sampling["strip"]))
            unknown = [p.id for p in self.prompts if p.id not in reference.rewards]
            if unknown:
                raise DataError(
                    f"The calibration store has no rewards for prompt {unknown[0]!r} "
                    f"({len(unknown)} of {len(self.prompts)} prompts are unknown). Calibrate these "
                    "prompts too, or leave `reference` out to draw from the policy as it starts."
                )
            reference = [reference.rewards[p.id] for p in self.prompts]
        reference = finite_rewards("reference", reference)
        if len(reference) != len(self.prompts):
            raise ValueError(
                "`reference` must have one row for each of `prompts`; got "
                f"{len(reference)} rows for {len(self.prompts)} prompts."
            )
        drawn = np.full(len(reference), reference.shape[1])
        _check.enough_samples("reference", drawn, self.against.draws, self.against)
        return reference


@contextmanager
def undisturbed(model):
    """Inside, the model is in evaluation mode and gradients are off. Afterward, the mode of every
    submodule and all random number generators are restored."""
    training = [part for part in model.modules() if part.training]
    plain, numbers = random.getstate(), np.random.get_state()
    # Its own GPU only: to ask another one for its state takes memory there.
    devices = {weight.device for weight in model.parameters() if weight.is_cuda}
    model.eval()
    try:
        with torch.no_grad(), torch.random.fork_rng(list(devices)):
            yield
    finally:
        for part in training:
            part.training = True
        random.setstate(plain)
        np.random.set_state(numbers)
