"""Win rates from a panel of judges, who may have voted several times and in both orders.

Every verdict counts in steps, each a plain mean: the votes of one judge on one pair in one order;
the orders; the judges that have a verdict; the pairs of a prompt; the prompts. So no judge weighs
more for having voted more often, and no prompt for having more pairs. An order that a judge
prefers cancels where both were judged. A judge that has read some pairs in both orders has no
verdict on a pair with an answer in one of them: the other order's answer is invalid, or absent. A
judge that has read every pair in one order only, such as an order of chance, keeps its verdicts.
Invalid and absent answers count as nothing, and as a range: were they all losses, and were they all
wins.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import Literal

import numpy as np
from scipy.special import stdtrit

from infalign import _check
from infalign._look import Rows, Shown
from infalign.errors import ArgumentError, DataError

from .agreement import kappa, krippendorff
from .equal_length import LengthControl, pair_control
from .uncertainty import Estimate, over_prompts

Side = Literal["policy", "reference"]

__all__ = ["ORDERS", "JudgeReport", "Panel", "panel"]

ORDERS = ("policy first", "reference first", "unknown")
"""What is known of the order in which a judge has read the two responses."""


@dataclass(frozen=True)
class JudgeReport(Shown):
    """What one judge says of a policy, and how reliable it is."""

    judge: str
    win_rate: Estimate | None
    """None if all of its answers are invalid."""

    position_bias: Estimate | None
    """How far the share of wins of the response shown first exceeds one half, on the pairs judged
    in both orders; in [−½, ½]. None without such pairs."""

    consistency: Estimate | None
    """Share of pairs judged in both orders for which both name the same winner, or both a tie."""

    repeatability: Estimate | None
    """Chance that two votes on one pair in one order are the same. None without repeated votes."""

    own: Side | None
    """Which side is of the judge's own family."""

    self_preference: Estimate | None
    """Its win rate for its own side minus that by the other judges, on the same pairs. None
    without an own side, or without other judges."""

    verdicts: int
    """Its verdicts on the policy, each vote counted."""

    invalid: int
    """Its answers without a verdict, which are not among them."""

    one_order: tuple[str, ...] = field(repr=False)
    """Prompts of the pairs that it judged in one order only, although it judged others in both."""


@dataclass(frozen=True)
class Panel(Shown):
    """A policy's win rate over a reference by several judges."""

    win_rate: Estimate
    """By this panel, for other prompts of the same kind. Disagreement of judges within a prompt is
    part of its spread."""

    any_judge: Estimate | None
    """The same win rate with an interval for other judges of the same kind as well: the error of
    the prompts and that of the judges' mean, with a Student's t of one degree of freedom less than
    there are judges. None with a single judge."""

    if_invalid: tuple[float, float]
    """The win rate if every invalid or absent answer were a loss, and if every one were a win."""

    judges: Rows[JudgeReport]
    agreement: Estimate | None
    """Krippendorff's α of the judges on who has won; None with a single judge."""

    kappas: Mapping[tuple[str, str], Estimate | None] = field(repr=False)
    """Cohen's κ of each pair of judges."""

    length: LengthControl | None
    """Win rate at equal length; None without lengths."""

    prompts: tuple[str, ...] = field(repr=False)
    """Ids of the prompts with a verdict, in the order of `win_rate.per_prompt`."""

    pairs: int
    """Pairs of responses with a verdict."""

    both_orders: float
    """Share of verdicts of a judge on a pair that rest on both orders."""

    excluded: int
    """Pairs without a verdict, which are left out."""


