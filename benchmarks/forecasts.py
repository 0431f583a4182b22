"""Forecasts of success beyond the attempts that there are, against known truths.

    python benchmarks/forecasts.py [--counts FILE …]

- `--counts`: JSON Lines with `c` successes of `n` attempts for each prompt, of which few attempts
  are drawn and the rest is withheld.

Writes benchmarks/forecasts.json and docs/forecast-benchmarks.md. Counts that are not given stay as
they were measured last.
"""

import argparse
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
from scipy.optimize import minimize
from scipy.special import betaln, expit

from infalign import json_lines
from infalign.evaluation.growth import FEWEST_SUCCESSES, WINDOW, fit_growth
from infalign.red_team.power_law import fit_power_law
from infalign.storage import write_text

ROOT = Path(__file__).parents[1]
PROMPTS, ATTEMPTS = 159, 100
"""Prompts as in HarmBench, and attempts that are seen."""

RUNS, HELD_BACK_RUNS = 20, 60
"""Simulated studies of each law."""

SIZES = (1_000, 10_000)
"""Attempts that are forecast: 10 and 100 times as many."""

SEEN = (4, 8, 16)
"""Attempts that are seen of given counts."""

Law = Callable[[np.random.Generator, int], np.ndarray]


def mixture(*parts: tuple[float, float, float]) -> Law:
    """Groups of prompts: the share of each, and mean and spread of their log-odds."""
    share, middle, spread = np.array(parts).T

    def law(rng, k):
        group = rng.choice(len(share), k, p=share)
        return expit(rng.normal(middle[group], spread[group]))

    return law


def possible(rng, k: int, share: float) -> np.ndarray:
    """Whether each of k prompts can succeed."""
    return rng.random(k) < share


def three_groups(rng, k: int) -> np.ndarray:
    group = rng.choice(3, k, p=[0.4, 0.4, 0.2])
    return np.choose(group, [rng.beta(8, 2, k), rng.beta(1, 50, k), np.zeros(k)])


CHOSEN_ON: dict[str, Law] = {
    "beta(0.2, 4)": lambda rng, k: rng.beta(0.2, 4, k),
    "beta(0.1, 2)": lambda rng, k: rng.beta(0.1, 2, k),
    "beta(0.5, 20)": lambda rng, k: rng.beta(0.5, 20, k),
    "beta(1, 100)": lambda rng, k: rng.beta(1, 100, k),
    "logit-normal(−4, 2.5)": lambda rng, k: expit(rng.normal(-4, 2.5, k)),
    "logit-normal(−6, 2)": lambda rng, k: expit(rng.normal(-6, 2, k)),
    "logit-normal(−5, 3.5)": lambda rng, k: expit(rng.normal(-5, 3.5, k)),
    "beta(0.5, 5), 30 % impossible": lambda rng, k: rng.beta(0.5, 5, k) * possible(rng, k, 0.7),
    "two groups": lambda rng, k: np.where(
        rng.random(k) < 0.5, rng.beta(2, 3, k), rng.beta(0.4, 60, k)
    ),
    "easy and hard": lambda rng, k: np.where(
        rng.random(k) < 0.6, rng.beta(3, 1, k), rng.beta(0.3, 10, k)
    ),
    "log-odds uniform(−8, 2), half impossible": lambda rng, k: (
        expit(rng.uniform(-8, 2, k)) * possible(rng, k, 0.5)
    ),
    "log-odds −4 + 1.5 t₃, 15 % impossible": lambda rng, k: (
        expit(-4 + 1.5 * rng.standard_t(3, k)) * possible(rng, k, 0.85)
    ),
    "log-odds −5 + 1.5 t₂": lambda rng, k: expit(-5 + 1.5 * rng.standard_t(2, k)),
    "log-odds Laplace(−4, 2)": lambda rng, k: expit(rng.laplace(-4, 2, k)),
    "log-odds −1 − log-normal(1, 0.8)": lambda rng, k: expit(-1 - rng.lognormal(1, 0.8, k)),
    "log-odds −9 + log-normal(1.2, 0.6)": lambda rng, k: expit(-9 + rng.lognormal(1.2, 0.6, k)),
    "log-odds uniform(−7, −3)": lambda rng, k: expit(rng.uniform(-7, -3, k)),
    "log p uniform, 10⁻⁶ to 1": lambda rng, k: 10 ** rng.uniform(-6, 0, k),
    "two clusters, 0.3 and 0.0005": lambda rng, k: np.where(
        rng.random(k) < 0.6, rng.beta(30, 70, k), rng.beta(5, 10_000, k)
    ),
    "two clusters, 0.5 and 0.005": lambda rng, k: np.where(
        rng.random(k) < 0.5, rng.beta(10, 10, k), rng.beta(5, 1_000, k)
    ),
    "gamma(0.3)/10": lambda rng, k: np.minimum(rng.gamma(0.3, 0.1, k), 1),
    "log-odds Laplace(−5, 1.5), 30 % impossible": lambda rng, k: (
        expit(rng.laplace(-5, 1.5, k)) * possible(rng, k, 0.7)
    ),
    "log-odds −4.5 + 1.2 t₄": lambda rng, k: expit(-4.5 + 1.2 * rng.standard_t(4, k)),
    "log-odds −8 + 1.5 gamma(2)": lambda rng, k: expit(-8 + rng.gamma(2, 1.5, k)),
    "log-odds −0.5 − 2 gamma(2)": lambda rng, k: expit(-0.5 - rng.gamma(2, 2, k)),
    "Kumaraswamy(0.3, 6)": lambda rng, k: (1 - rng.random(k) ** (1 / 6)) ** (1 / 0.3),
    "log₁₀ p triangular(−5, −2, 0)": lambda rng, k: 10 ** rng.triangular(-5, -2, 0, k),
    "two clusters, 0.2 and 0.002": mixture((0.5, -1.4, 0.5), (0.5, -6.2, 0.6)),
    "two clusters, 0.4 and 0.0002": mixture((0.7, -0.4, 0.5), (0.3, -8.5, 0.7)),
    "solved, middling, impossible": three_groups,
    "Weibull(0.5)/100": lambda rng, k: np.minimum(0.01 * rng.weibull(0.5, k), 1),
    "odds Pareto(1) from 0.001": lambda rng, k: expit(np.log(0.001) + rng.exponential(1, k)),
    "log p = −2 abs(t₃)": lambda rng, k: np.exp(-2 * np.abs(rng.standard_t(3, k))),
}
"""Laws of a prompt's chance of success on which the laws that are fitted were chosen."""

