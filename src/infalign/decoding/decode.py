"""Run any procedure on a sampler and a scorer."""

import logging
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from infalign import _check
from infalign._look import Shown
from infalign.calibration.constant import constant_rewards
from infalign.core import Rewind
from infalign.errors import DataError
from infalign.models.interfaces import Conversation, Response, Sampler, Scorer
from infalign.models.rewards import score_ragged
from infalign.seeds import derived, generator
from infalign.stores import CalibrationStore
from infalign.text import conversation_of

from .selection import Decoder, MajorityVote, reads, select

LOG = logging.getLogger(__name__)

__all__ = ["Decoded", "decode", "draw_calibration"]


@dataclass(frozen=True)
class Decoded(Shown):
    """The responses that a procedure drew for one prompt, and the one it selected."""

    response: Response
    """The selected response."""

    index: int
    """Its index among the candidates."""

    candidates: tuple[Response, ...]
    """All responses drawn, in the order of drawing."""

    rewards: tuple[float, ...] | None
    """Raw reward of each candidate; None without a scorer."""

    quantiles: tuple[float, ...] | None = None
    """Calibrated reward of each candidate, if the procedure reads it."""

    answers: tuple[Hashable, ...] | None = None
    """Answer of each candidate, if the procedure reads it; None for candidates without one."""

    @property
    def kept(self) -> Response:
        """The former name of `response`."""
        return self.response

    @property
    def reward(self) -> float | None:
        """Raw reward of the selected response."""
        return None if self.rewards is None else self.rewards[self.index]

    @property
    def rank(self) -> int | None:
        """1 + the number of candidates with a higher reward than the selected response."""
        if self.rewards is None:
            return None
        return 1 + sum(r > self.rewards[self.index] for r in self.rewards)


@dataclass
class _Turns:
    """The responses to one prompt, while they are drawn."""

    id: str
    asked: str | Conversation
    columns: Mapping[str, Any]
    procedure: Decoder
    """A settled procedure, whose number of draws is known."""

    rng: np.random.Generator
    """The random generator for the selection."""

    drawn: list[Response] = field(default_factory=list)
    rewards: list[float] = field(default_factory=list)
    quantiles: list[float] = field(default_factory=list)

    @property
    def draws(self) -> int:
        """Number of responses to draw in this turn."""
        return 1 if isinstance(self.procedure, Rewind) else self.procedure.draws

    @property
    def done(self) -> bool:
        """Whether all responses are drawn. For Rewind: whether one passes or the tries are used
        up."""
        rewind = self.procedure
        if not isinstance(rewind, Rewind):
            return True
        return len(self.quantiles) >= rewind.max_tries or rewind.passes(self.quantiles[-1])

    def decoded(self, scored: bool) -> Decoded:
        """The selection from the drawn responses."""
        answers: tuple[Hashable, ...] | None = None
        values: Sequence = self.drawn
        if isinstance(self.procedure, MajorityVote):
            answers = values = tuple(self.procedure.answer(r.text) for r in self.drawn)
        elif self.procedure.reads == "rewards":
            values = self.rewards
        elif self.procedure.reads == "quantiles":
            values = self.quantiles
        index = select(self.procedure, values, rng=self.rng)
        return Decoded(
            response=self.drawn[index],
            index=index,
            candidates=tuple(self.drawn),
            rewards=tuple(self.rewards) if scored else None,
            quantiles=tuple(self.quantiles) or None,
            answers=answers,
        )


def decode(
    procedure: Decoder,
    sampler: Sampler,
    scorer: Scorer | None,
    conversations: Sequence[str | Conversation],
    *,
    seed: int,
    prompt_ids: Sequence[str] | None = None,
    columns: Sequence[Mapping[str, Any]] | None = None,
    calibration: CalibrationStore | None = None,
) -> list[Decoded]:
    """One selected response per conversation, with the candidates that it was selected from.

    The procedure determines the number of draws. For best-of-Poisson and mixtures it is random for
    each prompt; Rewind draws in turns, one response for each prompt whose last response did not
    pass. Sampling and selection use independent random numbers, which depend only on the seed and
    the prompt's id, so the result does not depend on the other conversations.

    - `sampler`, `scorer`: the policy and the reward. Sampling and MajorityVote need no scorer.
    - `conversations`: the prompts, each a text of the user or chat messages. The scorer gets them,
      and its completions, in the same form.
    - `prompt_ids`: the ids of the prompts in `calibration`, all different, also passed to the
      scorer as its column `prompt_id`. Default: "0", "1", …
    - `columns`: the other columns of each prompt, passed to the scorer by name.
    - `calibration`: reference rewards by the same scorer: an existing store, or `draw_calibration`.
      Needed for SoftBestOfN and Rewind, whose temperature and threshold are in units of the
      calibrated reward.

    Raises ValueError if a needed scorer or calibration is missing; DataError for rewards that are
    not finite, prompts without calibration, a calibration of texts with other white space, and
    samplers that return another number of responses.
    """
    reading = reads(procedure)
    if scorer is None and reading in ("rewards", "quantiles"):
        raise ValueError(f"`scorer` must be given: {procedure!r} selects by reward.")
    if calibration is None and reading == "quantiles":
        raise ValueError(
            f"`calibration` must be given: {procedure!r} reads the calibrated reward. Open a "
            "CalibrationStore, or draw reference samples with `draw_calibration`."
        )
    if calibration is not None and "sampling" in (made_with := _made_with(sampler)):
        calibration.require_strip(made_with["sampling"]["strip"])
        calibration.require_answer(made_with["sampling"]["answer"])
    _check.seed("seed", seed)
    prompts = []
    keys, beside = _ids(prompt_ids, conversations), columns or [{}] * len(conversations)
    for own, conversation, more in zip(keys, conversations, beside, strict=True):
        rng = generator(seed, "keep", own)
        prompts.append(_Turns(own, conversation, more, procedure.settled(rng), rng))
    waiting, turn = prompts, 0
    while waiting:
        new = _draw(sampler, waiting, derived(seed, "sample", turn))
        if scorer is not None:
            texts = [[r.text for r in row] for row in new]
            asked, ids = [p.asked for p in waiting], [p.id for p in waiting]
            rewards = score_ragged(scorer, asked, texts, ids, [p.columns for p in waiting])
            for p, row in zip(waiting, rewards, strict=True):
                p.rewards += row.tolist()
                if calibration is not None and reading == "quantiles":
                    p.quantiles += calibration.quantiles([p.id] * len(row), row.tolist()).tolist()
        for p, responses in zip(waiting, new, strict=True):
            p.drawn += responses
        waiting = [p for p in waiting if not p.done]
        turn += 1
    return [p.decoded(scorer is not None) for p in prompts]


