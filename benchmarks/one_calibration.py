"""Runs of different settings that share the calibration of the first."""

import shutil
from pathlib import Path

import yaml

from infalign import storage
from infalign.config import Config


def begin(config: Config, folder: Path, first: Path) -> None:
    """Make `folder` a run of `config` that has the finished calibration of the run in `first`.

    Nothing is done for a folder that is there: it is made whole or not at all.
    """
    if folder == first or folder.exists():
        return
    part = folder.with_name(folder.name + storage.UNFINISHED)
    shutil.rmtree(part, ignore_errors=True)
    shutil.copytree(first / "calibration", part / "calibration")
    shutil.copy(first / "provenance.json", part / "provenance.json")
    stated = config.model_dump(mode="json", exclude_none=True)
    storage.write_text(part / "config.yaml", yaml.safe_dump(stated, sort_keys=False))
    part.rename(folder)