HELD_BACK: dict[str, Law] = {
    "log-odds logistic(−4, 1.3), 20 % impossible": lambda rng, k: (
        expit(rng.logistic(-4, 1.3, k)) * possible(rng, k, 0.8)
    ),
    "log-odds −6 + 3 Weibull(1.5)": lambda rng, k: expit(-6 + 3 * rng.weibull(1.5, k)),
    "log-odds −1 − 3 Weibull(0.8)": lambda rng, k: expit(-1 - 3 * rng.weibull(0.8, k)),
    "log₁₀ p = −1 − 2 abs(normal)": lambda rng, k: 10 ** (-1 - 2 * np.abs(rng.normal(size=k))),
    "three clusters, 0.3, 0.03 and 0.002": mixture(
        (0.3, -0.85, 0.4), (0.3, -3.5, 0.4), (0.4, -6.2, 0.4)
    ),
    "two clusters, 0.6 and 0.01, 20 % impossible": lambda rng, k: (
        mixture((0.6, 0.4, 0.6), (0.4, -4.6, 0.6))(rng, k) * possible(rng, k, 0.8)
    ),
    "log-odds −4 + 1.5 sinh(0.3 + 0.8 normal)": lambda rng, k: expit(
        -4 + 1.5 * np.sinh(0.3 + 0.8 * rng.normal(size=k))
    ),
    "beta(0.5, 0.5)/5": lambda rng, k: rng.beta(0.5, 0.5, k) / 5,
    "uniform⁸/2": lambda rng, k: rng.random(k) ** 8 / 2,
    "log-odds, normal with two spreads": mixture((0.7, -5, 1.5), (0.3, -1, 3)),
}
"""Laws that were written down before the method was last changed, and tried once, after it."""


def counted(file: Path) -> tuple[np.ndarray, np.ndarray]:
    """Successes and attempts of each prompt of a file."""
    counts = [(row["c"], row["n"]) for _, row in json_lines.read_rows(file)]
    won, made = np.array(counts).T
    return won, made


def like_counts(file: Path) -> dict[str, Law]:
    """Chances as the counts leave them: Beta(a + c, b + n − c) for a prompt with c of n, where a
    and b fit all counts best; and harder prompts of the same shape."""
    won, made = counted(file)

    def loss(logs):
        a, b = np.exp(logs)
        return -np.sum(betaln(a + won, b + made - won) - betaln(a, b))

    a, b = np.exp(minimize(loss, [0.0, 0.0], method="Nelder-Mead").x)

    def law(rng, k):
        own = rng.integers(len(won), size=k)
        return rng.beta(a + won[own], b + made[own] - won[own])

    return {
        f"{file.stem}, to the power 1.5": lambda rng, k: law(rng, k) ** 1.5,
        f"{file.stem}, a tenth": lambda rng, k: law(rng, k) / 10,
    }


