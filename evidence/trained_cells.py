"""The results of the trained study, from its archived cells in `cells/`."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from infalign.comparison.comparison import SELECTING
from infalign.config import Grid, StudyTask, load_study
from infalign.core import words
from infalign.study.archive import Archive
from infalign.study.folder import StudyFolder
from infalign.study.table import summarize
from infalign.study.tables import SHOWN

HERE = Path(__file__).parent.resolve()
CELLS = HERE / "cells"
"""The archives of the studies."""

REAL = ("real-helpful", "real-harmless", "real-tldr")
BUNDLED = (
    *("bundled-helpful", "bundled-harmless", "bundled-harmless-regression"),
    *("bundled-harmless-long", "bundled-harmless-best"),
)
STUDIES = REAL + BUNDLED

BEYOND = "bundled-harmless-best"
"""The study of tasks that the paper does not report."""

RECIPES = {
    "bundled-harmless-regression": "warm start by regression",
    "bundled-harmless-long": "warm start by regression, 150 steps",
}
"""The studies of another recipe than the first one of their task."""

MODELS = {"real": "SmolLM2-135M", "bundled": "bundled model"}
GOALS = {"helpful": "helpfulness", "harmless": "harmlessness", "tldr": "summaries"}

SAME = ("model", "reward", "gold", "procedure")
"""What results must share beside the settings."""


def results_of(name: str) -> dict:
    """What is archived of a study."""
    grid, cells = grid_of(name), CELLS / name
    return _results(grid, cells) if cells.exists() else none_of(name)


def _results(grid: Grid, cells: Path) -> dict:
    """What is archived, with the differences to all methods beside those to the paper's."""
    folder = StudyFolder(grid, cells, Archive(cells))
    result = summarize(folder, {})
    study = grid.study.model_copy(update={"rivals": ()})
    tasks = tuple(replace(task, study=study) for task in grid.tasks)
    every = summarize(replace(folder, grid=Grid(study, tasks)), {})
    for task, other in zip(result["tasks"], every["tasks"], strict=True):
        own = _task(grid, task["task"])
        for arm, same in zip(task["arms"], other["arms"], strict=True):
            if "win_rates" in arm:
                arm["to_all"] = {
                    spec: rate["to_rivals"] for spec, rate in same["win_rates"][SELECTING].items()
                }
                arm |= _beside_theory(folder, own, arm)
        task["settings"] = _settings(own)
        if done(task):
            task["made_with"] = _made_with(folder, own)
    return result


def _beside_theory(study: StudyFolder, task: StudyTask, arm: Mapping) -> dict[str, float | None]:
    """The win rate of exact training on what a method is trained on, as far as the calibration's
    samples tell, and the share of the KL that moved quantiles; None where that is not known."""
    which = arm["method"], arm["target_kl"]
    known = [
        study.summary(cell)
        for cell in task.cells
        if (cell.method, cell.kl) == which and study.is_finished(cell)
    ]
    spec = next(iter(study.pairs(task)))
    return {
        "theory": _mean([own["theory"].get(spec) for own in known]),
        "kl_efficiency": _mean([own["kl_efficiency"] for own in known]),
    }


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known and len(known) == len(values) else None


def none_of(name: str) -> dict:
    """The results of a study without a finished cell."""
    grid = grid_of(name)
    tasks = [
        {
            "task": task.name,
            "procedure": task.config.procedure,
            "settings": _settings(task),
            "model": task.config.model,
            "reward": task.config.reward,
            "gold": dict(task.config.evaluate.gold),
            "arms": [{"method": c.method, "cells": [{"finished": False}]} for c in task.cells],
        }
        for task in grid.tasks
    ]
    return {"cells": len(list(grid.cells)), "finished": 0, "tasks": tasks}


def _settings(task: StudyTask) -> dict[str, object]:
    config = task.config
    train = config.train
    return {
        "transform": config.transform,
        "training prompts": config.prompts.limit,
        "samples of each": config.calibration.samples,
        "new tokens": config.sampling.max_new_tokens,
        "passes before": train.warm_start,
        "passes offline": train.passes,
        "on-policy steps": train.steps,
        "responses a step": train.batch_size,
        "trained weights": f"LoRA of rank {train.lora}" if train.lora else "all",
    }


def _made_with(study: StudyFolder, task: StudyTask) -> dict[str, object]:
    """Versions, the precision and the mean time of a cell."""
    made = [study.made(cell) for cell in task.cells if study.is_finished(cell)]
    seconds = [own["seconds"] for own in made]
    return {
        "dtype": made[0]["dtype"],
        "versions": made[0]["versions"],
        "machines": sorted({machine for own in made for machine in own["machines"]}),
        "minutes a cell": round(sum(seconds) / len(seconds) / 60, 1),
    }


