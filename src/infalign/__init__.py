"""InfAlign: align a policy for the procedure it will be decoded with (arXiv:2412.19792)."""

from . import _moved
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
from .evaluation.selected import best_reward, pass_at, selected_reward, worst_reward
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


FORMER_NAMES = {"SampledDesign": "Design", "kept_reward": "selected_reward"}
"""Former public names, which keep working."""


def __getattr__(name: str):
    if name in FORMER_NAMES:
        return globals()[FORMER_NAMES[name]]
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)


_moved.install()
