"""Loads scripts that are not part of the package, such as benchmarks, as modules."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

REPOSITORY = Path(__file__).parents[1]


def load_script(path: str) -> ModuleType:
    """The module of a script, newly made.

    - `path`: its place in the repository, such as benchmarks/bands.py.

    Scripts beside it must be on Python's path, if it imports them.
    """
    script = REPOSITORY / path
    spec = importlib.util.spec_from_file_location(f"script_{script.stem}", script)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where dataclasses look for their own module
    spec.loader.exec_module(module)
    return module
