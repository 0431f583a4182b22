"""Everything that can be known of a run before its first generation, in the order of its cost."""

import json
import logging
import math
import os
import shutil
from collections.abc import Callable, Iterator
from functools import cache, partial

from rich.filesize import decimal

from infalign.calibration.choice import ECDF
from infalign.collection.connection import require_same_precision
from infalign.config import Config
from infalign.errors import ConfigError, DataError
from infalign.evaluation.power import detectable
from infalign.methods import METHODS, Budget, budget
from infalign.models.fingerprints import judge_parts
from infalign.models.inspection import (
    inspect_judge,
    inspect_kl,
    inspect_policy,
    inspect_reward,
)
from infalign.models.specs import ModelSpec

from .check import Check, check, on_responses, server_of
from .folder import Run
from .workload import parameters_of, room, workloads

__all__ = ["Check", "check", "checks_of"]

LOG = logging.getLogger(__name__)

COARSE = 0.06
"""Difference in win rate from which on a comparison that shows only larger ones is warned of."""

USUAL_KL = 0.5
"""KL that the power is computed for if a run states β instead."""

RANKS = ("auto", ECDF)
"""Calibrators that may rank a reward among its own prompt's samples."""


def checks_of(run: Run, *, trained: bool = True) -> list[Check]:
    """The checks of a run.

    - `trained`: whether policies are to be trained, and not the reference calibrated alone.
    """
    config = run.config
    known = cache(partial(_budget, run))
    settings = [Check("procedure, transform and KL", known)]
    if trained:
        settings.append(Check(WEIGHTS, partial(_has_weights, config)))
        settings += [
            Check(f"method {name}", partial(_trainable, name, known), (settings[0].name,))
            for name in config.methods
        ]
    prompts = [
        Check("training prompts", lambda: run.prompts),
        Check("test prompts", lambda: run.test_prompts, ("training prompts",)),
        Check("prompts apart", partial(_apart, run), ("test prompts",)),
        Check("number of prompts", partial(_enough_prompts, run), ("training prompts",)),
        Check("comparison", lambda: run.comparison, ("test prompts",)),
    ]
    if trained:
        validation = partial(_some_for_validation, run)
        prompts.append(Check("validation prompts", validation, PROMPTS[:1]))
    if trained and config.evidence:
        power = Check("power of the comparison", partial(_say_power, run), ("comparison",))
        prompts.append(power)
    options = [Check("trainer options", partial(_trainer_options, config))] if trained else []
    models = [
        *_models(run, trained),
        Check("disk space", partial(_space, run, trained), ("model",)),
    ]
    last = (*_on_responses(run), *_servers(run, trained), *_on_ray(config))
    return [*settings, *prompts, *options, *models, *last]


def _budget(run: Run) -> Budget:
    config = run.config
    return budget(
        run.procedure,
        run.against,
        config.transform,
        kl=config.kl,
        beta=config.beta,
        samples=config.calibration.samples,
        ranks=config.calibration.calibrator in RANKS,
    )


def _has_weights(config: Config) -> None:
    if not ModelSpec.parse(config.model).has_weights:
        raise ConfigError(
            f"`model` is {config.model}, which can be calibrated but not trained: its weights are "
            "not accessible. Give its folder or hub id, or stop with --until design."
        )


def _trainable(method: str, known: Callable[[], Budget]) -> None:
    METHODS[method].require_trainable(known())


def _apart(run: Run) -> None:
    """Rewards, stores and reports tell prompts apart by their ids."""
    trained = {p.id for p in run.prompts}
    shared = [p.id for p in run.test_prompts if p.id in trained]
    if shared:
        raise DataError(
            f"{len(shared)} of {len(run.test_prompts)} evaluation prompts have the id of a "
            f"training prompt with another text, first {shared[0]!r}. Give every prompt an id of "
            "its own, or leave the ids out."
        )


