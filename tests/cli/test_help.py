"""Help of every command, what a command exits with, and the ways to start it."""

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from typer.main import get_command
from walked import commands

import infalign
from infalign import DataError
from infalign.cli.app import app
from infalign.cli.commands import COMMANDS, GROUPS, application
from infalign.cli.usage import Command
from infalign.errors import ArgumentError
from infalign.stores import StoreWriter
from infalign.stores.exchange import export_rewards

EVERY = sorted(commands())


def example_of(command) -> list[str]:
    """The words of the example that ends a command's help."""
    last = command.help.strip().split("\n\n")[-1]
    assert last.startswith("Example: infalign "), last
    return shlex.split(" ".join(last.split()).removeprefix("Example: infalign "))


@pytest.mark.parametrize("name", EVERY)
def test_help_ends_with_an_example_of_that_command_that_is_well_formed(name):
    words = example_of(commands()[name])
    own = name.split()
    assert words[: len(own)] == own
    commands()[name].make_context(name, words[len(own) :])  # raises on wrong usage


@pytest.mark.parametrize("name", ["", "store", *EVERY])
def test_help_shows_its_example_and_explains_every_option(cli, monkeypatch, name):
    monkeypatch.setenv("COLUMNS", "500")  # no line is broken
    monkeypatch.setenv("TERMINAL_WIDTH", "500")
    code, out, _ = cli(*name.split(), "--help")
    assert code == 0 and "Example: infalign " in out
    if name in commands():
        for parameter in commands()[name].params:
            assert parameter.help or parameter.name == "help", parameter.name
            assert (parameter.help or "").split("\n")[0] in out


@pytest.mark.parametrize("name", EVERY)
def test_no_paragraph_of_help_is_broken_by_hand(name):
    for paragraph in commands()[name].help.strip().split("\n\n"):
        # Click keeps the lines of a paragraph that begins with \\b: the keys of a configuration.
        assert paragraph.startswith("\b") or "\n" not in paragraph


REGISTERED = """
from dataclasses import dataclass
import infalign as ia

@ia.register_procedure("second-of-n", example="second-of-n:4")
@dataclass(frozen=True)
class SecondOfN(ia.RankProcedure):
    n: int
    draws = property(lambda self: self.n)
    cdf = lambda self, u: ia.OrderStatistic(self.n, 2).cdf(u)
    density = lambda self, u: ia.OrderStatistic(self.n, 2).density(u)
    slope = lambda self, u: ia.OrderStatistic(self.n, 2).slope(u)

import sys
from infalign.cli.app import main
main()
"""


def test_a_registered_procedure_is_in_help_and_errors_and_can_be_designed_for():
    def call(*words):
        start = [sys.executable, "-c", REGISTERED, *words]
        return subprocess.run(start, capture_output=True, text=True)

    for command in ("design", "sample"):
        assert "second-of-n:N" in call(command, "--help").stdout
    assert "second-of-n:N" in call("design", "--procedure", "x", "--kl", "1").stderr
    chosen = ("--procedure", "second-of-n:4", "--kl", "0.5", "--transform", "identity", "--json")
    done = call("design", *chosen)
    best = infalign.design(infalign.OrderStatistic(4, 2), kl=0.5)
    assert json.loads(done.stdout)["win_rate"] == pytest.approx(best.win_rate, abs=1e-9)


def test_the_examples_of_the_groups_are_well_formed():
    group = get_command(app)
    for command in (group, group.commands["store"]):
        words = example_of(command)
        name = max((n for n in commands() if words[: len(n.split())] == n.split()), key=len)
        commands()[name].make_context(name, words[len(name.split()) :])


# The other examples load models of the reader's own; those of `sample` and `red-team` are run where
# these commands are tested.
QUICK = ["design", "plan", "explore", "store show", "store merge", "store export", "store import"]


