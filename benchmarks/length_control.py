"""Length control against known truths: simulated policies, real preferences, and AlpacaEval 2.

    python benchmarks/length_control.py [--preferences FILE …] [--alpaca FOLDER]

- `--preferences`: Parquet files of judged pairs with the columns `chosen` and `rejected`, such as
  Anthropic's HH (https://github.com/anthropics/hh-rlhf).
- `--alpaca`: a clone of https://github.com/tatsu-lab/alpaca_eval, whose `results` have the
  annotations of each model and whose leaderboard has AlpacaEval 2's own length-controlled figures.

Writes benchmarks/length_control.json and docs/length-control.md. Parts whose data are not given
stay as they were measured last. No text of the data is written.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
from scipy.special import expit, logit, ndtri

from infalign.evaluation.equal_length import SLOPES, LengthControl, pair_control
from infalign.storage import write_text

ROOT = Path(__file__).parents[1]
LONGER = (0.005, 0.03, 0.1, 0.25, 0.5, 0.75, 0.9, 0.97, 0.995)
"""Shares of pairs in which the policy's response is the longer one."""

EQUAL = -0.4
"""Log-odds of winning at equal length, of a prompt of average difficulty."""

CURVES = {
    "no preference": lambda d: 0 * d,
    "as fitted": lambda d: 1.6 * np.tanh(d),
    "steep": lambda d: 5 * np.tanh(d),
    "without an end": lambda d: 1.2 * d,
    "longer or not": lambda d: 1.2 * np.sign(d),
    "shorter preferred": lambda d: -np.tanh(d),
}
"""Log-odds that a length difference adds, in standard deviations."""

WEAK = "weak and brief"
"""As fitted, but a response that is shorter is also worse: their correlation is 0.6."""

SHORT = 1300
"""Mean length, in characters, below which a model of AlpacaEval counts as short."""

ANNOTATIONS = "results/*/weighted_alpaca_eval_gpt4_turbo/annotations.json"
LEADERBOARD = (
    "src/alpaca_eval/leaderboards/data_AlpacaEval_2/weighted_alpaca_eval_gpt4_turbo_leaderboard.csv"
)


def simulated(experiments: int) -> list[dict]:
    """Each curve at each share: 805 prompts, as many as AlpacaEval has."""
    normal = np.random.default_rng(0).normal(size=200_000)
    rows = []
    for name in (*CURVES, WEAK):
        spread, together = (1.2, 0.6) if name == WEAK else (0.5, 0.0)
        curve = CURVES.get(name, CURVES["as fitted"])
        apart = np.sqrt(1 - together**2)
        for longer in LONGER:
            rng = np.random.default_rng(1)
            controls = []
            for _ in range(experiments):
                z, other = rng.normal(size=(2, 805))
                d = z + ndtri(longer)
                quality = together * z + apart * other
                wins = rng.random(805) < expit(EQUAL + spread * quality + curve(d))
                controls.append(pair_control(wins, d))
            truths = {name: normal}
            if name == WEAK:  # responses have equal lengths where z is -ndtri(longer)
                near = apart * normal - together * ndtri(longer)
                truths = {f"{name}, all prompts": normal, f"{name}, equal lengths": near}
            for case, qualities in truths.items():
                truth = float(expit(EQUAL + spread * qualities).mean())
                rows.append({"curve": case, "longer": longer, **_against(controls, truth)})
    return rows


def preferred(files: list[Path], experiments: int) -> list[dict]:
    """Real preferences. Which response is the policy's is drawn: the longer one with the wanted
    chance, whichever has won. Two responses of equal length are then equally likely to be the
    policy's, so the truth is exactly ½."""
    rows = []
    for file in files:
        table = pq.read_table(file, columns=["chosen", "rejected"]).to_pylist()
        more = np.array([len(row["chosen"]) - len(row["rejected"]) for row in table], float)
        for longer in LONGER:
            rng = np.random.default_rng(2)
            controls = []
            for _ in range(experiments):
                own = rng.choice(len(more), min(805, len(more)), replace=False)
                is_longer = rng.random(len(own)) < longer
                d = np.where(is_longer, 1, -1) * np.abs(more[own])
                controls.append(pair_control((more[own] * d > 0) + 0.5 * (d == 0), d))
            rows.append({"pairs": file.stem, "longer": longer, **_against(controls, 0.5)})
    return rows


def published(folder: Path) -> dict | None:
    """How far AlpacaEval's own length control moves the models that are much shorter than its
    baseline, whose responses have 2,049 characters on average, in log-odds."""
    board = pa_csv.read_csv(folder / LEADERBOARD).to_pylist()
    moved = [
        float(logit(row["length_controlled_winrate"] / 100) - logit(row["win_rate"] / 100))
        for row in board
        if row.get("avg_length", SHORT) < SHORT and row["length_controlled_winrate"]
    ]
    if not moved:
        return None
    return {
        "models": len(moved),
        "least": min(moved),
        "mean": float(np.mean(moved)),
        "most": max(moved),
    }


