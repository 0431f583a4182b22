"""The chance of each sample to be the one that a procedure keeps.

Averaged over all ways to draw the procedure's responses from the samples of a prompt. Whatever is
asked of the kept response (its reward, another reward, its length) is a mean over the samples with
these weights.
"""

import numpy as np

from infalign import _check
from infalign.core import AbstractProcedure, finite_rewards

from .laws import calibrated, drawn, law


def selection_chances(rewards, procedure: AbstractProcedure, *, calibration=None) -> np.ndarray:
    """Chance of each sample to be kept by `procedure`, shape of `rewards`; rows sum to 1.

    Tied samples share their chance evenly; a sample that was not drawn (nan) has none.

    - `calibration`: as in `win_rate`.

    Raises ValueError for a prompt with fewer samples than the procedure draws.

    >>> from infalign import BestOfN
    >>> selection_chances([[5.0, 1.0, 3.0]], BestOfN(2)).round(3).tolist()
    [[0.667, 0.0, 0.333]]
    """
    rewards = finite_rewards("rewards", rewards, missing=True)
    sizes = drawn(rewards)
    _check.enough_samples("rewards", sizes, procedure.draws, procedure)
    known = calibrated(calibration, rewards, procedure)
    order = np.argsort(rewards, axis=1)  # nan last
    ranked = np.take_along_axis(rewards, order, axis=1)
    chances = np.zeros_like(rewards)
    for m in np.unique(sizes):
        rows = sizes == m
        own = law(procedure, ranked[rows, :m], None if known is None else known[rows])
        share = np.zeros((rows.sum(), rewards.shape[1]))
        share[:, :m] = _shared_by_ties(ranked[rows, :m], np.atleast_2d(own))
        np.put_along_axis(placed := np.empty_like(share), order[rows], share, axis=1)
        chances[rows] = placed
    return chances


def _shared_by_ties(ranked, law):
    """What each of the ranked samples gets of `law`, tied ones the same."""
    m = ranked.shape[1]
    rises = np.diff(ranked, axis=1) > 0
    edge = np.ones((len(ranked), 1), bool)
    first = np.maximum.accumulate(np.where(np.hstack([edge, rises]), np.arange(m), 0), axis=1)
    ends = np.where(np.hstack([rises, edge]), np.arange(1, m + 1), m)
    last = np.minimum.accumulate(ends[:, ::-1], axis=1)[:, ::-1]
    law = np.broadcast_to(law, (len(ranked), m + 1))
    up_to, below = (np.take_along_axis(law, place, axis=1) for place in (last, first))
    return (up_to - below) / (last - first)
