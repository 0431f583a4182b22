"""The package's exceptions: only as many kinds as callers can act on.

An argument that breaks a rule raises `ValueError`, in most places as `ArgumentError`. The other
classes are for everything else. Every message names the argument, its value, where it is, how many
there are, and the remedy.
"""

import json
import sys
from importlib.metadata import PackageNotFoundError, distribution

__all__ = [
    "ArgumentError",
    "ConfigError",
    "DataError",
    "InfalignError",
    "MissingExtraError",
    "SolveError",
    "UnknownPromptError",
    "UnreachableError",
    "install",
]


class ArgumentError(ValueError):
    """An argument that breaks a rule; the command line names the option in the argument's place.

    >>> print(ArgumentError("n", "must be at least 1; got 0."))
    `n` must be at least 1; got 0.
    """

    def __init__(self, argument: str, problem: str) -> None:
        super().__init__(argument, problem)
        self.argument = argument
        self.problem = problem

    def __str__(self) -> str:
        return f"`{self.argument}` {self.problem}"


class InfalignError(Exception):
    """Base of the package's own errors; the command line prints it without a traceback."""


class DataError(InfalignError, ValueError):
    """Rewards, prompts, samples or stored files that cannot be used as they are."""


class UnknownPromptError(DataError, KeyError):
    """A prompt id that a store does not have."""

    __str__ = Exception.__str__  # that of KeyError puts the message in quotes


class UnreachableError(DataError):
    """A server that gives no answer, whatever it is asked."""


class ConfigError(InfalignError, ValueError):
    """An invalid configuration, or a run folder that was made with a different one."""


class SolveError(InfalignError, RuntimeError):
    """A numerical solver did not reach its tolerance."""


class MissingExtraError(InfalignError, ImportError):
    """An optional dependency that is needed but not installed."""


def install(extra: str) -> str:
    """The command that installs an extra, for the way in which this package was installed.

    >>> install("train").startswith('pip install "infalign[train]"')
    True
    """
    command = f'pip install "infalign[{extra}]"'
    try:
        package = distribution("infalign")
        source = json.loads(package.read_text("direct_url.json") or "{}")
        installer = (package.read_text("INSTALLER") or "pip").strip()
    except (PackageNotFoundError, OSError, ValueError):
        return command
    folder = str(source.get("url", "")).removeprefix("file://")
    tool = "uv pip" if installer == "uv" else "pip"
    if source.get("dir_info", {}).get("editable"):
        return f'{command} (here, from the source: {tool} install -e "{folder}[{extra}]")'
    if "pipx" in sys.prefix.replace("\\", "/").split("/"):
        return f'{command} (here, with pipx: pipx install --force "infalign[{extra}]")'
    if tool != "pip":
        return f'{command} (here, with uv: {tool} install "infalign[{extra}]")'
    return command