def _enough_prompts(run: Run) -> None:
    """An on-policy step needs `batch_size / group` different prompts, a warm start needs one."""
    train, given = run.config.train, len(run.prompts)
    trained, needed, why = train.trained_prompts(given), 1, ""
    if train.steps:
        needed = train.batch_size // train.group
        why = f" for `train.batch_size` {train.batch_size} in groups of {train.group}"
    if trained < needed:
        raise ConfigError(
            f"Training needs at least {needed} prompts{why}; there are {trained} ({given} "
            f"less a share of {train.validation:g} for validation). Give more prompts, or a "
            "smaller `train.batch_size` or `train.validation`."
        )


def _some_for_validation(run: Run) -> None:
    """A share that rounds to no prompt would leave the choice of checkpoints and the KL to the
    training prompts, as only `train.validation: 0` asks for. So would, in part, prompts that occur
    again among those that are trained on."""
    share, given = run.config.train.validation, len(run.prompts)
    trained = run.config.train.trained_prompts(given)
    if share and trained == given:
        least = math.floor(0.5 / given * 1000 + 1) / 1000
        raise ConfigError(
            f"`train.validation` is {share:g}, which of {given} prompts holds out none: the share "
            f"rounds to 0. Raise it to {least:g} or more, give more prompts, or set it to 0, which "
            "measures the KL on the training prompts and chooses no checkpoint."
        )
    learned = {json.dumps(p.messages) for p in run.prompts[:trained]}
    again = [p.id for p in run.prompts[trained:] if json.dumps(p.messages) in learned]
    if again:
        LOG.warning(
            "%d of %d validation prompts are trained on too, under other ids, first %r. On these "
            "the KL is larger than on new prompts, and a checkpoint looks better than it is. Keep "
            "every prompt once.",
            len(again),
            given - trained,
            again[0],
        )


def _say_power(run: Run) -> None:
    """Warn if the test prompts are too few to see differences between policies."""
    prompts, samples = len(run.test_prompts), run.config.evaluate.samples
    least = 1.0
    if prompts > 1:
        least = detectable(
            run.procedure, prompts, samples, kl=run.config.kl or USUAL_KL, against=run.against
        )
    if least > COARSE:
        shown = f"differences of {100 * least:.0f} points or more" if least < 1 else "no difference"
        limited = run.config.evaluate.prompts.limit == prompts
        more = (
            "Raise `evaluate.prompts.limit`"
            if limited
            else "Name more with `evaluate.prompts`; without a test split in the source, "
            "`prompts.test_fraction` holds out more"
        )
        LOG.warning(
            "%d test prompts with %d samples each show %s between policies, at best. %s. `infalign "
            "plan` says how many a difference needs.",
            prompts,
            samples,
            shown,
            more,
        )


def _gold_is_another(run: Run) -> None:
    """A gold reward with the content of the proxy, by another path, cannot reveal that the proxy is
    exploited."""
    config = run.config
    if run.choosing_fingerprint == run.fingerprints["reward"]:
        raise ConfigError(
            f"`train.select` is {config.train.select}, whose content is that of `reward`: it "
            "cannot show that this reward is exploited. Name another one."
        )


def _trainer_options(config: Config) -> None:
    from infalign.training.trl_options import check_options

    check_options(config, config.model)


WEIGHTS = "weights to train"
PROMPTS = "training prompts", "test prompts"


