"""All families of problems."""

from .binary import BINARY
from .check import Family
from .designs import DESIGNS
from .estimators import ESTIMATORS
from .finite_sets import FINITE
from .worlds import WORLDS

FAMILIES: dict[str, Family] = {
    family.name: family for family in (BINARY, FINITE, DESIGNS, ESTIMATORS, WORLDS)
}
