"""The stages of a run. Each does only the work that is missing from its files."""

import logging
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from infalign import storage
from infalign.calibration import StoreCalibration, choose
from infalign.calibration.choice import CALIBRATORS, ECDF
from infalign.calibration.constant import constant_rewards
from infalign.calibration.in_store import some_rewards
from infalign.calibration.outlook import outlook_of
from infalign.calibration.raw_reward import require_spread
from infalign.collection import Local, OnRay, collect
from infalign.collection.connection import has_gpus
from infalign.comparison.run import measure
from infalign.comparison.selected import SELECTED, selected_responses
from infalign.config import SamplingSettings
from infalign.core import parse_transform
from infalign.errors import DataError
from infalign.manifest import Manifest, Stage
from infalign.methods import METHODS, Setting, training_design
from infalign.models.blocks import block_of
from infalign.models.fingerprints import function_parts
from infalign.models.functions import beside
from infalign.models.precision import Dtype
from infalign.models.rewards import load_reward
from infalign.models.samplers import load_sampler
from infalign.models.specs import ModelSpec
from infalign.seeds import derived
from infalign.stores import CalibrationStore, samples_of
from infalign.stores.resumable import Report

from .calibration import choose_store
from .doubts import doubts
from .folder import Run
from .history import place
from .inputs import stated
from .read import open_store, read_calibration, read_design, run_samples
from .results import has_metrics, metrics_file, summarize_run
from .warm_start import use_warm_start

if TYPE_CHECKING:
    from infalign.training.offline import StoredSamples

__all__ = [
    "calibrate",
    "chosen_calibrator",
    "design",
    "evaluate",
    "load_both",
    "stored_samples",
    "train",
    "warn_of_constant",
]

LOG = logging.getLogger(__name__)


def calibrate(run: Run, report: Report) -> None:
    """Write K scored reference samples per prompt to `calibration/`, unless a store has them.

    Stored responses are used again: only the missing ones are drawn, into a store of their own.
    """
    config, chosen = run.config, choose_store(run)
    if chosen.finished:
        _use_store(run, chosen.path)
        report("calibrate", len(run.prompts), len(run.prompts))
        return
    _say_other_batches(chosen.batch_size, config.sampling.batch_size)
    engine = {"local": Local, "ray": OnRay}[config.engine]
    load = partial(
        load_both,
        config.model,
        config.reward,
        config.sampling,
        config.trust_remote_code,
        dtype=config.dtype,
        folder=config.folder,
    )
    collect(
        run.prompts,
        engine(load),
        config.calibration.samples,
        chosen.path,
        seed=run.seed("calibrate"),
        provenance=run.fingerprints,
        varying=("sampling.batch_size",),  # smaller batches may be what lets a run go on
        responses=block_of(
            config.model,
            tokens=config.sampling.max_new_tokens,
            batch_size=config.sampling.batch_size,
            gpus=has_gpus() if config.engine == "ray" else None,
        ),
        report=partial(report, "calibrate"),
        loans=chosen.loans,
        load_scorer=lambda: run.reward,
        reward=config.reward,
    )
    _use_store(run, chosen.path)


def _say_other_batches(before: object, now: int) -> None:
    """Warn if an interrupted calibration goes on with batches of another size."""
    if before is None or before == now:
        return
    sizes = before if isinstance(before, list) else [before]
    LOG.warning(
        "The calibration so far has `sampling.batch_size` %s, the rest gets %d. Batches of another "
        "size round differently, so some responses may be others than those of a run "
        "without the change; their distribution is the same. The store states every size.",
        ", ".join(map(str, sizes)),
        now,
    )


def _use_store(run: Run, path: Path) -> None:
    """Make a store the run's calibration."""
    own, folder = path.absolute(), run.folder.absolute()
    inside = own.is_relative_to(folder)
    run.use("calibrate", "calibration", str(own.relative_to(folder) if inside else own))
    warn_of_constant(open_store(run), run.config.reward, path)


def warn_of_constant(store: CalibrationStore, reward: str, folder: Path | None = None) -> None:
    """Warn of prompts on which the reward is constant; on all of them, the run ends before it
    trains.

    - `folder`: the store's folder, for the texts of the responses.
    """
    constant = constant_rewards(store, None if folder is None else partial(_texts, folder))
    if constant is not None:
        LOG.warning(constant.words(reward))


def _texts(folder: Path, ids: Sequence[str]) -> list[list[str]]:
    try:
        return samples_of(folder, ids, ["completion"]).rows("completion")
    except DataError:  # a store of rewards only
        return []


def load_both(
    model: str,
    reward: str | None,
    sampling: SamplingSettings,
    trust_remote_code: bool,
    *,
    dtype: Dtype = "auto",
    folder: Path | None = None,
):
    """Load policy and reward, in the process that draws and scores.

    - `reward`: None for no reward.
    - `folder`: where a Python reward is looked for first.
    """
    sampler = load_sampler(
        model,
        **sampling.model_dump(),
        dtype=dtype,
        trust_remote_code=trust_remote_code,
    )
    if reward is None:
        return sampler, None
    with beside(folder):
        return sampler, load_reward(reward, dtype=dtype, trust_remote_code=trust_remote_code)


