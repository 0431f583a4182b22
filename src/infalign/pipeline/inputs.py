"""What each stage of a run reads: the one table from which it follows which stages run again.

A stage that is finished stays finished as long as the values of its inputs are the same. An input
is a key of the configuration, by its value; what a key names, by its content; or an earlier stage,
by its result.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from infalign import storage
from infalign._look import Shown
from infalign.config import Config, Training
from infalign.methods import METHODS, RAW, Offline
from infalign.models.precision import trains_in
from infalign.prompts import Prompt
from infalign.stores.manifest import NAME

__all__ = [
    "Inputs",
    "Reads",
    "is_among",
    "keys_of",
    "narrowed",
    "read_of_design",
    "stated",
    "stated_for",
    "unread_training",
]

UNREAD = (
    *("engine", "trust_remote_code", "sampling.batch_size"),
    *("calibration.extend", "train.report_to"),
)
"""Keys that say where and how something is computed, and change no result but for rounding."""

CONTENT = (
    "model",
    "reward",
    "dtype",
    "prompts.*",
    "evaluate.prompts.*",
    "calibration.store",
    "train.select",
)
"""Keys that count by what they name, such as the weights in a folder, or by what they come to, such
as the precision on a machine; a path may change."""


@dataclass(frozen=True)
class Reads(Shown):
    """The inputs of a stage."""

    keys: tuple[str, ...]
    """Keys of the configuration; `section.*` is all keys of a section."""

    stages: tuple[str, ...] = ()
    """Earlier stages whose results it reads."""


READS: Mapping[str, Reads] = {
    "calibrate": Reads(
        (
            *("model", "reward", "dtype", "prompts.*", "sampling.*", "seed"),
            *("calibration.samples", "calibration.store"),
        )
    ),
    "design": Reads(
        ("procedure", "against", "kl", "beta", "transform", "calibration.calibrator"),
        ("calibrate",),
    ),
    "train": Reads(
        (
            *("model", "reward", "dtype", "prompts.*", "procedure", "against", "seed"),
            *("train.*", "sampling.temperature", "sampling.max_new_tokens", "sampling.strip"),
        ),
        ("calibrate", "design"),
    ),
    "evaluate": Reads(
        (
            *("model", "reward", "sampling.*", "procedure", "against", "transform", "seed"),
            *("dtype", "evidence", "train.method", "train.baselines", "evaluate.*"),
        ),
        ("calibrate", "design", "train"),
    ),
    "report": Reads((), ("evaluate",)),
}
"""The inputs of every stage, in the order in which the stages run."""

STAGES = tuple(READS)


TRANSFORM = ("transform", "beta")
"""The part of a design that some methods do not read."""


def keys_of(config: BaseModel, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Every key of a configuration under its dotted name, with its value; maps are values."""
    for name in type(config).model_fields:
        value = getattr(config, name)
        if isinstance(value, BaseModel):
            yield from keys_of(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def is_among(key: str, patterns: tuple[str, ...]) -> bool:
    """Whether one of the patterns stands for a key."""
    return any(fnmatchcase(key, pattern) for pattern in patterns)


def stated(config: Config, stage: str) -> dict[str, Any]:
    """The keys that a stage reads by their value, with their values."""
    by_value = {
        key: value
        for key, value in keys_of(config)
        if is_among(key, READS[stage].keys) and not is_among(key, UNREAD + CONTENT)
    }
    # The same, whether they are stated or follow from another key.
    if "against" in by_value:
        by_value["against"] = config.against or config.procedure
    if "train.seed" in by_value:
        del by_value["train.seed"]
        by_value["seed"] = config.training_seed
    # Earlier versions did not have these keys.
    for key, then in {"train.kl_responses": None, "train.warm_start_loss": "likelihood"}.items():
        if key in by_value and by_value[key] == then:
            del by_value[key]
    return by_value


def stated_for(config: Config, method: str) -> dict[str, Any]:
    """`stated` for the training of one method, which does not read all of `train`."""
    unread = unread_training(config.train, method)
    own = stated(config, "train")
    return {key: value for key, value in own.items() if key not in unread}


def unread_training(train: Training, method: str) -> set[str]:
    """The keys under `train` that the training of a method does not read, under their dotted
    names."""
    steps = {"steps", "learning_rate", "batch_size", "group", "save_steps", "trl"}
    warm_start = {"warm_start_learning_rate", "warm_start_batch_size"}
    unread = {"method", "baselines"}
    if isinstance(METHODS[method], Offline):
        unread |= steps | {"warm_start", "warm_start_loss"}
    else:
        unread |= {"passes"}
        if not train.warm_start:
            unread |= {"warm_start_loss", *warm_start}
        if not train.steps:
            unread |= steps - {"steps", "group"}
    return {f"train.{name}" for name in unread}


def read_of_design(method: str, design: Mapping[str, Any]) -> dict[str, Any]:
    """The part of a design that the training of a method reads: the KL; unless it is on the raw
    reward, the calibrator; and the transform, if it trains on it.

    - `design`: the content of the design's file.
    """
    # The KL of a transform is solved for: its last digits differ between transforms.
    read = {"kl": float(f"{design['kl']:.6g}")}
    if METHODS[method].trained_on != RAW:
        read["calibrator"] = design["calibrator"]["name"]
    if METHODS[method].reads_transform:
        read |= {name: design[name] for name in TRANSFORM}
    return read


def narrowed(made_from: Mapping[str, Any], method: str) -> Mapping[str, Any]:
    """What a training was made from, without what its method does not read of the design: former
    versions noted it nevertheless."""
    design = made_from.get("design")
    if not isinstance(design, Mapping) or METHODS[method].reads_transform:
        return made_from
    read = {key: value for key, value in design.items() if key not in TRANSFORM}
    return {**made_from, "design": read}


@dataclass(frozen=True)
class Inputs(Shown):
    """The values of the inputs of a run's stages: what is fingerprinted as `made_from`."""

    config: Config
    prompts: Sequence[Prompt]
    fingerprints: Mapping[str, object]
    """Of model, tokenizer, chat template and reward."""

    store: Path
    """The calibration store."""

    choosing: str | None = None
    """Of the gold reward that chooses checkpoints; None for the objective."""

    def calibration(self) -> dict[str, object]:
        """What stands for the calibration: the store's content, and which part of it is used."""
        return {
            "store": storage.sha256(self.store / NAME)[:16],
            "samples": self.config.calibration.samples,
            "prompts": self.fingerprints["prompts"],
        }

    def design(self) -> dict[str, object]:
        """The inputs of the design."""
        return {**stated(self.config, "design"), "calibration": self.calibration()}

    def training(self, method: str, design: Mapping[str, Any]) -> dict[str, object]:
        """The inputs of the training of one method.

        - `design`: the content of the design's file.
        """
        names = ("model", "tokenizer", "chat_template", "reward")
        asked = [
            json.dumps([p.id, p.messages, dict(p.columns), p.plain], sort_keys=True, default=str)
            for p in self.prompts
        ]
        return {
            **stated_for(self.config, method),
            **{name: self.fingerprints.get(name) for name in names},
            **self._precision(),
            # Training depends on the order of the prompts: the last ones are held out.
            "prompts": storage.fingerprint(asked),
            "calibration": self.calibration(),
            "design": read_of_design(method, design),
            **self._choice(method),
        }

    def _choice(self, method: str) -> dict[str, object]:
        """The reward that chooses checkpoints, if there are any and it is not the objective."""
        chooses = self.config.train.steps and not isinstance(METHODS[method], Offline)
        return {"select": self.choosing} if chooses and self.choosing is not None else {}

    def _precision(self) -> dict[str, object]:
        """In what the trainer computes, and in what the samples were drawn, where it is not what
        earlier versions did and did not state."""
        computed = {"training in": trains_in(self.config.dtype)}
        drawn = {"dtype": self.fingerprints.get("dtype", "float32")}
        usual = {"training in": "bfloat16", "dtype": "float32"}
        return {k: v for k, v in (computed | drawn).items() if v != usual[k]}
