"""`manifest.json` of a calibration store: what it was made with, and which files count.

A file that the manifest does not name does not exist as far as a store is concerned; so one rename
of the manifest is what makes a shard, or many merged into one, part of it.
"""

import platform
from collections.abc import Mapping
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from infalign import storage
from infalign.errors import DataError

SCHEMA_VERSION = 3
NAME = "manifest.json"
PACKAGES = ("infalign", "numpy", "pyarrow", "torch", "transformers", "tokenizers", "vllm", "ray")
"""Whose versions are noted, of those that are installed."""


def new_manifest(provenance: Mapping[str, object], prompts: int) -> dict:
    """The manifest of a store that holds nothing yet.

    - `provenance`: what the rewards are made with: names such as model, reward, tokenizer,
      chat_template, sampling, prompts and seed, each with a fingerprint or a setting.
    - `prompts`: how many there will be.

    `packages` says what wrote the first shard, and is not compared. `next` numbers the next file.
    """
    return {
        "schema_version": SCHEMA_VERSION,
        "provenance": storage.as_json(dict(provenance)),
        "packages": {"python": platform.python_version()} | _versions(),
        "prompts": prompts,
        "adds": 0,
        "next": 0,
        "rewards": [],
        "samples": [],
    }


def _versions() -> dict[str, str]:
    found = {}
    for name in PACKAGES:
        with suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


def read_manifest(path: Path) -> dict:
    """The manifest in folder `path`.

    Raises DataError when there is none, when it belongs to another version, and when it is not the
    one that was written.
    """
    file = path / NAME
    if not file.exists():
        raise DataError(
            f"{file} does not exist: {path} is no calibration store, or nothing of it was "
            "finished. Calibrate first."
        )
    manifest = storage.read_json(file)
    if not isinstance(manifest, dict):
        raise DataError(f"{file} is not a manifest. Remove {path} and calibrate again.")
    if manifest.get("schema_version") != SCHEMA_VERSION:
        raise DataError(
            f"{path} has calibration schema {manifest.get('schema_version')!r}; this version reads "
            f"{SCHEMA_VERSION}. Calibrate again, or install the version that wrote it."
        )
    if manifest.pop("checksum", None) != storage.fingerprint(manifest):
        raise DataError(
            f"{file} is not the file that was written: its checksum differs. Remove {path} and "
            "calibrate again."
        )
    return manifest


def write_manifest(path: Path, manifest: dict) -> None:
    """Put a manifest into place; what it names must be there before."""
    storage.write_json(path / NAME, manifest | {"checksum": storage.fingerprint(manifest)})


def held(manifest: dict) -> int:
    """How many prompts have their rewards."""
    return sum(shard["prompts"] for shard in manifest["rewards"])


def require_finished(path: Path, manifest: dict) -> None:
    """Raise DataError if prompts are missing, or if there are none at all."""
    if not held(manifest):
        raise DataError(f"{path} holds no prompts. Calibrate with at least one.")
    if held(manifest) < manifest["prompts"]:
        raise DataError(
            f"{path} holds {held(manifest)} of {manifest['prompts']} prompts: its collection is "
            "unfinished. Continue it with the command that began it."
        )
