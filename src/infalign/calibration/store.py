"""Reference rewards of every prompt, on disk, with what they were made with.

A store is a folder: `manifest.json` lists Parquet shards with their checksums, the provenance
(model, reward, prompts, sampling) and how many prompts there are in all. `rewards-*.parquet` hold
the sorted rewards per prompt, which is all calibration needs; `samples-*.parquet` the texts they
belong to. A shard exists whole or not at all, so a collection that was killed continues with the
first shard that is missing.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from infalign import _check, storage
from infalign.errors import DataError

from .ranks import Smoothing, interval

if TYPE_CHECKING:
    import pyarrow as pa

SCHEMA_VERSION = 2


@dataclass(frozen=True)
class CalibrationStore:
    """K sorted reference rewards per prompt.

    Make one from arrays with `from_rewards`, from a folder with `open`.
    """

    rewards: Mapping[str, np.ndarray]
    """Prompt id to its sorted reference rewards."""

    provenance: Mapping[str, object]
    """What the rewards were made with; compared by `require`."""

    @classmethod
    def from_rewards(cls, prompt_ids: Sequence[str], rewards, provenance=None):
        """A store held in memory: one row of `rewards`, shape (prompts, K), per prompt id."""
        rewards = np.sort(_check.finite_rewards("rewards", rewards), axis=1)
        if len(prompt_ids) != len(rewards) or len(set(prompt_ids)) != len(prompt_ids):
            raise ValueError(
                f"`prompt_ids` must be unique, one per row of `rewards`; got {len(prompt_ids)} ids "
                f"({len(set(prompt_ids))} distinct) for {len(rewards)} rows."
            )
        return cls(dict(zip(prompt_ids, rewards, strict=True)), dict(provenance or {}))

    @classmethod
    def open(cls, path):
        """The store in folder `path`, every shard checked against its checksum.

        Raises DataError when the store is missing, unfinished, damaged or empty.
        """
        path = Path(path)
        manifest = storage.read_json(path / "manifest.json")
        if not isinstance(manifest, dict):
            raise DataError(f"{path / 'manifest.json'} is not a manifest. Calibrate again.")
        if manifest.get("schema_version") != SCHEMA_VERSION:
            raise DataError(
                f"{path} has calibration schema {manifest.get('schema_version')!r}; this version "
                f"reads {SCHEMA_VERSION}. Calibrate again, or install the version that wrote it."
            )
        rewards: dict[str, np.ndarray] = {}
        for shard in manifest["shards"]:
            file = path / shard["rewards"]
            if not file.exists():
                raise DataError(f"{file} is missing. Remove {path} and calibrate again.")
            if storage.sha256(file) != shard["rewards_sha256"]:
                raise DataError(
                    f"{file} is not the file that was written: its checksum differs from the "
                    f"manifest's. Remove {path} and calibrate again."
                )
            table = storage.read_table(file)
            for prompt_id, row in zip(
                table["prompt_id"].to_pylist(), table["rewards"], strict=True
            ):
                if prompt_id in rewards:
                    raise DataError(f"{path} holds prompt_id {prompt_id!r} more than once.")
                rewards[prompt_id] = row.values.to_numpy()
        if not rewards:
            raise DataError(f"{path} holds no prompts. Calibrate with at least one.")
        if len(rewards) < manifest["prompts"]:
            raise DataError(
                f"{path} holds {len(rewards)} of {manifest['prompts']} prompts: its collection is "
                "unfinished. Continue it with the command that began it."
            )
        return cls(rewards, manifest["provenance"])

    @property
    def samples(self) -> int:
        """The smallest number of reference samples that any prompt has."""
        return min(map(len, self.rewards.values()))

    def quantiles(
        self, prompt_ids: Sequence[str], rewards: Sequence[float], *, smoothing: Smoothing = "none"
    ) -> np.ndarray:
        """Mid-rank quantile of each reward under its own prompt's reference rewards.

        Raises DataError for prompts that the store does not know.
        """
        low, high = self.intervals(prompt_ids, rewards, smoothing=smoothing)
        return (low + high) / 2

    def intervals(
        self, prompt_ids: Sequence[str], rewards: Sequence[float], *, smoothing: Smoothing = "none"
    ) -> tuple[np.ndarray, np.ndarray]:
        """Ends of the quantiles that each reward shares with tied reference rewards; equal where
        it ties with none.

        Raises DataError as `quantiles` does.
        """
        unknown = [p for p in prompt_ids if p not in self.rewards]
        if unknown:
            raise DataError(
                f"prompt_id {unknown[0]!r} is not in the calibration store "
                f"({len(unknown)} of {len(prompt_ids)} are unknown; it has {len(self.rewards)}). "
                "Calibrate on the prompts you train on."
            )
        values = np.asarray(rewards, float)
        if values.shape[:1] != (len(prompt_ids),):
            raise DataError(
                f"`rewards` must have one entry per prompt id; got shape {values.shape} for "
                f"{len(prompt_ids)} ids."
            )
        if not np.isfinite(values).all():
            first = np.argwhere(~np.isfinite(values))[0]
            raise DataError(
                f"`rewards` must be finite; got {values[tuple(first)]:g} for prompt_id "
                f"{prompt_ids[first[0]]!r} ({(~np.isfinite(values)).sum()} of {values.size}). "
                "Score those responses again."
            )
        pairs = zip(prompt_ids, values, strict=True)
        ends = [interval(self.rewards[p], r, smoothing) for p, r in pairs]
        return np.array([low for low, _ in ends]), np.array([high for _, high in ends])

    def tied(self) -> float:
        """Chance that two reference samples of a prompt have the same reward.

        0 for a continuous reward. Where it is not small, rewards are atoms: what the quantile axis
        promises of a transform does not hold, and `infalign.verifiable` or `infalign.finite` does.
        """
        shares = []
        for rewards in self.rewards.values():
            _, counts = np.unique(rewards, return_counts=True)
            shares.append(np.sum(counts * (counts - 1)) / max(rewards.size * (rewards.size - 1), 1))
        return float(np.mean(shares))

    def require(self, **expected) -> None:
        """Check that the store was made with what the caller is about to use.

        Raises DataError naming the first entry of the provenance that differs.
        """
        for name, value in expected.items():
            if self.provenance.get(name) != value:
                raise DataError(
                    f"The calibration store was made with {name} "
                    f"{self.provenance.get(name)!r}, not {value!r}. Calibrate again, or use what "
                    "it was made with."
                )


class StoreWriter:
    """Adds shards to a store folder; each call of `add` is durable when it returns.

    - `prompts`: how many there will be; until then the store does not open.
    """

    def __init__(self, path: Path, provenance: Mapping[str, object], prompts: int):
        self.path = Path(path)
        self._manifest = {
            "schema_version": SCHEMA_VERSION,
            "provenance": storage.as_json(dict(provenance)),
            "prompts": _check.count("prompts", prompts),
            "shards": [],
        }
        if (self.path / "manifest.json").exists():
            found = storage.read_json(self.path / "manifest.json")
            if found | {"shards": []} != self._manifest:
                raise DataError(
                    f"{self.path} was collected with other settings. Remove it, or restore them."
                )
            self._manifest = found

    def __len__(self) -> int:
        return len(self._manifest["shards"])

    def add(self, prompt_ids: Sequence[str], completions, rewards, extra=None) -> None:
        """Append one shard: `completions` and `rewards` have shape (prompts, K)."""
        import pyarrow as pa

        rewards = _check.finite_rewards("rewards", rewards)
        name = f"{len(self):05d}.parquet"
        flat = {
            "prompt_id": [p for p in prompt_ids for _ in range(rewards.shape[1])],
            "sample": list(range(rewards.shape[1])) * len(prompt_ids),
            "completion": [text for row in completions for text in row],
            "reward": rewards.ravel(),
        } | (extra or {})
        storage.write_table(self.path / f"samples-{name}", pa.table(flat))
        file = self.path / f"rewards-{name}"
        storage.write_table(
            file, pa.table({"prompt_id": list(prompt_ids), "rewards": list(np.sort(rewards))})
        )
        self._manifest["shards"].append(
            {
                "rewards": file.name,
                "rewards_sha256": storage.sha256(file),
                "samples": f"samples-{name}",
                "samples_sha256": storage.sha256(self.path / f"samples-{name}"),
                "prompts": len(prompt_ids),
            }
        )
        storage.write_json(self.path / "manifest.json", self._manifest)


def read_samples(path) -> "pa.Table":
    """All stored samples: prompt_id, sample, completion, reward and what else was kept."""
    import pyarrow as pa

    shards = storage.read_json(Path(path) / "manifest.json")["shards"]
    for shard in shards:
        if storage.sha256(Path(path) / shard["samples"]) != shard["samples_sha256"]:
            raise DataError(
                f"{Path(path) / shard['samples']} is not the file that was written: its checksum "
                f"differs from the manifest's. Remove {path} and calibrate again."
            )
    return pa.concat_tables([storage.read_table(Path(path) / s["samples"]) for s in shards])
