"""What a call of a run will do, before it does anything: stage by stage, why, and at what cost."""

from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Literal

from infalign import storage
from infalign._look import Shown
from infalign.comparison.comparison import Comparison
from infalign.comparison.lacking import lacking
from infalign.comparison.sampling import identify, table_of
from infalign.config import Config
from infalign.errors import DataError
from infalign.manifest import FILE, Manifest, Stage
from infalign.methods import METHODS, Offline
from infalign.models.functions import beside

from .calibration import Chosen, choose_store
from .costs import rate
from .folder import Run
from .history import Place, place, stated_at
from .inputs import STAGES, Inputs, narrowed, stated_for

__all__ = ["Cost", "StagePlan", "changes", "plan", "plan_of"]

State = Literal["reused", "extended", "continued", "to run"]

SHOWN = 4
"""Maximum number of reasons in a line."""


@dataclass(frozen=True)
class Cost:
    """What a stage will take."""

    responses: int = 0
    """Responses that are drawn: reference samples, samples of an evaluation, and those of on-policy
    steps, without the measurements of a KL."""

    scored: int = 0
    """Stored responses that are scored again."""

    steps: int = 0
    """On-policy steps."""

    passes: int = 0
    """Passes over the calibration samples."""

    verdicts: int = 0
    """Pairs that a judge compares, in both orders."""

    def __bool__(self) -> bool:
        return any((self.responses, self.scored, self.steps, self.passes, self.verdicts))

    def words(self) -> str:
        """The cost in words, such as "512 responses, 10 steps"."""
        parts = [
            (self.responses, "response", "responses"),
            (self.scored, "response scored again", "responses scored again"),
            (self.passes, "pass over the samples", "passes over the samples"),
            (self.steps, "step", "steps"),
            (self.verdicts, "verdict", "verdicts"),
        ]
        return ", ".join(f"{n:,} {one if n == 1 else many}" for n, one, many in parts if n)


@dataclass(frozen=True)
class StagePlan(Shown):
    """What a call will do about one stage, or about the training or the samples of one policy."""

    stage: str
    """calibrate, design, train, evaluate or report."""

    name: str
    """The stage; for trainings and samples, with the policy: `train rloo`."""

    state: State
    place: str
    """Where the result is or will be, in the run folder."""

    why: Sequence[str] = ()
    """What differs from the latest result, or what is missing; empty if nothing is there yet."""

    cost: Cost = Cost()
    seconds: float | None = None
    """Estimated time, from what the same work took in this folder; None if it is not known."""

    def words(self) -> str:
        """The plan in one line."""
        return ": ".join(filter(None, (self.name, self.detail())))

    def detail(self) -> str:
        """The line without the name."""
        if self.state == "reused":
            return f"reused ({self.place})"
        why = "; ".join(self.why[:SHOWN]) + ("; …" if len(self.why) > SHOWN else "")
        text = f"{self.state} in {self.place}"
        parts = [text, self.cost.words(), "" if self.seconds is None else _time(self.seconds)]
        return ", ".join(filter(None, parts)) + (f" ({why})" if why else "")


def _time(seconds: float) -> str:
    if seconds < 90:
        return f"about {max(1, round(seconds))} s"
    minutes = seconds / 60
    return f"about {round(minutes)} min" if minutes < 90 else f"about {minutes / 60:.1f} h"


def plan(config: Config, folder: Path, *, until: str = "report") -> list[StagePlan]:
    """What `run` with the same arguments will do. Nothing is written or drawn.

    The configuration counts as checked (`checks.check`).
    """
    with beside(config.folder):
        return plan_of(Run(config, Path(folder)), until)


def plan_of(run: Run, until: str = "report") -> list[StagePlan]:
    """What a run that was checked will do up to and including the stage `until`."""
    wanted = STAGES[: STAGES.index(until) + 1]
    chosen = choose_store(run)
    plans = [_calibrate(run, chosen)]
    if "design" in wanted:
        plans.append(_design(run, chosen))
    if "train" in wanted:
        plans += _train(run, chosen, plans[-1])
    if "evaluate" in wanted:
        plans += _evaluate(run, {p.name: p for p in plans if p.stage == "train"})
    if "report" in wanted:
        plans.append(StagePlan("report", "report", "to run", "report.html"))
    return plans


