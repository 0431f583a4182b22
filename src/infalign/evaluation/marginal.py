"""KL of the quantile marginal: what a policy's KL has bought."""

import numpy as np

from infalign import _check
from infalign.calibration.ranks import ranks


def marginal_kl(policy_rewards, reference_rewards) -> float:
    """∫ f log f in nats, f the density of the policy's quantiles, pooled over prompts.

    By data processing no policy spends less KL on its sequences than this; the ratio of the two is
    the KL efficiency, 1 for the exact tilt. f is the share of policy samples in each of the K + 1
    cells that a prompt's reference samples cut the axis into, ties split evenly. Cells blur f,
    which lowers the result; counting N samples raises it by about K / 2N.

    - `policy_rewards`, `reference_rewards`: shape (prompts, m) and (prompts, K), finite, any scale.

    Raises ValueError for other shapes or values.

    >>> marginal_kl([[5.0, 5.0]], [[1.0]])                  # all above: log 2
    0.6931471805599453
    """
    policy = _check.finite_rewards("policy_rewards", policy_rewards)
    reference = np.sort(_check.finite_rewards("reference_rewards", reference_rewards), axis=1)
    if len(policy) != len(reference):
        raise ValueError(
            f"`policy_rewards` and `reference_rewards` must have one row per prompt each; "
            f"got {len(policy)} and {len(reference)} rows."
        )
    steps = np.zeros(reference.shape[1] + 2)  # a sample adds its share from its first cell on …
    for row, known in zip(policy, reference, strict=True):
        first, last = ranks(known, row)
        share = 1 / (last - first + 1)
        np.add.at(steps, first, share)
        np.subtract.at(steps, last + 1, share)  # … and no more behind its last
    counts = np.cumsum(steps)[:-1]
    f = counts / counts.mean()
    return float(np.mean(f * np.log(np.where(f > 0, f, 1))))
