"""The configuration of a study: tasks × methods × KLs × seeds, of which each is one training."""

import copy
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field

from infalign._check import nearest, short
from infalign._look import Shown
from infalign.errors import ConfigError

from .documents import read_document
from .load import apply, parse_config, read_section
from .schema import Config, MethodName, Section

__all__ = ["Cell", "Grid", "Study", "StudyTask", "load_study", "read_study"]

NAME = re.compile(r"[\w-]{1,60}")
"""The name of a task: it names a folder."""


def _listed(value: object) -> object:
    return [value] if isinstance(value, str | int | float) else value


def _different(values: tuple) -> tuple:
    if again := [v for i, v in enumerate(values) if v in values[:i]]:
        raise ValueError(f"{again[0]} is given twice")
    return values


def _named(tasks: object) -> object:
    """A map from the name of every task to its file or keys; files name their tasks."""
    if isinstance(tasks, list | tuple) and all(isinstance(file, str) for file in tasks):
        named = [(Path(file).stem, file) for file in tasks]
    elif isinstance(tasks, Mapping):
        named = list(tasks.items())
    else:
        raise ValueError("must be a list of files, or a map from names to files or configurations")
    if not named:
        raise ValueError("must have at least one task")
    known: set[str] = set()
    for name, source in named:
        if not isinstance(name, str) or not NAME.fullmatch(name):
            raise ValueError(
                f"a task names a folder, and {short(name)} does not consist of letters, digits, - "
                "and _, at most 60. A map gives names to files"
            )
        if name.casefold() in known:
            raise ValueError(f"two tasks are called {name}. A map gives names to files")
        known.add(name.casefold())
        if not isinstance(source, str | Mapping):
            raise ValueError(f"{name} must be a file or a section of `key: value` lines")
    return dict(named)


One = BeforeValidator(_listed)
Different = AfterValidator(_different)
KL = Annotated[float, Field(ge=1e-6, le=100)]
Seed = Annotated[int, Field(ge=0)]


class Study(Section):
    """Everything a study needs; `infalign compare CONFIG.yaml` reads it."""

    tasks: Annotated[dict[str, Any], BeforeValidator(_named)]
    """Configurations of runs, one for each task: a list of files, which are looked for beside this
    one, or a map from the name of a task to a file or to the keys of a configuration."""

    common: dict[str, Any] = Field(default={})
    """Keys for all tasks. A task's own keys win."""

    methods: Annotated[tuple[MethodName, ...], One, Different] = ()
    """Training methods. Default: `train.method` and `train.baselines` of each task."""

    kl: Annotated[tuple[KL, ...], One, Different] = ()
    """KL budgets, in nats per sequence. Default: `kl` of each task."""

    seeds: Annotated[tuple[Seed, ...], One, Different, Field(min_length=1)] = (0, 1, 2)
    """Training seeds. All of them share one calibration and one set of reference samples."""

    rivals: Annotated[tuple[MethodName, ...], One, Different] = ()
    """Methods to beat: each method is compared with the best of them. Default: for each method, all
    others. If the command line sets `methods`, only the rivals among them."""

    candidates: Annotated[tuple[MethodName, ...], One, Different] = ()
    """Methods that the report may call ahead of their rivals. Its intervals allow for the choice of
    the best of them. Default: all methods. If the command line sets `methods`, only the
    candidates among them."""

    seed_variance: Literal["own", "pooled"] = "own"
    """Where intervals take the variance between seeds from. own: from the seeds of the methods that
    are compared; at least 95 % of the intervals hold the truth, and with 2 seeds they are wide.
    pooled: from all methods and KLs of a task, as if they had the same variance."""

    models: Literal["all", "policies"] = "policies"
    """Weights that stay on disk when a cell is finished. policies: those at the target KL. all:
    also those at the end of training, before KL targeting."""

    engine: Literal["local", "ray"] = "local"
    """Where cells run. local: one after another in this process. ray: on the Ray cluster at
    RAY_ADDRESS, one on each GPU or processor; all nodes must see the study's folder."""


