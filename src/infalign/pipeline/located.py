"""Where a run found its relative files, so that later commands find the same ones.

A configuration in a run folder names files as the run was given them. Prompts and Python functions
are looked for beside the configuration first, then in the working directory; models are looked for
in the working directory. Both folders are recorded in `current.json`.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

from infalign.config import Config, Prompts
from infalign.manifest import Manifest
from infalign.models.functions import holder
from infalign.models.specs import ModelSpec

from .history import read_current

__all__ = ["FOLDERS", "folders_of", "located"]

AnyPrompts = TypeVar("AnyPrompts", bound=Prompts)

FOLDERS = "folders"
"""The entry of `current.json`."""

CONFIGURATION, WORKING = "configuration", "working"


def folders_of(config: Config) -> dict[str, str]:
    """The folder of a configuration's file, if it has one, and the working directory."""
    own = {} if config.folder is None else {CONFIGURATION: str(config.folder)}
    return {**own, WORKING: str(Path.cwd())}


def located(config: Config, folder: Path, directory: Path | None = None) -> Config:
    """The configuration of the run in `folder`, with the relative paths of model, reward and
    prompts as the run found them.

    - `directory`: where they are looked for that are not there any more. Default: the working
      directory.

    Raises DataError if the record of the run has changed.
    """
    recorded = read_current(Manifest(folder)).get(FOLDERS, {})
    places = {name: Path(place) for name, place in recorded.items()}
    working = [places[WORKING]] if WORKING in places else []
    more = [] if directory is None else [directory.resolve()]
    every = list(dict.fromkeys([*places.values(), *more]))
    # If both name the same file, they must still do so: a part of it is then held out.
    test_prompts = _read_from(config.evaluate.prompts, every)
    changed = {
        "model": _first(config.model, [*working, *more]),
        "reward": _first(config.reward, [*working, *more]),
        "prompts": _read_from(config.prompts, every),
        "evaluate": config.evaluate.model_copy(update={"prompts": test_prompts}),
    }
    moved = config.model_copy(update=changed)
    # Code beside the configuration in a run folder may be somebody else's, and is not run.
    outside = [p for p in every if not p.resolve().is_relative_to(folder.resolve())]
    moved._folder = _folder_of(moved.reward, outside)
    return moved


def _read_from(source: AnyPrompts, folders: Sequence[Path]) -> AnyPrompts:
    """A source of prompts whose file is looked for in these folders."""
    if source.file is None:
        return source
    return source.model_copy(update={"file": _first(source.file, folders)})


def _first(value: str, folders: Sequence[Path]) -> str:
    """The path in the first of the folders that has it; what none has stays as it is."""
    there = [(folder / value).resolve() for folder in folders]
    return next((str(path) for path in there if path.exists()), value)


def _folder_of(reward: str, folders: Sequence[Path]) -> Path | None:
    """The folder in which the reward's function is looked for first."""
    spec = ModelSpec.parse(reward).inner
    own = holder(spec.text, "reward", folders) if spec.kind == "python" else None
    return own or next(iter(folders), None)
