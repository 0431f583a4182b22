"""InfAlign: align a policy for the procedure it will be decoded with (arXiv:2412.19792)."""

from importlib import import_module
from typing import TYPE_CHECKING

from . import _moved

if TYPE_CHECKING:  # imported when first used: the help of the command line needs none of it
    from .core import (
        AbstractProcedure,
        AbstractTransform,
        BestOfN,
        BestOfPoisson,
        Candidate,
        Design,
        Exponential,
        FixedPoint,
        Identity,
        Log,
        Mixture,
        OrderStatistic,
        Power,
        Probit,
        RankProcedure,
        RawRewards,
        Rewind,
        Sampling,
        SoftBestOfN,
        SoftenedProcedure,
        Tabulated,
        TiltedPolicy,
        WorstOfN,
        best_exponential,
        best_power,
        compare,
        design,
        finite,
        fixed_point,
        parse_procedure,
        parse_transform,
        quantiles,
        register_procedure,
        register_transform,
        samples_needed,
        transform_from_json,
        verifiable,
    )
    from .errors import ConfigError, DataError, InfalignError, MissingExtraError, SolveError
    from .evaluation.estimators import win_rate, win_rate_difference
    from .evaluation.selected import best_reward, pass_all, pass_at, selected_reward, worst_reward
    from .evaluation.uncertainty import (
        Bootstrap,
        Estimate,
        SkewCorrected,
        Student,
        Widest,
        over_prompts,
    )
    from .evaluation.votes import majority_vote
    from .shaping import GroupShapedReward, ShapedReward, Shaper
    from .stores import CalibrationStore

__version__ = "0.2.0.dev0"

__all__ = [
    "AbstractProcedure",
    "AbstractTransform",
    "BestOfN",
    "BestOfPoisson",
    "Bootstrap",
    "CalibrationStore",
    "Candidate",
    "ConfigError",
    "DataError",
    "Design",
    "Estimate",
    "Exponential",
    "FixedPoint",
    "GroupShapedReward",
    "Identity",
    "InfalignError",
    "Log",
    "MissingExtraError",
    "Mixture",
    "OrderStatistic",
    "Power",
    "Probit",
    "RankProcedure",
    "RawRewards",
    "Rewind",
    "Sampling",
    "ShapedReward",
    "Shaper",
    "SkewCorrected",
    "SoftBestOfN",
    "SoftenedProcedure",
    "SolveError",
    "Student",
    "Tabulated",
    "TiltedPolicy",
    "Widest",
    "WorstOfN",
    "__version__",
    "best_exponential",
    "best_power",
    "best_reward",
    "compare",
    "design",
    "finite",
    "fixed_point",
    "majority_vote",
    "over_prompts",
    "parse_procedure",
    "parse_transform",
    "pass_all",
    "pass_at",
    "quantiles",
    "register_procedure",
    "register_transform",
    "samples_needed",
    "selected_reward",
    "transform_from_json",
    "verifiable",
    "win_rate",
    "win_rate_difference",
    "worst_reward",
]


ELSEWHERE = {
    "errors": (
        "ConfigError",
        "DataError",
        "InfalignError",
        "MissingExtraError",
        "SolveError",
    ),
    "evaluation.estimators": (
        "win_rate",
        "win_rate_difference",
    ),
    "evaluation.selected": (
        "best_reward",
        "pass_all",
        "pass_at",
        "selected_reward",
        "worst_reward",
    ),
    "evaluation.uncertainty": (
        "Bootstrap",
        "Estimate",
        "SkewCorrected",
        "Student",
        "Widest",
        "over_prompts",
    ),
    "evaluation.votes": ("majority_vote",),
    "shaping": (
        "GroupShapedReward",
        "ShapedReward",
        "Shaper",
    ),
    "stores": ("CalibrationStore",),
}
"""The modules of the public names that are not in `core`."""

HOME = dict.fromkeys(__all__, "core") | {
    name: module for module, names in ELSEWHERE.items() for name in names
}

PACKAGES = ("core", "errors", "evaluation", "shaping", "stores")
"""Packages that are attributes without an import of their own."""

FORMER_NAMES = {"SampledDesign": "Design", "kept_reward": "selected_reward"}
"""Former public names, which keep working."""


def __getattr__(name: str):
    name = FORMER_NAMES.get(name, name)
    if name in HOME:
        value = getattr(import_module(f".{HOME[name]}", __name__), name)
    elif name in PACKAGES:
        value = import_module(f".{name}", __name__)
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)


_moved.install()
