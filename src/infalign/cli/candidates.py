"""What lies in a folder that a configuration can name: models, rewards and prompts.

Nothing is run or loaded: models are recognized by their configuration, rewards by the parameters of
Python functions, prompts by their columns.
"""

import ast
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from infalign.config import Prompts
from infalign.errors import DataError, InfalignError
from infalign.manifest import Manifest
from infalign.prompts import require_readable
from infalign.prompts.columns import UnclearColumnError
from infalign.prompts.files import PROMPT_FILES
from infalign.prompts.saved import is_saved

DEPTH = 2
"""Folders below the first one that are looked into."""

MOST = 2000
"""Largest number of files that are looked at."""

LARGEST = 2**28
"""Largest size of a prompts file that is read to see its columns, in bytes."""

OTHERS = {"node_modules", "__pycache__", "site-packages", "venv", "env", "build", "dist"}
"""Folders that hold nothing of the user's."""

OWN = ("provenance.json", "pyvenv.cfg", "config.json")
"""Files of a folder that belongs to a run, an environment or a model."""


@dataclass(frozen=True)
class Candidates:
    """What a configuration can name, as paths from the folder."""

    models: list[str] = field(default_factory=list)
    rewards: list[str] = field(default_factory=list)
    prompts: list[str] = field(default_factory=list)

    unclear: dict[str, str] = field(default_factory=dict)
    """Files whose columns do not tell which one holds the prompt, and why."""

    refused: dict[str, str] = field(default_factory=dict)
    """Files that could hold prompts, and why they cannot be read as such."""


def candidates(folder: Path, column: str | None = None) -> Candidates:
    """What lies in a folder and in the folders below it.

    - `column`: the column that holds the prompt. Default: the one with a usual name.
    """
    here = Candidates()
    for path in _walked(folder):
        name = path.relative_to(folder).as_posix()
        if path.is_dir():
            if kind := _model(path):
                {"policy": here.models, "reward": here.rewards}[kind].append(name)
                continue
        elif path.suffix == ".py":
            here.rewards.extend(f"{name}:{function}" for function in reward_functions(path))
            continue
        try:
            if path.is_dir() or path.stat().st_size <= LARGEST:
                require_readable(Prompts(file=name, column=column), folder)
            here.prompts.append(name)
        except UnclearColumnError as error:
            # A single record is a configuration rather than a file of prompts.
            several = error.rows > 1 and column is None
            (here.unclear if several else here.refused)[name] = str(error)
        except (InfalignError, OSError) as error:
            here.refused[name] = str(error)
    return here


def reward_functions(path: Path) -> list[str]:
    """Names of the functions of a Python file that take completions; none if it cannot be read."""
    try:
        tree = ast.parse(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, SyntaxError, RecursionError, MemoryError):
        return []
    names = []
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            own = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
            if "completions" in [a.arg for a in own] and not node.name.startswith("_"):
                names.append(node.name)
    return names


def _walked(folder: Path) -> Iterator[Path]:
    """Python files, possible prompts files, and folders of models and saved data sets."""
    seen = 0
    for place, folders, files in os.walk(folder):
        here = Path(place)
        deep = len(here.relative_to(folder).parts)
        for name in sorted(files):
            seen += 1
            if seen > MOST:
                return
            plain = name.lower().removesuffix(".gz")
            if name.endswith(".py") and not name.startswith(("test_", "conftest")):
                yield here / name
            elif not name.startswith(".") and plain.endswith(PROMPT_FILES):
                yield here / name
        inner = []
        for name in sorted(folders):
            own = here / name
            if _model(own) or is_saved(own):
                yield own
            elif deep < DEPTH and not (
                name.startswith(".")
                or name in OTHERS
                or any((own / f).exists() for f in OWN)
                or _has_results(own)
                or next(own.glob("rewards-*.parquet"), None)  # a calibration store
            ):
                inner.append(name)
        folders[:] = inner


def _has_results(folder: Path) -> bool:
    """Whether a command wrote the folder, such as `infalign red-team`."""
    try:
        return bool(Manifest(folder).listed(folder))
    except (DataError, OSError):  # a manifest of another program, or one that cannot be read
        return False


def _model(folder: Path) -> str | None:
    """Whether a folder holds a `policy`, a `reward` classifier, or neither."""
    names = read_model_config(folder).get("architectures")
    if not isinstance(names, list) or not any(folder.glob("*.safetensors")):
        return None
    if any(str(name).endswith(("ForCausalLM", "LMHeadModel")) for name in names):
        return "policy"
    return "reward" if any("ForSequenceClassification" in str(name) for name in names) else None


def read_model_config(folder: Path) -> dict:
    """The configuration of a model's folder; empty if there is none."""
    try:
        value = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}