def panel(
    outcomes,
    *,
    prompts: Sequence[str],
    pairs: Sequence[str] | None = None,
    judges: Sequence[str] | None = None,
    orders: Sequence[int] | None = None,
    differences=None,
    own: Sequence[str] = (),
    own_reference: Sequence[str] = (),
) -> Panel:
    """Win rate of a policy from the verdicts on its pairs with a reference, one entry a vote.

    - `outcomes`: 1 where the policy's response wins, 0 where the reference's does, ½ for a tie, and
      in between for a judge that gives chances; nan is an invalid answer.
    - `prompts`: id of each vote's prompt.
    - `pairs`: name of the pair within its prompt. Default: one pair per prompt.
    - `judges`: name of each vote's judge. Default: one judge.
    - `orders`: 0 if the policy's response was shown first, 1 if the reference's was, 2 if this is
      unknown. Default: unknown.
    - `differences`: length of the policy's response minus that of the reference's, if known.
    - `own`, `own_reference`: judges of whose own family the policy is, and the reference.

    Raises DataError if no vote is valid, or if no pair of a judge that uses both orders has both.

    >>> result = panel([1, 0, 1, 1], prompts=list("aabb"), judges=list("xyxy"))
    >>> result.win_rate.value, result.judges[1].win_rate.value
    (0.75, 0.5)
    """
    won = _check.numbers("outcomes", outcomes)
    if won.ndim != 1 or not won.size:
        raise ArgumentError("outcomes", f"must be a list of votes; got shape {won.shape}.")
    wrong = (won < 0) | (won > 1)
    if wrong.any():
        raise ArgumentError(
            "outcomes",
            f"must lie between 0 and 1; got {won[wrong][0]:g} at index {np.argmax(wrong)} "
            f"({wrong.sum()} of {won.size} do not).",
        )
    votes = _Votes(won, *_codes(won.size, prompts, pairs, judges, orders))
    if np.isnan(won).all():
        raise DataError(f"None of the {won.size} answers of the judges is a verdict.")
    scores = votes.scores(won)
    if np.isnan(scores).all():
        raise DataError(
            f"Of the {won.size} answers of the judges, no verdict of a judge on a pair is "
            "complete: none has a valid answer in both orders. Judge the invalid ones again."
        )
    win_rate = votes.mean(scores)
    sides: dict[str, Side] = dict.fromkeys(own_reference, "reference")
    sides |= dict.fromkeys(own, "policy")
    reports = Rows(votes.report(at, scores, sides) for at in range(len(votes.judges)))
    kappas = {
        (votes.judges[a], votes.judges[b]): kappa(scores[:, a], scores[:, b], votes.prompt_of)
        for a, b in combinations(range(len(votes.judges)), 2)
    }
    several = len(votes.judges) > 1
    known = ~np.isnan(scores).all(1)
    return Panel(
        win_rate,
        _any_judge(win_rate, reports) if several else None,
        if_invalid=(
            votes.mean(votes.scores(np.nan_to_num(won, nan=0.0), absent=0.0)).value,
            votes.mean(votes.scores(np.nan_to_num(won, nan=1.0), absent=1.0)).value,
        ),
        judges=reports,
        agreement=krippendorff(scores, votes.prompt_of) if several else None,
        kappas=kappas,
        length=None if differences is None else votes.length(scores, differences),
        prompts=tuple(votes.prompts[at] for at in np.unique(votes.prompt_of[known])),
        pairs=int(known.sum()),
        both_orders=votes.both_orders(scores),
        excluded=int((~known).sum()),
    )


def _codes(size: int, prompts, pairs, judges, orders) -> tuple:
    columns = {"prompts": prompts, "pairs": pairs, "judges": judges, "orders": orders}
    lists = {
        name: list(_check.entries(name, column))
        for name, column in columns.items()
        if column is not None
    }
    for name, column in lists.items():
        if len(column) != size:
            raise ArgumentError(
                name, f"must have one entry per vote; got {len(column)} for {size} votes."
            )
    order = np.asarray(lists.get("orders", [2] * size))
    if not np.isin(order, (0, 1, 2)).all():
        raise ArgumentError("orders", "must be 0 (policy first), 1 (reference first) or 2.")
    return (
        lists["prompts"],
        lists.get("pairs", [""] * size),
        lists.get("judges", ["judge"] * size),
        order.astype(int),
    )


