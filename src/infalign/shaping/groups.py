"""Groups of responses to one prompt, as a batch has them one after the other."""

from collections.abc import Sequence

import numpy as np

from infalign.errors import DataError


def whole_groups(prompt_ids: Sequence[str]) -> int:
    """Responses in a group, as the shortest run of one prompt has; 0 if not all groups are whole.

    A prompt may come twice in a row, so other runs may be multiples of it.
    """
    runs = _runs(prompt_ids)[1]
    return 0 if (runs % runs.min()).any() else int(runs.min())


def group_size(prompt_ids: Sequence[str], group: int | None = None) -> int:
    """Responses in a group: as said, or as the shortest run of one prompt has.

    Raises DataError unless all groups are whole, one after the other.
    """
    starts, runs = _runs(prompt_ids)
    m = group or int(runs.min())
    for start, run in zip(starts, runs, strict=True):
        if run % m:
            raise DataError(
                f"Groups of {m} completions of one prompt are needed, one after the other; "
                f"prompt {prompt_ids[start]!r} has {run}, from completion {start} of "
                f"{len(prompt_ids)} on. Let `num_generations` be the size of a group, and "
                "`per_device_train_batch_size` a multiple of it, so that none is split "
                "between processes."
            )
    return m


def _runs(prompt_ids: Sequence[str]) -> tuple[list[int], np.ndarray]:
    """Where runs of one prompt start, and how long they are."""
    ids = list(prompt_ids)
    starts = [i for i in range(len(ids)) if i == 0 or ids[i] != ids[i - 1]]
    return starts, np.diff([*starts, len(ids)])
