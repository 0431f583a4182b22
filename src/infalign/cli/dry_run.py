"""`--dry-run`: everything that can be checked and estimated before a run."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich import box
from rich.console import Console
from rich.filesize import decimal
from rich.table import Table

from infalign.config import Config, Grid

from .board import duration
from .progress import progress, quiet_libraries
from .terminal import console

if TYPE_CHECKING:
    from infalign.comparison.comparison import Comparison
    from infalign.pipeline.decoding_work import DecodingWork
    from infalign.pipeline.dry import DryRun as Dry
    from infalign.pipeline.estimate import Cost
    from infalign.pipeline.measure import Speed
    from infalign.pipeline.workload import Workload
    from infalign.prompts import Prompt
    from infalign.red_team import Campaign

HOUR = 3600

BUSY = 0.7
"""A process that computes all the time and gets less of a core shares it."""


def dry_run(config: Config, out: Path, until: str, seconds: float) -> None:
    """Check a run, measure its models, and print what its stages cost."""
    from infalign.pipeline.dry import dry_run

    _dry(out, dry_run, config, out, until=until, seconds=seconds)


def dry_comparison(comparison: "Comparison", out: Path, seconds: float) -> None:
    """Check a comparison, measure its reference, and print what it costs."""
    from infalign.pipeline.dry_models import dry_comparison

    _dry(out, dry_comparison, comparison, out, seconds=seconds)


def dry_campaign(
    campaign: "Campaign", prompts: "Sequence[Prompt]", out: Path, seconds: float
) -> None:
    """Check a red team, measure its policy, and print what it costs."""
    from infalign.pipeline.dry_models import dry_campaign

    _dry(out, dry_campaign, campaign, prompts, out, seconds=seconds)


def dry_decoding(decoding: "DecodingWork", seconds: float) -> None:
    """Check the decoding of prompts, measure its policy, and print what it costs."""
    from infalign.pipeline.dry_models import dry_decoding

    _dry(None, dry_decoding, decoding, seconds=seconds)


def _dry(out: Path | None, dry: Callable[..., "Dry"], *what: Any, **settings: Any) -> None:
    quiet_libraries()
    with progress() as report:
        made = dry(*what, **settings, report=report)
    _print(made, out)


def dry_study(grid: Grid, out: Path, seconds: float, archive: Path | None) -> None:
    """Check a study, measure its models, and print what its cells cost."""
    from infalign.study.dry import dry_study

    quiet_libraries()
    with progress() as report:
        dry = dry_study(grid, out, archive=archive, seconds=seconds, report=report)
    screen = console()
    for name, own in dry.tasks.items():
        screen.print(f"Task {name}", style="bold")
        _print_known(screen, own)
    time = "" if dry.seconds is None else f": {duration(dry.seconds)}, one after another"
    screen.print(f"{dry.cells - dry.finished} of {dry.cells} cells are due{time}.", style="bold")
    _print_end(screen, out)


def _print(dry: "Dry", out: Path | None) -> None:
    screen = console()
    _print_known(screen, dry)
    _print_end(screen, out)


def _print_end(screen: Console, out: Path | None) -> None:
    where = "" if out is None else f", in {out}"
    screen.print(f"Nothing was written. The same command without --dry-run does it{where}.")


def _print_known(screen: Console, dry: "Dry") -> None:
    screen.print(f"{len(dry.checks)} checks passed: {', '.join(dry.checks)}.")
    for line in dry.plan:
        screen.print(line, soft_wrap=True)
    if dry.speed is not None:
        _print_costs(screen, dry)
        _print_basis(screen, dry, dry.speed)
    else:
        _print_work(screen, dry.works, dry.longest)
    screen.print(
        f"Disk: at least {decimal(dry.room.most)} while it goes on, with checkpoints; at least "
        f"{decimal(dry.room.results)} remain."
        if dry.room.passing
        else f"Disk: at least {decimal(dry.room.results)}."
    )


def _print_work(screen: Console, works: "Sequence[Workload]", longest: int | None) -> None:
    """The work without a measurement.

    - `longest`: largest length of a response, in tokens.
    """
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("stage")
    for name in ("generations", "rewards", "comparisons", "trained on", "tokens, at most"):
        table.add_column(name, justify="right")
    for work in works:
        counts = (work.generated, work.scored, work.judged, work.learned)
        tokens = "" if longest is None else _count(work.generated * longest)
        cells = ("done",) if work.reused else (*(f"{count:,}" for count in counts), tokens)
        table.add_row(work.name, *cells)
    screen.print(table)


def _print_costs(screen: Console, dry: "Dry") -> None:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("stage")
    for name in ("generations", "tokens", "time", "memory", "disk"):
        table.add_column(name, justify="right")
    for cost in dry.costs:
        table.add_row(*_row(cost))
    table.add_section()
    table.add_row(
        "all",
        f"{sum(c.work.generated for c in dry.costs):,}",
        _count(sum(c.tokens for c in dry.costs)),
        duration(sum(c.seconds for c in dry.costs)),
        _memory(max(dry.costs, key=lambda c: (c.memory is None, c.memory or 0))),
        decimal(sum(c.disk for c in dry.costs)),
    )
    screen.print(table)


def _row(cost: "Cost") -> list[str]:
    if cost.work.reused:
        return [cost.work.name, "0", "0", "done", "", ""]
    return [
        cost.work.name,
        f"{cost.work.generated:,}",
        _count(cost.tokens),
        duration(cost.seconds),
        _memory(cost),
        decimal(cost.disk),
    ]


def _memory(cost: "Cost") -> str:
    if cost.memory is None:
        return "unknown"
    return f"{'> ' if cost.at_least else ''}{decimal(cost.memory)}"


def _print_basis(screen: Console, dry: "Dry", speed: "Speed") -> None:
    """What the figures are estimated from, and what cannot be known."""
    rate = 1 / speed.generating
    screen.print(
        f"Measured on {speed.device}, {speed.responses} responses of at most {speed.length} tokens "
        f"at once. Responses per second: {_rate(rate)} generated, {_rate(1 / speed.scoring)} scored"
        + (f", {_rate(1 / speed.reading)} read" if speed.reading else "")
        + (f", {_rate(1 / speed.learning)} trained on" if speed.learning else "")
        + f". Loading took {duration(speed.loading)}."
    )
    length = speed.longest if speed.tokens is None else speed.tokens
    notes = [
        f"Tokens: a response has {length:.3g} on average."
        if speed.tokens is not None
        else f"Tokens: all {speed.longest} of a response are counted; its true length is unknown."
    ]
    if speed.responses < speed.batch:
        notes.append(
            f"Time: the measurement ended before a whole batch of {speed.batch}; large batches "
            "take less time per response."
        )
    if speed.share is not None and speed.share < BUSY:
        notes.append(
            f"Time: the machine is busy; this process had {speed.share:.0%} of a core. On a quiet "
            "machine everything takes less."
        )
    if any(c.work.learned for c in dry.costs):
        notes.append(
            "Generations: KL targeting is counted with 3 measurements; it needs 1 to 6. Time: "
            "without the optimizer's steps."
        )
    if any(c.at_least for c in dry.costs):
        notes.append(
            "Memory (>): of training, only weights, gradients and optimizer are counted; what a "
            "step needs beside them cannot be measured without a GPU."
        )
    if any(c.memory is None for c in dry.costs):
        notes.append("Memory: unknown where the model's weights cannot be counted.")
    if any(c.work.judged for c in dry.costs):
        judged = sum(c.work.judged for c in dry.costs)
        notes.append(f"The judge makes {judged:,} comparisons; their time is unknown.")
    notes.append(_gpu_hours(dry, speed, rate, length))
    for note in notes:
        screen.print(note)


def _gpu_hours(dry: "Dry", speed: "Speed", rate: float, length: float) -> str:
    import torch

    if not torch.cuda.is_available():
        return (
            "GPU hours cannot be known from a machine without a GPU; --dry-run on one measures "
            f"them. An hour here: {_count(HOUR * rate)} generations."
        )
    hours = sum(cost.seconds for cost in dry.costs) / HOUR
    return (
        f"GPU hours: {hours:.2g} of this GPU. One GPU hour: {_count(HOUR * rate)} generations, "
        f"{_count(HOUR * rate * length)} tokens."
    )


def _count(number: float) -> str:
    """A number with three digits.

    >>> _count(1234567), _count(950)
    ('1.23 M', '950')
    """
    for size, sign in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if number >= size:
            unit = 1e3 if sign == "k" else size
            return f"{number / unit:.3g} {sign}"
    return f"{number:,.0f}"


def _rate(number: float) -> str:
    return f"{number:,.0f}" if number >= 10 else f"{number:.2g}"
