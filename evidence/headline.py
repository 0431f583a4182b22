"""The headline of the README and its picture, from the finished cells of the trained study.

make evidence-page
"""

import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import matplotlib
import typer
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator, PercentFormatter
from trained_cells import BEYOND, RECIPES, STUDIES, is_current, title
from trained_page import KL, OTHERS, OURS, kls, leading, listed, points

from infalign import storage
from infalign.comparison.comparison import SELECTING
from infalign.reports import drawing

ROOT = Path(__file__).parents[1]
PICTURE = Path("docs/images/evidence.png")
HEADLINE = re.compile(r"(?ms)^At \d[^\n]* nats, .*?(?=^\[Evidence\])")
"""The part of the README that is written here, up to the link to all evidence."""

KINDS = {
    "rloo (InfAlign-CTRL), group (ours)": drawing.color(0),
    "baselines": drawing.color(1),
    "other methods": drawing.MUTED,
}


@dataclass(frozen=True)
class Panel:
    """A task of a study, with the methods that have a finished cell."""

    title: str
    procedure: str
    arms: Mapping[str, Mapping]
    """Method → what was measured of it."""
    rivals: Collection[str]

    def shared_seeds(self, methods: Iterable[str]) -> str:
        """The number of seeds that all of some methods have finished."""
        finished = (
            {cell["seed"] for cell in self.arms[method]["cells"] if cell["finished"]}
            for method in methods
        )
        seeds = len(set.intersection(*finished))
        return f"{seeds} seed{'s' * (seeds != 1)}"

    def lead(self) -> tuple[str, Mapping]:
        """The method of ours that leads its best rival by most, and by how much."""
        return leading(self.arms, self.procedure)

    def row(self) -> str:
        """The lead over the best rival, and over the methods that are not the paper's and maximize
        the same quantity, as a row of a table."""
        method, best = self.lead()
        known = self.arms[method].get("to_all", {}).get(self.procedure, {})
        rival = f"`{best['rival']}`{kls(self.arms, method, best['rival'])}"
        cells = [
            self.title,
            f"`{method}`, {self.shared_seeds((method, best['rival']))}",
            f"{points(best)} ({rival})",
            *(points(known[own]) if own in known else "–" for own in OTHERS),
            self.missing() or "–",
        ]
        return f"| {' | '.join(cells)} |"

    def in_short(self) -> str:
        """The lead over the best rival in a few words."""
        method, best = self.lead()
        rival = f"`{best['rival']}`{kls(self.arms, method, best['rival'])}"
        seeds = self.shared_seeds((method, best["rival"]))
        return f"{self.title}, `{method}`, {seeds}: {points(best)} over {rival}"

    def missing(self) -> str:
        """The baselines without a finished cell or with fewer seeds, in words; empty if there are
        none."""
        names = [name for name in self.rivals if name not in self.arms]
        most = max(map(self.seeds, self.arms))
        fewer = [name for name in self.rivals if name in self.arms and self.seeds(name) < most]
        said = [f"fewer seeds of {listed(fewer)}"] if fewer else []
        return "; ".join(([listed(names)] if names else []) + said)

    def seeds(self, method: str) -> int:
        """The number of finished seeds of a method."""
        return sum(cell["finished"] for cell in self.arms[method]["cells"])

    def rate(self, method: str) -> Mapping:
        """The win rate of a method under the procedure."""
        return self.arms[method]["win_rates"][SELECTING][self.procedure]

    def color(self, method: str) -> str:
        """That of the method's kind."""
        ours, rivals, others = KINDS.values()
        return ours if method in OURS else rivals if method in self.rivals else others


def panels(results: Mapping[str, Mapping]) -> list[Panel]:
    """The paper's tasks that train for n = 8, and in which one of our methods has a rival; those
    with most seeds first. Each task has the first recipe that is studied."""
    first = [name for name in STUDIES if name != BEYOND and name not in RECIPES]
    shown = _panels(results, first)
    return sorted(shown, key=lambda panel: -max(map(panel.seeds, panel.arms)))


def _panels(results: Mapping[str, Mapping], studies: Iterable[str]) -> Iterator[Panel]:
    for study in filter(results.__contains__, studies):
        for task in filter(is_current, results[study]["tasks"]):
            arms = {
                arm["method"]: arm
                for arm in task["arms"]
                if "win_rates" in arm and arm["target_kl"] == KL
            }
            if task["task"].endswith("-8") and leading(arms, task["procedure"]):
                rivals = results[study]["rivals"]
                yield Panel(title(study, task), task["procedure"], arms, rivals)


