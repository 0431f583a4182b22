"""Shape annotations of the core: `Float[np.ndarray, "prompts k"]`, in jaxtyping's notation.

Here they are `typing.Annotated`, which costs no import and no dependency. Type checkers read the
type, and people read the shape. `tests/core/test_shapes.py` puts jaxtyping's types in their place
and checks every call with beartype: within a call, dimensions with the same name must agree.

The convention, everywhere in the core:

- Results, and arguments that must be arrays: `Float[np.ndarray, "prompts k"]`, `Int`, `Bool`.
- Arguments of public functions, which may also be lists or integers: `Real[ArrayLike, "prompts
  k"]`.
- Elementwise functions: `Real[ArrayLike, "*any"]` to `Float[np.ndarray, "*any"]`; for a number, the
  result is a NumPy scalar.
- Dimensions: `prompts`, `k` reference samples, `m` responses, `groups`, `outcomes`, `panels`,
  `nodes`; `_` for a dimension without a name.
"""

from typing import Annotated as Bool
from typing import Annotated as Float
from typing import Annotated as Int
from typing import Annotated as Real

from numpy.typing import ArrayLike

__all__ = ["ArrayLike", "Bool", "Float", "Int", "Real"]
