"""What a run shows of its progress: bars, its stage, the time that is left, and live metrics."""

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from rich.console import Console, RenderableType
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
)
from rich.table import Column
from rich.text import Text

from infalign._check import visible

WIDE, NUMBERS = 70, 18
"""Columns of a terminal from which on a bar is drawn, and those of the numbers without one."""

SILENCE = 30
"""Seconds between two lines of progress in a log."""


class Planned(Protocol):
    """A task that is going to be done, as `infalign.pipeline.tasks.Task`."""

    @property
    def name(self) -> str: ...
    @property
    def stage(self) -> str: ...
    @property
    def kind(self) -> str: ...
    @property
    def responses(self) -> int: ...


def speed(task: Task) -> float | None:
    """Steps per second, over the whole time of a bar; None before it moves.

    The speed of rich is that of its last 1,000 updates, which are less than one step where a step
    writes thousands of tokens.
    """
    seconds = task.finished_time or task.elapsed
    done = task.completed - task.fields["at_first"]
    return done / seconds if seconds and done > 0 else None


class Rate(ProgressColumn):
    """Steps per second, or per minute if slower."""

    def render(self, task: Task) -> Text:
        """The column's text."""
        if (steps := speed(task)) is None:
            return Text("")
        return Text(f"{steps:.1f}/s" if steps >= 1 else f"{60 * steps:.1f}/min")


class Left(ProgressColumn):
    """The time until a bar is full, in hours, minutes and seconds.

    - `compact`: without hours if there are none.
    """

    def __init__(self, *, compact: bool = False):
        super().__init__()
        self.compact = compact

    def render(self, task: Task) -> Text:
        """The column's text."""
        steps, left = speed(task), task.remaining
        if left is None or (steps is None and left):
            return Text("--:--" if self.compact else "-:--:--", style="progress.remaining")
        seconds = int(left / steps) if steps is not None else 0
        text = f"{seconds // 3600}:{seconds // 60 % 60:02d}:{seconds % 60:02d}"
        return Text(text.removeprefix("0:") if self.compact else text, style="progress.remaining")


@dataclass
class Spent:
    """What a task has done in this process."""

    began: float
    at_first: float
    done: float
    total: float
    last: float


@dataclass
class Schedule:
    """The stage that a run is in, and how long the rest will take."""

    stages: Sequence[str] = ()
    tasks: Sequence[Planned] = ()
    spent: dict[str, Spent] = field(default_factory=dict)

    def note(self, name: str, done: float, total: float, now: float) -> None:
        """Note how far a task is."""
        known = self.spent.setdefault(name, Spent(now, done, done, total, now))
        known.done, known.total, known.last = done, total, now

    def stage(self) -> str:
        """The stage, such as `stage 3 of 5`; empty if it is not known."""
        if not self.spent or not self.stages:
            return ""
        own = next(reversed(self.spent)).split()[0]
        if own not in self.stages:
            return ""
        return f"stage {self.stages.index(own) + 1} of {len(self.stages)}"

    def left(self) -> float | None:
        """Seconds until the end of the run, at the pace so far; None if it cannot be known yet."""
        if not self.tasks or not self.spent:
            return None
        current = next(reversed(self.spent))
        places = [i for i, t in enumerate(self.tasks) if t.name.startswith(current)]
        if not places:
            return None
        seconds, pace = 0.0, self._pace()
        for task in self.tasks[places[0] :]:
            own = self.spent.get(task.name)
            share = 1.0 if own is None or not own.total else 1 - own.done / own.total
            if task.responses and share > 0:
                if pace is None:
                    return None
                seconds += share * task.responses * pace[task.kind]
        return seconds

    def _pace(self) -> dict[str, float] | None:
        """Seconds per response of each kind of task: as measured; of a kind that was not yet, as
        those that were, where a step writes and learns."""
        known: dict[str, float] = {}
        for kind in ("write", "learn", "step"):
            seconds = responses = 0.0
            for task in self.tasks:
                own = self.spent.get(task.name)
                if own is not None and task.kind == kind and own.done > own.at_first:
                    seconds += own.last - own.began
                    responses += task.responses * (own.done - own.at_first) / own.total
            if responses:
                known[kind] = seconds / responses
        if not known:
            return None
        one = known.get("write") or known.get("learn") or known["step"] / 2
        pace = {"write": one, "learn": one}
        pace["step"] = known.get("write", one) + known.get("learn", one)
        pace |= known
        return pace | {"search": pace["write"]}


