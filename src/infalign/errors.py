"""What can go wrong, as few kinds as callers can act on.

Arguments that break a rule raise plain `ValueError`; the classes here are for everything else.
Every message names the thing, the value found, where and how often, and what to do.
"""


class InfalignError(Exception):
    """Base of the package's own errors; the command line prints it without a traceback."""


class DataError(InfalignError, ValueError):
    """Rewards, prompts, samples or stored files that cannot be used as they are."""


class ConfigError(InfalignError, ValueError):
    """A configuration, or a run folder that belongs to another one."""


class SolveError(InfalignError, RuntimeError):
    """A numerical solver that stopped short of its tolerance."""


class MissingExtraError(InfalignError, ImportError):
    """An optional dependency that the request needs and the environment lacks."""
