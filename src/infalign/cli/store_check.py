"""`infalign store check`: whether a calibration store can be trusted."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from infalign.core import RankProcedure, parse_procedure, require_by_rank
from infalign.errors import ConfigError, DataError

from .progress import quiet_libraries
from .store import AsJson, Folder
from .terminal import print_json
from .usage import read, refuse

PROMPTS = 2000
"""Largest number of prompts in the test of uniformity."""

SWAPPED = 0.005
"""Share of pairs with a changed order above which the reward counts as changed. A different batch
shape changes the last digits, and with them the order of nearly tied rewards."""

HELP = (
    "Verify a store's files, test the assumptions of calibration, and check whether K is large "
    "enough.\n\n"
    "The exit code is 1 if files are damaged or if --rescore finds that the reward changed.\n\n"
    "Example: infalign store check runs/demo/calibration --procedure best-of-n:8 --rescore 16"
)


def check(
    context: typer.Context,
    folder: Folder,
    procedure: Annotated[
        str | None,
        typer.Option(
            help="How the policy will be decoded. Needed to check whether K is large enough."
        ),
    ] = None,
    kl: Annotated[float, typer.Option(help="With --procedure: KL of the policy, in nats.")] = 0.5,
    rescore: Annotated[
        int, typer.Option(help="Score the responses to N prompts again.", min=0, metavar="N")
    ] = 0,
    config: Annotated[
        Path | None,
        typer.Option(
            help="With --rescore: the run's configuration. Default: config.yaml beside the store."
        ),
    ] = None,
    trust_remote_code: Annotated[
        bool,
        typer.Option(
            "--trust-remote-code", help="With --rescore: allow code that comes with the reward."
        ),
    ] = False,
    seed: Annotated[int, typer.Option(help="Random seed.", min=0)] = 0,
    as_json: AsJson = False,
):
    from infalign.stores.integrity import check as check_files

    if procedure is None:
        refuse(context, "is used with --procedure only.", "kl")
    if not rescore:
        refuse(context, "is used with --rescore only.", "config", "trust_remote_code")
    played = None
    if procedure is not None:
        played = require_by_rank("procedure", read("procedure", parse_procedure, procedure))
    integrity = check_files(folder)
    if not integrity.whole:
        raise DataError("\n".join(integrity.problems))
    rng = np.random.default_rng(seed)
    figures = {"prompts": integrity.prompts, "rewards": integrity.rewards}
    lines = [f"{integrity.prompts:,} prompts, {integrity.rewards:,} rewards: all as written"]
    chosen = _calibrator(folder)
    for part in (
        _ties(folder),
        _constant(folder),
        _uniformity(folder, rng),
        chosen,
        _resolution(folder, chosen[0]["calibrator"], played, kl),
        _drift(folder, config, rescore, rng, trust_remote_code) if rescore else None,
    ):
        if part is not None:
            more, words = part
            figures |= more
            lines.append(words)
    if as_json:
        print_json(figures)
        _require_same_reward(figures)
        return
    for line in lines:
        print(line)
    _require_same_reward(figures)


def _require_same_reward(figures: Mapping) -> None:
    if figures.get("swapped", 0) > SWAPPED:
        raise typer.Exit(1)


def _ties(folder: Path):
    from infalign.stores import CalibrationStore

    tied = CalibrationStore.open(folder).tied()
    advice = "" if tied < 0.05 else ": the theory of continuous rewards does not apply"
    return {"ties": tied}, f"Two samples of a prompt tie {tied:.1%} of the time{advice}"


def _constant(folder: Path):
    from infalign.calibration.constant import constant_rewards
    from infalign.stores import CalibrationStore, samples_of

    def texts(ids):
        try:
            return samples_of(folder, ids, ["completion"]).rows("completion")
        except DataError:  # rewards only
            return []

    store = CalibrationStore.open(folder)
    constant = constant_rewards(store, texts)
    if constant is None:
        return None
    reward = str(store.provenance.get("reward", "")).partition(" ")[0]
    return {"constant": constant.count}, constant.words(reward or "of the store")


def _rewards(folder: Path) -> np.ndarray | None:
    """Raw rewards in the order drawn, shape (prompts, K); None if K differs or there are none."""
    from infalign.stores import CalibrationStore, samples_of

    ids = list(CalibrationStore.open(folder).rewards)
    try:
        return samples_of(folder, ids, ["reward"]).matrix("reward")
    except DataError:
        return None


def _uniformity(folder: Path, rng):
    from infalign.calibration.diagnostics import SURE, uniformity

    rewards = _rewards(folder)
    if rewards is None or rewards.shape[1] < 2:
        return None
    chosen = rng.permutation(len(rewards))[:PROMPTS]
    half = rewards.shape[1] // 2
    test = uniformity(rewards[chosen, half:], rewards[chosen, :half], rng=rng)
    p = min(test.p_deviation, test.p_shift)
    verdict = (
        "no change during collection"
        if p >= SURE
        else "reward, model or sampling changed during collection"
    )
    figures = {"shift": test.shift, "p_deviation": test.p_deviation, "p_shift": test.p_shift}
    return figures, (
        f"Later samples among earlier ones: quantiles shifted by {test.shift:+.3f} "
        f"(p = {test.p_shift:.3f}), shape p = {test.p_deviation:.3f}: {verdict}"
    )


def _calibrator(folder: Path):
    """The calibrator that a run would choose for these samples."""
    from infalign.calibration import choose
    from infalign.calibration.in_store import some_rewards
    from infalign.stores import CalibrationStore

    chosen = choose(some_rewards(CalibrationStore.open(folder)))
    return {"calibrator": chosen.name}, f"Calibrator {chosen.reason}"


def _resolution(folder: Path, calibrator: str, procedure: RankProcedure | None, kl: float):
    if procedure is None:
        return None
    from infalign.calibration.choice import CALIBRATORS
    from infalign.calibration.diagnostics import resolution
    from infalign.calibration.in_store import some_rewards
    from infalign.calibration.outlook import outlook_of
    from infalign.stores import CalibrationStore

    store = CalibrationStore.open(folder)
    rewards = some_rewards(store)
    outlook = outlook_of(CALIBRATORS[calibrator].fit(rewards), rewards)
    outcome = resolution(procedure, kl, store.samples, outlook=outlook, calibrator=calibrator)
    figures = {"samples": store.samples, "exact": outcome.exact, "needed": outcome.needed}
    if not np.isnan(outcome.reached):
        figures["reached"] = outcome.reached
    return figures, outcome.advice


def _drift(folder: Path, config: Path | None, prompts: int, rng, trust_remote_code: bool):
    """Whether the configured reward still gives the stored values.

    The configuration beside the store may be somebody else's: it grants no trust, and code beside
    it is not run.
    """
    from infalign.collection.rescore import rescore
    from infalign.config import load_config, require_trust
    from infalign.models.functions import beside
    from infalign.models.rewards import load_reward
    from infalign.pipeline.located import located
    from infalign.prompts import run_prompts

    quiet_libraries()
    own, config = config is not None, config or folder.parent / "config.yaml"
    if not config.exists():
        raise ConfigError(
            f"{config} does not exist. --rescore needs the configuration of the run, for its "
            "prompts and reward. Name it with --config."
        )
    run = load_config(config)
    if not own:
        require_trust(run, config, trust_remote_code)
        run = located(run, config.parent, config.parent)
    with beside(run.folder):
        trusted = trust_remote_code or run.trust_remote_code
        reward = load_reward(run.reward, dtype=run.dtype, trust_remote_code=trusted)
    drift = rescore(folder, run_prompts(run).undivided, reward, most=prompts, rng=rng)
    verdict = (
        "the reward is the same"
        if drift.changed == 0
        else "the reward has changed: calibrate again"
        if drift.swapped > SWAPPED
        else "rewards moved, but their order within prompts hardly changed"
    )
    figures = {"rescored": drift.responses, "changed": drift.changed, "swapped": drift.swapped}
    return figures, (
        f"{drift.responses:,} responses scored again: {drift.changed:.1%} changed, "
        f"{drift.swapped:.2%} of the pairs within prompts swapped: {verdict}"
    )
