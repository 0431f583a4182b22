"""The decoding of prompts with a procedure: its checks, its models and its work."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from infalign._look import Shown
from infalign.config import SamplingSettings
from infalign.decoding.selection import Decoder, MajorityVote, reads, try_vote
from infalign.models import samplers
from infalign.models.fingerprints import policy_precision
from infalign.models.inspection import inspect_policy, inspect_reward
from infalign.models.interfaces import Sampler, Scorer
from infalign.models.precision import Dtype
from infalign.models.rewards import load_reward
from infalign.prompts import Prompt, require_scorable, try_out
from infalign.stores import CalibrationStore

from .check import Check, writable
from .made_for import require_made_for
from .workload import Workload

__all__ = ["DecodingWork"]


@dataclass(frozen=True)
class DecodingWork(Shown):
    """Prompts, and how they are answered."""

    model: str
    """The policy, a specification for `load_sampler`."""

    procedure: Decoder
    prompts: Sequence[Prompt]
    sampling: SamplingSettings
    reward: str | None = None
    """What the procedure selects by, a specification for `load_reward`."""

    calibration: Path | None = None
    """A calibration store for the same prompts and reward."""

    references: int = 0
    """Responses to each prompt that are drawn to calibrate with, if there is no store."""

    answers: str = "numeric"
    """How a majority vote extracts answers, a specification for `load_answers`."""

    out: Path | None = None
    """A file for the results."""

    seed: int = 0
    dtype: Dtype = "auto"
    trust_remote_code: bool = False

    @property
    def loading(self) -> dict[str, Any]:
        """How models are loaded."""
        return {"dtype": self.dtype, "trust_remote_code": self.trust_remote_code}

    @cached_property
    def sampler(self) -> Sampler:
        """The loaded policy."""
        return samplers.load_sampler(self.model, **self.sampling.model_dump(), **self.loading)

    @cached_property
    def scorer(self) -> Scorer | None:
        """The loaded reward."""
        if self.reward is None:
            return None
        return load_reward(self.reward, **self.loading)

    @cached_property
    def store(self) -> CalibrationStore | None:
        """The opened store. Raises DataError if it is of another reward, of other prompts or of
        other texts."""
        if self.calibration is None:
            return None
        store = CalibrationStore.open(self.calibration)
        if "dtype" in store.provenance:
            store.require(dtype=policy_precision(self.model, **self.loading))
        store.require_strip(self.sampling.strip)
        store.require_answer(self.sampling.answer)
        store.positions([p.id for p in self.prompts])
        require_made_for(store, self.reward, self.prompts, **self.loading)
        return store

    @property
    def calibrated(self) -> bool:
        """Whether reference responses are drawn first."""
        return self.calibration is None and reads(self.procedure) == "quantiles"

    @property
    def draws(self) -> int:
        """Responses to a prompt, at most."""
        return self.procedure.draws + (self.references if self.calibrated else 0)

    def checks(self) -> Iterator[Check]:
        """Everything that can be known before the first response."""
        if self.out is not None:
            yield writable(self.out, file=True)
        yield Check("model", self._inspect_policy)
        if self.reward is not None:
            yield Check("reward", self._inspect_reward)
            yield Check("reward on two responses", self._try_reward, ("reward",))
        if self.calibration is not None:
            yield Check("calibration", lambda: self.store)
        if isinstance(self.procedure, MajorityVote):
            yield Check("answers of two responses", partial(try_vote, self.procedure))

    def workload(self) -> Workload:
        """The work, with as many draws as the procedure may need."""
        responses = len(self.prompts) * self.draws
        scored = responses if self.reward is not None else 0
        return Workload("sample", generated=responses, scored=scored, loaded=1)

    def _inspect_policy(self) -> None:
        inspect_policy(
            self.model,
            trust_remote_code=self.trust_remote_code,
            conversations=[p.messages for p in self.prompts],
            keys=[p.id for p in self.prompts],
            max_new_tokens=self.sampling.max_new_tokens,
        )

    def _inspect_reward(self) -> None:
        inspect_reward(
            self.reward or "",
            trust_remote_code=self.trust_remote_code,
            conversations=[p.messages for p in self.prompts],
            columns={name for p in self.prompts for name in p.columns},
        )

    def _try_reward(self) -> None:
        require_scorable(self.scorer, self.prompts)
        if self.scorer is not None:
            try_out(self.scorer, self.prompts)
