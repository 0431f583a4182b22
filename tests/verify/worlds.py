"""Small worlds: every sequence of draws and every group of responses listed."""

from dataclasses import dataclass
from itertools import product

import numpy as np

import infalign as ia
from infalign.core import group_rewards

from .check import Errors, Family
from .places import Places, places, sequences, winner

MOST_DRAWS, MOST_OUTCOMES = 4, 4


@dataclass(frozen=True)
class Question:
    """A policy and a reference over a few outcomes."""

    reward: list[float]
    policy: list[float]
    reference: list[float]
    procedure: Places
    against: Places
    labels: list[int]
    votes: int
    spare: int
    """Responses in a group beyond those that the procedure draws."""

    def __repr__(self) -> str:
        return (
            f"reward={self.reward}, policy={self.policy}, reference={self.reference}, "
            f"{self.procedure}, against={self.against}, labels={self.labels}, n={self.votes}, "
            f"spare={self.spare}"
        )

    @property
    def group(self) -> int:
        return self.procedure.draws + self.spare


def draw(rng: np.random.Generator) -> Question:
    outcomes = int(rng.integers(2, MOST_OUTCOMES + 1))
    procedure = places(rng, MOST_DRAWS)
    against = procedure if rng.random() < 0.5 else places(rng, MOST_DRAWS)
    reward = [float(r) for r in rng.integers(0, 4, size=outcomes)]

    def chances() -> list[float]:
        drawn = rng.dirichlet(np.full(outcomes, rng.choice([0.5, 1, 5]))) + 1e-3
        drawn = np.round(drawn / drawn.sum(), 6)
        drawn[0] += 1 - drawn.sum()
        return drawn.tolist()

    labels = [int(v) for v in rng.integers(0, 3, size=outcomes)]
    votes, spare = int(rng.integers(1, 5)), int(rng.integers(1, 3))
    return Question(reward, chances(), chances(), procedure, against, labels, votes, spare)


def answer(q: Question) -> dict[str, np.ndarray]:
    procedure, against = q.procedure.procedure, q.against.procedure
    vote = ia.finite.MajorityVote(q.labels, q.votes)
    selected = ia.finite.selected(q.reward, q.policy, procedure)
    groups = np.array(list(product(range(len(q.policy)), repeat=q.group)))
    reward, utilities = np.array(q.reward), _wins(q, q.against.of_sequences(q.reward, q.reference))
    return {
        "calibrated reward": ia.finite.calibrated_reward(q.reward, q.reference),
        "selected law": selected,
        "KL of the selected law": np.array(ia.finite.kl(selected, q.policy)),
        "win rate": np.array(
            ia.finite.win_rate(q.reward, q.policy, q.reference, procedure, against=against)
        ),
        "coupled reward": ia.finite.coupled_reward(
            q.reward, q.policy, q.reference, procedure, against=against
        ),
        "majority vote": ia.finite.selected(q.reward, q.policy, vote),
        "coupled reward of a vote": ia.finite.coupled_reward(
            q.reward, q.policy, q.reference, vote, against=against
        ),
        "gradient of groups": _mean_gradient(
            q, groups, group_rewards(reward[groups], utilities[groups], procedure)
        ),
    }


def judge(q: Question, answers: dict[str, np.ndarray]) -> Errors:
    policy = np.array(q.policy)
    selected = q.procedure.of_sequences(q.reward, q.policy)
    wins = _wins(q, q.against.of_sequences(q.reward, q.reference))
    slope = _slope(q, wins, _chosen(q))
    vote_slope = _slope(q, wins, [(1.0, q.votes, _voted(q))])
    positive = selected > 0
    truth = {
        "calibrated reward": _wins(q, np.array(q.reference)),
        "selected law": selected,
        "KL of the selected law": (
            selected[positive] * np.log(selected[positive] / policy[positive])
        ).sum(),
        "win rate": selected @ wins,
        "coupled reward": slope - policy @ slope + selected @ wins,
        "majority vote": _voted_law(q),
        "coupled reward of a vote": vote_slope - policy @ vote_slope + _voted_law(q) @ wins,
        # With logits as parameters, ∂W/∂logit = π (∂W/∂π − its mean).
        "gradient of groups": policy * (slope - policy @ slope),
    }
    return {name: float(np.abs(own - truth[name]).max()) for name, own in answers.items()}


def _wins(q: Question, law: np.ndarray) -> np.ndarray:
    """Chance of each outcome to beat one drawn from a law; ties count one half."""
    r = np.array(q.reward)
    return ((r[:, None] > r) + (r[:, None] == r) / 2) @ law


def _chosen(q: Question):
    """(chance, n, choice) of each part, choice: sequence → chance of each outcome."""

    def choice(n: int, k: int):
        def chosen(drawn: tuple[int, ...]) -> dict[int, float]:
            value = sorted(q.reward[y] for y in drawn)[n - k]
            tied = [y for y in drawn if q.reward[y] == value]
            return {y: tied.count(y) / len(tied) for y in set(tied)}

        return chosen

    return [(chance, n, choice(n, k)) for chance, n, k in q.procedure.parts]


def _voted(q: Question):
    def chosen(drawn: tuple[int, ...]) -> dict[int, float]:
        chances = dict.fromkeys(drawn, 0.0)
        for label, chance in winner([q.labels[y] for y in drawn]).items():
            own = [y for y in drawn if q.labels[y] == label]
            for y in own:
                chances[y] += chance / len(own)
        return chances

    return chosen


def _voted_law(q: Question) -> np.ndarray:
    law = np.zeros(len(q.policy))
    for drawn, weight in sequences(q.policy, q.votes):
        for y, chance in _voted(q)(drawn).items():
            law[y] += weight * chance
    return law


def _slope(q: Question, wins: np.ndarray, parts) -> np.ndarray:
    """∂W/∂π of the sum over sequences: each draw in turn is fixed to the outcome."""
    slope = np.zeros(len(q.policy))
    for chance, n, choice in parts:
        for drawn, weight in sequences(q.policy, n):
            won = sum(p * wins[y] for y, p in choice(drawn).items())
            for y in drawn:
                slope[y] += chance * won * weight / q.policy[y]
    return slope


def _mean_gradient(q: Question, groups: np.ndarray, rewards: np.ndarray) -> np.ndarray:
    """Mean over all groups of the leave-one-out policy gradient."""
    policy = np.array(q.policy)
    chances = policy[groups].prod(1)
    others = (rewards.sum(1, keepdims=True) - rewards) / (q.group - 1)
    advantages = (rewards - others) / q.group
    score = np.eye(len(policy))[groups] - policy
    return np.einsum("g,gi,giy->y", chances, advantages, score)


WORLDS = Family(
    "small worlds",
    "`finite.selected`, `win_rate`, `coupled_reward`, `kl`, `MajorityVote` and the mean gradient "
    "of `group_rewards`, for two to four outcomes with ties and procedures of up to 4 draws. By a "
    "list of all sequences of draws and of all groups.",
    draw,
    answer,
    judge,
    dict.fromkeys(
        (
            "calibrated reward",
            "selected law",
            "KL of the selected law",
            "win rate",
            "coupled reward",
            "majority vote",
            "coupled reward of a vote",
            "gradient of groups",
        ),
        1e-11,
    ),
    share=0.2,
)
