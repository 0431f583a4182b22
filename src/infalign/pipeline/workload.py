"""What the stages of a run have to do, counted before anything runs."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from infalign.comparison.comparison import Comparison
from infalign.methods import METHODS, Offline
from infalign.models.specs import ModelSpec

from .folder import Run

__all__ = ["Room", "Workload", "evaluation", "parameters_of", "room", "training", "workloads"]

SINGLE = 4
"""Bytes of a number in single precision, in which policies are trained and saved."""

OPTIMIZER = 2
"""Numbers that AdamW keeps for every trained weight."""

CHECKPOINTS = 3
"""Largest number of checkpoints of a training on the disk: the newest two, and one more that is the
best or is being written."""

ROW = 16
"""Fewest bytes of a stored response: its reward and its log-probability."""


FIRST_SET = 0.25
"""The first set of responses of a search for the KL, as a part of a whole one."""

SETS, TRIES = FIRST_SET + 1, 2.5
"""Sets of responses that a usual search for the KL draws, and on which it measures; it needs up to
six."""


@dataclass(frozen=True)
class Workload:
    """The work of one stage, or of the training of one method."""

    name: str
    generated: int = 0
    """Responses that a policy writes; of KL targeting, those of a usual search."""

    scored: int = 0
    """Responses that a reward scores."""

    read: int = 0
    """Responses whose log-probabilities are computed."""

    learned: int = 0
    """Responses that are trained on, once for each pass."""

    judged: int = 0
    """Comparisons of the judge."""

    loaded: int = 0
    """Number of times that a policy is loaded."""

    models: int = 0
    """Policies that it leaves on the disk."""

    checkpoints: int = 0
    """Largest number of checkpoints that it holds at once; they are removed at its end."""

    stored: int = 0
    """Responses that are stored."""

    reused: bool = field(default=False, kw_only=True)
    """Whether its results exist already, so that it costs nothing."""


def workloads(run: Run) -> list[Workload]:
    """The work of every stage that takes time, in order; `design` and `report` take seconds."""
    config = run.config
    responses = len(run.prompts) * config.calibration.samples
    calibrate = Workload(
        "calibrate", generated=responses, scored=responses, loaded=1, stored=responses
    )
    trainings = [training(run, name) for name in config.methods]
    return [calibrate, *trainings, evaluation(run.comparison)]


def training(run: Run, name: str, *, sets: float = SETS) -> Workload:
    """The work of the training of one method.

    - `sets`: sets of responses that the search for the KL draws.
    """
    from infalign.training.landing import responses_per_prompt
    from infalign.training.on_policy import VALIDATION_PROMPTS

    train, prompts = run.config.train, len(run.prompts)
    trained = train.trained_prompts(prompts)
    held_out = prompts - trained
    targeted = held_out or prompts
    whole = targeted * responses_per_prompt(targeted, train.kl_responses)
    targeting, targeted_on = round(sets * whole), round(TRIES * whole)
    stored = trained * run.config.calibration.samples
    if isinstance(METHODS[name], Offline):
        return Workload(
            f"train {name}",
            generated=targeting,
            read=2 * targeted_on,
            learned=train.passes * stored,
            loaded=4,
            models=2,
            checkpoints=CHECKPOINTS,
        )
    drawn = train.steps * train.batch_size
    compared, judges = 0, 0
    if held_out and train.selects:
        judges = 0 if train.gold is None else 2  # the gold reward, and once more the proxy
        times = -(-train.steps // train.save_steps)
        compared = times * min(held_out, VALIDATION_PROMPTS) * train.validation_group
    warm = train.warm_start > 0
    return Workload(
        f"train {name}",
        generated=drawn + compared + targeting,
        scored=drawn + compared * (1 + judges),
        read=drawn + compared + 2 * targeted_on,
        learned=train.warm_start * stored + drawn,
        loaded=3 + warm + 2 * (train.steps > 0),
        models=1 + warm + (train.steps > 0),
        checkpoints=CHECKPOINTS,
    )


def evaluation(comparison: Comparison) -> Workload:
    """The work of a comparison."""
    prompts, policies = len(comparison.prompts), len(comparison.policies)
    drawn = len(comparison.models) * prompts * comparison.samples
    kl = 2 * policies * prompts * min(comparison.kl_samples, comparison.samples)
    pairs = 2 * policies * prompts * comparison.judge_pairs if comparison.judge else 0
    return Workload(
        "evaluate",
        generated=drawn,
        scored=drawn * len(comparison.rewards),
        read=kl,
        judged=pairs,
        loaded=len(comparison.models) + (kl > 0),
        stored=drawn,
    )


@dataclass(frozen=True)
class Room:
    """Bytes on the disk."""

    results: int
    """Bytes that remain after the run, at least."""

    passing: int
    """Bytes of the checkpoints, which are removed when their training ends."""

    @property
    def most(self) -> int:
        """The bytes that must be free when the last training is nearly done."""
        return self.results + self.passing


def room(works: Sequence[Workload], parameters: int, adapters: bool) -> Room:
    """The bytes that the files of a run take at least.

    - `parameters`: number of weights of the policy.
    - `adapters`: whether only adapters are trained, which are small.
    """
    due = [work for work in works if not work.reused]
    weights = SINGLE * parameters
    trained = 0 if adapters else parameters
    checkpoint = SINGLE * (1 + OPTIMIZER) * trained
    return Room(
        results=sum(weights * work.models + ROW * work.stored for work in due),
        passing=max((checkpoint * work.checkpoints for work in due), default=0),
    )


def parameters_of(run: Run) -> int | None:
    """The number of weights of the policy; None where they cannot be counted without loading them:
    of a server, in other formats, or on the hub and not yet in the cache."""
    if not ModelSpec.parse(run.config.model).has_weights:
        return None
    from transformers import AutoModelForCausalLM

    from infalign.models.loading import outline

    remote = run.config.trust_remote_code
    model = outline(AutoModelForCausalLM, run.model_path, remote, "The model")
    return None if model is None else sum(p.numel() for p in model.parameters())
