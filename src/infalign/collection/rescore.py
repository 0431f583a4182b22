"""Rescoring of stored responses: is the current reward still that of the calibration?"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from infalign import _check
from infalign.calibration.diagnostics import Drift, drift
from infalign.errors import DataError
from infalign.models.interfaces import Scorer
from infalign.prompts import Prompt, require_scorable, score_responses
from infalign.stores.manifest import read_manifest, require_finished
from infalign.stores.ragged import rectangle
from infalign.stores.shards import read_shard_samples

__all__ = ["rescore"]


def rescore(
    folder: Path, prompts: Sequence[Prompt], scorer: Scorer, *, most: int, rng: np.random.Generator
) -> Drift:
    """Rescore the responses to some of a store's prompts, and compare.

    - `prompts`: the prompts of the store, which has only their ids; other prompts are ignored.
    - `most`: number of prompts whose responses are scored, chosen at random, shard by shard.

    Raises DataError for stores without samples, and for stored prompts that are not in `prompts`.
    """
    _check.count("most", most)
    manifest = read_manifest(folder)
    require_finished(folder, manifest)
    shards = manifest["samples"]
    if not shards:
        raise DataError(f"{folder} holds rewards only: there are no responses to score again.")
    require_scorable(scorer, prompts)
    known = {prompt.id: prompt for prompt in prompts}
    stored: list[np.ndarray] = []
    again: list[np.ndarray] = []
    for number in rng.permutation(len(shards)):
        table = read_shard_samples(folder, shards[number], ["prompt_id", "completion", "reward"])
        ids = np.array(table["prompt_id"].to_pylist(), object)
        for prompt_id in rng.permutation(np.unique(ids))[: most - len(stored)]:
            if prompt_id not in known:
                raise DataError(
                    f"prompt_id {prompt_id!r} of {folder} is not among the {len(known)} prompts "
                    "given. Give the prompts of the collection."
                )
            own = table.filter(ids == prompt_id)
            stored.append(own["reward"].to_numpy())
            texts = own["completion"].to_pylist()
            again += score_responses(scorer, [known[prompt_id]], [texts])
        if len(stored) == most:
            break
    return drift(rectangle(stored), rectangle(again))