def alpaca(folder: Path) -> list[dict]:
    """Each model of AlpacaEval 2: our figure and bounds, and its own figure."""
    board = pa_csv.read_csv(folder / LEADERBOARD).to_pylist()
    theirs = {row[""]: row["length_controlled_winrate"] / 100 for row in board}
    rows = []
    for file in sorted(folder.glob(ANNOTATIONS)):
        name = file.parts[-3]
        annotations = json.loads(file.read_text(encoding="utf-8"))
        judged = [row for row in annotations if row["preference"] is not None]
        if name not in theirs or not judged:
            continue
        # A preference of 0 is a tie in the annotations, as 1.5 is.
        outcomes = [(row["preference"] or 1.5) - 1 for row in judged]
        lengths = [len(row["output_2"]) - len(row["output_1"]) for row in judged]
        control = pair_control(np.clip(outcomes, 0, 1), lengths)
        rows.append(
            {
                "model": name,
                "invalid": len(annotations) - len(judged),
                "overlap": control.overlap,
                "identified": control.identified,
                "difference": control.controlled.value - theirs[name]
                if control.identified
                else None,
                "within": bool(control.bounds.low <= theirs[name] <= control.bounds.high),
                "width": control.bounds.high - control.bounds.low,
            }
        )
    return rows


def _against(controls: list[LengthControl], truth: float) -> dict:
    figures = [c.controlled for c in controls if c.identified]
    errors = [e.value - truth for e in figures]
    return {
        "figures": len(figures) / len(controls),
        "bias": float(np.mean(errors)) if errors else None,
        "rmse": float(np.sqrt(np.mean(np.square(errors)))) if errors else None,
        "covered": float(np.mean([e.low <= truth <= e.high for e in figures])) if errors else None,
        "bounds_covered": float(
            np.mean([c.bounds.low <= truth <= c.bounds.high for c in controls])
        ),
        "width": float(np.mean([c.bounds.high - c.bounds.low for c in controls])),
    }


def page(results: dict) -> str:
    """docs/length-control.md."""
    return PAGE.format(
        simulated=_simulated(results["simulated"], "curve"),
        experiments=results["experiments"],
        preferred=_simulated(results.get("preferred", []), "pairs"),
        alpaca=_alpaca(results.get("alpaca", [])),
        published=_published(results.get("published")),
    )


