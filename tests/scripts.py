"""Loads scripts that are not part of the package, such as benchmarks, as modules."""

import importlib.util
import os
import sys
from pathlib import Path
from types import ModuleType
from unittest.mock import patch

REPOSITORY = Path(__file__).parents[1]


def load_script(path: str) -> ModuleType:
    """The module of a script, newly made.

    - `path`: its place in the repository, such as benchmarks/bands.py.

    While it is loaded, it can import the scripts beside it.
    """
    script = REPOSITORY / path
    spec = importlib.util.spec_from_file_location(f"script_{script.stem}", script)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where dataclasses look for their own module
    with patch.object(sys, "path", [str(script.parent), *sys.path]):
        spec.loader.exec_module(module)
    return module


def run_small(benchmark: ModuleType, out: Path) -> None:
    """Run a benchmark's tiny case into a folder, and leave this process as it was."""
    import torch

    threads = torch.get_num_threads()
    command = [benchmark.__file__, "--smoke", "--out", str(out)]
    try:
        with patch.object(sys, "argv", command), patch.dict(os.environ):
            benchmark.main()
    finally:
        torch.set_num_threads(threads)