def _models(run: Run, trained: bool) -> Iterator[Check]:
    """Models, rewards and the judge: what they are, and whether they can read the prompts. Weights
    are not loaded, and servers are not contacted."""
    config, remote = run.config, run.config.trust_remote_code

    def conversations(prompts):
        return [p.messages for p in prompts]

    def policy() -> None:
        every = [*run.prompts, *run.test_prompts]
        inspect_policy(
            config.model,
            trust_remote_code=remote,
            trained=trained,
            conversations=conversations(every),
            keys=[p.id for p in every],
            max_new_tokens=config.sampling.max_new_tokens,
        )

    def other(name: str, spec: str) -> None:
        inspect_policy(
            spec,
            trust_remote_code=remote,
            conversations=conversations(run.test_prompts),
            keys=[p.id for p in run.test_prompts],
            max_new_tokens=config.sampling.max_new_tokens,
            what=f"The policy {name!r} of `evaluate.policies`",
        )
        if config.evaluate.kl_samples:
            inspect_kl(spec, config.model, trust_remote_code=remote)

    def reward() -> None:
        inspect_reward(
            config.reward,
            trust_remote_code=remote,
            conversations=conversations([*run.prompts, *run.test_prompts]),
            columns=run.prompts[0].columns.keys() & run.test_prompts[0].columns.keys(),
        )

    def gold(name: str, spec: str) -> None:
        chooses = trained and name == config.train.gold
        read = [*run.prompts, *run.test_prompts] if chooses else run.test_prompts
        inspect_reward(
            spec,
            trust_remote_code=remote,
            conversations=conversations(read),
            columns=read[0].columns.keys() & read[-1].columns.keys(),
            what=f"The reward {name!r} of `evaluate.gold`",
        )

    def judge() -> None:
        columns = run.test_prompts[0].columns
        inspect_judge(evaluate.judge or "", trust_remote_code=remote, columns=columns)

    evaluate = config.evaluate
    yield Check("model", policy, PROMPTS)
    for name, spec in evaluate.policies.items():
        yield Check(f"policy {name}", partial(other, name, spec), PROMPTS)
    yield Check("reward", reward, PROMPTS)
    for name, spec in evaluate.gold.items():
        yield Check(f"gold reward {name}", partial(gold, name, spec), PROMPTS)
    if evaluate.judge is not None:
        yield Check("judge", judge, PROMPTS[1:])


def _space(run: Run, trained: bool) -> None:
    """Only what is certain counts: trained weights, checkpoints, and the numbers of the samples."""
    works = workloads(run) if trained else workloads(run)[:1]
    there = sum(p.stat().st_size for p in run.folder.rglob("*") if p.is_file())
    needed = room(works, parameters_of(run) or 0, run.config.train.lora > 0).most - there
    place = next(p for p in (run.folder.absolute(), *run.folder.absolute().parents) if p.exists())
    free = shutil.disk_usage(place).free
    if needed > free:
        models = sum(work.models for work in works if not work.reused)
        raise DataError(
            f"{run.folder} needs at least {decimal(needed)} more of disk space, for {models} "
            f"trained models, checkpoints and samples, and {decimal(free)} are free. Make room, "
            "choose a folder on another disk with --out, or train fewer `train.baselines`."
        )


def _on_responses(run: Run) -> Iterator[Check]:
    config = run.config
    return on_responses(
        config.reward,
        config.evaluate.gold,
        config.evaluate.judge,
        config.evaluate.answers,
        lambda: [run.prompts[0], run.test_prompts[0]],
        dtype=config.dtype,
        trust_remote_code=config.trust_remote_code,
        # On Ray, weights are loaded where they run, which may be the only place with room.
        weights=config.engine == "local",
        inspected=True,
    )


def _on_ray(config: Config) -> Iterator[Check]:
    """What `dtype: auto` comes to on a cluster of other machines."""
    if config.engine == "local" or config.dtype != "auto" or "RAY_ADDRESS" not in os.environ:
        return
    if any(ModelSpec.parse(spec).has_weights for spec in (config.model, config.reward)):
        yield Check("precision on Ray", require_same_precision)


def _servers(run: Run, trained: bool) -> Iterator[Check]:
    """Servers answer a probe, which identifies what is behind their URL."""
    config, evaluate = run.config, run.config.evaluate
    needs = ("model", "reward", WEIGHTS) if trained else ("model", "reward")
    yield Check("content of model, reward and prompts", lambda: run.fingerprints, needs)
    if trained and config.train.gold is not None:
        needs = (*needs[:2], f"gold reward {config.train.gold}")
        yield Check("choice of checkpoints", partial(_gold_is_another, run), needs)
    for name, spec in evaluate.policies.items():
        yield from server_of(f"policy {name}", spec, f"policy {name}")
    if evaluate.judge is not None and ModelSpec.parse(evaluate.judge).kind == "server":
        yield Check("server of the judge", partial(judge_parts, evaluate.judge), ("judge",))