@dataclass(frozen=True)
class StudyTask(Shown):
    """One task of a study: the configuration of a run, of which the cells change a few keys."""

    name: str
    values: Mapping[str, Any]
    """The keys of its configuration."""

    folder: Path | None
    """The folder of its file, where Python rewards and prompts are looked for first."""

    study: Study

    @cached_property
    def config(self) -> Config:
        """The run that trains every method at the first KL: the checks of a cell are among its
        checks."""
        return self._parsed(self.methods, self.kls[0], None)

    @cached_property
    def _given(self) -> Config:
        return self._read(self.values)

    @property
    def methods(self) -> tuple[str, ...]:
        """The methods that are trained on it."""
        return self.study.methods or self._given.methods

    @property
    def kls(self) -> tuple[float, ...]:
        """The KLs that its policies are brought to."""
        if self.study.kl:
            return self.study.kl
        if self._given.kl is None:
            raise ConfigError(
                f"Task {self.name}: it gives `beta`. Name the KLs of the study under `kl`."
            )
        return (self._given.kl,)

    @property
    def cells(self) -> tuple["Cell", ...]:
        """Its cells."""
        return tuple(
            Cell(self, method, kl, seed)
            for seed, kl, method in product(self.study.seeds, self.kls, self.methods)
        )

    def of_cell(self, method: str, kl: float, seed: int) -> Config:
        """The configuration of the run that is one cell."""
        return self._parsed((method,), kl, seed)

    def at(self, kl: float) -> Config:
        """The run of all methods at one KL."""
        return self._parsed(self.methods, kl, None)

    def _parsed(self, methods: tuple[str, ...], kl: float, seed: int | None) -> Config:
        engine = "local" if seed is not None else self.study.engine  # a cell runs on its own
        values = copy.deepcopy(dict(self.values)) | {"kl": kl, "engine": engine}
        values.pop("beta", None)
        first, *others = methods
        train = values.get("train") or {}
        if isinstance(train, dict):
            values["train"] = train | {"method": first, "baselines": others, "seed": seed}
        return self._read(values)

    def _read(self, values: Mapping[str, Any]) -> Config:
        try:
            config = parse_config(values)
        except ConfigError as error:
            raise ConfigError(f"Task {self.name}: {error}") from None
        config._folder = self.folder
        return config


@dataclass(frozen=True)
class Cell(Shown):
    """One training of a study."""

    task: StudyTask
    method: str
    kl: float
    seed: int

    @property
    def name(self) -> str:
        """Its name, which is that of its folder.

        >>> from infalign.config.study import Cell
        >>> Cell(None, "rloo", 0.5, 1).name
        'rloo-kl0.5-seed1'
        """
        return f"{self.method}-kl{self.kl:g}-seed{self.seed}"

    @property
    def path(self) -> str:
        """The name with that of the task."""
        return f"{self.task.name}/{self.name}"

    @cached_property
    def config(self) -> Config:
        """The run that is the cell."""
        return self.task.of_cell(self.method, self.kl, self.seed)


@dataclass(frozen=True)
class Grid(Shown):
    """A study with its tasks and their cells."""

    study: Study
    tasks: tuple[StudyTask, ...]

    @property
    def cells(self) -> Iterator[Cell]:
        """All cells. Those of one seed come together, so that an early look compares everything."""
        for seed in self.study.seeds:
            for task in self.tasks:
                yield from (cell for cell in task.cells if cell.seed == seed)