def _calibrate(run: Run, chosen: Chosen) -> StagePlan:
    where, name = _relative(run, chosen.path), "calibrate"
    if chosen.finished:
        return StagePlan(name, name, "reused", where)
    state: State = "continued" if chosen.held else "extended" if chosen.borrowed else "to run"
    per_prompt = rate(run.folder, "calibrate")
    seconds = None
    if per_prompt is not None:
        seconds = per_prompt * chosen.drawn / run.config.calibration.samples
    cost = Cost(responses=chosen.drawn, scored=chosen.rescored)
    why = list(chosen.reasons)
    if chosen.borrowed:
        why.append(f"{chosen.borrowed:,} stored responses are used again")
    return StagePlan(name, name, state, where, why, cost, seconds)


def _design(run: Run, chosen: Chosen) -> StagePlan:
    first = run.folder / "design.json"
    if not chosen.finished:
        own, _ = _next(run, Stage(run.manifest, "design", {}), first)
        return StagePlan("design", "design", "to run", own, ["the calibration"] if _is(own) else [])
    stage = Stage(run.manifest, "design", _inputs(run, chosen).design())
    at = place(stage, first)
    if at.begun and at.path.exists():
        return StagePlan("design", "design", "reused", at.path.name)
    why = _differences(run, at, stage, first)
    return StagePlan("design", "design", "to run", at.path.name, why)


def _is(place: str) -> bool:
    """Whether a place is not the first of its kind."""
    return Path(place).stem != "design"


def _train(run: Run, chosen: Chosen, design: StagePlan) -> list[StagePlan]:
    plans = []
    for method in run.config.methods:
        first, name = run.folder / "train" / method, f"train {method}"
        cost = _training_cost(run.config, method)
        others = METHODS.keys() - {method}
        if design.state != "reused":
            empty = Stage(run.manifest, "train", stated_for(run.config, method))
            where, former = _next(run, empty, first, others)
            why = _stated_differences(run, empty, former) or (["the design"] if former else [])
            plans.append(
                StagePlan("train", name, "to run", where, why, cost, _seconds(run, method))
            )
            continue
        content = storage.read_json(run.folder / design.place)
        stage = Stage(run.manifest, "train", _inputs(run, chosen).training(method, content))
        at = place(stage, first, others, partial(narrowed, method=method))
        where = _relative(run, at.path)
        finished = [at.path / "landing.json", at.path / "model"]
        if at.begun and all(p in run.manifest and p.exists() for p in finished):
            plans.append(StagePlan("train", name, "reused", where))
            continue
        state: State = "continued" if at.begun else "to run"
        why = [] if at.begun else _differences(run, at, stage, first)
        plans.append(StagePlan("train", name, state, where, why, cost, _seconds(run, method)))
    return plans


def _training_cost(config: Config, method: str) -> Cost:
    train = config.train
    if isinstance(METHODS[method], Offline):
        return Cost(passes=train.passes)
    responses = train.steps * train.batch_size
    return Cost(responses=responses, steps=train.steps, passes=train.warm_start)


def _seconds(run: Run, method: str) -> float | None:
    """Estimated time of a training, from the parts of a former one."""
    steps = rate(run.folder, f"train {method}: on policy")
    return None if steps is None else steps * run.config.train.steps


