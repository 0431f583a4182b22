"""Run folders of former versions, which stated other inputs of a stage than are stated now.

The first versions named the whole configuration: their results are those of the configuration in
the folder. Later ones named the design's transform for methods that do not read it. Both get the
inputs that the stages have now, so that they are used as any other result is.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from infalign import storage
from infalign.config import Config, load_config
from infalign.errors import ConfigError
from infalign.manifest import Manifest
from infalign.methods import METHODS
from infalign.models.functions import beside
from infalign.stores.resumable import Origin

from .folder import Run
from .history import last_number
from .inputs import narrowed

__all__ = ["adopt"]

CONFIGURATION = "configuration"
"""The input that former versions noted: the fingerprint of the whole configuration."""


def adopt(folder: Path, config: Config) -> None:
    """Give the design and the trainings of a former version their present inputs; the folder must
    be locked. Results whose inputs are not known stay where they are, and are not used.

    - `config`: the present configuration, for the folder of Python rewards.
    """
    manifest = Manifest(folder)
    _narrow(folder, manifest)
    entries = [p for p in manifest.listed(folder) if _is_former(manifest.made_from(p))]
    stages = [p for p in entries if p == folder / "design.json" or folder / "train" in p.parents]
    if not stages:
        return
    former = _former(folder, manifest, stages)
    if former is None:
        return
    former._folder = config.folder
    with beside(config.folder):
        run = Run(former, folder)
        inputs = run.inputs_of(folder / "calibration")
        store = storage.sha256(folder / "calibration" / "manifest.json")[:16]
        design_file = folder / "design.json"
        design = storage.read_json(design_file) if design_file.exists() else None
        made_from: dict[Path, Mapping[str, Any]] = {}
        for path in stages:
            own = manifest.made_from(path) or {}
            if own.get("calibration") != store:
                continue
            if path == design_file:
                made_from[path] = inputs.design()
                continue
            method = path.relative_to(folder / "train").parts[0]
            same = design is not None and own.get("design") == storage.sha256(design_file)[:16]
            if same and design is not None and method in METHODS:
                made_from[path] = inputs.training(method, design)
    manifest.restate(made_from)


def _narrow(folder: Path, manifest: Manifest) -> None:
    """Leave out of each training's inputs what its method does not read of the design."""
    changed: dict[Path, Mapping[str, Any]] = {}
    for path in manifest.listed(folder / "train"):
        made_from = manifest.made_from(path) or {}
        if Origin.is_stated(made_from):
            continue
        name = path.relative_to(folder / "train").parts[0]
        method = next((m for m in METHODS if last_number(Path(m), [name])), None)
        if method and (narrow := narrowed(made_from, method)) != made_from:
            changed[path] = narrow
    manifest.restate(changed)


def _is_former(made_from: Mapping[str, object] | None) -> bool:
    return made_from is not None and isinstance(made_from.get(CONFIGURATION), str)


def _former(folder: Path, manifest: Manifest, stages: list[Path]) -> Config | None:
    """The configuration that all of the results come from, if the folder still has it."""
    file = folder / "config.yaml"
    if not file.exists() or file not in manifest:
        return None
    manifest.require(file)
    stated = yaml.safe_load(file.read_text(encoding="utf-8"))
    marks = {(manifest.made_from(path) or {})[CONFIGURATION] for path in stages}
    if marks != {storage.fingerprint(stated)}:
        return None
    try:
        return load_config(file)
    except ConfigError:
        return None
