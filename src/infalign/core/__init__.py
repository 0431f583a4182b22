"""The numeric core: procedures, transforms, and solvers that connect them, on the quantile axis.

It needs only numpy and scipy, and does not depend on text, files, models or frameworks. Its modules
are private; import every name from here or, for the public ones, from `infalign`.
"""

from . import finite, verifiable
from ._certificates import objective
from ._compare import Candidate, at_kl, beside, best_exponential, best_power, compare
from ._design import Design, design, roughly
from ._few_samples import FewSamples, samples_needed
from ._group_gradient import group_rewards, group_win_rate
from ._inputs import finite_rewards, quantile
from ._interface import (
    PROCEDURES,
    AbstractProcedure,
    RankProcedure,
    Reads,
    register_procedure,
    require_by_rank,
    require_procedure,
)
from ._policies import TiltedPolicy
from ._procedures import BestOfN, BestOfPoisson, Mixture, OrderStatistic, Sampling, WorstOfN
from ._quadrature import graded
from ._quantiles import Smoothing, ends, interval, mid_rank, quantiles, randomized_quantiles, ranks
from ._raw_rewards import RawRewards, log_weights
from ._registry import Entry, Parameter, Registry
from ._roots import NoRoot, bracketed_root, falling_root
from ._soft_procedures import Rewind, SoftBestOfN, SoftenedProcedure
from ._solvers.fixed_point import FixedPoint, fixed_point
from ._solvers.frontier import frontier
from ._solvers.shots import stationary_points
from ._specs import (
    families,
    family,
    parse_procedure,
    parse_transform,
    procedure_forms,
    transform_forms,
    words,
)
from ._transforms import (
    TRANSFORMS,
    AbstractTransform,
    Exponential,
    Identity,
    Log,
    Power,
    Probit,
    Tabulated,
    register_transform,
    transform_from_json,
)
from ._utilities import ExponentialUtility, SelectedReward, coupled_tilt, first_tilt

__all__ = [
    "PROCEDURES",
    "TRANSFORMS",
    "AbstractProcedure",
    "AbstractTransform",
    "BestOfN",
    "BestOfPoisson",
    "Candidate",
    "Design",
    "Entry",
    "Exponential",
    "ExponentialUtility",
    "FewSamples",
    "FixedPoint",
    "Identity",
    "Log",
    "Mixture",
    "NoRoot",
    "OrderStatistic",
    "Parameter",
    "Power",
    "Probit",
    "RankProcedure",
    "RawRewards",
    "Reads",
    "Registry",
    "Rewind",
    "Sampling",
    "SelectedReward",
    "Smoothing",
    "SoftBestOfN",
    "SoftenedProcedure",
    "Tabulated",
    "TiltedPolicy",
    "WorstOfN",
    "at_kl",
    "beside",
    "best_exponential",
    "best_power",
    "bracketed_root",
    "compare",
    "coupled_tilt",
    "design",
    "ends",
    "falling_root",
    "families",
    "family",
    "finite",
    "finite_rewards",
    "first_tilt",
    "fixed_point",
    "frontier",
    "graded",
    "group_rewards",
    "group_win_rate",
    "interval",
    "log_weights",
    "mid_rank",
    "objective",
    "parse_procedure",
    "parse_transform",
    "procedure_forms",
    "quantile",
    "quantiles",
    "randomized_quantiles",
    "ranks",
    "register_procedure",
    "register_transform",
    "require_by_rank",
    "require_procedure",
    "roughly",
    "samples_needed",
    "stationary_points",
    "transform_forms",
    "transform_from_json",
    "verifiable",
    "words",
]
