"""The commands of `infalign`. What a call does not need is not imported, so that help is fast."""

import os
from collections.abc import Callable, Sequence
from functools import partial
from importlib import import_module
from typing import Annotated

import typer

import infalign

from .usage import Command, ResumableCommand

Add = Callable[[typer.Typer], object]
"""Adds a command to the application."""


def _of(
    module: str, function: str, help: str = "HELP", *, resumable: bool = False, name: str = ""
) -> Add:
    """Adds a function of a module, which is imported then, as a command.

    - `help`: the module's name for the help.
    - `name`: of the command. Default: that of the function.
    """

    def add(app: typer.Typer) -> None:
        own = import_module(f".{module}", __package__)
        kind = ResumableCommand if resumable else Command
        app.command(name=name or function, cls=kind, help=getattr(own, help))(
            getattr(own, function)
        )

    return add


def _stage(stage: str, app: typer.Typer) -> None:
    from . import run

    app.command(name=stage, cls=ResumableCommand, help=run.stage_help(stage))(
        run.stage_command(stage)
    )


def _store(app: typer.Typer) -> None:
    from . import store, store_files

    if len(store.app.registered_commands) == 1:
        store_files.add_to(store.app)
    app.add_typer(store.app, name="store")


COMMANDS: dict[str, tuple[Add, str]] = {
    "demo": (
        _of("run", "demo", "DEMO_HELP", resumable=True),
        "Run the whole method on bundled models, offline.",
    ),
    "init": (
        _of("init", "init"),
        "Write a commented configuration for what is in this folder, and a reward "
        "function to edit.",
    ),
    "run": (
        _of("run", "run", "RUN_HELP", resumable=True),
        "Run the whole method on your model, reward and prompts.",
    ),
    "calibrate": (
        partial(_stage, "calibrate"),
        "Draw and score the reference samples of every prompt.",
    ),
    "train": (partial(_stage, "train"), "Train the policies, running any earlier stages first."),
    "report": (partial(_stage, "report"), "Run any missing stages and write the report."),
    "evaluate": (
        _of("evaluate", "evaluate", resumable=True),
        "Compare policies with a reference under the procedures that decode them.",
    ),
    "compare": (
        _of("compare", "compare", resumable=True),
        "Compare training methods at the same KL: with several seeds, on several tasks.",
    ),
    "analyze": (
        _of("analyze", "analyze_samples", name="analyze"),
        "Compare policies from existing samples: files of rewards, logs of evaluations, counts.",
    ),
    "plan": (
        _of("plan", "plan"),
        "Find how many prompts and samples an evaluation needs to detect a difference.",
    ),
    "design": (
        _of("design", "design"),
        "Find the best transform for a procedure and a KL budget, and compare it with simple ones.",
    ),
    "sample": (
        _of("sample", "sample", resumable=True),
        "Answer prompts with a procedure: draw responses, score them, select one.",
    ),
    "list": (
        _of("listing", "list_choices", name="list"),
        "List methods, procedures, transforms, calibrators or rewards.",
    ),
    "red-team": (
        _of("red_team", "red_team", resumable=True, name="red-team"),
        "Measure how often repeated attempts break a policy, and how the rate grows with attempts.",
    ),
    "explore": (
        _of("explore", "explore"),
        "Write or serve an interactive page that explains transforms and helps you choose one.",
    ),
    "export-prompts": (
        _of("frameworks", "export_prompts", "EXPORT_HELP", name="export-prompts"),
        "Write a run's training prompts and their ids in the format of another framework.",
    ),
    "serve-reward": (
        _of("frameworks", "serve_reward", "SERVE_HELP", name="serve-reward"),
        "Serve a run's reward over HTTP, for OpenRLHF or another infalign run.",
    ),
    "store": (
        _store,
        "Show, check, merge, export and import calibration stores.",
    ),
}
"""Each command, and the first paragraph of its help."""


GROUPS = {
    "Start": ("demo", "init", "run"),
    "The stages of a run": ("calibrate", "train", "evaluate", "report"),
    "Judge": ("analyze", "compare", "red-team"),
    "Choose and plan": ("design", "explore", "list", "plan"),
}
"""The groups in which the help shows the commands; the others come last."""

OTHERS = "More"


def _group(command: str) -> str:
    return next((group for group, names in GROUPS.items() if command in names), OTHERS)


def application(arguments: Sequence[str] | None = None) -> typer.Typer:
    """The application with the commands that `arguments` need; with all of them by default.

    Help on all commands needs only their first paragraphs, and a command needs no other.
    """
    app = _empty()
    completing = any(name.startswith("_INFALIGN_COMPLETE") for name in os.environ)
    first = None if arguments is None or completing else next(iter(arguments), "--help")
    if first in ("--help", "--version"):
        for name, (_, summary) in COMMANDS.items():
            app.command(name=name, help=summary)(_nothing)
    elif first in COMMANDS:
        COMMANDS[first][0](app)
    else:
        for add, _ in COMMANDS.values():
            add(app)
    for command in app.registered_commands:
        own = command.name or getattr(command.callback, "__name__", "")
        command.rich_help_panel = _group(str(own))
    for group in app.registered_groups:
        group.rich_help_panel = _group(str(group.name))
    return app


def _nothing() -> None:
    """Stands for a command in the help on all of them."""


def _empty() -> typer.Typer:
    app = typer.Typer(
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        rich_markup_mode="rich",
        help="Align a language model for the procedure that will decode it "
        "(InfAlign, arXiv:2412.19792).\n\nExample: infalign demo --quick",
    )
    app.callback()(_options)
    return app


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"infalign {infalign.__version__}")
        raise typer.Exit


def _options(
    version: Annotated[
        bool,
        typer.Option(
            "--version", help="Print the version.", callback=_print_version, is_eager=True
        ),
    ] = False,
    debug: Annotated[
        bool,
        typer.Option(
            "--debug", help="Show error tracebacks. You can give it before or after a command."
        ),
    ] = False,
):
    """`--debug` is here for the help only: `main` removes it before the arguments are parsed."""