def headline(results: Mapping[str, Mapping]) -> str:
    """How far ours lead, for every model and task, and how they compare under plain sampling and by
    gold rewards; Markdown."""
    shown = panels(results)
    rows, sampled, gold = [panel.row() for panel in shown], [], []
    for panel in shown:
        rates = panel.arms[panel.lead()[0]]["win_rates"]
        sampled.append(rates[SELECTING]["sampling"]["to_best"]["value"])
        golds = (own[panel.procedure] for reward, own in rates.items() if reward != SELECTING)
        gold += [rate["to_best"]["value"] for rate in golds if rate["to_best"]]
    columns = ["task", "policy", "over the best baseline"]
    columns += [f"over `{own}`" for own in OTHERS] + ["baselines not trained yet"]
    said = ["‡: one seed, no verdict."] if any("‡" in row for row in rows) else []
    if others := "; ".join(panel.in_short() for panel in _panels(results, RECIPES)):
        said.append(f"With other recipes: {others}.")
    by_gold = f", and by {_span(gold)} points by the gold rewards of SmolLM2" if gold else ""
    said.append(
        "By other measures, the policies of the table differ from the best baseline of each by "
        f"{_span(sampled)} points under plain sampling{by_gold}."
    )
    return "\n".join(
        (
            f"At {KL:g} nats, the lead of `rloo` (InfAlign-CTRL) or `group` (ours), whichever "
            "leads by more under the procedure, in points of win rate with 95 % intervals:",
            "",
            f"| {' | '.join(columns)} |",
            f"|{' --- |' * len(columns)}",
            *rows,
            "",
            " ".join(said),
            "",
        )
    )


def _span(values: Collection[float]) -> str:
    """The lowest and the highest of some differences, in points."""
    low, high = (f"{100 * end:+.1f}" for end in (min(values), max(values)))
    return low if low == high else f"{low} to {high}"


@matplotlib.rc_context(drawing.STYLE)
def picture(results: Mapping[str, Mapping]) -> Figure:
    """The win rates of all methods under the procedure, one panel for each model and task."""
    shown = panels(results)
    # A row of panels is as high as the one with most methods, so that methods are evenly spaced.
    most = [max(len(panel.arms) for panel in shown[i : i + 2]) for i in range(0, len(shown), 2)]
    heights = [1.1 + 0.21 * methods for methods in most]
    figure = Figure((drawing.WIDTH, sum(heights) + 0.3), layout="constrained")
    grid = figure.subplots(len(most), 2, squeeze=False, height_ratios=heights).ravel()
    for i, (axes, panel) in enumerate(zip(grid, shown, strict=False)):
        _draw(axes, panel)
        axes.set_ylim(len(panel.arms) - most[i // 2] - 0.5, len(panel.arms) - 0.5)
    for axes in grid[len(shown) :]:
        axes.set_axis_off()
    marks = (Line2D([], [], color=color, marker="o", lw=1.6) for color in KINDS.values())
    drawing.key(figure, list(zip(marks, KINDS, strict=True)))
    return figure


def _draw(axes, panel: Panel) -> None:
    """The methods from the lowest to the highest win rate."""
    order = sorted(panel.arms, key=lambda method: panel.rate(method)["value"])
    seeds = max(map(panel.seeds, order))
    for place, method in enumerate(order):
        rate = panel.rate(method)
        color = panel.color(method)
        axes.plot([rate["low"], rate["high"]], [place, place], color=color, lw=1.6)
        axes.plot(rate["value"], place, "o", color=color, markersize=5.5)
    few = {m: f" ({panel.seeds(m)} of {seeds} seeds)" for m in order if panel.seeds(m) < seeds}
    axes.set_yticks(range(len(order)), [m + few.get(m, "") for m in order])
    goal, _, model = panel.title.rpartition(", ")
    axes.set_title(f"{goal}\n{model}")
    axes.set_xlabel(f"win rate; {panel.shared_seeds(set(order) - set(few))}")
    axes.xaxis.set_major_locator(MaxNLocator(6, steps=(1, 2, 5, 10)))
    axes.xaxis.set_major_formatter(PercentFormatter(1.0, decimals=0, symbol=" %"))
    axes.grid(axis="x", color=drawing.FAINT, lw=0.6)
    axes.set_axisbelow(True)
    axes.tick_params(length=3)


def write(root: Path = ROOT) -> None:
    """Write the picture, and the table into the README."""
    results = storage.read_json(root / "evidence" / "trained.json")
    if not panels(results):
        print("No method has a rival yet: the headline stays as it is.")
        return
    drawing.save_png(picture(results), root / PICTURE)
    readme = root / "README.md"
    text, count = HEADLINE.subn(lambda _: headline(results), readme.read_text(encoding="utf-8"))
    if count != 1:
        raise typer.BadParameter(
            f"{readme} has {count} headlines, from 'At … nats' to '[Evidence]'"
        )
    storage.write_text(readme, text)


def main(root: Annotated[Path, typer.Option(help="Folder of the repository.")] = ROOT):
    """Write the picture, and the table into the README."""
    write(root)
    print(root / PICTURE)


if __name__ == "__main__":
    typer.run(main)
