"""The result of a transform with K calibration samples per prompt, and the best table for that K.

K reference samples cut a prompt's quantile axis into K + 1 cells of random widths, uniform on the
simplex. A response is only known to lie in cell j and gets the training reward φ_j, so the trained
policy has one density per cell. Its win rate and KL are exact for one prompt. Over prompts, the
expected KL is exact too (`_random_cells`), so a budget is spent to the last digit. The expected win
rate is a seeded Monte Carlo average with control variates, with a standard error.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from infalign import _check
from infalign._look import Shown
from infalign.errors import SolveError

from ._cell_integrals import Layout, Widths
from ._interface import AbstractProcedure, RankProcedure, require_by_rank, require_procedure
from ._random_cells import Cells, expected
from ._roots import NoRoot, bracketed_root, falling_root
from ._shapes import Float
from ._transforms import AbstractTransform

CELLS = 200_000
"""Total number of cells, over the prompts of an average."""

FEWEST_PROMPTS = 2000
"""Minimum number of prompts of an average over `CELLS` cells; fewer cells need fewer."""

OUTER = 4
"""Number of cells at each end of the axis whose widths are control variates."""

ROUGH_CELLS = CELLS // 5
"""That number where a tenth of a point of win rate is enough. A table is optimized on as many cells
of other prompts."""

FEWEST_OPTIMIZED = 256
"""Minimum number of prompts on which a table is optimized."""

STRONGEST_TILT = 30.0
"""How far below its first guess log β is searched."""

WIDEST_TABLE = 1e7
"""Largest range of log densities in a table; beyond it, they differ by rounding errors."""

WIDEST_START = 1e6
"""Range of log densities in a start that would be wider."""

LEAST_MASS = 1e-6
"""Mass below which cells count alike when a table is optimized."""

STIFFNESS = 4.0
"""c of a budget's cost, in units of β/k. The optimum's β falls by about β/2k per nat."""

SPENT = 1e-2
"""Relative miss of a budget after which the table's top is scaled to meet it."""

MOST_COSTS = 12
"""Number of prices that are tried for a budget at one stiffness, and then at stiffer ones."""

SEED = 20_241_219


class Unresolved(Exception):
    """A table that double precision does not hold."""


@dataclass(frozen=True)
class Achieved(Shown):
    """Expectations over prompts."""

    win_rate: float
    kl: float
    """In nats; exact up to rounding."""

    stderr: float
    """Standard error of `win_rate` at this `kl`; by simulation."""


