"""The training methods: what each trains on, in one table.

A method defines the objective: a reward with its KL strength, or a loss on stored samples.
`training` runs it. Configuration, help, docs, results and reports read `METHODS`, so adding a
method takes one row: in `objectives` if it samples from the policy, in `tasks` if it does not.
"""

from .method import DESIGN, OTHER, RAW, Method, Objective, Offline, OnPolicy, Setting, Task
from .objectives import ON_POLICY
from .requirements import Budget, budget
from .tasks import OFFLINE
from .training_design import TrainingDesign, training_design

METHODS: dict[str, Method] = {method.name: method for method in (*ON_POLICY, *OFFLINE)}
"""Every method of `train.method`, by name."""


def labels() -> dict[str, str]:
    """The name of each method in reports."""
    return {method.name: method.label for method in METHODS.values()}


__all__ = [
    "DESIGN",
    "METHODS",
    "OTHER",
    "RAW",
    "Budget",
    "Method",
    "Objective",
    "Offline",
    "OnPolicy",
    "Setting",
    "Task",
    "TrainingDesign",
    "budget",
    "labels",
    "training_design",
]
