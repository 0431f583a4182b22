"""All families of problems."""

from .binary import BINARY
from .check import Family
from .coverage import COVERAGE
from .designs import DESIGNS
from .estimators import ESTIMATORS
from .few_samples import FEW_SAMPLES
from .finite_sets import FINITE
from .transforms import TRANSFORMS
from .worlds import WORLDS

FAMILIES: dict[str, Family] = {
    family.name: family
    for family in (
        DESIGNS,
        BINARY,
        FINITE,
        FEW_SAMPLES,
        ESTIMATORS,
        WORLDS,
        TRANSFORMS,
        COVERAGE,
    )
}
