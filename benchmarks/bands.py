"""Coverage of the bands over n: simulated policies whose curves are known.

    python benchmarks/bands.py [--runs N]

Writes benchmarks/bands.json and docs/band-benchmarks.md.
"""

import argparse
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.special import betaincinv, betaln, ndtr

from infalign.analysis import Curve, Samples, curve
from infalign.evaluation import simultaneous
from infalign.storage import write_text

ROOT = Path(__file__).parents[1]
RUNS = 600
"""Simulated studies of each row: a share of 95 % has a standard error of 0.9 points."""

DRAWS = 4_000
"""Draws of the largest error, a tenth of what the package uses. Its quantile is then off by 0.016
standard errors of the estimate, in either direction."""

PROMPTS, SAMPLES, LEVEL = (30, 100, 300), (16, 64), 0.95
SHORT = -3.0
"""Shares further below 95 % than this many of their standard errors are marked."""

Draw = Callable[[np.random.Generator, int, int], tuple[np.ndarray, np.ndarray]]


@dataclass(frozen=True)
class World:
    """Policy and reference of one kind of prompts."""

    words: str
    draw: Draw
    """Scores of the policy and of the reference for (rng, prompts, samples)."""

    truth: Callable[[np.ndarray], np.ndarray]
    """The win rate under best-of-n for each n."""


def solved(law: tuple[float, float], n: np.ndarray) -> np.ndarray:
    """pass@n where chances of success are Beta."""
    a, b = law
    return 1 - np.exp(betaln(a, b + n) - betaln(a, b))


def tried(rng, policy, reference, m: int) -> tuple[np.ndarray, np.ndarray]:
    """m attempts of each side on prompts with these chances of success."""
    sides = [
        (rng.random((len(chance), m)) < chance[:, None]).astype(float)
        for chance in (policy, reference)
    ]
    return sides[0], sides[1]


BASE, SHARP = (1.2, 2.2), (0.5, 0.7)


def sharper(rng, prompts: int, m: int):
    """The harder prompts became harder and the easier ones easier."""
    u = rng.random(prompts)
    return tried(rng, betaincinv(*SHARP, u), betaincinv(*BASE, u), m)


def unlearned(rng, prompts: int, m: int):
    """On a twentieth of the prompts the reference is right half the time, the policy never."""
    chance, lost = rng.beta(*SHARP, prompts), rng.random(prompts) < 0.05
    return tried(rng, np.where(lost, 0, chance), np.where(lost, 0.5, chance), m)


RARE, RARER = (0.1, 5.0), (0.1, 10.0)


def rare(rng, prompts: int, m: int):
    """Few attempts succeed, those of the policy twice as often."""
    u = rng.random(prompts)
    return tried(rng, betaincinv(*RARE, u), betaincinv(*RARER, u), m)


def alike(rng, prompts: int, m: int):
    chance = rng.beta(*SHARP, prompts)
    return tried(rng, chance, chance, m)


def powers(rng, k: np.ndarray, m: int) -> tuple[np.ndarray, np.ndarray]:
    """Rewards of a policy F(u) = u^k on prompts with these k, and of the reference."""
    return rng.random((len(k), m)) ** (1 / k[:, None]), rng.random((len(k), m))


HALF = 1.0
"""Spread of log k: a policy that is better on half of the prompts and worse on the other half."""

WORST = 0.05
"""k on the tenth of the prompts that the policy loses."""

SHIFT, SPREAD, NARROW = 0.4, 0.5, 0.7
"""Rewards N(SHIFT + SPREAD z, NARROW) against N(0, 1), with z ~ N(0, 1) for each prompt."""


def narrower(rng, prompts: int, m: int):
    better = SHIFT + SPREAD * rng.normal(size=(prompts, 1))
    return better + NARROW * rng.normal(size=(prompts, m)), rng.normal(size=(prompts, m))


