"""Any procedure, run on a model that samples and a reward that scores."""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

from infalign import _check
from infalign.core import Rewind
from infalign.errors import DataError
from infalign.models.interfaces import Conversation, Response, Sampler, Scorer
from infalign.models.rewards import score_ragged
from infalign.seeds import derived, generator
from infalign.stores import CalibrationStore

from .selection import Decoder, reads, select, settle


@dataclass(frozen=True)
class Decoded:
    """What a procedure drew for one prompt, and what it kept."""

    kept: Response
    index: int
    """Place of the kept one among the candidates."""

    candidates: tuple[Response, ...]
    """All responses drawn, in the order of drawing."""

    rewards: tuple[float, ...] | None
    """Raw reward of each candidate; None without a scorer."""

    quantiles: tuple[float, ...] | None = None
    """Calibrated reward of each candidate, where the procedure reads it."""

    answers: tuple[Hashable, ...] | None = None
    """Answer of each candidate, where the procedure reads it; None for those that have none."""

    @property
    def reward(self) -> float | None:
        """Raw reward of the kept response."""
        return None if self.rewards is None else self.rewards[self.index]

    @property
    def rank(self) -> int | None:
        """1 if no candidate has a higher reward than the kept one, 2 if one has, and so on."""
        if self.rewards is None:
            return None
        return 1 + sum(r > self.rewards[self.index] for r in self.rewards)


def decode(
    procedure: Decoder,
    sampler: Sampler,
    scorer: Scorer | None,
    conversations: Sequence[Conversation],
    *,
    seed: int,
    prompt_ids: Sequence[str] | None = None,
    calibration: CalibrationStore | None = None,
) -> list[Decoded]:
    """One kept response per conversation, with all that it was chosen from.

    The number of draws is the procedure's: for best-of-Poisson and mixtures it is drawn for each
    prompt; Rewind draws in rounds, one response for each prompt whose last one did not pass.
    Sampling and choosing have independent randomness, and both follow from the seed and the
    prompt's id alone: the result is the same whatever is asked beside it.

    - `sampler`, `scorer`: the policy and the reward. Sampling and MajorityVote do without a scorer.
    - `prompt_ids`: all different; handed to the scorer as its column `prompt_id`, and the names
      under which `calibration` knows the prompts; "0", "1", … unless given.
    - `calibration`: reference rewards by the same scorer, for SoftBestOfN and Rewind, whose
      temperature and threshold are in units of the calibrated reward: a store made before, or
      `draw_calibration`.

    Raises ValueError where scorer or calibration is needed and missing; DataError for rewards that
    are not finite, prompts without calibration, and samplers that return another number.
    """
    reading = reads(procedure)
    if scorer is None and reading in ("rewards", "quantiles"):
        raise ValueError(f"`scorer` must be given: {procedure!r} chooses by reward.")
    if calibration is None and reading == "quantiles":
        raise ValueError(
            f"`calibration` must be given: {procedure!r} reads the calibrated reward. Open a "
            "CalibrationStore, or draw reference samples with `draw_calibration`."
        )
    _check.count("seed", seed, at_least=0)
    ids = _ids(prompt_ids, conversations)
    chance = [generator(seed, "keep", i) for i in ids]
    plans = [settle(procedure, rng=rng) for rng in chance]
    drawn: list[list[Response]] = [[] for _ in plans]
    rewards: list[list[float]] = [[] for _ in plans]
    quantiles: list[list[float]] = [[] for _ in plans]
    waiting, turn = list(range(len(plans))), 0
    while waiting:
        new = _draw(sampler, conversations, ids, plans, waiting, derived(seed, "sample", turn))
        if scorer is not None:
            texts = [[r.text for r in new[i]] for i in waiting]
            asked, names = [conversations[i] for i in waiting], [ids[i] for i in waiting]
            for i, row in zip(waiting, score_ragged(scorer, asked, texts, names), strict=True):
                rewards[i] += row.tolist()
                if reading == "quantiles":
                    quantiles[i] += calibration.quantiles([ids[i]] * len(row), row).tolist()
        for i in waiting:
            drawn[i] += new[i]
        waiting = [i for i in waiting if _goes_on(plans[i], quantiles[i])]
        turn += 1
    results = []
    for i, plan in enumerate(plans):
        answers = None
        if reading == "answers":
            answers = [plan.answer(r.text) for r in drawn[i]]
        values = {"rewards": rewards[i], "quantiles": quantiles[i], "answers": answers}
        index = select(plan, values.get(reading, drawn[i]), rng=chance[i])
        results.append(
            Decoded(
                drawn[i][index],
                index,
                tuple(drawn[i]),
                None if scorer is None else tuple(rewards[i]),
                tuple(quantiles[i]) or None,
                None if answers is None else tuple(answers),
            )
        )
    return results


def draw_calibration(
    reference: Sampler,
    scorer: Scorer,
    conversations: Sequence[Conversation],
    samples: int,
    *,
    seed: int,
    prompt_ids: Sequence[str] | None = None,
) -> CalibrationStore:
    """Reference rewards of these prompts, drawn on the spot, for `decode`.

    - `reference`: the policy that quantiles refer to; not the one that is decoded, if that has
      been trained.
    - `samples`: K per prompt; the calibrated reward is known to about 1 / (2 √K).
    """
    _check.count("samples", samples)
    ids = _ids(prompt_ids, conversations)
    drawn = _sampled(reference, conversations, ids, samples, derived(seed, "calibration"))
    texts = [[r.text for r in row] for row in drawn]
    return CalibrationStore.from_rewards(ids, score_ragged(scorer, conversations, texts, ids))


def _draw(sampler, conversations, ids, plans, waiting, seed) -> dict[int, list[Response]]:
    """What this turn draws for each waiting prompt: those that draw as many go together."""
    number = {i: 1 if isinstance(plans[i], Rewind) else plans[i].draws for i in waiting}
    new = {}
    for n in sorted(set(number.values())):
        part = [i for i in waiting if number[i] == n]
        asked, keys = [conversations[i] for i in part], [ids[i] for i in part]
        rows = _sampled(sampler, asked, keys, n, seed)
        new |= dict(zip(part, rows, strict=True))
    return new


def _goes_on(plan, quantiles) -> bool:
    if not isinstance(plan, Rewind):
        return False
    return len(quantiles) < plan.max_tries and not plan.passes(quantiles[-1])


def _sampled(sampler, conversations, ids, n, seed) -> list[list[Response]]:
    rows = sampler.sample(conversations, n, seed=seed, keys=ids)
    wrong = [len(row) for row in rows if len(row) != n]
    if wrong or len(rows) != len(conversations):
        raise DataError(
            f"The sampler {type(sampler).__name__} must return {n} responses to each of "
            f"{len(conversations)} conversations; got {len(rows)} rows"
            + (f", one of them with {wrong[0]}." if wrong else ".")
        )
    return rows


def _ids(prompt_ids, conversations) -> list[str]:
    ids = [str(i) for i in range(len(conversations))] if prompt_ids is None else list(prompt_ids)
    if len(ids) != len(conversations) or not ids or len(set(ids)) < len(ids):
        raise ValueError(
            "`prompt_ids` must be one per conversation, all different, and at least one; got "
            f"{len(ids)} ({len(set(ids))} different) for {len(conversations)} conversations."
        )
    return ids
