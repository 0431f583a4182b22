"""What a reward function takes: the keyword arguments that its signature names, or all."""

import inspect
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from infalign._look import Shown

__all__ = ["Parameters", "lacks"]

REQUIRED = ("prompts", "completions", "prompt_id")
"""What every call of a reward passes."""

TRAINING_ONLY = ("completion_ids", "trainer_state", "environments")
"""What TRL passes beside a data set's columns, and only a training has."""

LOGGERS = ("log_extra", "log_metric")
"""TRL's functions for logging, which a reward can do without."""

PASSED = (*REQUIRED, *TRAINING_ONLY, *LOGGERS)
"""Arguments that no column of the prompts can take the place of."""


@dataclass(frozen=True)
class Parameters(Shown):
    """The keyword arguments of a function."""

    names: tuple[str, ...]
    needed: tuple[str, ...]
    """Those without a default, in their order."""

    every: bool
    """Whether it takes any other too."""

    @classmethod
    def of(cls, function: Callable) -> "Parameters":
        """The parameters of a function, a partial one, or an object that can be called."""
        named = inspect.isroutine(function) or isinstance(function, partial)
        try:
            signature = inspect.signature(function if named else type(function).__call__)
        except (TypeError, ValueError):  # a built-in without a signature
            return cls((), (), True)
        own = list(signature.parameters.values())[0 if named else 1 :]
        every = any(p.kind is p.VAR_KEYWORD for p in own)
        own = [p for p in own if p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)]
        needed = tuple(p.name for p in own if p.default is p.empty)
        return cls(tuple(p.name for p in own), needed, every)

    def missing(self, available: Collection[str], positional: int = 0) -> list[str]:
        """The parameters without a default that get nothing.

        - `positional`: number of arguments that are given by position.
        """
        return [name for name in self.needed[positional:] if name not in available]

    def taken(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """The keyword arguments that the function takes."""
        return {k: v for k, v in arguments.items() if self.every or k in self.names}


def lacks(who: str, missing: Collection[str], available: Collection[str]) -> str:
    """Why a function cannot be called, and what to do.

    - `who`: the function, such as "The reward `score`".
    - `missing`: its parameters that get nothing; `available`: the columns that there are.
    """
    needs = ", ".join(f"`{name}`" for name in missing)
    own = sorted(set(available) - set(PASSED))
    columns = "they have none"
    if own:
        columns = f"their columns are {', '.join(f'`{name}`' for name in own)}"
    training = [name for name in missing if name in TRAINING_ONLY]
    if training:
        return (
            f"{who} needs {needs}; `{training[0]}` exists while TRL trains, but not where "
            "reference samples and evaluations are scored. Make the reward depend on prompts, "
            "completions and columns of the prompts only: training and calibration then score "
            "alike."
        )
    return (
        f"{who} needs {needs}, which no column of the prompts provides; {columns}. Add the column "
        "to the prompts, rename the parameter, or give it a default."
    )
