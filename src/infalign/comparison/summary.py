"""The results of a comparison: win rates, KL, lengths and their errors, in one JSON schema."""

from collections.abc import Iterator, Mapping

import numpy as np
import pyarrow as pa

from infalign.core import AbstractProcedure, design, families, family
from infalign.errors import SolveError
from infalign.evaluation.divergence import nats_per_sequence, nats_per_token
from infalign.evaluation.efficiency import kl_efficiency
from infalign.evaluation.ranking import rank
from infalign.evaluation.uncertainty import Estimate, over_prompts
from infalign.models.fingerprints import policy_precision

from .comparison import REFERENCE, SELECTING
from .figure_data import FRONTIER_LIMIT, figure_data, untrained
from .measured import Measured
from .selected import examples
from .verdicts import read_verdicts

__all__ = ["as_json", "best_possible", "summarize"]

SCHEMA_VERSION = 2

LEVEL = 0.95

TOO_FEW = "too few prompts or samples"
"""Why a KL efficiency is not stated."""


def summarize(measured: Measured, selected: pa.Table, labels: Mapping[str, str]) -> dict:
    """The results of a comparison.

    - `selected`: the responses that the policies select, for the examples.
    - `labels`: labels of policies in reports. Default: the policy's name.
    """
    comparison = measured.comparison
    names = list(comparison.policies)
    decisions = list(_decisions(measured))
    rivals = decisions[0]["differences"]
    policies = [
        {
            "method": name,
            "label": labels.get(name, name),
            "model": comparison.policies[name],
            **_kl(measured, name),
            **_lengths_and_rewards(measured, name),
            "win_rates": _by_procedure(measured, name, SELECTING),
            "length_controlled": _length_controlled(measured, name),
            "gold": {gold: _by_procedure(measured, name, gold) for gold in comparison.gold},
            "judge": _judge(measured, name),
        }
        for name in names
    ]
    return {
        "schema_version": SCHEMA_VERSION,
        "evidence": True,
        "procedure": next(iter(comparison.pairs)),
        "procedures": {spec: against.spec for spec, (_, against) in comparison.pairs.items()},
        "model": comparison.reference,
        "reward": comparison.reward,
        "gold": dict(comparison.gold),
        "judge": comparison.judge,
        "prompts": measured.shape[0],
        "samples": measured.shape[1],
        "sampling": comparison.sampling.model_dump(),
        "dtype": policy_precision(comparison.reference, **comparison.loading),
        "reference": _lengths_and_rewards(measured, REFERENCE),
        "policies": policies,
        "differences": [
            {"a": names[0], "b": other, "procedure": spec, **as_json(difference)}
            for other in names[1:]
            for spec, difference in _differences(measured, names[0], other)
        ],
        "by_n": {name: _by_n(measured, name) for name in families()}
        if comparison.samples >= 4
        else {},
        **figure_data(measured, policies),
        "decisions": decisions,
        "examples": examples(
            selected, decisions[0]["policy"], rivals[0]["policy"] if rivals else None, labels
        ),
    }


def _judge(measured: Measured, name: str) -> dict | None:
    if measured.comparison.judge is None:
        return None
    result = read_verdicts(measured, name)
    return {
        "win_rate": as_json(result.win_rate),
        "position_bias": as_json(result.position_bias),
        "consistency": as_json(result.consistency),
        "pairs": result.pairs,
        "excluded": result.excluded,
        "excluded_prompts": result.excluded_prompts,
    }


def as_json(estimate: Estimate) -> dict:
    """An estimate as JSON; numbers that are not finite become null."""
    return estimate.figures()


def _by_procedure(measured: Measured, name: str, reward: str) -> dict:
    pairs = measured.comparison.pairs.items()
    return {spec: as_json(measured.win_rate(name, p, a, reward)) for spec, (p, a) in pairs}


def _lengths_and_rewards(measured: Measured, name: str) -> dict:
    tokens = measured.column(name, "tokens")
    return {
        "mean_tokens": None if np.isnan(tokens).any() else float(tokens.mean()),
        "mean_reward": float(measured.rewards(name).mean()),
        "kept_rewards": {
            reward: {
                spec: as_json(measured.selected_reward(name, p if name != REFERENCE else a, reward))
                for spec, (p, a) in measured.comparison.pairs.items()
            }
            for reward in measured.comparison.rewards
        },
    }


def _length_controlled(measured: Measured, name: str) -> dict:
    controlled = {}
    for spec, (p, a) in measured.comparison.pairs.items():
        control = measured.length_controlled(name, p, a)
        controlled[spec] = None if control is None else control.figures()
    return controlled


