"""Majority vote (self-consistency) from sampled answers, exact over all n-subsets.

Drawing n of m samples without replacement, the counts of the answers are multivariate
hypergeometric: independent binomial counts with chance n/m each, given that they sum to n. So the
chance that answer l wins with c votes is a coefficient of a product over answers, as with
replacement in `infalign.finite`,

    P(l wins with c) ∝ [zⁿ] p_c(l) z^c ∏_{k≠l} (Σ_{i<c} p_i(k) z^i + t p_c(k) z^c), averaged over t,

where p_i(k) is the binomial chance of i votes for k, and t, uniform on [0, 1], breaks ties evenly.
"""

from typing import Any

import numpy as np
from numpy.polynomial import legendre
from scipy.special import gammaln, xlog1py, xlogy

from infalign import _check
from infalign.errors import ArgumentError

from .laws import drawn
from .selected import zero_or_one
from .uncertainty import EITHER_WAY, AbstractInterval, Estimate, over_prompts

__all__ = ["majority_vote", "vote_chances"]

CHUNK = 2**22
"""Complex numbers held in memory for one product over answers."""


def majority_vote(answers, correct, n: int, *, interval: AbstractInterval = EITHER_WAY) -> Estimate:
    """Accuracy of the most frequent answer among n samples, with ties broken at random.

    - `answers`: shape (prompts, m), any hashable values, compared by equality. None is a sample
      without an answer, which does not vote; so are nan and pandas' NA. An empty text is an answer.
      If no sample votes, there is no answer, which counts as wrong.
    - `correct`: 0 or 1, or booleans, same shape: whether each answer is right. Equal answers of a
      prompt have the same value, and samples without an answer have 0; nan marks a sample that was
      not drawn.
    - `n`: samples drawn, at most the m of every prompt.
    - `interval`: the method for the interval.

    Source: Wang et al., Self-consistency improves chain of thought reasoning, arXiv:2203.11171.

    >>> vote = majority_vote([["7", "7", "3", None]], [[1, 1, 0, 0]], 3)
    >>> round(vote.value, 9)  # 7 wins two draws of four, and ties with 3 in the others
    0.75
    """
    n = _check.count("n", n)
    answers = _table(answers)
    correct = zero_or_one("correct", correct)
    if answers.shape != correct.shape:
        raise ValueError(
            "`answers` and `correct` must have the same shape (prompts, samples); "
            f"got {answers.shape} and {correct.shape}."
        )
    samples = drawn(correct)
    short = np.flatnonzero(samples < n)
    if short.size:
        raise ValueError(
            f"A majority of {n} needs at least {n} samples per prompt in `correct`; prompt "
            f"{short[0]} has {samples[short[0]]} ({short.size} of {samples.size} prompts are "
            "short). Draw more samples, or use a smaller n."
        )
    ballots = [_ballot(row, a, c) for row, (a, c) in enumerate(zip(answers, correct, strict=True))]
    width = max(1, max(votes.size for votes, _ in ballots))
    votes = np.array([np.pad(v, (0, width - v.size)) for v, _ in ballots])
    right = np.array([np.pad(r, (0, width - r.size)) for _, r in ballots])
    accuracy = _wins(votes, right, samples, n).sum(1)
    return over_prompts(accuracy, bounds=(0, 1), interval=interval)


def vote_chances(answers, n: int) -> np.ndarray:
    """Chance that a majority vote of n selects each sample, in the shape of `answers`.

    The vote selects at random one of the drawn samples with the winning answer, or any drawn sample
    if none of them votes. Rows sum to 1.

    - `answers`: shape (prompts, m), as for `majority_vote`; all m samples were drawn.

    >>> vote_chances([["7", "7", "3", None]], 3).round(3).tolist()
    [[0.375, 0.375, 0.25, 0.0]]
    """
    n = _check.count("n", n)
    answers = _table(answers)
    prompts, m = answers.shape
    if m < n:
        raise ValueError(f"A majority of {n} needs at least {n} `answers` per prompt; got {m}.")
    own = np.zeros(answers.shape, int)  # the number of the sample's answer, from 1; 0 means no vote
    for row, given in enumerate(answers):
        numbers: dict = {}
        for column, answer in enumerate(given):
            if not _silent(answer):
                own[row, column] = numbers.setdefault(answer, len(numbers) + 1)
    votes = np.stack([np.bincount(row, minlength=own.max() + 1) for row in own])
    silent, votes = votes[:, 0], votes[:, 1:]
    selected = np.zeros((prompts, votes.shape[1] + 1))  # chance of a sample with each answer
    # No sample votes if all n are drawn from the silent ones.
    no_votes = np.prod((silent[:, None] - np.arange(n)) / (m - np.arange(n)), axis=1)
    selected[:, 0] = np.where(silent >= n, no_votes, 0) / np.maximum(silent, 1)
    if votes.size:
        wins = _wins(votes, votes > 0, np.full(prompts, m), n)
        selected[:, 1:] = wins / np.maximum(votes, 1)
    return np.take_along_axis(selected, own, axis=1)


