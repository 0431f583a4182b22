"""A measure as a curve over n, and where its verdict flips.

The samples are the same at every n, so the curve is known at all of them at once, and its verdicts
are read together: a simultaneous band holds at every n. Where the band lies above the null the
policy wins, where it lies below it loses, and elsewhere the data cannot tell.

The band also bounds where the true curve first falls below the null. It cannot do so before the
band reaches below it, and has done so where the band lies below it: these n are a confidence set
of the band's level for the first n at which the policy loses.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from infalign import _check
from infalign._look import Pictured, Shown, label
from infalign.errors import ArgumentError
from infalign.evaluation.simultaneous import Simultaneous, simultaneous
from infalign.evaluation.uncertainty import Estimate, over_prompts

from .measures import Measure, read_measure
from .samples import Samples

__all__ = ["Curve", "Flip", "curve", "sizes_up_to", "verdict"]

ALL_SIZES = 128
"""Every n up to this one is on a curve; larger ones are as many steps of equal ratio."""


@dataclass(frozen=True)
class Flip(Shown):
    """The first n at which the true curve lies below the null, as far as the samples tell."""

    estimate: int | None
    """First n at which the estimate lies below the null; None if it never does."""

    earliest: int | None
    """Smallest n of the confidence set; None if the policy loses nowhere."""

    latest: int | None
    """Largest n of the confidence set; None if the set contains that it loses nowhere on the
    curve."""

    def __str__(self) -> str:
        if self.earliest is None:
            return "nowhere"
        if self.estimate is None:
            return f"not seen (possible from n = {self.earliest} on)"
        if self.latest is None:
            return f"n = {self.estimate} (from n = {self.earliest} on, or nowhere)"
        if self.earliest == self.latest:
            return f"n = {self.latest}"
        return f"n = {self.estimate} (between n = {self.earliest} and {self.latest})"


@dataclass(frozen=True, eq=False)
class Curve(Shown, Pictured):
    """One measure of a policy against a reference for each n, from the same samples.

    The contrast is a win rate, whose null is ½, or the difference of two levels, whose null is 0.
    """

    measure: Measure

    policy: str
    reference: str
    sizes: tuple[int, ...]
    """The values of n."""

    contrast: Simultaneous = field(repr=False)
    """Contrast at each n, with pointwise and simultaneous intervals."""

    levels: tuple[tuple[Estimate, Estimate], ...] | None = field(default=None, repr=False)
    """Level of the policy and of the reference at each n; None for win rates."""

    @property
    def null(self) -> float:
        """The contrast of two equal policies."""
        return self.measure.null

    @property
    def values(self) -> np.ndarray:
        """The estimated contrast at each n."""
        return np.array([e.value for e in self.contrast.pointwise])

    @property
    def verdicts(self) -> tuple[str, ...]:
        """At each n "wins", "loses" or "cannot tell", all of which hold together."""
        return tuple(verdict(e, self.null) for e in self.contrast.joint)

    def at(self, n: int) -> tuple[Estimate, Estimate]:
        """The contrast at n with its pointwise and its simultaneous interval."""
        if n not in self.sizes:
            raise ArgumentError("n", f"must be on the curve, {_listed(self.sizes)}; got {n!r}.")
        place = self.sizes.index(n)
        return self.contrast.pointwise[place], self.contrast.joint[place]

    def ranges(self, verdict: str) -> str:
        """The n with a verdict, such as "1–10, 12"; "nowhere" if there are none."""
        return _ranges(self.sizes, self.verdicts, verdict)

    @property
    def first_loss(self) -> Flip:
        """The first n at which the policy loses, with a confidence set for it."""
        low, high = _ends(self.contrast.joint)
        return _first(self.sizes, self.values < self.null, low < self.null, high < self.null)

    @property
    def first_win(self) -> Flip:
        """The first n at which the policy wins, with a confidence set for it."""
        low, high = _ends(self.contrast.joint)
        return _first(self.sizes, self.values > self.null, high > self.null, low > self.null)

    def _facts(self):
        return {
            "measure": self.measure.name,
            "policy": self.policy,
            "reference": self.reference,
            "sizes": _listed(self.sizes),
            "wins": self.ranges("wins"),
            "loses": self.ranges("loses"),
            "first loss": str(self.first_loss),
        }

    def _columns(self):
        columns = {"n": list(self.sizes), "value": self.values.tolist()}
        for prefix, estimates in (("", self.contrast.pointwise), ("joint_", self.contrast.joint)):
            columns |= {f"{prefix}{end}": [getattr(e, end) for e in estimates] for end in ENDS}
        if self.levels is not None:
            for side, name in enumerate(("policy", "reference")):
                columns[name] = [pair[side].value for pair in self.levels]
        return columns | {"verdict": list(self.verdicts)}

    def _draw(self, axes):
        joint, alone = _ends(self.contrast.joint), _ends(self.contrast.pointwise)
        axes.fill_between(self.sizes, *joint, alpha=0.2, lw=0, label="holds at every n")
        axes.fill_between(self.sizes, *alone, alpha=0.3, lw=0, color="tab:blue", label="at one n")
        axes.plot(self.sizes, self.values, color="tab:blue")
        axes.axhline(self.null, color="0.4", lw=0.8, ls="--")
        axes.set_xscale("log", base=2)
        axes.legend(frameon=False, fontsize=7)
        label(axes, x="n", y=self.measure.words, title=f"{self.policy} against {self.reference}")


ENDS = ("low", "high")


def curve(
    measure: str | Measure,
    policy: Samples,
    reference: Samples,
    *,
    sizes: Sequence[int] | None = None,
    level: float = 0.95,
    seed: int = 0,
) -> Curve:
    """A measure at each n, with simultaneous intervals over prompts.

    - `measure`: such as "best-of-n" or "pass@n"; `read_measure` lists them.
    - `policy`, `reference`: on the same prompts in the same order, as `match` returns them.
    - `sizes`: values of n, at most the samples of every prompt. Default: those
      of the measure, else all up to 128, and beyond that 128 steps of equal ratio.
    - `level`, `seed`: as for `simultaneous`.

    Raises ArgumentError if a prompt has fewer samples than n, or if the samples lack what the
    measure reads.
    """
    if not isinstance(measure, Measure):
        measure = read_measure(measure)
    for name, side in (("policy", policy), ("reference", reference)):
        measure.require(name, _check.instance(name, side, Samples, "`Samples`"))
    if policy.prompts != reference.prompts:
        raise ArgumentError(
            "reference", "must have the prompts of the policy in the same order. Use `match`."
        )
    most = min(policy.reach, reference.reach)
    wanted = measure.sizes if sizes is None else sizes
    ns = sizes_up_to(most) if wanted is None else _sizes(wanted, most)
    values = np.stack([measure.contrast(policy, reference, n) for n in ns], axis=1)
    levels = None
    if measure.level is not None:
        own = [[measure.level(side, n) for side in (policy, reference)] for n in ns]
        levels = tuple(
            (
                over_prompts(a, level=level, bounds=(0, 1)),
                over_prompts(b, level=level, bounds=(0, 1)),
            )
            for a, b in own
        )
    contrast = simultaneous(values, level=level, bounds=measure.bounds, seed=seed)
    return Curve(measure, policy.name, reference.name, ns, contrast, levels)


def sizes_up_to(most: int) -> tuple[int, ...]:
    """The values of n on a curve: every one up to 128, then as many steps of equal ratio."""
    if most <= ALL_SIZES:
        return tuple(range(1, most + 1))
    far = np.geomspace(ALL_SIZES, most, ALL_SIZES + 1).round().astype(int)
    return tuple(sorted({*range(1, ALL_SIZES + 1), *far.tolist()}))


def verdict(estimate: Estimate, null: float) -> str:
    """ "wins" or "loses" if the interval lies on one side of the null, else "cannot tell"."""
    if estimate.low > null:
        return "wins"
    return "loses" if estimate.high < null else "cannot tell"


def _ranges(sizes: Sequence[int], verdicts: Sequence[str], which: str) -> str:
    """Runs of neighboring n with one verdict."""
    runs: list[list[int]] = []
    before = None
    for n, own in zip(sizes, verdicts, strict=True):
        if own == which:
            if before == which:
                runs[-1][1] = n
            else:
                runs.append([n, n])
        before = own
    words = [str(a) if a == b else f"{a}–{b}" for a, b in runs]
    return ", ".join(words) or "nowhere"


def _first(sizes: Sequence[int], estimated, possible, shown) -> Flip:
    """The first n of each kind. Before the first possible n there is no loss, and at the first
    shown one there is."""

    def first(where) -> int | None:
        at = np.flatnonzero(where)
        return sizes[at[0]] if at.size else None

    return Flip(first(estimated), first(possible), first(shown))


def _ends(estimates: Sequence[Estimate]) -> tuple[np.ndarray, np.ndarray]:
    return np.array([e.low for e in estimates]), np.array([e.high for e in estimates])


def _sizes(sizes: Sequence[int], most: int) -> tuple[int, ...]:
    ns = sorted({_check.count("sizes", n) for n in _check.entries("sizes", sizes)})
    if not ns or ns[-1] > most:
        problem = "must hold at least one n; got none."
        if ns:
            problem = (
                f"must be at most {most}, the samples of the prompt with the fewest; got {ns[-1]}."
            )
        raise ArgumentError("sizes", problem)
    return tuple(ns)


def _listed(sizes: Sequence[int]) -> str:
    return f"{sizes[0]} to {sizes[-1]}" if len(sizes) > 4 else ", ".join(map(str, sizes))
