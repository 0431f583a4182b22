"""pass@n of policies beyond the samples that there are, and the samples that a target takes.

A forecast needs an outcome of 0 or 1. Rewards get one from a threshold: whether the best of n
reaches it. The mean reward of the best of n has no forecast: it depends on rewards above all that
were drawn, and no assumption about those can be checked.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from infalign import _check
from infalign._look import Pictured, Shown, label
from infalign.errors import ArgumentError
from infalign.evaluation.growth import FARTHEST, Budget, Forecast, Growth, fit_growth

from .samples import Samples

__all__ = ["Forecasts", "forecast"]


@dataclass(frozen=True, eq=False)
class Forecasts(Shown, Pictured):
    """Success of policies at values of n, measured or forecast, and what targets take."""

    growths: Mapping[str, Growth] = field(repr=False)
    """Policy → growth of its success, for any other n or target."""

    sizes: tuple[int, ...]
    targets: tuple[float, ...]
    above: float | None
    """Reward from which a sample succeeds; None for scores of 0 and 1."""

    @property
    def rows(self) -> tuple[tuple[str, Forecast], ...]:
        """Each policy at each n."""
        return tuple((name, g.forecast(n)) for n in self.sizes for name, g in self.growths.items())

    @property
    def budgets(self) -> tuple[tuple[str, Budget], ...]:
        """Each policy at each target."""
        return tuple(
            (name, g.budget_for(target))
            for target in self.targets
            for name, g in self.growths.items()
        )

    @property
    def words(self) -> str:
        """What is forecast."""
        if self.above is None:
            return "at least one of n is correct"
        return f"the best of n scores at least {self.above:g}"

    def curve(self, policy: str) -> list[Forecast]:
        """A policy at n of equal ratios, up to the largest n that is asked for."""
        growth = self.growths[policy]
        last = max([*self.sizes, 10 * growth.made])
        sizes = np.unique(np.rint(np.geomspace(1, last, 40)).astype(int)).tolist()
        return [growth.forecast(n) for n in sizes]

    def _columns(self):
        columns = {"policy": [name for name, _ in self.rows]}
        for end in ("n", "value", "low", "high", "these_low", "these_high"):
            columns[end] = [getattr(own, end) for _, own in self.rows]
        return columns

    def _draw(self, axes):
        for name, growth in self.growths.items():
            if not growth.fitted:
                continue
            rows = self.curve(name)
            sizes, values, lows, highs = (
                [getattr(row, end) for row in rows] for end in ("n", "value", "low", "high")
            )
            (line,) = axes.plot(sizes, values, label=_check.visible(name[:40]))
            axes.fill_between(sizes, lows, highs, alpha=0.2, lw=0, color=line.get_color())
            axes.axvline(growth.made, color=line.get_color(), lw=0.8, ls=":")
        axes.set_xscale("log")
        if axes.lines:
            axes.legend(frameon=False, fontsize=7)
        label(axes, x="n", y="success", title="dotted: forecasts begin")


def forecast(
    policies: Sequence[Samples],
    *,
    sizes: Sequence[int] = (),
    targets: Sequence[float] = (),
    above: float | None = None,
    seed: int = 0,
) -> Forecasts:
    """Success of policies at any n, and the number of samples that reach a target.

    - `sizes`: values of n, up to 10⁹.
    - `targets`: levels of success, strictly between 0 and 1.
    - `above`: a sample succeeds if its reward is at least this. Default: scores are 0 and 1.
    - `seed`: of the draws behind the intervals.

    Raises ArgumentError for rewards without `above`.

    >>> rng = np.random.default_rng(0)
    >>> tries = rng.random((200, 50)) < rng.beta(0.4, 6, (200, 1))
    >>> growth = forecast([Samples("a", [str(i) for i in range(200)], tries)]).growths["a"]
    >>> budget = growth.budget_for(0.8)
    >>> budget.low < budget.value < budget.high
    True
    """
    sizes = tuple(dict.fromkeys(_check.count("sizes", n) for n in _check.entries("sizes", sizes)))
    if sizes and max(sizes) > FARTHEST:
        raise ArgumentError("sizes", f"must be at most {FARTHEST:.0e}; got {max(sizes)}.")
    targets = tuple(_check.real("targets", t) for t in _check.entries("targets", targets))
    outside = [t for t in targets if not 0 < t < 1]
    if outside:
        raise ArgumentError("targets", f"must lie strictly between 0 and 1; got {outside[0]:g}.")
    if above is not None:
        above = _check.real("above", above)
    growths = {}
    for policy in _check.entries("policies", policies):
        _check.instance("policies", policy, Samples, "a list of `Samples`")
        if above is None and not policy.binary:
            raise ArgumentError(
                "policies",
                f"must have scores of 0 and 1 for a forecast; {_check.short(policy.name)} has "
                "others. The mean reward of the best of n beyond the samples depends on rewards "
                "that were never drawn. Give a threshold (`above`, or --forecast-above), and the "
                "chance that the best of n reaches it is forecast.",
            )
        scores = policy.scores
        if above is not None:
            scores = np.where(np.isnan(scores), np.nan, scores >= above)
        growths[policy.name] = fit_growth(
            scores,
            stopped=policy.stopping if above is None else None,
            ordered=policy.ordered,
            seed=seed,
        )
    return Forecasts(growths, sizes, targets, above)
