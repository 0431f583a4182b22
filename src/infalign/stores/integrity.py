"""Integrity of a store: every file is read and compared with the manifest and the others."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from infalign import storage
from infalign._look import Shown
from infalign.errors import DataError

from .manifest import held, read_manifest, require_finished
from .ragged import sort_each
from .samples import read_samples
from .shards import open_rewards, read_columns, read_shard_samples, require_file
from .sorted_rewards import stored_rewards

__all__ = ["Integrity", "check"]


@dataclass(frozen=True)
class Integrity(Shown):
    """The result of `check`."""

    path: Path
    problems: tuple[str, ...]
    """One sentence per problem; empty if the store is intact."""

    prompts: int
    """Number of prompts in the manifest."""

    rewards: int
    samples: int
    """Numbers of rewards, and of responses with text, in the intact files."""

    @property
    def whole(self) -> bool:
        """Whether there is no problem."""
        return not self.problems

    def require(self) -> None:
        """Raise DataError with the first problem, if there is one."""
        if self.problems:
            raise DataError(self.problems[0])


def check(path: Path | str) -> Integrity:
    """Read every file of a store and compare it with the manifest and with the others.

    Detects changed bytes; missing or truncated files, and files of another store; wrong counts;
    rewards that are not sorted or not finite; rewards that a Parquet reader sees differently from
    look-ups; duplicate prompts; samples whose rewards differ from the store's; and unfinished
    collections.
    """
    path = Path(path)
    try:
        manifest = read_manifest(path)
    except DataError as error:
        return Integrity(path, (str(error),), 0, 0, 0)
    problems: list[str] = []
    rewards = [s for s in manifest["rewards"] if _passes(_check_rewards, path, s, problems)]
    samples = [s for s in manifest["samples"] if _passes(_check_samples, path, s, problems)]
    if not problems and _passes(_check_prompts, path, manifest, problems):
        _passes(_check_agreement, path, manifest, problems)
    return Integrity(
        path,
        tuple(problems),
        held(manifest),
        sum(s["values"] for s in rewards),
        sum(s["samples"] for s in samples),
    )


def _passes(look, path: Path, what: dict, problems: list[str]) -> bool:
    try:
        look(path, what)
    except DataError as error:
        problems.append(str(error))
        return False
    return True


def _check_rewards(path: Path, shard: dict) -> None:
    file = require_file(path, shard)
    ids, rows = open_rewards(path, shard)
    blocks = [rows.block(number) for number in range(len(rows.blocks) - 1)]  # verified when read
    values = np.concatenate([values for values, _ in blocks])
    if storage.sha256(file) != shard["sha256"] or len(values) != shard["values"]:
        raise _disagrees(file, "its checksum or its number of rewards differs")
    if len(ids) != shard["prompts"] or ids.null_count:
        raise _disagrees(
            file, f"it has {len(ids) - ids.null_count}   prompts, not the number stated"
        )
    prompt = np.repeat(np.arange(len(ids)), rows.counts)
    wrong = np.flatnonzero(~np.isfinite(values))
    if wrong.size:
        first = ids[int(prompt[wrong[0]])].as_py()
        raise DataError(
            f"{file} holds {values[wrong[0]]:g} for prompt_id {first!r} ({wrong.size} of "
            f"{len(values)} rewards are not finite). Calibrate these prompts again."
        )
    falls = np.flatnonzero((values[1:] < values[:-1]) & (prompt[1:] == prompt[:-1]))
    if falls.size:
        first = ids[int(prompt[falls[0]])].as_py()
        raise DataError(
            f"{file} holds rewards of prompt_id {first!r} that are not "
            f"sorted ({len(np.unique(prompt[falls]))} of {len(ids)} prompts). Look-ups would be "
            "wrong: calibrate these prompts again."
        )
    lists = read_columns(file, ["rewards"])["rewards"].combine_chunks()
    seen = lists.flatten().to_numpy()
    if not np.array_equal(seen, values) or len(lists) != len(ids):
        raise _disagrees(file, "a Parquet reader sees different rewards than look-ups do")


def _check_samples(path: Path, shard: dict) -> None:
    table = read_shard_samples(path, shard, ["prompt_id", "sample", "reward"])
    if len(table) != shard["samples"]:
        raise _disagrees(path / shard["file"], f"it has {len(table)} samples")


def _check_prompts(path: Path, manifest: dict) -> None:
    require_finished(path, manifest)
    if held(manifest) > manifest["prompts"]:
        raise _disagrees(path, f"its shards hold {held(manifest)} prompts")
    stored_rewards(path, manifest)  # raises for duplicate ids


def _check_agreement(path: Path, manifest: dict) -> None:
    """Raise DataError unless the sorted rewards of the samples are those that look-ups use."""
    if not manifest["samples"]:
        return
    rewards = stored_rewards(path, manifest)
    table = read_samples(path, ["prompt_id", "reward"])
    positions = rewards.find(table["prompt_id"].to_pylist())
    raw = table["reward"].to_numpy()
    order = np.argsort(positions, kind="stable")
    counts = np.bincount(positions[positions >= 0], minlength=len(rewards))
    if (positions < 0).any() or not np.array_equal(counts, rewards.counts):
        raise _disagrees(path, "its samples are of other prompts or numbers than its rewards")
    stored = np.concatenate([values for values, _ in rewards.blocks()])
    other = np.flatnonzero(sort_each(raw[order], counts) != stored)
    if other.size:
        prompt = int(np.searchsorted(np.cumsum(counts), other[0], "right"))
        raise DataError(
            f"{path}: the samples of prompt_id {list(rewards)[prompt]!r} have other rewards than "
            f"look-ups use ({other.size} of {len(stored)} differ). Calibrate again."
        )


def _disagrees(what: Path, how: str) -> DataError:
    return DataError(f"{what} disagrees with its manifest: {how}. Calibrate again.")