@dataclass(frozen=True)
class FewSamples(Shown):
    """Calibration by `samples` reference samples per prompt."""

    samples: int
    """K ≥ 1."""

    cells: int = CELLS
    """Total number of cells, over the prompts of an average."""

    def __post_init__(self) -> None:
        _check.count("samples", self.samples)

    @property
    def quantiles(self) -> Cells:
        """The K + 1 mid-rank quantiles of a response without ties: j/K."""
        return np.arange(self.samples + 1) / self.samples

    def values(self, transform: AbstractTransform) -> Cells:
        """φ_j of a transform: its values at j/K, or with add-half smoothing if it is unbounded."""
        if transform.bounded:
            return transform(self.quantiles)
        return transform((np.arange(self.samples + 1) + 0.5) / (self.samples + 1))

    def means(self, u: Float[np.ndarray, "_"], phi: Float[np.ndarray, "_"]) -> Cells:
        """Φ, given at points u, at the mean quantile of each cell, which approximates its mean in
        the cell."""
        middle = (np.arange(self.samples + 1) + 0.5) / (self.samples + 1)
        return np.interp(middle, u, phi)

    @cached_property
    def _widths(self) -> Float[np.ndarray, "prompts cells"]:
        """Cell widths of the prompts of an average."""
        fewest = FEWEST_PROMPTS * min(self.cells, CELLS) // CELLS
        prompts = max(self.cells // (self.samples + 1), fewest)
        rng = np.random.default_rng([SEED, self.samples])
        return rng.dirichlet(np.ones(self.samples + 1), size=prompts)

    def achieved(
        self, exponents: Cells, procedure: RankProcedure, against: AbstractProcedure
    ) -> Achieved:
        """Expected win rate and KL of the policies with density ∝ e^exponent per cell."""
        widths = self._widths
        wins = 1 - np.concatenate(
            [
                Layout(w, _tilt(w, exponents)[0], procedure, against).losses()
                for w in np.array_split(widths, max(1, widths.size // 50_000))
            ]
        )
        controls, kl = self._controls(exponents, procedure, against)
        slope, *_ = np.linalg.lstsq(controls - controls.mean(0), wins - wins.mean(), rcond=None)
        rest = wins - controls @ slope
        stderr = float(rest.std(ddof=len(slope) + 1) / np.sqrt(len(rest)))
        return Achieved(float(rest.mean()), kl, stderr)

    def _controls(
        self, exponents: Cells, procedure: RankProcedure, against: AbstractProcedure
    ) -> tuple[Float[np.ndarray, "prompts controls"], float]:
        """Control variates of the win rate, with mean 0, and the expected KL.

        The means of log Z, of the widths' logarithms, and of linear functions of widths and masses
        are known. What they explain of W does not contribute to its variance.
        """
        widths = self._widths
        means = expected(exponents)
        mass, log_z = _tilt(widths, exponents)
        top = exponents - exponents.max()
        tilt = np.exp(top)
        # W changes by Σ Φ_j dm_j to first order; here Φ of the policy with the mean masses.
        middle = (np.arange(self.samples + 1) + 0.5) / (self.samples + 1)
        cdf = np.clip(np.cumsum(means.mass) - means.mass / 2, 0, 1)
        rate = procedure.density(cdf) * against.density(middle)
        phi = (np.cumsum(rate) - rate / 2) / max(rate.sum(), 1e-300)
        shapes = np.stack([self.quantiles, self.quantiles**2, phi, tilt, tilt * top], axis=1)
        # Many draws depend on the outermost cells.
        outer = np.unique(np.r_[:OUTER, -OUTER:0] % widths.shape[1])
        harmonic = np.sum(1 / np.arange(1, self.samples + 1))
        return np.column_stack(
            [
                np.log(widths[:, outer]) + harmonic,
                (widths - 1 / (self.samples + 1)) @ shapes,
                (mass - means.mass) @ shapes,
                log_z - means.log_z,
            ]
        ), means.kl

    def at_kl(self, transform: AbstractTransform, kl: float) -> tuple[float, Cells]:
        """β, and exponents Φ/β per cell, at which training on a transform reaches `kl` nats.

        Raises SolveError if K samples cannot express that much KL.
        """
        values = self.values(transform)
        scale = self._scale(values, kl, transform.spec)
        return 1 / scale, values * scale

    def _scale(self, values: Cells, kl: float, name: str) -> float:
        """1/β at which training on `values` reaches `kl` nats."""

        def excess(log_beta: float) -> float:
            return float(np.log(max(expected(values * np.exp(-log_beta)).kl, 1e-300) / kl))

        # A weak tilt has a KL of Var(φ)/(2 β²) nats.
        start = float(np.log(max(np.std(values), 1e-300)) - 0.5 * np.log(2 * kl))
        try:
            log_beta = falling_root(excess, start, low=start - STRONGEST_TILT, xtol=1e-12)
        except NoRoot:
            raise SolveError(
                f"`{name}` does not reach kl={kl:g} nats with {self.samples} calibration samples "
                f"per prompt: {np.sum(1 / np.arange(1, self.samples + 1)):.3g} nats, "
                "1 + 1/2 + … + 1/K, is the most they can express on average. Use more samples, or "
                "a "
                "smaller kl."
            ) from None
        return float(np.exp(-log_beta))

    def _spending(self, exponents: Cells, kl: float, name: str) -> Cells:
        """Exponents near the given ones at which the KL is `kl` nats."""
        try:
            return exponents * self._scale(exponents, kl, name)
        except SolveError:
            # A table that is flat at its top spends more only if its top rises.
            more = self._scale(self.quantiles, kl, name)

            def short(share: float) -> float:
                return kl - expected(exponents + share * more * self.quantiles).kl

            if short(1.0) > 0 or short(0.0) < 0:
                raise
            share = bracketed_root(short, 0.0, 1.0, xtol=1e-14)
            return exponents + share * more * self.quantiles

    def best_table(
        self,
        procedure: RankProcedure,
        against: AbstractProcedure,
        start: Cells,
        start_beta: float,
        *,
        kl: float | None,
        beta: float | None,
    ) -> tuple[Cells, float]:
        """The φ_j, increasing, that maximize the expected W − β KL, and β.

        With a budget, β is solved for together with the table. `start` and `start_beta` are a
        guess: the exact optimum averaged over the cells.
        """
        cells = self.cells // (CELLS // ROUGH_CELLS)
        prompts = max(cells // (self.samples + 1), FEWEST_OPTIMIZED)
        widths = np.random.default_rng([SEED, self.samples, 1]).dirichlet(
            np.ones(self.samples + 1), size=prompts
        )
        guess = _resolved(start / start_beta)
        if kl is not None:
            guess = _resolved(self._spending(guess, kl, "the optimum"))

        def unresolved(exponents: Cells) -> SolveError:
            mass, _ = _tilt(widths, exponents)
            loss = Layout(widths, mass, procedure, against).losses().mean()
            asked = f"beta={beta:g}" if kl is None else f"kl={kl:g} nats"
            return SolveError(
                f"The best table for {self.samples} calibration samples per prompt is not resolved "
                f"at {asked}: the win rate is within {loss:.1g} of 1 already at a table with "
                f"{expected(exponents).kl:.3g} nats, so the rewards of the cells with mass differ "
                "by rounding errors only. Use a smaller KL, or the transform of exact calibration, "
                "which is the design without `samples`."
            )

        def solve(exponents: Cells, cost: "Cost") -> Cells:
            try:
                return _ascend(widths, exponents, procedure, against, cost)
            except Unresolved:
                raise unresolved(exponents) from None

        if kl is None:
            _check.budget(kl, beta)
            strength = _check.positive("beta", beta)
            return solve(guess, Cost(strength)) * strength, strength
        # β for exact quantiles may be smaller by orders of magnitude.
        strength, exponents = _price(widths, guess, procedure, against), guess
        if not strength > 0:
            raise unresolved(guess)
        for tried in range(2 * MOST_COSTS):
            # These few prompts spend somewhat more or less than all.
            budget = kl + _spent(widths, exponents) - expected(exponents).kl
            stiffness = STIFFNESS * 2.0 ** max(tried - MOST_COSTS, 0)
            cost = Cost(strength, budget, stiffness * strength / kl)
            exponents = solve(exponents, cost)
            price = _price(widths, exponents, procedure, against)
            if not price > 0:
                break
            if abs(expected(exponents).kl / kl - 1) < SPENT:
                # The budget holds to the last digit.
                return self._spending(exponents, kl, "the table") * price, price
            strength = cost.slope(_spent(widths, exponents))
            if not strength > 0:
                strength = price
        raise unresolved(exponents)


@dataclass(frozen=True)
class Cost:
    """β (KL − k) + ½ c (KL − k)², subtracted from the win rate.

    With c = 0 it is the price of KL at a strength. With c > 0 the policy that spends k nats is a
    maximum even where the optimum jumps over this budget, so that it is a saddle at every price.
    """

    beta: float
    budget: float = 0.0
    stiffness: float = 0.0

    def of(self, kl: float) -> float:
        return self.beta * (kl - self.budget) + 0.5 * self.stiffness * (kl - self.budget) ** 2

    def slope(self, kl: float) -> float:
        """The price of one more nat."""
        return self.beta + self.stiffness * (kl - self.budget)


def samples_needed(
    procedure: RankProcedure,
    transform: AbstractTransform,
    *,
    kl: float,
    loss: float,
    exact: float,
    against: AbstractProcedure | None = None,
    most: int = 4096,
) -> int:
    """The smallest K at which training on a transform is within `loss` of the win rate `exact`.

    - `exact`: the win rate to compare with, such as that of exact calibration.
    - `most`: largest K tried; SolveError beyond.
    """
    require_by_rank("procedure", procedure)
    against = procedure if against is None else require_procedure("against", against)
    _check.instance("transform", transform, AbstractTransform, "a transform such as Identity()")
    _check.positive("kl", kl)
    _check.positive("loss", loss)
    exact, most = _check.real("exact", exact), _check.count("most", most)

    def shortfall(samples: int) -> float:
        few = FewSamples(samples)
        try:
            _, exponents = few.at_kl(transform, kl)
        except SolveError:
            return float("inf")
        return exact - few.achieved(exponents, procedure, against).win_rate

    high = 2
    while shortfall(high) > loss:
        high *= 2
        if high > most:
            raise SolveError(
                f"At kl={kl:g} `{transform.spec}` loses more than {loss:g} of win rate to `exact`, "
                f"{exact:g}, even with {most} calibration samples per prompt. Allow a larger "
                "`loss`, raise `most`, or choose another transform."
            )
    low = high // 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if shortfall(middle) <= loss else (middle, high)
    return high


def _tilt(widths: Widths, exponents: Cells) -> tuple[Widths, Float[np.ndarray, "prompts"]]:
    """Policy mass of each cell, and log Z of each prompt."""
    top = exponents.max()
    mass = widths * np.exp(exponents - top)
    total = mass.sum(1)
    return mass / total[:, None], np.log(total) + top


def _resolved(exponents: Cells) -> Cells:
    """Exponents whose range leaves digits for the cells with mass. How far the others lie below
    does not matter."""
    if np.ptp(exponents) <= WIDEST_TABLE:
        return exponents
    rising = np.maximum.accumulate(exponents)  # it falls by rounding only
    return np.maximum(rising - rising[-1], -WIDEST_START)


def _spent(widths: Widths, exponents: Cells) -> float:
    """Mean KL of the prompts, in nats."""
    mass, log_z = _tilt(widths, exponents)
    return float(np.mean(mass @ exponents - log_z))


def _price(
    widths: Widths, exponents: Cells, procedure: RankProcedure, against: AbstractProcedure
) -> float:
    """What one more nat adds to the mean win rate, in the direction of a stronger tilt: β if the
    exponents are the best for some β."""
    mass, _ = _tilt(widths, exponents)
    centered = exponents - (mass @ exponents)[:, None]
    marginal = Layout(widths, mass, procedure, against).marginal()
    return float(np.sum(mass * marginal * centered) / np.sum(mass * centered**2))


def _ascend(
    widths: Widths,
    exponents: Cells,
    procedure: RankProcedure,
    against: AbstractProcedure,
    cost: Cost,
) -> Cells:
    """The exponents that maximize the mean of W minus the cost of the mean KL, over given
    prompts."""

    def loss(e: Cells) -> tuple[float, Cells]:
        mass, log_z = _tilt(widths, e)
        kl = float(np.mean(mass @ e - log_z))
        layout = Layout(widths, mass, procedure, against)
        losses = layout.losses()
        marginal = layout.marginal() - cost.slope(kl) * e
        # The exponents enter through mass ∝ width e^exponent, so dJ/de is mass times (Φ − βe minus
        # its mean); the tilt's log partition removes the mean.
        pull = mass * (marginal - np.sum(mass * marginal, axis=1, keepdims=True))
        return cost.of(kl) + float(losses.mean()) - 1, -pull.mean(0)

    from scipy.optimize import isotonic_regression, minimize  # slow to import

    # The curvature is about β times the mass of each cell, which differs by orders of magnitude.
    weight = np.maximum(expected(exponents).mass, LEAST_MASS)
    unit = 1 / np.sqrt(weight)

    def scaled(x: Cells) -> tuple[float, Cells]:
        if not np.isfinite(x * unit).all() or np.ptp(x * unit) > WIDEST_TABLE:
            raise Unresolved
        value, slope = loss(x * unit)
        return value / cost.beta, slope * unit / cost.beta

    options = {"maxiter": 200, "ftol": 1e-9}
    optimum = minimize(scaled, exponents / unit, jac=True, method="L-BFGS-B", options=options)
    # The table must not fall where few prompts determine it.
    best = isotonic_regression(optimum.x * unit, weights=weight).x
    return np.asarray(best - best[0])  # a common shift has no effect
