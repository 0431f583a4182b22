"""Whether a calibration store that a user names is of the reward and of the prompts in use."""

import logging
from collections.abc import Sequence
from typing import Any

from infalign import _check
from infalign.collection.lending import Lender
from infalign.errors import DataError
from infalign.models.fingerprints import reward_fingerprint
from infalign.models.precision import Dtype
from infalign.prompts import Prompt, fingerprint
from infalign.stores import CalibrationStore
from infalign.stores.prompt_sets import is_fingerprint

__all__ = ["require_made_for"]

LOG = logging.getLogger(__name__)

COLUMNS = "these columns of the prompts, which it does not record"
CONTENT = "these prompts, whose ids alone are compared"
"""What a store may not be of, if it does not say."""


def require_made_for(
    store: CalibrationStore,
    reward: str | None,
    prompts: Sequence[Prompt] | None,
    *,
    dtype: Dtype = "auto",
    trust_remote_code: bool = False,
) -> None:
    """Check that a store was made with this reward and with these prompts, by their content.

    - `reward`: a specification for `load_reward`; None for a function, which has no fingerprint.
    - `prompts`: those that the store lacks are passed over. None if they are not known.

    Raises DataError if it was not. A warning says what the store does not record.
    """
    unknown: list[str] = []
    if reward is None or "reward" not in store.provenance:
        unknown.append("this reward")
    else:
        loading: dict[str, Any] = {"dtype": dtype, "trust_remote_code": trust_remote_code}
        store.require(reward=reward_fingerprint(reward, **loading))
    own = [p for p in prompts or () if p.id in store]
    if own:
        unknown += _unrecorded(store, reward, own)
    if unknown:
        LOG.warning("The calibration store may not be of %s.", " or of ".join(unknown))


def _unrecorded(store: CalibrationStore, reward: str | None, own: Sequence[Prompt]) -> list[str]:
    """What a store does not record of these of its prompts. Raises DataError if what it records is
    other content."""
    stated = store.provenance.get("prompts")
    together = len(own) == len(store) and is_fingerprint(stated)
    if together and stated == fingerprint(own, reward):
        return []
    if together and stated == fingerprint(own):
        return [COLUMNS]
    folder = store.rewards.folder
    lender = None if folder is None else Lender.open(folder, own, reward)
    changed = None if lender is None else lender.changed
    if lender is not None and changed == []:
        return [] if reward is None or all(lender.is_scored(p.id) for p in own) else [COLUMNS]
    if changed is None and not (together and reward is not None):
        return [CONTENT]
    which = f"Some of the {len(own):,} prompts have"
    if changed:
        first = _check.short(changed[0].id)
        which = f"{len(changed):,} of {len(own):,} prompts, first {first}, have"
    raise DataError(
        f"{which} other messages than those of the same ids in the calibration store, or other "
        "columns that the reward reads. Calibrate again on these prompts, or give those that were "
        "calibrated."
    )