def slim(result: Mapping) -> dict:
    """The results with the curves at a few n, and there without differences."""
    tasks = []
    for task in result["tasks"]:
        arms = [dict(arm) for arm in task["arms"]]
        for arm in arms:
            if "by_n" in arm:
                arm["by_n"] = {
                    reward: {family: list(_few(rows)) for family, rows in of.items()}
                    for reward, of in arm["by_n"].items()
                }
        tasks.append({**task, "arms": arms})
    return {**result, "tasks": tasks}


def _few(rows: Sequence[Mapping]) -> Iterator[dict]:
    for row in rows:
        if row["n"] in SHOWN:
            yield {key: row[key] for key in ("n", "value", "stderr", "low", "high")}


def with_former(result: dict, former: Mapping | None) -> dict:
    """Results of a study, with those of an earlier page for each task and KL of which the archive
    lacks cells that they had: before there was an archive, cells were lost with their machine.

    Earlier results of other settings stay only until a cell of the present settings is finished.
    They count as no cell; `now` has the present values of the settings that differ. `not_archived`
    has the number of archived cells and of all that are shown, for each KL that lacks some.
    """
    earlier = {task["task"]: task for task in former["tasks"] if done(task)} if former else {}
    tasks = [
        _with_former(task, own) if (own := earlier.get(task["task"])) else task
        for task in result["tasks"]
    ]
    earlier_study = {key: former[key] for key in ("evidence", "rivals") if former and key in former}
    total = sum(map(finished, tasks))
    return {
        **earlier_study,
        **result,
        "tasks": tasks,
        "finished": total,
        "archived": result["finished"],
    }


def _with_former(task: Mapping, former: Mapping) -> Mapping:
    before = {key: value for key, value in former.items() if key not in ("now", "not_archived")}
    if now := {k: v for k, v in task["settings"].items() if former["settings"].get(k) != v}:
        return task if done(task) else {**before, "now": now}
    if any(key in task and task[key] != former[key] for key in SAME):
        return task
    if not done(task):
        shown = {f"{kl:g}": len(_seeds(former, kl)) for kl in former["kls"]}
        return {**before, "not_archived": {kl: [0, count] for kl, count in shown.items() if count}}
    lost = [kl for kl in task["kls"] if not _seeds(former, kl) <= _seeds(task, kl)]
    source = {kl: former if kl in lost else task for kl in task["kls"]}
    return {
        **before,
        **task,
        "arms": [a for kl, own in source.items() for a in own["arms"] if a["target_kl"] == kl],
        "ranks": {
            reward: {
                spec: {
                    f"{kl:g}": rows
                    for kl, own in source.items()
                    if (rows := own["ranks"][reward][spec].get(f"{kl:g}"))
                }
                for spec in of
            }
            for reward, of in task["ranks"].items()
        },
        "not_archived": {
            f"{kl:g}": [len(_seeds(task, kl) & _seeds(former, kl)), len(_seeds(former, kl))]
            for kl in lost
        },
        "not_shown": [own for kl in lost for own in sorted(_seeds(task, kl) - _seeds(former, kl))],
    }


def _seeds(task: Mapping, kl: float) -> set[tuple[str, int]]:
    """Method and seed of the finished cells of a task at a KL."""
    arms = [arm for arm in task["arms"] if arm["target_kl"] == kl]
    return {(arm["method"], c["seed"]) for arm in arms for c in arm["cells"] if c["finished"]}


def grid_of(name: str) -> Grid:
    """The configuration of a study."""
    return load_study(HERE / "studies" / f"{name}.yaml")


def _task(grid: Grid, name: str) -> StudyTask:
    return next(task for task in grid.tasks if task.name == name)


def is_current(task: Mapping) -> bool:
    """Whether the results of a task are of the settings that its study has now."""
    return "now" not in task


def earlier_settings(task: Mapping) -> str:
    """The settings of results that are not of the present ones, such as 64 training prompts
    instead of 256."""
    return ", ".join(
        f"{key} {task['settings'][key]} instead of {own}" for key, own in task["now"].items()
    )


def title(study: str, task: Mapping) -> str:
    """A task of a study in words, such as helpfulness, best-of-8, SmolLM2-135M."""
    model, goal = MODELS[study.partition("-")[0]], GOALS[task["task"].partition("-")[0]]
    recipe = f" ({RECIPES[study]})" if study in RECIPES else ""
    return f"{goal}, {words(task['procedure'])}, {model}{recipe}"


def label(study: str, task: Mapping) -> str:
    """A task of a study, such as bundled-helpful-8."""
    return study + "-8" * task["task"].endswith("-8")


def cells_of(task: Mapping) -> list[tuple[str, bool]]:
    """The method of every cell of a task, and whether it is finished."""
    return [(arm["method"], cell["finished"]) for arm in task["arms"] for cell in arm["cells"]]


def done(task: Mapping) -> int:
    """The number of finished cells of a task, of whatever settings."""
    return sum(has_ended for _, has_ended in cells_of(task))


def finished(task: Mapping) -> int:
    """The number of finished cells of a task that have its present settings."""
    return done(task) if is_current(task) else 0