class Bars(Progress):
    """Bars that fit the terminal, and lines below them."""

    def __init__(self, screen: Console, clock: Callable[[], float]):
        self.screen = screen
        self.below: list[str] = []
        self.wide: tuple[ProgressColumn, ...] = (
            TextColumn("{task.description:32}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            Rate(),
            TimeElapsedColumn(),
            Left(),
        )
        self.names = Column(no_wrap=True, overflow="ellipsis")
        self.narrow: tuple[ProgressColumn, ...] = (
            TextColumn("{task.description}", markup=False, table_column=self.names),
            MofNCompleteColumn(),
            Left(compact=True),
        )
        # The terminal's module does what rich's own redirection would do, which obeys control
        # sequences.
        super().__init__(
            console=screen,
            get_time=clock,
            refresh_per_second=4,
            redirect_stdout=False,
            redirect_stderr=False,
        )

    def get_renderables(self) -> Iterable[RenderableType]:
        """The bars, and the lines below them."""
        self.columns = self.wide if self.screen.width >= WIDE else self.narrow
        self.names.max_width = max(8, self.screen.width - NUMBERS)
        yield self.make_tasks_table(self.tasks)
        for line in self.below:
            yield Text(line)


class Board:
    """Bars on a terminal; elsewhere, such as in the log of a CI job, a line now and then.

    - `clock`: seconds, for tests.
    """

    def __init__(self, screen: Console, clock: Callable[[], float] | None = None):
        self.screen = screen
        self.clock = clock or (lambda: time.monotonic())
        self.bars, self.schedule = Bars(screen, lambda: self.clock()), Schedule()
        self._ids: dict[str, TaskID] = {}
        self._current, self._metrics, self._said = "", "", self.clock()
        self.only_current = False
        """Whether the bars of a stage disappear when another one begins."""

    def stop(self) -> None:
        """Leave the bars as they are."""
        if self._ids:
            self.bars.below = []
            self.bars.stop()

    def plan(self, stages: Sequence[str], tasks: Sequence[Planned]) -> None:
        """What is going to be done."""
        self.schedule.stages, self.schedule.tasks = stages, tasks

    def report(self, what: str, done: float, total: float) -> None:
        """Show how far a task is."""
        what = visible(what)
        if what not in self._ids:
            if self.only_current and what.split()[0] != self._current.partition(" ")[0]:
                for bar in self._ids.values():
                    self.bars.update(bar, visible=False)
            self._ids[what] = self.bars.add_task(what, total=total, at_first=done)
            self.bars.start()  # not earlier: a command that fails at once prints only its message
            self._metrics = ""
        self._current = what
        self._move(done, total)

    def within(self, done: float, total: float) -> None:
        """Show how far the present task is, between two reports."""
        if self._current and total == self.bars.tasks[self._ids[self._current]].total:
            self._move(done, total)

    def beat(self) -> None:
        """In a log: say where the present task is, if nothing was said for a while. A task without
        steps of its own, such as the checks before a run, would be silent until its end."""
        if self._current and not self.screen.is_terminal:
            task = self.bars.tasks[self._ids[self._current]]
            self._say_now_and_then(task.completed, task.total or 0.0)

    def metrics(self, line: str) -> None:
        """Show the metrics of a step."""
        self._metrics = visible(line)
        self._below()

    def _move(self, done: float, total: float) -> None:
        now = self.clock()
        self.bars.update(self._ids[self._current], completed=done, total=total)
        self.schedule.note(self._current, done, total, now)
        self._below()
        if not self.screen.is_terminal:
            self._say_now_and_then(done, total)

    def _below(self) -> None:
        if self.screen.is_terminal:
            self.bars.below = [line for line in (self._run(), self._metrics) if line]

    def _run(self) -> str:
        left = self.schedule.left()
        rest = "" if left is None or left < 1 else f"about {duration(left)} left"
        line = ", ".join(filter(None, (self.schedule.stage(), rest)))
        return line[:1].upper() + line[1:]

    def _say_now_and_then(self, done: float, total: float) -> None:
        now = self.clock()
        if now - self._said >= SILENCE:
            self._said = now
            self._say(done, total)

    def _say(self, done: float, total: float) -> None:
        task = self.bars.tasks[self._ids[self._current]]
        rate, left = Rate().render(task).plain, Left().render(task).plain
        rest = f", {rate}, {left} left" if rate else ""
        line = f"{self._current} {int(done)}/{int(total)}{rest}"
        more = [line for line in (self._run(), self._metrics) if line]
        self.screen.print(". ".join([line, *more]), soft_wrap=True)


def duration(seconds: float) -> str:
    """Seconds in the units that matter.

    >>> duration(42.3), duration(4000), duration(200000)
    ('42 s', '1 h 7 min', '2 d 8 h')
    """
    if seconds < 59.5:
        return f"{seconds:.0f} s" if seconds >= 1 else "< 1 s"
    minutes = round(seconds / 60)
    if minutes < 60:
        return f"{minutes} min"
    hours = round(seconds / 3600)
    if minutes < 24 * 60:
        return f"{minutes // 60} h {minutes % 60} min"
    return f"{hours // 24} d {hours % 24} h"