def _kl(measured: Measured, name: str) -> dict:
    exact = measured.column(name, "kl")
    if measured.comparison.kl_samples == 0 or np.isnan(exact).all():  # a server has no logits
        return dict.fromkeys(
            ("kl", "kl_sampled", "kl_per_token", "kl_efficiency", "frontier"), None
        )
    kl = nats_per_sequence(exact)
    known = {
        "kl": as_json(kl),
        "kl_sampled": as_json(nats_per_sequence(measured.column(name, "kl_sampled"))),
        "kl_per_token": as_json(nats_per_token(exact, measured.column(name, "tokens"))),
    }
    if measured.comparison.sampling.top_p < 1:
        # The KL is relative to the whole reference, but quantiles are relative to samples from its
        # nucleus.
        return known | {"kl_efficiency": None, "frontier": None}
    return known | {
        **_efficiency(measured, name, kl),
        "frontier": {
            spec: best_possible(p, a, kl.value)
            for spec, (p, a) in measured.comparison.theory_pairs.items()
        },
    }


def _efficiency(measured: Measured, name: str, kl: Estimate) -> dict:
    """The KL efficiency and its interval, or the reason why it is not stated."""
    figures = dict.fromkeys(("kl_efficiency", "kl_efficiency_interval", "kl_efficiency_note"))
    if kl.value <= 0:
        return figures
    efficiency = kl_efficiency(measured.rewards(name), measured.rewards(REFERENCE), kl)
    if not efficiency.known:
        return figures | {"kl_efficiency_note": TOO_FEW}
    return figures | {
        "kl_efficiency": efficiency.value,
        "kl_efficiency_interval": [efficiency.low, efficiency.high],
    }


def best_possible(
    procedure: AbstractProcedure, against: AbstractProcedure, kl: float
) -> float | None:
    """The highest win rate of any policy at that KL; None if it is not computed."""
    if not 0 < kl <= FRONTIER_LIMIT:
        return None
    try:
        return design(procedure, kl=kl, against=against).win_rate
    except SolveError:
        return None


def _decisions(measured: Measured) -> Iterator[dict]:
    """The policy with the highest win rate under each procedure by each reward, and its paired
    differences from the others, the smallest first. The intervals of all pairs hold together; from
    three policies on, their ranks are there too. `win_rate` is that of the policy with an interval
    that allows for its choice: those of all policies would hold together (Bonferroni)."""
    for spec, (procedure, against) in measured.comparison.pairs.items():
        for reward in measured.comparison.rewards:
            rates = {
                name: measured.win_rate(name, procedure, against, reward)
                for name in measured.comparison.policies
            }
            decision = {"procedure": spec, "reward": reward}
            untrained = _untrained(measured, spec, reward)
            if len(rates) == 1:
                yield decision | {
                    "policy": next(iter(rates)),
                    "untrained": untrained,
                    "differences": [],
                }
                continue
            ranking = rank({name: r.per_prompt for name, r in rates.items()}, bounds=(0, 1))
            best = ranking.policies[0].policy
            gains = [
                {"policy": pair.behind} | as_json(pair.difference)
                for pair in ranking.pairs
                if pair.ahead == best
            ]
            ranks = {row.policy: row.figures() for row in ranking.policies}
            level = 1 - (1 - LEVEL) / len(rates)
            chosen = over_prompts(rates[best].per_prompt, level=level, bounds=(0, 1))
            yield decision | {
                "policy": best,
                "win_rate": as_json(chosen),
                "untrained": untrained,
                "differences": sorted(gains, key=lambda gain: gain["value"]),
                **({"ranks": ranks} if len(ranks) > 2 else {}),
            }


def _untrained(measured: Measured, spec: str, reward: str) -> float | None:
    """Win rate of the reference itself under a procedure; None if it is not known."""
    procedure, against = measured.comparison.pairs[spec]
    if procedure == against:
        return 0.5
    theory = measured.comparison.theory_pairs.get(spec)
    return untrained(*theory) if theory and reward == SELECTING else None


def _differences(measured: Measured, a: str, b: str) -> Iterator[tuple[str, Estimate]]:
    for spec, (p, against) in measured.comparison.pairs.items():
        first, second = measured.win_rate(a, p, against), measured.win_rate(b, p, against)
        yield spec, over_prompts(first.per_prompt - second.per_prompt, bounds=(-1, 1))


def _by_n(measured: Measured, of: str) -> dict:
    """Win rates of a family at n = 1, 2, 4, … up to half of the samples, by every reward."""
    ns = [2**k for k in range(measured.shape[1].bit_length()) if 2 ** (k + 1) <= measured.shape[1]]
    members = [family(of, n) for n in ns]
    return {
        "n": ns,
        "win_rates": {
            reward: {
                name: [as_json(measured.win_rate(name, p, p, reward)) for p in members]
                for name in measured.comparison.policies
            }
            for reward in measured.comparison.rewards
        },
    }