def design(run: Run, report: Report) -> None:
    """Write the transform for the procedure, the KL budget and K samples to `design.json`."""
    store, stage = open_store(run), run.design_stage()
    own = place(stage, run.folder / "design.json")
    if not stage.has(own.path):
        name, reason = chosen_calibrator(run, store)
        learned = StoreCalibration.fit(store, CALIBRATORS[name]).learned
        LOG.info("Calibrator %s", reason)
        designed = training_design(
            run.procedure,
            run.against,
            run.config.transform,
            kl=run.config.kl,
            beta=run.config.beta,
            outlook=outlook_of(learned, some_rewards(store)),
        )
        for doubt in doubts(run, store, designed):
            LOG.warning(doubt)
        calibrator = {"name": name, "reason": reason}
        with stage.recording(own.path):
            storage.write_json(own.path, {"calibrator": calibrator, **designed.to_json()})
    run.use("design", "design", own.path.name)
    report("design", 1, 1)


def chosen_calibrator(run: Run, store: CalibrationStore) -> tuple[str, str]:
    """Name of the run's calibrator, and the reason for it."""
    configured, transform = run.config.calibration.calibrator, run.config.transform
    if configured != "auto":
        return configured, f"{configured}: as configured"
    if transform != "optimal" and not parse_transform(transform).bounded:
        return ECDF, f"{ECDF}: {transform} is infinite at the ends of [0, 1]"
    choice = choose(some_rewards(store))
    return choice.name, choice.reason


def train(run: Run, report: Report) -> None:
    """Train one policy per method; writes `train/METHOD/model`."""
    from infalign.training.landing import LANDING
    from infalign.training.policy import train_policy
    from infalign.training.recipe import Recipe

    for method in run.config.methods:
        stage, label = run.train_stage(method), f"train {method}"
        out = place(stage, run.folder / "train" / method, METHODS.keys() - {method}).path
        run.use("train", f"train.{method}", out.name)
        files = [out / LANDING, out / "model"]
        if has_metrics(run, method):
            files.append(metrics_file(run, method))
        if all(map(stage.has, files)):
            report(label, 1, 1)
            continue
        store = open_store(run)
        require_spread(store)
        use_warm_start(stage, out, method)
        train_policy(
            Recipe.of(run.config, run.model_path),
            stored_samples(run),
            method,
            _setting(run, store),
            landing_seed=derived(run.config.training_seed, "landing", 0),
            out=out,
            stage=stage,
            report=_under(label, report),
            gold=run.choosing_reward,
        )


def _under(label: str, report: Report) -> Report:
    return lambda what, done, total: report(f"{label}: {what}", done, total)


def _setting(run: Run, store: CalibrationStore) -> Setting:
    learned = read_calibration(run, store)
    return Setting(
        reward=run.reward,
        store=store,
        learned=learned,
        outlook=outlook_of(learned, some_rewards(store)),
        procedure=run.procedure,
        against=run.against,
        design=read_design(run),
        group=run.config.train.group,
    )


def stored_samples(run: Run) -> "StoredSamples":
    """The samples of the run's calibration, in the order of its prompts."""
    from infalign.training.offline import StoredSamples

    samples = run_samples(run, ["tokens", "logprob", "reward"])
    return StoredSamples(
        run.prompts, samples.rows("tokens"), samples.matrix("logprob"), samples.matrix("reward")
    )


def evaluate(run: Run, report: Report) -> None:
    """Draw samples, rewards and KLs on the held-out prompts, then write
    `evaluation/results.json`."""
    folder = run.folder / "evaluation"
    measured = measure(run.compared(), Manifest(folder), report)
    logs = [metrics_file(run, m) for m in run.config.methods if has_metrics(run, m)]
    tables = {path.name: storage.sha256(path) for path in sorted(folder.glob("*.parquet"))}
    answers = run.config.evaluate.answers
    own = ModelSpec.parse(answers).kind == "python"
    made_from = {
        **stated(run.config, "evaluate"),
        "calibration": run.inputs.calibration(),
        "design": storage.sha256(run.design_file)[:16],
        "trained": {method: run.attempt(method).name for method in run.config.methods},
        "logs": storage.fingerprint([storage.sha256(log) for log in logs]),
        "prompts": storage.fingerprint([p.id for p in run.test_prompts]),
        "samples": storage.fingerprint(tables),
        "answers": function_parts(answers, "answers") if own else answers,
    }
    stage = Stage(Manifest(folder), "evaluate", made_from)
    selected, results = folder / SELECTED, folder / "results.json"
    if not all(stage.is_current(path) and stage.has(path) for path in (selected, results)):
        rows = selected_responses(measured)
        with stage.recording(selected):
            storage.write_table(selected, rows)
        with stage.recording(results):
            storage.write_json(results, summarize_run(run, measured, rows))