def _evaluate(run: Run, trained: Mapping[str, StagePlan]) -> list[StagePlan]:
    manifest, comparison = Manifest(run.folder / "evaluation"), run.compared()
    prompts, samples, plans = len(comparison.prompts), comparison.samples, []
    existing, origins, unknown = _existing(run, comparison, trained), None, ""
    if (manifest.folder / FILE).exists():
        try:
            origins = identify(existing, manifest)
        except DataError as error:  # such as a server that will run when it is needed
            unknown = str(error)
    each = {}
    for name in comparison.models:
        own = trained.get(f"train {name}")
        path, label = f"evaluation/{name}.parquet", f"evaluate {name}"
        per_prompt = rate(run.folder, label)
        if origins is None or (own is not None and own.state != "reused"):
            cost = Cost(responses=prompts * samples)
            seconds = None if per_prompt is None else per_prompt * prompts
            why = [f"at most: {unknown}"] if unknown else []
            if own is not None and own.state != "reused" and own.why:
                why = [f"{own.place} is trained first"]
            plans.append(StagePlan("evaluate", label, "to run", path, why, cost, seconds))
            each[name] = True
            continue
        table = table_of(existing, manifest, name)
        wanted = origins.samples(name)
        changed, drawn, scored = table.needed(wanted)
        each[name] = bool(drawn or scored)  # rows that were set aside come back
        if not each[name]:
            plans.append(StagePlan("evaluate", label, "reused", path))
            continue
        stored = table.stored(wanted) is not None
        state: State = "extended" if stored and not changed else "to run"
        seconds = None if per_prompt is None else per_prompt * drawn / samples
        cost = Cost(responses=drawn, scored=scored)
        why = [f"{noun} changed" for noun in changed]
        plans.append(StagePlan("evaluate", label, state, path, why, cost, seconds))
    if comparison.judge is not None:
        pairs = len(comparison.policies) * prompts * comparison.judge_pairs
        if origins is not None and not any(each.values()):
            with suppress(DataError):  # such as a server that will run when it is needed
                pairs = lacking(existing, manifest, origins).pairs
        if pairs:
            cost = Cost(verdicts=pairs)
            plans.append(StagePlan("evaluate", "judge", "to run", "evaluation", (), cost))
    return plans


def _existing(run: Run, comparison: Comparison, trained: Mapping[str, StagePlan]) -> Comparison:
    """The comparison without the policies that are not trained yet, at the places of the others."""
    policies = {}
    for name, spec in comparison.policies.items():
        own = trained.get(f"train {name}")
        if own is None:
            policies[name] = spec
        elif own.state == "reused":
            policies[name] = str(run.folder / own.place / "model")
    return replace(comparison, policies=policies)


def _inputs(run: Run, chosen: Chosen) -> Inputs:
    return run.inputs_of(chosen.path)


def _next(
    run: Run, stage: Stage, first: Path, others: Collection[str] = ()
) -> tuple[str, Path | None]:
    """Where a result will be whose inputs are not known yet, and the latest result."""
    # No listed result has these inputs, so that the place is a free one.
    unknown = Stage(stage.manifest, stage.name, {**stage.made_from, "not known yet": True})
    at = place(unknown, first, others)
    return _relative(run, at.path), at.former


def _differences(run: Run, at: Place, stage: Stage, first: Path) -> list[str]:
    """What differs from the inputs of the latest result, in words."""
    if at.former is None:
        return []
    made_from = _made_from(run.manifest, at.former)
    return [
        _word(line) for line in storage.differences(made_from, storage.as_json(stage.made_from))
    ]


def _stated_differences(run: Run, stage: Stage, former: Path | None) -> list[str]:
    """What differs in the configuration alone."""
    if former is None:
        return []
    made_from = _made_from(run.manifest, former)
    wanted = storage.as_json(stage.made_from)
    own = {k: v for k, v in made_from.items() if k in wanted}
    return [_word(line) for line in storage.differences(own, wanted)]


def _made_from(manifest: Manifest, former: Path) -> Mapping:
    return next(iter(stated_at(manifest, former)), {})


CONTENT = (
    *("model", "reward", "tokenizer", "chat_template", "prompts", "select"),
    *("calibration.", "design."),
)


def _word(difference: str) -> str:
    """A difference in words: fingerprints say nothing to a reader."""
    name = difference.split(" ", 1)[0]
    if name.startswith(CONTENT) and name not in ("calibration.samples", "calibration.calibrator"):
        return f"{name.rstrip('.').replace('calibration.store', 'calibration')} changed"
    return difference.replace(", not ", " → ")


def _relative(run: Run, path: Path) -> str:
    own, folder = path.absolute(), run.folder.absolute()
    return own.relative_to(folder).as_posix() if own.is_relative_to(folder) else str(path)


def changes(plans: Sequence[StagePlan]) -> list[str]:
    """Lines about what a changed configuration makes run again; none for a new run, and none if
    everything is reused."""
    if all(p.state == "reused" or p.stage == "report" for p in plans):
        return []
    known = any(p.state in ("reused", "extended") or p.why for p in plans)
    return [p.words() for p in plans if p.stage != "report"] if known else []