def _simulated(rows: list[dict], name: str) -> str:
    """One line for each curve and overlap, with both signs of the difference together."""
    if not rows:
        return "Not measured."
    lines = [
        f"| {name} | overlap, % | figures given, % | bias, points | error (rmse) | covered, % "
        "| bounds cover, % | their width |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for case in dict.fromkeys(row[name] for row in rows):
        for share in sorted({round(min(row["longer"], 1 - row["longer"]), 6) for row in rows}):
            sides = [
                row
                for row in rows
                if row[name] == case and round(min(row["longer"], 1 - row["longer"]), 6) == share
            ]
            bias = max((r["bias"] for r in sides if r["bias"] is not None), key=abs, default=None)
            cells = [
                _mean(sides, "figures", 0),
                "" if bias is None else f"{100 * bias:+.1f}",
                _mean(sides, "rmse", 1),
                _mean(sides, "covered", 0),
                _mean(sides, "bounds_covered", 0),
                _mean(sides, "width", 0),
            ]
            lines.append(f"| {case} | {100 * share:g} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _published(known: dict | None) -> str:
    if known is None:
        return ""
    return (
        f"Its published figures: for the {known['models']} models whose responses have fewer than "
        f"{SHORT:,} characters on\naverage (the baseline's have 2,049), its length control raises "
        f"the log-odds of winning by {known['least']:.2f}\nto {known['most']:.2f}, "
        f"{known['mean']:.2f} on average. Our bounds allow for a shift of 0 up to 3 times the mean "
        "of tanh(d / s).\nFor normal differences that is up to "
        f"{_largest_shift(0.15):.1f} at an overlap of 15 % and up to {_largest_shift(0.03):.1f} "
        "at 3 %. Whether the\nfigure of a model lies within its own bounds takes its annotations.\n"
    )


def _largest_shift(overlap: float) -> float:
    """Log-odds by which the largest slope moves a win rate, for normal length differences."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(80)
    return SLOPES[1] * abs(float(weights @ np.tanh(nodes + ndtri(overlap)) / weights.sum()))


def _mean(rows: list[dict], key: str, digits: int) -> str:
    known = [row[key] for row in rows if row[key] is not None]
    return f"{100 * np.mean(known):.{digits}f}" if known else ""


def _alpaca(rows: list[dict]) -> str:
    if not rows:
        return (
            "Not measured: the annotations were not at hand. Measure it with\n"
            "`python benchmarks/length_control.py --alpaca alpaca_eval`."
        )
    lines = [
        "| overlap | models | with a figure | mean difference, points | largest "
        "| theirs within our bounds | width |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for low, high in ((0.2, 0.51), (0.05, 0.2), (0.0, 0.05)):
        own = [row for row in rows if low <= row["overlap"] < high]
        gaps = [100 * row["difference"] for row in own if row["difference"] is not None]
        if own:
            cells = [
                f"{100 * low:g}–{100 * min(high, 0.5):g} %",
                str(len(own)),
                str(len(gaps)),
                f"{np.mean(gaps):+.1f}" if gaps else "",
                f"{max(gaps, key=abs):+.1f}" if gaps else "",
                f"{sum(row['within'] for row in own)}",
                f"{100 * np.mean([row['width'] for row in own]):.0f}",
            ]
            lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


PAGE = """# Length control

A policy can win because its responses are longer. `length_controlled` (of samples, in
`infalign.evaluation.length`) and `pair_control` (of judged pairs, in
`infalign.evaluation.equal_length`) estimate the win rate between responses of equal length. This
page says when that number exists, and how large its errors are. `make length-control` measures and
writes it.

## What is identified

The outcomes of the pairs are regressed on their length difference d, with standard deviation s:
P(win) = σ(α + γ tanh(d / s)). The win rate at equal length is σ(α).

- **Identified: the win rate among pairs of about equal length**, where there are such pairs, and
  others on both sides. The rule: at least 20 % of the pairs are not longer, at least 20 % are not
  shorter (the smaller share is the *overlap*), and at least 10 % have |d| ≤ s / 2. The regression
  then interpolates, and its figure depends little on the shape of the curve.
- **Not identified: the win rate at equal length where hardly any pair has it.** α then is
  α = logit(win rate as selected) + γ × (how far the pairs are from equal length), and the data say
  little about γ: within one side of 0, the length difference goes with the quality of the response
  and with the difficulty of the prompt. No figure is given, but bounds.
- **Not identified at any overlap: what a policy would win if it were trained to answer briefly**,
  or the win rate on prompts that never get responses of equal length. If prompts with
  a large difference are also the prompts on which the policy is worse, the figure is that of the
  prompts with a small one. The case "{weak}" below shows by how much the two can differ.

The bounds are the union, over every slope γ in a range, of the 95 % intervals of σ(α) with this
slope. The range always has all slopes from 0 to 3, and all of the 95 % interval of the fitted slope
(the wider of the jackknife's and the normal approximation's). γ = 3 means that length alone turns
50 wins in 100 into 95; the slopes that AlpacaEval 2 has published, of more than 150 models, lie
between 0.2 and 3.0, most of them between 1 and 2. Where nothing is known of the slope, the bounds
exclude next to nothing.

## Simulated policies

805 prompts, {experiments} experiments for each row. The log-odds at equal length are −0.4 for a
prompt of average difficulty; difficulties are normal. The columns: how often a figure is given; its
largest bias over both directions (policy shorter, policy longer); its error; the share of 95 %
intervals that have the truth; the share of bounds that do; and the width of the bounds in points.

- no preference: length does not matter. As fitted: 1.6 tanh(d). Steep: 5 tanh(d). Without an end:
  1.2 d. Longer or not: 1.2 sign(d). Shorter preferred: −tanh(d).
- {weak}: as fitted, but length and quality have a correlation of 0.6, and difficulties
  a standard deviation of 1.2. There are two truths: the win rate over all prompts, and that over
  prompts whose responses have equal lengths. A figure, where one is given, is right for the second,
  and off for the first, of which only the bounds are evidence.

{simulated}

## Real preferences

Pairs judged by people. Which response counts as the policy's is drawn: the longer one with the
wanted chance, whichever has won. At equal length it is then either with the same chance, so the
truth is exactly 50 %, and the curve is whatever people prefer.

{preferred}

## AlpacaEval 2

The public annotations of AlpacaEval 2, one model a row of its leaderboard, against its own
length-controlled win rates. AlpacaEval's regression has the same curve, shrinks its coefficients,
adds two variants of the baseline that were prompted to be longer or shorter, and takes the
difficulty of each instruction from other models. Its figures at low overlap are extrapolations too,
by those choices.

{published}
{alpaca}
""".replace("{weak}", WEAK)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--preferences", type=Path, nargs="*", default=[], metavar="FILE")
    parser.add_argument("--alpaca", type=Path, metavar="FOLDER")
    parser.add_argument("--experiments", type=int, default=100)
    parser.add_argument("--out", type=Path, default=ROOT)
    asked = parser.parse_args()
    stored = asked.out / "benchmarks" / "length_control.json"
    results = json.loads(stored.read_text()) if stored.exists() else {}
    results |= {"experiments": asked.experiments, "simulated": simulated(asked.experiments)}
    if asked.preferences:
        results["preferred"] = preferred(asked.preferences, asked.experiments)
    if asked.alpaca:
        results["alpaca"] = alpaca(asked.alpaca) or results.get("alpaca", [])
        results["published"] = published(asked.alpaca)
    for folder in ("benchmarks", "docs"):
        (asked.out / folder).mkdir(parents=True, exist_ok=True)
    write_text(stored, json.dumps(results, indent=1) + "\n")
    write_text(asked.out / "docs" / "length-control.md", page(results))


if __name__ == "__main__":
    main()