@pytest.mark.parametrize("name", QUICK)
def test_an_example_runs(cli, tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    for folder, prompt in (("demo", "a"), ("first", "b"), ("second", "c")):
        with StoreWriter(Path("runs", folder, "calibration"), {}, 1) as out:
            out.add([prompt], None, rng.normal(size=(1, 8)))
    if name == "store import":
        export_rewards(Path("runs/demo/calibration"), Path("rewards.parquet"))
    code, _, errors = cli(*example_of(commands()[name]))
    assert code == 0, errors


def test_every_command_names_its_options_in_errors():
    assert {n for n, c in commands().items() if not isinstance(c, Command)} == set()


def test_the_help_on_all_commands_shows_where_to_start(cli, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    _, out, _ = cli("--help")
    words = ("─ Start", "│ demo", "│ init", "│ run", "─ More", "│ store")
    places = [out.index(f"{word} ") for word in words]
    assert places == sorted(places)
    assert {name for names in GROUPS.values() for name in names} <= COMMANDS.keys()


def test_the_version_is_the_packages():
    for start in ([sys.executable, "-m", "infalign"], [Path(sys.executable).parent / "infalign"]):
        done = subprocess.run([*start, "--version"], capture_output=True, text=True, check=True)
        assert done.stdout == f"infalign {infalign.__version__}\n"


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_is_written_for_every_shell(shell):
    start = [Path(sys.executable).parent / "infalign", "--show-completion", shell]
    environment = {**os.environ, "_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"}
    done = subprocess.run(start, capture_output=True, text=True, check=True, env=environment)
    assert "_INFALIGN_COMPLETE" in done.stdout


def test_completion_knows_commands_and_options():
    def completed(words):
        environment = {
            **os.environ,
            "_INFALIGN_COMPLETE": "complete_bash",
            "COMP_WORDS": words,
            "COMP_CWORD": str(len(words.split()) - 1),
        }
        start = [Path(sys.executable).parent / "infalign"]
        done = subprocess.run(start, capture_output=True, text=True, env=environment)
        return done.stdout.split()

    assert completed("infalign des") == ["design"]
    assert completed("infalign evaluate --judge-p") == ["--judge-pairs"]


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (DataError("No such prompt."), 1, "infalign: No such prompt.\n"),
        (ValueError("`n` is wrong."), 1, "infalign: `n` is wrong.\n"),
        (ArgumentError("other", "must be 1."), 1, "infalign: `other` must be 1.\n"),
        (ArgumentError("out", "must be 1."), 2, "Invalid value for --out: must be 1."),
        (KeyError("x"), 1, "infalign: KeyError: 'x' (--debug shows where)\n"),
        (KeyboardInterrupt(), 130, "infalign: interrupted.\n"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_failure_is_one_message_and_an_exit_code(cli, monkeypatch, error, code, words):
    def fail(*arguments, **settings):
        raise error

    monkeypatch.setattr("infalign.cli.run.load_config", fail)
    result, out, errors = cli("demo")
    assert (result, out) == (code, "") and words in errors and "Traceback" not in errors


def test_a_command_that_does_not_continue_does_not_say_so(cli, monkeypatch):
    def fail(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr("infalign.cli.plan.print_plan", fail)
    assert cli("plan") == (130, "", "infalign: interrupted.\n")


def test_an_interruption_says_what_is_kept_and_what_continues(cli, monkeypatch, tmp_path):
    def stop(*arguments, **settings):
        raise KeyboardInterrupt

    monkeypatch.setattr("infalign.cli.run.load_config", stop)
    kept = f"What is finished is kept in {tmp_path}. This continues: infalign demo --out {tmp_path}"
    assert cli("demo", "--out", tmp_path) == (130, "", f"infalign: interrupted. {kept}\n")


def test_debug_shows_the_traceback(cli, monkeypatch):
    def fail(*arguments, **settings):
        raise ValueError("`n` is wrong.")

    monkeypatch.setattr("infalign.cli.run.load_config", fail)
    code, _, errors = cli("demo", "--debug")
    assert code == 1 and "Traceback" in errors and errors.endswith("ValueError: `n` is wrong.\n")


@pytest.mark.parametrize("name", EVERY)
def test_an_unknown_option_is_wrong_usage(cli, name):
    code, out, errors = cli(*name.split(), "--unheard-of")
    assert (code, out) == (2, "") and re.search("No such option", errors)


HEAVY = ("torch", "matplotlib", "scipy.stats", "jinja2", "transformers")
"""What help never imports."""

LIGHT = ("scipy", "pydantic", "pyarrow", "infalign.core", "infalign.config")
"""What the help on all commands, and the version, do not import either."""

IMPORTED = """
import contextlib, io, sys
from infalign.cli.app import main
with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(SystemExit):
    main()
print(*sys.modules)
"""


@pytest.mark.parametrize(
    "words", ["", "--help", "--version", "design --help", "run --help", "evaluate --help"]
)
def test_help_imports_little(words):
    call = [sys.executable, "-c", IMPORTED, *words.split()]
    done = subprocess.run(call, capture_output=True, text=True, check=True)
    imported = set(done.stdout.split())
    assert "infalign.cli.app" in imported
    never = HEAVY if words.split("-")[0] else HEAVY + LIGHT
    assert imported.isdisjoint(never), imported & set(never)


@pytest.mark.parametrize("words", [[], ["--help"]])
def test_the_help_on_all_commands_is_that_of_the_whole_application(cli, monkeypatch, words):
    # It is made from the first paragraphs alone, so that no command is imported.
    short = cli(*words)
    monkeypatch.setattr("infalign.cli.app.application", lambda _: application())
    assert cli(*words) == short
    whole = get_command(app).commands
    assert {name: summary for name, (_, summary) in COMMANDS.items()} == {
        name: command.help.split("\n\n")[0] for name, command in whole.items()
    }


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_a_call_of_one_command_has_that_command_alone(name):
    own = get_command(application([name, "--help"])).commands
    assert list(own) == [name]
    assert own[name].help == get_command(app).commands[name].help
