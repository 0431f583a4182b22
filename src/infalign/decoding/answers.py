r"""Extraction of answers from responses, for majority votes: by default the final number of a text.

Responses agree if their answers are equal, however they are written: 1,000 equals 1000 and 1000.0;
0.5 equals 1/2 and \frac{1}{2} and 50 %. A response without an answer, None, does not vote.
"""

from collections.abc import Callable, Hashable

from infalign.errors import DataError
from infalign.models.functions import python_function

from .expressions import math_answer, require_library
from .numeric import numeric_answer

__all__ = ["load_answers"]

Answers = Callable[[str], Hashable]
"""Response text → answer, any hashable value; None or nan if there is no answer."""

FORMS = "numeric, math or python:package.module:function"


def load_answers(spec: str) -> Answers:
    """The answer extraction that `spec` names.

    - `numeric`: `numeric_answer`.
    - `math`: `expressions.math_answer`, which needs the library math-verify.
    - `python:package.module:function` or `path/to/file.py:function`.

    Raises DataError when there is no such function, and MissingExtraError without math-verify.
    """
    if spec == "numeric":
        return numeric_answer
    if spec == "math":
        require_library()
        return math_answer
    if ":" not in spec:
        raise DataError(f"The answers {spec!r} cannot be loaded: they must be {FORMS}.")
    return python_function(spec, "answers")
