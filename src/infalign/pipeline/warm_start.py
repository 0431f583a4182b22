"""A warm start that another training of a run has finished, used again.

The steps on policy have keys of their own, such as `train.learning_rate`. Another value trains
again in a new folder, and begins with the same warm start.
"""

import logging
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from infalign import disk, storage
from infalign.errors import DataError
from infalign.manifest import Stage

from .history import last_number, stated_at

__all__ = ["use_warm_start"]

LOG = logging.getLogger(__name__)

ON_POLICY = (
    *("train.steps", "train.learning_rate", "train.batch_size", "train.save_steps", "train.trl"),
    *("train.kl_responses", "select"),
)
"""What a training reads after its warm start."""


def use_warm_start(stage: Stage, out: Path, method: str) -> None:
    """Copy the warm start of another training of a method into the folder of this one, unless this
    one has begun or no other began alike.

    - `stage`: what the training is made from.
    - `out`: its folder, `train/METHOD` or a numbered one beside it.
    """
    from infalign.training.loop import DONE, METRICS
    from infalign.training.policy import WARM_START

    parts = [out / WARM_START / name for name in ("model", METRICS, DONE)]
    if set(stage.manifest.listed(out)) - set(parts[:-1]):  # those may be from a killed copy
        return
    for other in _alike(stage, out, method):
        sources = [other / part.relative_to(out) for part in parts]
        try:
            for source in sources:
                stage.manifest.require(source)
        except DataError:
            continue  # unfinished, removed or damaged
        for source, part in zip(sources, parts, strict=True):
            _copy(stage, source, part)
        LOG.info("The warm start of %s is that of %s.", out.name, other.name)
        return


def _alike(stage: Stage, out: Path, method: str) -> Iterator[Path]:
    """The folders of other trainings of a method whose warm start reads the same inputs."""
    manifest, train = stage.manifest, out.parent
    wanted = _read(storage.as_json(dict(stage.made_from)))
    for name in dict.fromkeys(p.relative_to(train).parts[0] for p in manifest.listed(train)):
        other = train / name
        if other != out and last_number(Path(method), [name]):
            made_from = stated_at(manifest, other)
            if made_from and all(_read(own) == wanted for own in made_from):
                yield other


def _read(made_from: Mapping[str, Any]) -> dict[str, Any]:
    """What a warm start reads of the inputs of a training."""
    return {key: value for key, value in made_from.items() if key not in ON_POLICY}


def _copy(stage: Stage, source: Path, target: Path) -> None:
    """Copy a file or folder and list it; what a kill left of it is replaced."""
    with disk.writing(target), stage.recording(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.rmtree(target, ignore_errors=True)
            shutil.copytree(source, target)
        else:
            shutil.copyfile(source, target)