def draw_calibration(
    reference: Sampler,
    scorer: Scorer,
    conversations: Sequence[str | Conversation],
    samples: int,
    *,
    seed: int,
    prompt_ids: Sequence[str] | None = None,
    columns: Sequence[Mapping[str, Any]] | None = None,
) -> CalibrationStore:
    """Draw reference rewards of these prompts, for `decode`.

    - `reference`: the policy that defines quantiles; not the decoded policy if that one is trained.
    - `samples`: K per prompt; the error of a calibrated reward is about 1 / (2 √K).
    - `conversations`, `prompt_ids`, `columns`: as in `decode`.

    If all responses have one reward, a warning is logged with the likely cause.
    """
    _check.count("samples", samples)
    ids = _ids(prompt_ids, conversations)
    drawn = _sampled(reference, conversations, ids, samples, derived(seed, "calibration"))
    texts = [[r.text for r in row] for row in drawn]
    rewards = score_ragged(scorer, conversations, texts, ids, columns)
    store = CalibrationStore.from_rewards(ids, rewards, _made_with(reference))
    constant = constant_rewards(store, lambda some: [texts[ids.index(i)] for i in some])
    if constant is not None and constant.range[0] == constant.range[1]:
        LOG.warning(constant.words(_named(scorer)))
    return store


def _named(scorer: Scorer) -> str:
    """The reward, as a message names it."""
    return str(getattr(scorer, "__name__", type(scorer).__name__))


def _made_with(sampler: Sampler) -> dict[str, dict[str, Any]]:
    """The provenance of a sampler's texts; empty if it does not say whether it strips them."""
    strip, answer = getattr(sampler, "strip", None), getattr(sampler, "answer", "whole")
    return {"sampling": {"strip": strip, "answer": answer}} if isinstance(strip, bool) else {}


def _draw(sampler: Sampler, waiting: Sequence[_Turns], seed: int) -> list[list[Response]]:
    """The responses of this turn; prompts with the same number of draws are sampled together."""
    new: list[list[Response]] = [[] for _ in waiting]
    for n in sorted({p.draws for p in waiting}):
        part = [i for i, p in enumerate(waiting) if p.draws == n]
        asked, keys = [waiting[i].asked for i in part], [waiting[i].id for i in part]
        for i, row in zip(part, _sampled(sampler, asked, keys, n, seed), strict=True):
            new[i] = row
    return new


def _sampled(
    sampler: Sampler,
    conversations: Sequence[str | Conversation],
    ids: Sequence[str],
    n: int,
    seed: int,
) -> list[list[Response]]:
    asked = [conversation_of(c) if isinstance(c, str) else c for c in conversations]
    rows = sampler.sample(asked, n, seed=seed, keys=ids)
    wrong = [len(row) for row in rows if len(row) != n]
    if wrong or len(rows) != len(conversations):
        raise DataError(
            f"The sampler {type(sampler).__name__} must return {n} responses to each of "
            f"{len(conversations)} conversations; got {len(rows)} rows"
            + (f", one of them with {wrong[0]}." if wrong else ".")
        )
    return rows


def _ids(prompt_ids: Sequence[str] | None, conversations: Sequence) -> list[str]:
    ids = [str(i) for i in range(len(conversations))] if prompt_ids is None else list(prompt_ids)
    if len(ids) != len(conversations) or not ids or len(set(ids)) < len(ids):
        raise ValueError(
            "`prompt_ids` must have one id per conversation, all different, and at least one; got "
            f"{len(ids)} ({len(set(ids))} different) for {len(conversations)} conversations."
        )
    return ids