def load_study(
    path: Path, overrides: tuple[str, ...] = (), only: Sequence[str] | None = None
) -> Grid:
    """The study in a YAML file. A file that is the configuration of a run is its only task.

    - `overrides`: `key=value` changes a key of the study; any other key changes every task.
    - `only`: names of the tasks to keep. Default: all.

    Raises ConfigError for a file that cannot be read, for an unknown key (naming the nearest known
    one), for an unknown task, for a value out of range, and for a cell that cannot be trained as
    configured.
    """
    path = Path(path)
    data = read_document(path)
    if not isinstance(data, dict):
        raise ConfigError(f"{path} must hold `key: value` lines; got {type(data).__name__}.")
    if "tasks" not in data and "model" in data:
        data = {"tasks": {path.stem: data}}
    changed, others = set(), []
    for override in overrides:
        key = override.partition("=")[0].partition(".")[0]
        if key in Study.model_fields:
            apply(data, override)
            changed.add(key)
        else:
            others.append(override)
    if "methods" in changed:
        data = _narrowed(data, [key for key in ("rivals", "candidates") if key not in changed])
    if only is not None:
        data = data | {"tasks": _chosen(read_section(Study, data).tasks, only)}
    return read_study(data, path.resolve().parent, tuple(others))


def _narrowed(data: dict[str, Any], keys: Sequence[str]) -> dict[str, Any]:
    """A study without the rivals and candidates that `methods` leaves out."""
    study = read_section(Study, data)
    left = {key: [n for n in getattr(study, key) if n in study.methods] for key in keys}
    for key in (key for key in keys if getattr(study, key) and not left[key]):
        raise ConfigError(
            f"`methods` names none of the study's {key}: {', '.join(getattr(study, key))}. Add at "
            f"least one of them to {', '.join(study.methods)}."
        )
    return data | left


def _chosen(tasks: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
    """The tasks with these names, in the order of the study."""
    if unknown := [name for name in names if name not in tasks]:
        raise ConfigError(
            f"The study has no task called {short(unknown[0])}.{nearest(unknown[0], tasks)} "
            f"Its tasks: {', '.join(tasks)}."
        )
    return {name: task for name, task in tasks.items() if name in names}


def read_study(
    data: Mapping[str, Any], folder: Path | None = None, overrides: tuple[str, ...] = ()
) -> Grid:
    """The study in `data`.

    - `folder`: the folder of its file, where files of tasks are looked for first.
    - `overrides`: `key=value` for every task.
    """
    study = read_section(Study, data)
    tasks = []
    for name, source in study.tasks.items():
        own = folder
        if isinstance(source, str):
            file = _file(name, source, folder)
            values, own = read_document(file), file.resolve().parent
            if not isinstance(values, dict):
                raise ConfigError(f"Task {name}: {file} must hold `key: value` lines.")
        else:
            values = source
        values = _merged(study.common, values)
        for override in overrides:
            apply(values, override)
        tasks.append(StudyTask(name, values, own, study))
    made = Grid(study, tuple(tasks))
    _check(made)
    return made


def _file(task: str, source: str, folder: Path | None) -> Path:
    for path in (Path(source),) if folder is None else (folder / source, Path(source)):
        if path.exists():
            return path
    raise ConfigError(
        f"Task {task}: the configuration file {source} does not exist, neither beside the study "
        "nor in the working directory."
    )


def _merged(common: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """Both together, section by section; the second one wins."""
    merged = copy.deepcopy(dict(common))
    for key, value in own.items():
        shared = merged.get(key)
        if isinstance(shared, dict) and isinstance(value, dict):
            merged[key] = _merged(shared, value)
        else:
            merged[key] = copy.deepcopy(value)
    return merged


def _check(made: Grid) -> None:
    """Raise ConfigError unless every cell has a valid configuration and a name of its own."""
    for task in made.tasks:
        names = [cell.name for cell in task.cells]
        if again := [n for i, n in enumerate(names) if n in names[:i]]:
            raise ConfigError(
                f"Task {task.name}: two cells are called {again[0]}. KLs must differ in their "
                "first 6 digits."
            )
        for cell in task.cells:
            others = cell.config.evaluate.policies
        if others:
            raise ConfigError(
                f"Task {task.name}: a study compares the policies that it trains. Remove "
                "`evaluate.policies`, and compare others with `infalign evaluate`."
            )
        for key in ("rivals", "candidates"):
            if missing := [m for m in getattr(made.study, key) if m not in task.methods]:
                raise ConfigError(
                    f"`{key}` in the configuration has {missing[0]}, which is not among the "
                    f"methods of task {task.name}: {', '.join(task.methods)}."
                )
