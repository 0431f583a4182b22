"""KL of the quantile marginal: the part of a policy's KL that moves the reward's quantiles.

Among K reference samples a quantile u is observed as a rank, which follows Bin(K, u). A histogram
of ranks blurs the density, and hides most of the KL of a steep one: with 32 samples the exact
best-of-8 optimum would show 0.35 of its 0.5 nats. But ranks estimate the moments E[u^a] without
bias even with few samples, and a single density has the least KL for given moments.
"""

import numpy as np
from scipy.special import gammaln

from infalign import _check
from infalign.core import finite_rewards, graded, ranks

__all__ = ["marginal_kl"]

STEPS = 200
"""Maximum number of Newton steps."""

DONE = 1e-10
"""Gain of a Newton step, in nats, below which the search has converged."""

RIDGE = 1e-9
"""Relative increase of the Hessian's diagonal: high moments are nearly collinear."""

ARMIJO = 1e-4
"""Share of the gain predicted by the slope that a step must achieve."""


def marginal_kl(policy_rewards, reference_rewards) -> float:
    """∫ f log f in nats, f the density of the policy's quantiles, averaged over prompts.

    By the data-processing inequality a policy's sequence KL is at least this large. The ratio of
    the two is the KL efficiency, which is 1 for the exact tilt. The estimate is the least KL of a
    density whose moments E[u^a] and E[(1 − u)^a], a = 1, 2, 4, … up to K/2, match those of the
    samples within their noise; it is too low for a density sharper than u^(K/2). The least-KL
    density is exp Σ θ_a u^a, and Newton's method on the concave dual finds it.

    - `policy_rewards`, `reference_rewards`: shape (prompts, m) and (prompts, K), finite, any scale.
      A tied reward is spread evenly over the ranks that it shares.

    Raises ValueError for other shapes or values.

    >>> rng = np.random.default_rng(0)
    >>> best_of_4 = rng.normal(size=(500, 16, 4)).max(-1)
    >>> print(f"{marginal_kl(best_of_4, rng.normal(size=(500, 32))):.2f}")  # log 4 − 3/4 = 0.64
    0.65
    """
    policy = finite_rewards("policy_rewards", policy_rewards)
    reference = np.sort(finite_rewards("reference_rewards", reference_rewards), axis=1)
    _check.paired_rows(policy_rewards=policy, reference_rewards=reference)
    shares = np.array([_shares(*pair) for pair in zip(policy, reference, strict=True)])
    (prompts, m), samples = policy.shape, reference.shape[1]
    powers = 2 ** np.arange(max(1, int(np.log2(samples))))
    panels = graded(12, 12)
    u, weights = panels.nodes.ravel(), panels.weights.ravel()
    features = _features(u, panels.from_1.ravel(), powers)
    each = shares @ _rank_moments(samples, powers)
    # Sampling noise of the moments under the uniform density, plus their spread between prompts.
    noise = _covariance(features, weights) * (1 / m + 1 / samples)
    if prompts > 1:
        noise = noise + np.cov(each.T)
    return _least_kl(each.mean(0), features, weights, noise / prompts)


def _shares(rewards: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """Share of one prompt's rewards in each of the K + 1 cells between its reference rewards."""
    first, last = ranks(reference, rewards)
    share = 1 / (last - first + 1)
    steps = np.zeros(len(reference) + 2)  # a sample's share starts at its first cell …
    np.add.at(steps, first, share)
    np.subtract.at(steps, last + 1, share)  # … and ends after its last
    return np.cumsum(steps)[:-1] / len(rewards)


def _features(u: np.ndarray, from_1: np.ndarray, powers: np.ndarray) -> np.ndarray:
    """u^a, then (1 − u)^a without the redundant a = 1; shape (nodes, moments)."""
    return np.hstack([u[:, None] ** powers, from_1[:, None] ** powers[1:]])


def _rank_moments(samples: int, powers: np.ndarray) -> np.ndarray:
    """Contribution of a rank j among K to each moment, shape (K + 1, moments).

    C(j, a)/C(K, a) is the chance that a of the K reference samples, drawn at random, all lie below
    the policy's sample. Its mean over j ~ Bin(K, u) is u^a.
    """
    rank = np.arange(samples + 1.0)

    def below(j, a):
        safe = np.maximum(j, a)
        log = gammaln(safe + 1) - gammaln(safe - a + 1)
        return np.where(j >= a, np.exp(log - gammaln(samples + 1) + gammaln(samples - a + 1)), 0)

    return np.stack(
        [*(below(rank, a) for a in powers), *(below(samples - rank, a) for a in powers[1:])], axis=1
    )


def _covariance(features: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Covariance of the features under a law on the nodes, shape (moments, moments)."""
    centered = features - weights @ features
    return centered.T @ (weights[:, None] * centered)


def _least_kl(moments, features, weights, noise) -> float:
    """Least KL from the uniform law of a density with these moments, within their noise.

    Dual: max_θ θ·m − log ∫ e^{θ·T} − θ·Σθ/2, concave and, thanks to Σ, bounded. At its maximum the
    density e^{θ·T}/Z misses the moments by Σθ.
    """
    theta = np.zeros(len(moments))

    def dual(theta):
        exponent = features @ theta
        top = exponent.max()
        density = weights * np.exp(exponent - top)
        total = density.sum()
        log_z = top + np.log(total)
        return theta @ moments - log_z - theta @ noise @ theta / 2, density / total, log_z

    value, law, log_z = dual(theta)
    for _ in range(STEPS):
        gradient = moments - law @ features - noise @ theta
        hessian = _covariance(features, law) + noise
        hessian[np.diag_indices_from(hessian)] *= 1 + RIDGE
        step = np.linalg.solve(hessian, gradient)
        gain, size = gradient @ step, 1.0
        if gain < DONE:
            break
        while size > DONE:
            tried = dual(theta + size * step)
            if tried[0] >= value + ARMIJO * size * gain:
                break
            size /= 2
        else:
            break  # no higher value, up to rounding
        theta, (value, law, log_z) = theta + size * step, tried
    return float(theta @ (law @ features) - log_z)
