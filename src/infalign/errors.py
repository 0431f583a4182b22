"""The package's exceptions: only as many kinds as callers can act on.

An argument that breaks a rule raises `ValueError`, in most places as `ArgumentError`. The other
classes are for everything else. Every message names the argument, its value, where it is, how many
there are, and the remedy.
"""


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


class UnreachableError(DataError):
    """A server that gives no answer, whatever it is asked."""


class ConfigError(InfalignError, ValueError):
    """An invalid configuration, or a run folder that was made with a different one."""


class SolveError(InfalignError, RuntimeError):
    """A numerical solver that stopped short of its tolerance."""


class MissingExtraError(InfalignError, ImportError):
    """An optional dependency that is needed but not installed."""
