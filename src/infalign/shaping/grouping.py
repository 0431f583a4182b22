"""Groups of consecutive responses to one prompt in a batch."""

from collections.abc import Sequence

import numpy as np

from infalign import _check
from infalign.errors import DataError

__all__ = ["group_size", "whole_groups"]


def whole_groups(prompt_ids: Sequence[str]) -> int:
    """Number of responses in a group, inferred from the shortest run of one prompt; 0 unless all
    groups are complete.

    Longer runs may be multiples of it, since a batch can contain two groups of one prompt in a row.
    """
    _, runs = _runs(prompt_ids)
    return 0 if (runs % runs.min()).any() else int(runs.min())


def group_size(prompt_ids: Sequence[str], group: int | None = None) -> int:
    """Number of responses in a group: `group`, or by default the length of the shortest run of one
    prompt.

    Raises DataError unless every group is complete.
    """
    starts, runs = _runs(prompt_ids)
    m = int(runs.min()) if group is None else _check.count("group", group)
    for start, run in zip(starts, runs, strict=True):
        if run % m:
            raise DataError(
                f"Groups of {m} completions of one prompt are needed, one after the other; "
                f"prompt {prompt_ids[start]!r} has {run}, from completion {start} of "
                f"{len(prompt_ids)} on. Let `num_generations` be the size of a group, and "
                "`per_device_train_batch_size` a multiple of it, so that no group is split "
                "between processes."
            )
    return m


def _runs(prompt_ids: Sequence[str]) -> tuple[list[int], np.ndarray]:
    """The start and the length of each run of one prompt."""
    ids = list(prompt_ids)
    starts = [i for i in range(len(ids)) if i == 0 or ids[i] != ids[i - 1]]
    return starts, np.diff([*starts, len(ids)])