def narrower_wins(n: np.ndarray) -> np.ndarray:
    """By quadrature over prompts and over the reference's best reward."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(60)
    x = np.linspace(-9, 9, 20_001)
    below = ndtr((x - SHIFT - SPREAD * nodes[:, None]) / NARROW)
    lost = [
        np.trapezoid(weights / weights.sum() @ below**k, ndtr(x) ** k)  # P(policy below)
        for k in n
    ]
    return 1 - np.array(lost)


WORLDS = {
    "binary": {
        "alike": World("both sides have the same chances", alike, lambda n: np.full(len(n), 0.5)),
        "sharper": World(
            "chances Beta(0.5, 0.7) against Beta(1.2, 2.2): wins at small n, loses at large n",
            sharper,
            lambda n: 0.5 + (solved(SHARP, n) - solved(BASE, n)) / 2,
        ),
        "unlearned": World(
            "equal, except that the policy has lost one prompt in 20",
            unlearned,
            lambda n: 0.5 - 0.05 * (1 - 0.5**n) / 2,
        ),
        "rare": World(
            "chances Beta(0.1, 5) against Beta(0.1, 10): most prompts are never solved",
            rare,
            lambda n: 0.5 + (solved(RARE, n) - solved(RARER, n)) / 2,
        ),
    },
    "continuous": {
        "alike": World(
            "both sides have the same rewards",
            lambda rng, p, m: powers(rng, np.ones(p), m),
            lambda n: np.full(len(n), 0.5),
        ),
        "balanced": World(
            "better on half of the prompts, as much worse on the other half",
            lambda rng, p, m: powers(rng, np.exp(HALF * rng.normal(size=p)), m),
            lambda n: np.full(len(n), 0.5),
        ),
        "narrower": World(
            "higher on average with less spread: wins at small n, loses at large n",
            narrower,
            narrower_wins,
        ),
        "beaten": World(
            "equal, except that the policy nearly always loses on one prompt in 10",
            lambda rng, p, m: powers(rng, np.where(rng.random(p) < 0.1, WORST, 1.0), m),
            lambda n: np.full(len(n), 0.5 - 0.1 * (0.5 - WORST / (1 + WORST))),
        ),
    },
}
"""Kind of score → name → world."""


def holds(low, high, truth) -> np.ndarray:
    """Whether an interval contains the truth, up to rounding."""
    return (low <= truth + 1e-12) & (truth <= high + 1e-12)


def first_loss_held(own: Curve, truth: np.ndarray) -> tuple[bool, bool]:
    """Whether the confidence set of the first n at which the policy loses contains the true one,
    and whether it excludes that there is none."""
    flip, at = own.first_loss, np.flatnonzero(truth < own.null - 1e-12)
    if not at.size:
        return flip.latest is None, flip.latest is not None
    n = own.sizes[at[0]]
    inside = flip.earliest is not None and flip.earliest <= n <= (flip.latest or n)
    return inside, flip.latest is not None


def studied(world: World, prompts: int, m: int, runs: int, rng) -> dict:
    """One row: shares of the runs that hold."""
    ids, truth = tuple(map(str, range(prompts))), world.truth(np.arange(1, m + 1))
    alone, together, first, shown, widths = [], [], [], [], []
    for _ in range(runs):
        sides = [
            Samples(name, ids, scores)
            for name, scores in zip(("policy", "base"), world.draw(rng, prompts, m), strict=True)
        ]
        own = curve("best-of-n", *sides, level=LEVEL)
        ends = [
            np.array([(e.low, e.high) for e in estimates]).T
            for estimates in (own.contrast.pointwise, own.contrast.joint)
        ]
        alone.append(holds(*ends[0], truth))
        together.append(bool(holds(*ends[1], truth).all()))
        inside, decided = first_loss_held(own, truth)
        first.append(inside)
        shown.append(decided)
        widths.append([float(np.mean(high - low)) for low, high in ends])
    each = np.mean(alone, axis=0)
    return {
        "prompts": prompts,
        "samples": m,
        "together": float(np.mean(together)),
        "each": float(each.mean()),
        "least": float(each.min()),
        "least_at": int(each.argmin()) + 1,
        "all_alone": float(np.mean([row.all() for row in alone])),
        "first": float(np.mean(first)),
        "shown": float(np.mean(shown)),
        "widths": np.median(widths, axis=0).tolist(),
    }


def measured(runs: int) -> list[dict]:
    """All worlds at all numbers of prompts and samples, each from a seed of its own."""
    simultaneous.DRAWS = DRAWS
    rows = []
    for kind, worlds in WORLDS.items():
        for name, world in worlds.items():
            for m in SAMPLES:
                for prompts in PROMPTS:
                    rng = np.random.default_rng([len(rows), prompts, m])
                    row = studied(world, prompts, m, runs, rng)
                    rows.append({"scores": kind, "world": name, "runs": runs} | row)
    return rows


def distance(share: float, runs: int) -> float:
    """A share minus 95 %, in standard errors of a share of 95 %."""
    return (share - LEVEL) / float(np.sqrt(LEVEL * (1 - LEVEL) / runs))


def page(stored: dict) -> str:
    """docs/band-benchmarks.md, from stored results only."""
    rows = stored["rows"]
    tables = []
    for kind, worlds in WORLDS.items():
        for name, world in worlds.items():
            own = [row for row in rows if (row["scores"], row["world"]) == (kind, name)]
            tables += [f"**{kind.capitalize()} rewards: {world.words}.**", _table(own)]
    runs = stored["runs"]
    return PAGE.format(
        runs=f"{runs:,}",
        error=f"{100 * np.sqrt(LEVEL * (1 - LEVEL) / runs):.1f}",
        prompts=", ".join(map(str, PROMPTS)),
        samples=" or ".join(map(str, SAMPLES)),
        together=_lowest(rows, "together"),
        first=_lowest(rows, "first"),
        each=f"{100 * np.mean([row['each'] for row in rows]):.1f}",
        band=f"{100 * np.mean([row['together'] for row in rows]):.1f}",
        wrong=f"{100 * (1 - min(row['all_alone'] for row in rows)):.0f}",
        wider=f"{np.median([np.divide(*row['widths'][::-1]) for row in rows]):.2f}",
        tables="\n\n".join(tables),
    )


def _lowest(rows: list[dict], key: str) -> str:
    worst = min(rows, key=lambda row: row[key])
    return (
        f"{100 * worst[key]:.1f} % ({distance(worst[key], worst['runs']):+.1f} standard errors "
        f"from 95 %)"
    )


def _table(rows: list[dict]) -> str:
    lines = [
        "| prompts | samples | band holds, % | in s.e. | one n, % | lowest, % | at n | all n, % "
        "| set holds, % | in s.e. | loss shown, % | width, points |",
        "| " + " | ".join(["---:"] * 12) + " |",
    ]
    for row in rows:
        band, first = (distance(row[key], row["runs"]) for key in ("together", "first"))
        cells = [
            str(row["prompts"]),
            str(row["samples"]),
            _marked(row["together"], band),
            f"{band:+.1f}",
            *(f"{100 * row[key]:.1f}" for key in ("each", "least")),
            str(row["least_at"]),
            f"{100 * row['all_alone']:.0f}",
            _marked(row["first"], first),
            f"{first:+.1f}",
            f"{100 * row['shown']:.0f}",
            " / ".join(f"{100 * width:.1f}" for width in row["widths"]),
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _marked(share: float, away: float) -> str:
    text = f"{100 * share:.1f}"
    return f"**{text}**" if away < SHORT else text


PAGE = """# Bands over n