class _Votes:
    """Votes by item, which is one pair of one prompt, and by judge and order."""

    def __init__(self, won, prompts, pairs, judges, orders):
        self.won, self.order = won, orders
        names: dict = {}
        items: dict = {}
        panel: dict = {}
        self.item = np.array(
            [
                items.setdefault((names.setdefault(p, len(names)), pair), len(items))
                for p, pair in zip(prompts, pairs, strict=True)
            ]
        )
        self.judge = np.array([panel.setdefault(j, len(panel)) for j in judges])
        self.prompt_of = np.array([prompt for prompt, _ in items])
        self.judges, self.prompts = list(panel), list(names)
        self.shape = len(items), len(panel), len(ORDERS)
        self.asked = ~np.isnan(self.by_order(np.zeros(won.size))[..., :2])
        one, both = self.asked.any(2) & ~self.asked.all(2), self.asked.all(2).any(0)
        self.one_order = one & both
        """Where a judge that uses both orders has an answer in one only, shape (items, judges)."""

    def by_order(self, won: np.ndarray) -> np.ndarray:
        """Mean of the votes, shape (items, judges, orders); nan without any."""
        valid = ~np.isnan(won)
        at = np.ravel_multi_index((self.item, self.judge, self.order), self.shape)[valid]
        size = int(np.prod(self.shape))
        total, count = np.bincount(at, won[valid], size), np.bincount(at, minlength=size)
        with np.errstate(invalid="ignore"):
            return (total / count).reshape(self.shape)

    def scores(self, won: np.ndarray, absent: float = np.nan) -> np.ndarray:
        """Mean over orders, shape (items, judges). Where a judge uses both orders, one of them
        alone would carry its position bias, and is no score. `absent` is the outcome of an order
        without an answer."""
        by_order = self.by_order(won)
        by_order[..., :2][self.one_order[..., None] & ~self.asked] = absent
        needs_both = self.asked.all(2) | self.one_order
        incomplete = needs_both & np.isnan(by_order[..., :2]).any(2)
        return np.where(incomplete, np.nan, _mean(by_order, 2))

    def mean(self, scores: np.ndarray) -> Estimate:
        """Mean over judges, pairs and prompts."""
        return self.over(_mean(scores, 1), (0, 1))

    def over(self, by_item: np.ndarray, bounds: tuple[float, float]) -> Estimate:
        """Mean over the pairs of a prompt, and over prompts, of the items that have a value."""
        known = ~np.isnan(by_item)
        _, prompt = np.unique(self.prompt_of[known], return_inverse=True)
        return over_prompts(
            np.bincount(prompt, by_item[known]) / np.bincount(prompt), bounds=bounds
        )

    def report(self, at: int, scores: np.ndarray, sides: Mapping[str, Side]) -> JudgeReport:
        """What one judge says."""
        first, second, _ = np.moveaxis(self.by_order(self.won)[:, at], 1, 0)
        rest = np.delete(scores, at, axis=1)
        others = _mean(rest, 1) if rest.shape[1] else np.full(len(scores), np.nan)
        name = self.judges[at]
        mine = self.judge == at
        own = sides.get(name)
        toward = -1 if own == "reference" else 1

        def estimate(by_item: np.ndarray, low: float, high: float) -> Estimate | None:
            return None if np.isnan(by_item).all() else self.over(by_item, (low, high))

        both = ~np.isnan(first + second)
        same = np.where(both, np.sign(first - 0.5) == np.sign(second - 0.5), np.nan)
        return JudgeReport(
            name,
            estimate(scores[:, at], 0, 1),
            estimate((first - second) / 2, -0.5, 0.5),
            estimate(same, 0, 1),
            estimate(self.repeats(at), 0, 1),
            own=own,
            self_preference=estimate(toward * (scores[:, at] - others), -1, 1) if own else None,
            verdicts=int((mine & ~np.isnan(self.won)).sum()),
            invalid=int((mine & np.isnan(self.won)).sum()),
            one_order=tuple(self.prompts[p] for p in self.prompt_of[self.one_order[:, at]]),
        )

    def repeats(self, at: int) -> np.ndarray:
        """Of each item, the chance that two votes of a judge in one order have the same winner."""
        valid = (self.judge == at) & ~np.isnan(self.won)
        winner = (np.sign(self.won - 0.5)[valid] + 1).astype(int)
        counts = np.zeros((self.shape[0], len(ORDERS), 3))
        np.add.at(counts, (self.item[valid], self.order[valid], winner), 1)
        n = counts.sum(2)
        with np.errstate(invalid="ignore"):
            same = (counts * (counts - 1)).sum(2) / np.where(n > 1, n * (n - 1), np.nan)
        return _mean(same, 1)

    def both_orders(self, scores: np.ndarray) -> float:
        by_order = self.by_order(self.won)
        return float((~np.isnan(by_order[..., :2]).any(2))[~np.isnan(scores)].mean())

    def length(self, scores: np.ndarray, differences) -> LengthControl:
        """Length control of the panel's mean verdict on each item; its pair has one difference."""
        d = _check.numbers("differences", differences)
        if d.shape != self.won.shape or not np.isfinite(d).all():
            raise ArgumentError("differences", "must have one finite number per vote.")
        by_item = np.bincount(self.item, d) / np.bincount(self.item)
        value = _mean(scores, 1)
        known = ~np.isnan(value)
        return pair_control(value[known], by_item[known], prompts=self.prompt_of[known].tolist())


def _mean(values: np.ndarray, axis: int) -> np.ndarray:
    """Mean of what is not nan; nan where all of it is."""
    known = ~np.isnan(values)
    with np.errstate(invalid="ignore"):
        return np.where(known, values, 0).sum(axis) / known.sum(axis)


def _any_judge(win_rate: Estimate, reports: Sequence[JudgeReport]) -> Estimate:
    rates = np.array([r.win_rate.value for r in reports if r.win_rate is not None])
    nan = float("nan")
    if len(rates) < 2:
        return Estimate(win_rate.value, nan, nan, nan, win_rate.per_prompt)
    stderr = float(np.hypot(win_rate.stderr, rates.std(ddof=1) / np.sqrt(len(rates))))
    reach = float(stdtrit(len(rates) - 1, 0.975)) * stderr
    low, high = max(0.0, win_rate.value - reach), min(1.0, win_rate.value + reach)
    low, high = min(low, win_rate.low), max(high, win_rate.high)
    return Estimate(win_rate.value, stderr, low, high, win_rate.per_prompt)
