"""The whole verdict: every policy against the reference under every measure, and all of them
against each other."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from infalign import _check
from infalign._look import Framed, Shown
from infalign.errors import ArgumentError
from infalign.evaluation.equal_length import LengthControl
from infalign.evaluation.ranking import Ranking, rank
from infalign.evaluation.uncertainty import Estimate, over_prompts

from .curve import Curve, curve, sizes_up_to
from .forecasts import Forecasts, forecast
from .gate import Gate, gate
from .lengths import equal_lengths, why_not_compared
from .measures import Measure, measures, read_measure
from .samples import Matched, Samples, match

__all__ = ["Analysis", "analyze"]


@dataclass(frozen=True, eq=False)
class Analysis(Shown, Framed):
    """Policies against a reference, from samples that exist."""

    reference: str
    policies: tuple[str, ...]
    """Without the reference."""

    curves: tuple[Curve, ...] = field(repr=False)
    """Each policy under each measure."""

    rankings: Mapping[str, Ranking] = field(repr=False)
    """Measure at one n, such as "best-of-n at n = 8" → all policies and the reference; empty if
    there is one policy."""

    matched: Matched = field(repr=False)
    level: float

    at_equal_length: Mapping[tuple[str, str], LengthControl] = field(
        default_factory=dict, repr=False
    )
    """Policy and measure, such as "best-of-n at n = 8" → the win rate and the one at equal length;
    empty without lengths."""

    forecasts: Forecasts | None = field(default=None, repr=False)
    """Success beyond the samples, if asked for."""

    @property
    def length_notes(self) -> Mapping[str, str]:
        """Policy → why its lengths are not compared with those of the reference. Empty if all are
        compared, no lengths are known, or no measure is a win rate."""
        if all(c.levels is not None for c in self.curves):
            return {}
        base, *others = self.matched.policies
        notes = {p.name: why_not_compared(p, base) for p in others}
        return {name: note for name, note in notes.items() if note}

    def curve(self, policy: str, measure: str) -> Curve:
        """The curve of a policy under a measure, such as "best-of-n"."""
        own = [c for c in self.curves if (c.policy, c.measure.name) == (policy, measure)]
        if not own:
            known = ", ".join(f"{c.policy} {c.measure.name}" for c in self.curves)
            raise ArgumentError(
                "measure", f"must be one of {known}; got {_check.short(f'{policy} {measure}')}."
            )
        return own[0]

    def own(self, policy: str, measure: str) -> Estimate:
        """Win rate of a policy over the reference, or its level, at one n.

        - `measure`: with its n, such as "best-of-n:8" or "pass@8".
        """
        wanted, n = _at(measure)
        values = self._values(policy, wanted, n)
        return over_prompts(values, level=self.level, bounds=(0, 1))

    def difference(self, policy: str, other: str, measure: str) -> Estimate:
        """`policy` − `other` at one n, paired by prompt: of their levels, or of their win rates
        over the reference, which itself has ½.

        - `measure`: with its n, such as "best-of-n:8" or "pass@8".
        """
        wanted, n = _at(measure)
        gap = self._values(policy, wanted, n) - self._values(other, wanted, n)
        return over_prompts(gap, level=self.level, bounds=(-1, 1))

    def gate(self, policy: str, other: str, measure: str, *, margin: float = 0.0) -> Gate:
        """Whether a policy is worse than another one, or than the reference, at one n.

        - `measure`: with its n, such as "best-of-n:8" or "pass@8".
        - `margin`: loss that is tolerated, as a fraction: 0.01 is one point.
        """
        question = f"{policy} against {other}, {measure}"
        return gate(self.difference(policy, other, measure), margin=margin, question=question)

    def _values(self, name: str, measure: Measure, n: int) -> np.ndarray:
        policies = {p.name: p for p in self.matched.policies}
        name = _check.one_of("policy", name, tuple(policies))
        measure.require("policy", policies[name])
        return _values(measure, policies[name], policies[self.reference], n)

    def _facts(self):
        shown = {
            "reference": self.reference,
            "prompts": len(self.matched.prompts),
            "policies": self.policies,
        }
        for c in self.curves:
            wins, loses = (c.ranges(which) for which in ("wins", "loses"))
            shown[f"{c.policy}, {c.measure.name}"] = f"wins at n = {wins}; loses at n = {loses}"
        return shown

    def _columns(self):
        columns: dict[str, list] = {}
        for c in self.curves:
            own = {
                "policy": [c.policy] * len(c.sizes),
                "measure": [c.measure.name] * len(c.sizes),
                **c._columns(),
            }
            rows = len(next(iter(columns.values()), []))
            for name in own.keys() | columns.keys():
                columns.setdefault(name, [None] * rows)
                columns[name] += own.get(name, [None] * len(c.sizes))
        return columns


def analyze(
    reference: Samples,
    policies: Sequence[Samples],
    *,
    measured: Sequence[str] | None = None,
    sizes: Sequence[int] | None = None,
    rank_at: Sequence[int] | None = None,
    drop: bool = False,
    forecast_at: Sequence[int] = (),
    targets: Sequence[float] = (),
    above: float | None = None,
    level: float = 0.95,
    seed: int = 0,
) -> Analysis:
    """Compare policies with a reference, and with each other, from samples that exist.

    - `reference`, `policies`: `Samples`, or what `read_samples` returns.
    - `measured`: measures, such as "best-of-n", "pass@n" or "best-of-n:8". Default: all that the
      samples have what they read for.
    - `sizes`: values of n. Default: all.
    - `rank_at`: values of n at which policies are ranked. Default: 1, and the largest.
    - `drop`: leave out prompts that some policy lacks, instead of an error.
    - `forecast_at`, `targets`, `above`: `sizes`, `targets` and `above` of `forecast`. With any of
      them, policies may be empty.
    - `level`, `seed`: as for `simultaneous`; intervals of one curve hold together, those of
      different curves do not.

    Raises ArgumentError for policies that do not match, and measures they cannot have.

    >>> import numpy as np
    >>> ids, rng = [str(i) for i in range(40)], np.random.default_rng(0)
    >>> base, better = (Samples(str(m), ids, rng.normal(m, size=(40, 8))) for m in (0, 1))
    >>> analyze(base, [better]).curve("1", "best-of-n").first_loss.estimate is None
    True
    """
    policies = _check.entries("policies", policies)
    ahead = bool(len(forecast_at) or len(targets))
    if not policies and not ahead:
        raise ArgumentError("policies", "must hold at least one policy; got none.")
    if above is not None and not ahead:
        raise ArgumentError("above", "is for forecasts; give `forecast_at` or `targets` as well.")
    matched = match([reference, *policies], drop=drop)
    base, *others = matched.policies
    chosen = (
        [m for m in measures().values() if m.fits(matched.policies)]
        if measured is None
        else [read_measure(text) for text in _check.texts("measured", measured)]
    )
    curves = tuple(
        curve(m, policy, base, sizes=sizes, level=level, seed=seed)
        for m in chosen
        for policy in others
    )
    rankings = {}
    if len(others) > 1:
        for m in chosen:
            ns = rank_at or m.sizes or _ends(matched, sizes)
            for n in ns:
                rankings[f"{m.name} at n = {n}"] = _ranking(m, base, others, n, level, seed)
    names = tuple(p.name for p in others)
    controls = {
        (p.name, at): control
        for p in others
        for at, control in equal_lengths(p, base, chosen, sizes=sizes).items()
    }
    forecasts = None
    if ahead:
        forecasts = forecast(
            matched.policies, sizes=forecast_at, targets=targets, above=above, seed=seed
        )
    return Analysis(base.name, names, curves, rankings, matched, level, controls, forecasts)


def _ends(matched: Matched, sizes: Sequence[int] | None) -> tuple[int, ...]:
    """The smallest and the largest n."""
    most = min(p.reach for p in matched.policies)
    ns = sorted(sizes or sizes_up_to(most))
    return tuple(dict.fromkeys((ns[0], ns[-1])))


def _at(measure: str) -> tuple[Measure, int]:
    wanted = read_measure(measure)
    if wanted.sizes is None:
        raise ArgumentError(
            "measure", f"must name its n, such as best-of-n:8 or pass@8; got {measure}."
        )
    return wanted, wanted.sizes[0]


def _values(measure: Measure, policy: Samples, reference: Samples, n: int) -> np.ndarray:
    """Level of a policy on each prompt, or its win rate over the reference, which itself has ½."""
    if measure.level is not None:
        return measure.level(policy, n)
    if policy is reference:
        return np.full(len(policy.prompts), measure.null)
    return measure.wins(policy, reference, n)


def _ranking(
    measure: Measure, base: Samples, others: Sequence[Samples], n: int, level: float, seed: int
) -> Ranking:
    """All policies and the reference at one n."""
    values = {p.name: _values(measure, p, base, n) for p in (*others, base)}
    return rank(values, bounds=(0.0, 1.0), level=level, seed=seed)