def simulated(laws: dict[str, Law], runs: int, *, seed: int) -> list[dict]:
    """Each law at each number of attempts."""
    rows = []
    for place, (name, law) in enumerate(laws.items()):
        rng = np.random.default_rng([seed, place])
        many = law(rng, 400_000)
        truth = {n: float(np.mean(_success(many, n))) for n in SIZES}
        errors: dict[int, list] = {n: [] for n in SIZES}
        for _ in range(runs):
            chance = law(rng, PROMPTS)
            tried = rng.random((PROMPTS, ATTEMPTS)) < chance[:, None]
            # New attempts on these prompts: whether any of n succeeds.
            waits = rng.geometric(np.maximum(chance, 1e-15))
            for n, row in _errors(tried, SIZES).items():
                these = float(np.mean(waits <= n))
                errors[n].append(_scored(row, truth[n], these))
        rows += [{"law": name, "n": n, "truth": truth[n]} | _means(errors[n]) for n in SIZES]
    return rows


def withheld(file: Path, runs: int) -> list[dict]:
    """Few attempts of given counts against all of them."""
    won, made = counted(file)
    n, rng, rows = int(made.min()), np.random.default_rng(0), []
    for seen in SEEN:
        errors = []
        for _ in range(runs):
            some = rng.permutation(len(won))[:200]
            c = rng.hypergeometric(won[some], made[some] - won[some], seen)
            tried = np.arange(seen)[None, :] < c[:, None]
            these = float(np.mean(won[some] > 0))
            row = _errors(tried, (n,))[n]
            errors.append(_scored(row, float(np.mean(won > 0)), these))
        row = {"file": file.stem, "seen": seen, "n": n, "truth": float(np.mean(won > 0))}
        rows.append(row | _means(errors))
    return rows


def _success(chance: np.ndarray, n: int) -> np.ndarray:
    return -np.expm1(n * np.log1p(-np.minimum(chance, 1 - 1e-15)))


def _errors(tried: np.ndarray, sizes) -> dict[int, tuple]:
    """The forecast at each size, and that of the power law; nan where there is none."""
    growth = fit_growth(tried.astype(float), stopped=False)
    law = fit_power_law(tried.astype(float), rng=np.random.default_rng(0), resamples=100)
    line = {n: float(np.exp(-law.a.value * n**-law.b.value)) for n in sizes}
    return {n: (growth.forecast(n), line[n], bool(growth.reservations)) for n in sizes}


def _scored(row: tuple, truth: float, these: float) -> list[float]:
    own, line, reserved = row
    inside = own.these_low - 1e-9 <= these <= own.these_high + 1e-9
    return [
        own.value - truth,
        inside,
        own.low <= truth <= own.high,
        line - truth,
        own.high - own.low,
        reserved,
    ]


def _means(errors: list) -> dict:
    own, these, others, line, width, reserved = np.array(errors, float).T
    return {
        "bias": float(own.mean()),
        "rmse": float(np.sqrt(np.mean(own**2))),
        "these": float(these.mean()),
        "others": float(others.mean()),
        "width": float(width.mean()),
        "reserved": float(reserved.mean()),
        "line_bias": float(np.nanmean(line)),
        "line_rmse": float(np.sqrt(np.nanmean(line**2))),
    }


HEAD = """# Forecasts beyond the attempts

What becomes of pass@n, or of the attack success rate, at 10 or 100 times the attempts that there
are? `infalign analyze --forecast N` and `infalign red-team` answer with two 95 % intervals, one for
these prompts and one for other prompts of the same kind
([method](maths.md#17-success-beyond-the-samples)). `make forecasts` measures here how often they
hold, and writes this page. *Power law*: the line log(−log ASR) in log N of arXiv:2412.03556, fitted
to all sizes up to the attempts that are seen.

Each study has {prompts} prompts with {attempts} attempts. Cells have two numbers: for n = 1,000 and
for n = 10,000. *Reserved*: the share of studies in which the forecast comes with a reservation,
since fewer than {few} prompts have 1 to {window} successes.

"""

COLUMNS = (
    "truth, %",
    "bias, points",
    "error (rmse)",
    "covered, these",
    "covered, others",
    "width",
    "power law: error",
    "reserved, %",
)
"""The columns of every table, after the name."""


