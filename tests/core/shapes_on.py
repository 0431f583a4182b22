"""Switches the shape checks of the core on: import this before infalign.

jaxtyping's types take the place of the annotations in `infalign.core._shapes`, and its import hook
has beartype check every call of every function of the core.
"""

import sys
import types
from collections.abc import Sequence
from numbers import Real as Number

import jaxtyping
import numpy as np
from beartype import BeartypeConf, beartype
from numpy.typing import ArrayLike

check = beartype(conf=BeartypeConf(is_pep484_tower=True))  # an int is a float


class Checked:
    """`Float[np.ndarray, "prompts k"]` and its like, as jaxtyping's types."""

    def __init__(self, dtype):
        self.dtype = dtype

    def __getitem__(self, item):
        kind, shape = item
        array = self.dtype[np.ndarray, shape]
        if kind is ArrayLike:
            return array | Sequence | Number
        # Elementwise functions give a NumPy scalar for a number.
        return array | np.generic if shape.startswith("*any") else array


shapes = types.ModuleType("infalign.core._shapes")
shapes.ArrayLike = ArrayLike
for name in ("Bool", "Float", "Int", "Real"):
    setattr(shapes, name, Checked(getattr(jaxtyping, name)))
sys.modules["infalign.core._shapes"] = shapes
jaxtyping.install_import_hook("infalign.core", f"{__name__}.check")