`infalign analyze` draws a measure as a curve over n, with an interval at each n and a band that
holds at every n together ([what they mean](analyze.md#what-the-intervals-mean)). `make bands`
measures here how often they hold, and writes this page: win rates under best-of-n for n up to the
samples, on {prompts} prompts with {samples} samples of each side, {runs} simulated studies a row. A
share of 95 % then has a standard error of {error} points.

- *Band holds*: the truth lies in the band at every n.
- *One n*: the truth lies in the interval at one n, on average over n, and at the n where it does so
  least often. *All n*: it lies in all of these intervals, which they do not promise.
- *Set holds*: the confidence set of the first n at which the policy loses contains the true one, or
  contains that it loses nowhere, if so. *Loss shown*: the set excludes that it loses nowhere.
- *Width*: of an interval, and of the band.

The band holds in {band} % of all studies; the lowest row has {together}.
The set's lowest row has {first}.
Intervals at one n hold in {each} % on average; read as if they held together, they are wrong
somewhere in up to {wrong} % of studies. The band is {wider} times as wide. Rows more than three
standard errors below 95 % are bold.

With 30 prompts and rewards of 0 and 1 the band holds more often than it says: it allows for the
prompts at either bound that 30 prompts can miss. The set may hold more often too, since it only
errs where the band does.

{tables}
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--runs", type=int, default=RUNS)
    parser.add_argument("--out", type=Path, default=ROOT)
    asked = parser.parse_args()
    results = {"runs": asked.runs, "rows": measured(asked.runs)}
    write_text(asked.out / "benchmarks/bands.json", json.dumps(results, indent=1) + "\n")
    write_text(asked.out / "docs/band-benchmarks.md", page(results))


if __name__ == "__main__":
    main()
