"""`manifest.json` of a calibration store: its provenance, and the files that belong to it.

A store ignores files that its manifest does not name. Renaming a new manifest into place therefore
adds a shard, or replaces many shards by a merged one, in one step.
"""

import platform
from collections.abc import Mapping
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from infalign import storage
from infalign.errors import DataError

__all__ = ["held", "new_manifest", "read_manifest", "require_finished", "write_manifest"]

SCHEMA_VERSION = 3
NAME = "manifest.json"
PACKAGES = ("infalign", "numpy", "pyarrow", "torch", "transformers", "tokenizers", "vllm", "ray")
"""Packages whose versions are recorded if they are installed."""


def new_manifest(provenance: Mapping[str, object], prompts: int) -> dict:
    """The manifest of an empty store.

    - `provenance`: how the rewards are made: names such as model, reward, tokenizer, chat_template,
      sampling, prompts and seed, each with a fingerprint or a setting.
    - `prompts`: the final number of prompts.

    `packages` lists the versions that wrote the first shard; it is never compared. `next` is the
    number of the next file.
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
    versions = {}
    for name in PACKAGES:
        with suppress(PackageNotFoundError):
            versions[name] = version(name)
    return versions


def read_manifest(path: Path) -> dict:
    """The manifest in folder `path`.

    Raises DataError if the manifest is missing, has another schema version, or has changed since it
    was written.
    """
    file = path / NAME
    if not file.exists():
        raise DataError(
            f"{file} does not exist: {path} is not a calibration store, or its first shard is "
            "unfinished. Calibrate first."
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
    """Put a manifest into place; the files that it names must exist already."""
    storage.write_json(path / NAME, manifest | {"checksum": storage.fingerprint(manifest)})


def held(manifest: dict) -> int:
    """Number of prompts that have rewards."""
    return sum(shard["prompts"] for shard in manifest["rewards"])


def require_finished(path: Path, manifest: dict) -> None:
    """Raise DataError if the store is empty or still lacks prompts."""
    if not held(manifest):
        raise DataError(f"{path} holds no prompts. Calibrate with at least one.")
    if held(manifest) < manifest["prompts"]:
        raise DataError(
            f"{path} holds {held(manifest)} of {manifest['prompts']} prompts: its collection is "
            "unfinished. Continue it with the command that began it."
        )
