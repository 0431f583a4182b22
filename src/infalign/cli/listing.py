"""`infalign list`: what there is to choose from, read from the tables of the package itself."""

import inspect
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Annotated

import typer
from rich.padding import Padding
from rich.text import Text

from .terminal import console, print_json

HELP = (
    "List methods, procedures, transforms, calibrators or rewards.\n\n"
    "Each has a name, a meaning, the form in which it is written, and an example.\n\n"
    "Example: infalign list procedures"
)


INDENT = 4
"""Columns before a meaning."""


@dataclass(frozen=True)
class Choice:
    """One of several things to choose from."""

    name: str
    meaning: str
    form: str
    example: str


class What(StrEnum):
    """What can be listed."""

    methods = "methods"
    procedures = "procedures"
    transforms = "transforms"
    calibrators = "calibrators"
    rewards = "rewards"


def list_choices(
    what: Annotated[What, typer.Argument(help="What to list.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
):
    rows = list(LISTS[what]())
    if as_json:
        print_json([asdict(row) for row in rows])
        return
    screen = console()
    screen.print(Text(TITLES[what], style="italic"))
    for row in rows:
        # Most forms begin with the name, and some are their own example.
        example = f", such as {row.example}" if row.example != row.form else ""
        screen.print(Text(f"\n{row.form}", style="bold"), Text(example), sep="", soft_wrap=True)
        screen.print(Padding(row.meaning, (0, 0, 0, INDENT)))


def _methods() -> Iterator[Choice]:
    from infalign.methods import METHODS, OnPolicy

    for method in METHODS.values():
        kind = "on policy, maximizes" if isinstance(method, OnPolicy) else "offline, minimizes"
        source = f" ({method.source})" if method.source else ""
        meaning = f"{kind}: {method.summary}{source}"
        yield Choice(method.name, meaning, method.name, method.name)


def _procedures() -> Iterator[Choice]:
    from infalign.core import PROCEDURES, RankProcedure

    for entry in PROCEDURES.values():
        if not entry.form:
            continue
        by_rank = issubclass(entry.kind, RankProcedure)
        limit = "" if by_rank else " For `infalign design` and `infalign sample`, not for runs."
        meaning = _meaning(entry.kind) + limit
        yield Choice(entry.name, meaning, entry.form, entry.example or entry.form)
    yield Choice(
        "majority-vote",
        "Draw N responses, select the most frequent answer. For evaluation and `infalign sample`.",
        "majority-vote:N",
        "majority-vote:16",
    )


def _transforms() -> Iterator[Choice]:
    from infalign.core import TRANSFORMS

    meaning = "The best transform for the run's procedure, KL budget and number of samples."
    yield Choice("optimal", meaning, "optimal", "optimal")
    for entry in TRANSFORMS.values():
        if entry.form:
            yield Choice(entry.name, _meaning(entry.kind), entry.form, entry.example or entry.form)


def _calibrators() -> Iterator[Choice]:
    from infalign.calibration.choice import CALIBRATORS, ECDF

    meaning = f"{ECDF}, unless another one predicts held-out samples significantly better."
    yield Choice("auto", meaning, "auto", "auto")
    for name, calibrator in CALIBRATORS.items():
        yield Choice(name, _meaning(type(calibrator)), name, name)


def _rewards() -> Iterator[Choice]:
    from infalign.demo import KINDS
    from infalign.models.rewards import FORMS

    for name, meaning, form, example in FORMS:
        if name != "bundled":
            yield Choice(name, meaning, form, example)
            continue
        for own in KINDS["reward"]:
            yield Choice(f"{name}:{own}", meaning, f"{name}:{own}", f"{name}:{own}")


def _meaning(kind: type) -> str:
    """The first paragraph of a class's documentation."""
    return " ".join((inspect.getdoc(kind) or "").partition("\n\n")[0].split())


LISTS: dict[What, Callable[[], Iterator[Choice]]] = {
    What.methods: _methods,
    What.procedures: _procedures,
    What.transforms: _transforms,
    What.calibrators: _calibrators,
    What.rewards: _rewards,
}

TITLES = {
    What.methods: "Training methods: train.method, train.baselines",
    What.procedures: "Decoding procedures: procedure, against, evaluate.procedures",
    What.transforms: "Transforms of the calibrated reward: transform",
    What.calibrators: "Calibrators: calibration.calibrator",
    What.rewards: "Rewards: reward, evaluate.gold",
}