def _table(rows: list[dict], name: str) -> str:
    """One line for each name, with the two sizes beside each other."""
    lines = [f"| {name} | {' | '.join(COLUMNS)} |", "| --- |" + " ---: |" * len(COLUMNS)]
    for case in dict.fromkeys(row[name] for row in rows):
        own = [row for row in rows if row[name] == case]
        cells = [
            _both(own, "truth", ".1f"),
            _both(own, "bias", "+.1f"),
            _both(own, "rmse", ".1f"),
            *(_both(own, key, ".0f") for key in ("these", "others", "width")),
            _both(own, "line_rmse", ".1f"),
            f"{100 * own[0]['reserved']:.0f}",
        ]
        lines.append(f"| {case} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _both(rows: list[dict], key: str, form: str) -> str:
    return "; ".join(format(100 * row[key], form) for row in rows)


def _altogether(rows: list[dict]) -> str:
    """Coverage over all laws, and of the law with the lowest."""
    parts = []
    for n in SIZES:
        own = [row for row in rows if row["n"] == n]
        worst = min(own, key=lambda row: row["others"])
        parts.append(
            f"n = {n:,}: these prompts {_mean(own, 'these')} %, others {_mean(own, 'others')} % "
            f"(lowest: {100 * worst['others']:.0f} %, {worst['law']})"
        )
    return "All laws together, " + "; ".join(parts) + "."


def page(stored: dict) -> str:
    """The page, from stored results only."""
    text = HEAD.format(prompts=PROMPTS, attempts=ATTEMPTS, few=FEWEST_SUCCESSES, window=WINDOW)
    text += (
        "## Held back\n\n"
        f"{HELD_BACK_RUNS} studies of laws that were written down before the method was last "
        "changed, and tried once,\nafter it: mixtures, clusters, shares of impossible prompts, "
        "heavy tails, and chances like those of real\ncounts (each prompt's from its posterior "
        "under the beta law that fits all counts best), made harder. This\nis the third such set. "
        "The first two showed intervals that were too short (others, n = 10,000: 79.2 % and\n"
        "86.6 %); the method was changed after each, and their laws are now among those below.\n\n"
        "**Read the rows, not the mean.** Many laws have 98 to 100 %, so a mean near 95 % hides "
        "laws that have less.\n\n"
        f"{_table(stored['held_back'], 'law')}\n\n{_altogether(stored['held_back'])}\n\n"
        "## Laws on which the method was chosen\n\n"
        f"{RUNS} studies each.\n\n"
        f"{_table(stored['chosen_on'], 'law')}\n\n{_altogether(stored['chosen_on'])}\n\n"
        "## What cannot be known\n\n"
        "Where a hard group is so hard that a handful of its prompts have a success, the attempts "
        "do not tell\nwhether the rest will succeed at 100 times as many or never. The forecast "
        "then takes the middle, and\nits interval is too short for a truth at the far end. Such "
        "forecasts have a reservation. Laws with three\nclusters, or with nothing below a fixed "
        "chance, are covered least, and their forecasts run low. The cause\nis not known; "
        "what is fitted has one peak, and at most one group of easier prompts beside it.\n\n"
        "## Real counts\n\n"
    )
    if not stored["withheld"]:
        return text + "Not measured. `python benchmarks/forecasts.py --counts FILE` does.\n"
    seen = [row | {"counts": f"{row['file']}, {row['seen']} seen"} for row in stored["withheld"]]
    return (
        text
        + "Some attempts of 200 prompts are seen, all attempts (128 or 100) are forecast.\n\n"
        + _table(seen, "counts")
        + "\n"
    )


def _mean(rows: list[dict], key: str) -> str:
    return f"{100 * np.mean([row[key] for row in rows]):.1f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--counts", type=Path, nargs="*", default=[], metavar="FILE")
    parser.add_argument("--runs", type=int, default=RUNS, help="studies of each law")
    parser.add_argument("--out", type=Path, default=ROOT)
    asked = parser.parse_args()
    file = asked.out / "benchmarks/forecasts.json"
    before = json.loads(file.read_text()) if file.exists() else {"withheld": [], "held_back": []}
    scale = asked.runs / RUNS
    held_back = simulated(HELD_BACK, round(HELD_BACK_RUNS * scale), seed=2)
    for one in asked.counts:
        held_back += simulated(like_counts(one), round(HELD_BACK_RUNS * scale), seed=3)
    if not asked.counts:
        held_back += [row for row in before["held_back"] if row["law"] not in HELD_BACK]
    stored = {
        "held_back": held_back,
        "chosen_on": simulated(CHOSEN_ON, asked.runs, seed=0),
        "withheld": [row for one in asked.counts for row in withheld(one, asked.runs)]
        or before["withheld"],
    }
    write_text(file, json.dumps(stored, indent=1) + "\n")
    write_text(asked.out / "docs/forecast-benchmarks.md", page(stored))


if __name__ == "__main__":
    main()
