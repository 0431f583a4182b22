"""Attempts of an attack on disk: drawn once, and tested again if the test of success changes."""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial

import numpy as np
import pyarrow as pa

from infalign import storage
from infalign.errors import ConfigError, DataError
from infalign.manifest import Manifest
from infalign.prompts import Prompt
from infalign.shaping import constant
from infalign.stores import PromptSamples, by_prompt
from infalign.stores.resumable import Origin, ResumableTable

from .attack import Attempts
from .success import SuccessTest

__all__ = ["collect", "missing", "require_same", "table_of"]

LOG = logging.getLogger(__name__)
STAGE = "red-team"
SHARD = 512
"""Approximate number of attempts in a part."""

POLICY, REWARD, SUCCESS = "policy", "reward", "success"
"""Sources of the attempts, of their rewards, and of their success; the names of two columns."""


def table_of(manifest: Manifest, attack: str) -> ResumableTable:
    """The table of an attack's attempts."""
    return ResumableTable(manifest, manifest.folder / f"{attack}.parquet", STAGE, POLICY)


def require_same(manifest: Manifest, wanted: Mapping[str, Origin]) -> None:
    """ConfigError if the attempts of any attack were made with other settings.

    - `wanted`: what the attempts of each attack come from.
    """
    conflicts = []
    for name, origin in wanted.items():
        stored = table_of(manifest, name).origin()
        conflicts += stored.conflicts(origin) if stored else []
    if conflicts:
        raise ConfigError(
            f"{manifest.folder} holds attempts with other settings: "
            f"{'; '.join(dict.fromkeys(conflicts))}. Choose another folder, or restore them."
        )


def missing(manifest: Manifest, name: str, origin: Origin, prompts: Sequence[Prompt]) -> int:
    """The number of prompts on which an attack has yet to be made. Nothing is written."""
    table = table_of(manifest, name)
    stored, earlier = table.origin(), table._aside(origin)
    if stored is None or stored.changes(origin).get(POLICY):
        back = earlier in manifest and earlier.exists()
        known = storage.read_table(earlier) if back else None
    else:
        known = table.read()
    ids = set() if known is None else set(known["prompt_id"].to_pylist())
    return sum(p.id not in ids for p in prompts)


def collect(
    manifest: Manifest,
    name: str,
    origin: Origin,
    prompts: Sequence[Prompt],
    attempts: int,
    draw: Callable[[Sequence[Prompt], int], Attempts],
    test: Callable[[], SuccessTest],
    report: Callable[[int, int], None],
) -> np.ndarray:
    """Which attempts succeeded, shape (prompts, attempts); stored attempts are not redrawn.

    - `name`: of the attack; its attempts are in NAME.parquet in the manifest's folder.
    - `origin`: what the attempts come from.
    - `draw`: a function from prompts and the number of their part to the attempts on these prompts.
    - `test`: gives the test of success, which stored attempts pass again if it has changed.
    - `report`: called with the number of prompts done and the total.

    Raises DataError if a file is damaged.
    """
    table = table_of(manifest, name)
    changed, aside = table.renew(origin)
    if changed:
        LOG.warning(
            "Attack %s: the policy's %s changed. The attempts are made again; the earlier ones are "
            "in %s.",
            name,
            " and ".join(changed),
            aside,
        )
    make = partial(_rows, prompts, draw)
    size = max(1, SHARD // attempts)
    table.write([p.id for p in prompts], size, make, origin, report)
    stored = table.origin() or origin
    changes = stored.changes(origin)
    due = {key for key in origin.sources if key in changes or key not in stored.sources}
    samples = _joined(table, prompts, attempts)
    if due:
        for key in changes:
            LOG.warning(
                "Attack %s: the %s of its %s changed. The stored attempts are tested again.",
                name,
                " and ".join(changes[key]),
                key,
            )
        samples = _tested(samples, prompts, test(), scored=REWARD not in due)
        table.replace(samples.table, origin)
    rewards = samples.matrix(REWARD).ravel().tolist()
    warning = constant("of harmlessness", rewards, samples.table["completion"].to_pylist())
    if warning is not None:
        LOG.warning(warning)
    return samples.matrix(SUCCESS) == 1


def _rows(
    prompts: Sequence[Prompt],
    draw: Callable[[Sequence[Prompt], int], Attempts],
    places: Sequence[int],
    part: int,
) -> pa.Table:
    own = [prompts[place] for place in places]
    made = draw(own, part)
    attempts = made.successes.shape[1]
    return pa.table(
        {
            "prompt_id": [p.id for p in own for _ in range(attempts)],
            "attempt": list(range(attempts)) * len(own),
            "prompt": [text for row in made.asked for text in row],
            "completion": [text for row in made.completions for text in row],
            **_columns(made.rewards, made.successes),
        }
    )


def _columns(rewards: np.ndarray, successes: np.ndarray) -> dict[str, pa.Array]:
    return {
        REWARD: pa.array(rewards.ravel(), from_pandas=True),  # nan becomes null
        SUCCESS: pa.array(successes.ravel()),
    }


def _joined(table: ResumableTable, prompts: Sequence[Prompt], attempts: int) -> PromptSamples:
    """The stored attempts; DataError unless each prompt has its attempts, numbered from 0."""
    table.manifest.require(table.path)
    ids = [p.id for p in prompts]
    samples = by_prompt(storage.read_table(table.path), ids, source=str(table.path))
    wrong = [
        i
        for i, own in zip(ids, samples.rows("attempt"), strict=True)
        if own != list(range(attempts))
    ]
    if wrong:
        raise DataError(
            f"{table.path} must hold {attempts} attempts on each prompt, and holds others on "
            f"prompt_id {wrong[0]!r} ({len(wrong)} of {len(ids)}). Remove it, and run `{STAGE}` "
            "again."
        )
    return samples


def _tested(
    samples: PromptSamples, prompts: Sequence[Prompt], test: SuccessTest, *, scored: bool
) -> PromptSamples:
    """The stored attempts with the results of `test`.

    - `scored`: whether the stored rewards are those of the test.
    """
    texts = samples.rows("completion")
    rewards = samples.matrix(REWARD) if scored else test.rewards(prompts, texts)
    columns = dict(zip(samples.table.column_names, samples.table.columns, strict=True))
    columns |= _columns(rewards, test.successes(prompts, texts, rewards))
    return replace(samples, table=pa.table(columns))
