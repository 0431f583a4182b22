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
from scipy.special import expit

from infalign import json_lines
from infalign.evaluation.growth import fit_growth
from infalign.red_team.power_law import fit_power_law
from infalign.storage import write_text

ROOT = Path(__file__).parents[1]
PROMPTS, ATTEMPTS, RUNS = 159, 100, 40
"""Prompts as in HarmBench, attempts that are seen, and simulated studies of each law."""

SIZES = (1_000, 10_000)
"""Attempts that are forecast: 10 and 100 times as many."""

SEEN = (4, 8, 16)
"""Attempts that are seen of given counts."""

Law = Callable[[np.random.Generator, int], np.ndarray]
LAWS: dict[str, Law] = {
    "beta(0.2, 4)": lambda rng, k: rng.beta(0.2, 4, k),
    "beta(0.1, 2)": lambda rng, k: rng.beta(0.1, 2, k),
    "beta(0.5, 20)": lambda rng, k: rng.beta(0.5, 20, k),
    "beta(1, 100)": lambda rng, k: rng.beta(1, 100, k),
    "logit-normal(−4, 2.5)": lambda rng, k: expit(rng.normal(-4, 2.5, k)),
    "logit-normal(−6, 2)": lambda rng, k: expit(rng.normal(-6, 2, k)),
    "logit-normal(−5, 3.5)": lambda rng, k: expit(rng.normal(-5, 3.5, k)),
    "beta(0.5, 5), 30 % impossible": lambda rng, k: rng.beta(0.5, 5, k) * (rng.random(k) > 0.3),
    "two groups": lambda rng, k: np.where(
        rng.random(k) < 0.5, rng.beta(2, 3, k), rng.beta(0.4, 60, k)
    ),
    "easy and hard": lambda rng, k: np.where(
        rng.random(k) < 0.6, rng.beta(3, 1, k), rng.beta(0.3, 10, k)
    ),
}
"""Laws of a prompt's chance of success. The last two are none of the laws that are fitted."""


def simulated(runs: int) -> list[dict]:
    """Each law at each number of attempts."""
    rows = []
    for place, (name, law) in enumerate(LAWS.items()):
        rng = np.random.default_rng([0, place])
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
    counts = [(row["c"], row["n"]) for _, row in json_lines.read_rows(file)]
    won, made = np.array(counts).T
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
        rows.append({"file": file.stem, "seen": seen, "n": n} | _means(errors))
    return rows


def _success(chance: np.ndarray, n: int) -> np.ndarray:
    return -np.expm1(n * np.log1p(-np.minimum(chance, 1 - 1e-15)))


def _errors(tried: np.ndarray, sizes) -> dict[int, tuple]:
    """The forecast at each size, and that of the power law; nan where there is none."""
    growth = fit_growth(tried.astype(float), stopped=False)
    law = fit_power_law(tried.astype(float), rng=np.random.default_rng(0), resamples=100)
    line = {n: float(np.exp(-law.a.value * n**-law.b.value)) for n in sizes}
    return {n: (growth.forecast(n), line[n]) for n in sizes}


def _scored(row: tuple, truth: float, these: float) -> list[float]:
    own, line = row
    inside = own.these_low - 1e-9 <= these <= own.these_high + 1e-9
    return [
        own.value - truth,
        inside,
        own.low <= truth <= own.high,
        line - truth,
        own.high - own.low,
    ]


def _means(errors: list) -> dict:
    own, these, others, line, width = np.array(errors, float).T
    return {
        "bias": float(own.mean()),
        "rmse": float(np.sqrt(np.mean(own**2))),
        "these": float(these.mean()),
        "others": float(others.mean()),
        "width": float(width.mean()),
        "line_bias": float(np.nanmean(line)),
        "line_rmse": float(np.sqrt(np.nanmean(line**2))),
    }


HEAD = """# Forecasts beyond the attempts

What becomes of pass@n, or of the attack success rate, at 10 or 100 times the attempts that there
are? `infalign analyze --forecast N` and `infalign red-team` answer with two 95 % intervals, one for
these prompts and one for other prompts of the same kind
([method](maths.md#17-success-beyond-the-samples)). `python benchmarks/forecasts.py` measures here
how often they hold, and writes this page. *Power law*: the line log(−log ASR) in log N of
arXiv:2412.03556, fitted to all sizes up to the attempts that are seen.

## Simulated prompts

{prompts} prompts with {attempts} attempts each, {runs} simulated studies a row. The last two laws
are not among those that are fitted.

"""

FIGURES = "bias, points | error (rmse) | covered, these | covered, others | width | power law: bias"
"""The columns of every table."""


def _head(*first: str) -> str:
    names = [*first, *FIGURES.split(" | "), "error"]
    align = ["---", *(["---:"] * (len(names) - 1))]
    return f"| {' | '.join(names)} |\n| {' | '.join(align)} |\n"


def page(stored: dict) -> str:
    """The page, from stored results only."""
    text = HEAD.format(prompts=PROMPTS, attempts=ATTEMPTS, runs=stored["runs"])
    text += _head("law of the chances", "n", "truth, %")
    for row in stored["simulated"]:
        text += f"| {row['law']} | {row['n']:,} | {100 * row['truth']:.1f} | {_cells(row)} |\n"
    rows = stored["simulated"]
    text += "\nAll laws together: " + "; ".join(
        f"n = {n:,}: these prompts {_mean(rows, n, 'these')} %, others {_mean(rows, n, 'others')} %"
        for n in SIZES
    )
    text += (
        ".\n\nThe window of 10 successes and the prior weight of impossible prompts were chosen on "
        "laws such as\nthese, so this is no test on laws that are new to the method. A law whose "
        "chances are all tiny, of\nwhich 100 attempts show few, is covered least.\n\n"
        "## Real counts\n\n"
    )
    if not stored["withheld"]:
        return text + "Not measured. `python benchmarks/forecasts.py --counts FILE` does.\n"
    text += "Some attempts of 200 prompts are seen, all attempts are forecast.\n\n" + _head(
        "counts", "seen", "n"
    )
    for row in stored["withheld"]:
        text += f"| {row['file']} | {row['seen']} | {row['n']} | {_cells(row)} |\n"
    return text


def _cells(row: dict) -> str:
    points = {key: 100 * row[key] for key in row if isinstance(row[key], float)}
    return " | ".join(
        [
            f"{points['bias']:+.1f}",
            f"{points['rmse']:.1f}",
            *(f"{points[key]:.0f}" for key in ("these", "others", "width")),
            f"{points['line_bias']:+.1f}",
            f"{points['line_rmse']:.1f}",
        ]
    )


def _mean(rows: list[dict], n: int, key: str) -> str:
    return f"{100 * np.mean([row[key] for row in rows if row['n'] == n]):.1f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--counts", type=Path, nargs="*", default=[], metavar="FILE")
    parser.add_argument("--runs", type=int, default=RUNS)
    parser.add_argument("--out", type=Path, default=ROOT)
    asked = parser.parse_args()
    file = asked.out / "benchmarks/forecasts.json"
    stored = json.loads(file.read_text()) if file.exists() else {"withheld": []}
    stored |= {"runs": asked.runs, "simulated": simulated(asked.runs)}
    if asked.counts:
        stored["withheld"] = [row for one in asked.counts for row in withheld(one, asked.runs)]
    write_text(file, json.dumps(stored, indent=1) + "\n")
    write_text(asked.out / "docs/forecast-benchmarks.md", page(stored))


if __name__ == "__main__":
    main()