def _table(answers) -> np.ndarray:
    """`answers` as an array of objects, shape (prompts, samples); an answer may itself be a tuple.

    Raises ArgumentError for rows of different lengths, and for answers that cannot be compared.
    """
    rows = [_check.entries("answers", row) for row in _check.entries("answers", _plain(answers))]
    lengths = {len(row) for row in rows}
    if not rows or lengths == {0}:
        raise ArgumentError("answers", "must hold at least one row of answers; got none.")
    if len(lengths) > 1:
        other = next(i for i, row in enumerate(rows) if len(row) != len(rows[0]))
        raise ArgumentError(
            "answers",
            f"must have equally many samples for every prompt; prompt 0 has {len(rows[0])} and "
            f"prompt {other} has {len(rows[other])}. Fill the missing ones with None, and "
            "`correct` with nan there.",
        )
    table = np.empty((len(rows), len(rows[0])), dtype=object)
    for place in np.ndindex(table.shape):
        answer = table[place] = rows[place[0]][place[1]]
        try:
            hash(answer)
        except TypeError:
            raise ArgumentError(
                "answers",
                f"must hold hashable values, such as texts, numbers and tuples; got "
                f"{_check.short(answer)} at prompt {place[0]}, sample {place[1]}. Make it a tuple.",
            ) from None
    return table


def _plain(values: Any) -> Any:
    """Arrays, tensors and tables as lists of Python's own values."""
    try:
        if hasattr(values, "to_numpy") and not hasattr(values, "to_pylist"):  # pandas, not Arrow
            values = values.to_numpy()
        return values.tolist() if hasattr(values, "tolist") else values
    except Exception as error:  # of a library that is not known here
        problem = f"cannot be read ({type(error).__name__}: {error})."
        raise ArgumentError("answers", problem) from None


def _silent(answer) -> bool:
    """Whether a sample has no answer: None, nan, or a missing value of pandas."""
    return answer is None or type(answer).__name__ in ("NAType", "NaTType") or answer != answer


def _ballot(row: int, answers, correct) -> tuple[np.ndarray, np.ndarray]:
    """The votes of each answer of a prompt, and whether it is right."""
    votes: dict = {}
    for column, (answer, verdict) in enumerate(zip(answers, correct, strict=True)):
        silent = _silent(answer)
        if verdict == 1 if silent else np.isnan(verdict):
            raise ValueError(
                f"`correct` must be 0 where a sample gives no answer, and nan only where none was "
                f"drawn; got {verdict:g} for {answer!r} at prompt {row}, sample {column}."
            )
        if not silent:
            votes.setdefault(answer, []).append(verdict)
    for answer, verdicts in votes.items():
        if min(verdicts) != max(verdicts):
            raise ValueError(
                f"`correct` must be the same for equal answers; got both 0 and 1 for {answer!r} at "
                f"prompt {row} ({int(sum(verdicts))} of {len(verdicts)} are 1). Compare answers in "
                "a form in which equal ones are equal."
            )
    return (
        np.array([len(v) for v in votes.values()], dtype=int),
        np.array([v[0] == 1 for v in votes.values()], dtype=bool),
    )


def _wins(votes, asked, samples, n: int) -> np.ndarray:
    """Chance that each answer in `asked` wins, 0 for the others, shape (prompts, answers).

    - `votes`: samples that give each answer, (prompts, answers); 0 where a prompt has fewer.
    - `asked`: the answers whose chance is computed, (prompts, answers).
    - `samples`: number of samples of each prompt, those without an answer included.
    """
    points = int(samples.max()) + 1  # the products have no power above m
    rows = max(1, CHUNK // (points * votes.shape[1] * max(1, (n + 3) // 4)))
    parts = [slice(i, i + rows) for i in range(0, len(votes), rows)]
    return np.concatenate([_winning(votes[p], asked[p], samples[p], n, points) for p in parts])


def _winning(votes, asked, samples, n, points):
    chance = (n / samples)[:, None]
    silent = samples[:, None] - votes.sum(1, keepdims=True)
    z = np.exp(2j * np.pi * np.arange(points) / points)
    # The coefficient of zⁿ is the discrete Fourier transform of the product at roots of unity;
    # dividing by P(Bin(m, n/m) = n) conditions on n drawn samples. Shape (prompts, points).
    coefficient = z**-n / points / _binomial(n, samples[:, None], chance)
    coefficient = coefficient * (1 - chance + chance * z) ** silent
    z, fewer = z[:, None], np.zeros((1, 1, 1, 1), complex)  # (prompts, nodes, points, answers)
    counts, chance = votes[:, None, None], chance[:, None, None]
    wins = np.zeros(votes.shape)
    for c in range(1, min(n, votes.max()) + 1):
        fewer = fewer + _binomial(c - 1, counts, chance) * z ** (c - 1)
        ties = _binomial(c, counts, chance) * z**c
        # At most n/c answers tie, so the average over t is of polynomials of degree n/c - 1.
        t, average = legendre.leggauss((min(votes.shape[1], n // c) + 1) // 2)
        factor = fewer + ((1 + t) / 2)[:, None, None] * ties
        for place in range(votes.shape[1]):
            own = asked[:, place] & (votes[:, place] >= c)
            if own.any():
                others = np.delete(factor[own], place, axis=-1).prod(-1)
                with_c = (average / 2) @ others * ties[own, 0, :, place] * coefficient[own]
                wins[own, place] += with_c.real.sum(1)
    return wins


def _binomial(i, n, p):
    """Binomial chance of i successes in n, each with chance p; 0 for i > n."""
    i = np.minimum(i, n + 1)
    possible = i <= n
    j = np.where(possible, i, n)
    ways = gammaln(n + 1.0) - gammaln(j + 1.0) - gammaln(n - j + 1.0)
    return np.where(possible, np.exp(ways + xlogy(j, p) + xlog1py(n - j, -p)), 0.0)
