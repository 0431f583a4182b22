"""The decision of a report: which policy to deploy, and what argues against it.

The words follow the intervals, not the estimates. The evaluation computed every number.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TypeGuard

from infalign._look import Shown

from .plots import procedure_words
from .tables import identified, points, with_interval

__all__ = ["Decision", "Fact", "decide", "off_target", "outcome", "same_kl"]

SAME_KL = 0.1
"""Two KLs that differ by less than this fraction of the larger one are called about the same."""

WIDE = 0.05
"""Half the width of an interval, as a win rate, from which more prompts are advised."""

FAR = 0.05
"""Distance from the best possible win rate that is worth a sentence."""

APART = 0.1
"""Difference between the win rates by two rewards that is worth a sentence."""

LEARNED = 0.5
"""KL efficiency below which a transform made for full sight of the reward is doubtful."""

MOST_SATURATED = 0.3
"""Share of responses outside the reference's range that is worth a sentence."""


@dataclass(frozen=True)
class Fact(Shown):
    """A number of the decision, with its name and what it is compared with."""

    name: str
    value: str
    note: str


@dataclass(frozen=True)
class Decision(Shown):
    """The decision in words."""

    title: str
    sentences: tuple[str, ...]
    facts: tuple[Fact, ...]
    against: tuple[str, ...]
    """What argues against it, the gravest first."""

    made: bool
    """Whether the numbers suffice for a decision."""


def decide(results: Mapping) -> Decision:
    """The decision under the main procedure.

    The policy with the highest win rate is deployed if its interval, which allows for the choice
    among all policies, lies above the win rate of the reference itself; so is every policy that
    does not differ significantly from it.
    """
    best = _Best(results, results["decisions"][0])
    title, made = best.title()
    if not results["evidence"]:
        title = f"No decision: a quick run. It would say: {title[0].lower()}{title[1:]}"
        made = False
    others = [_Best(results, d) for d in results["decisions"][1:] if d["reward"] == "reward"]
    return Decision(
        title=title,
        sentences=(*best.sentences(), *(other.elsewhere(best.name) for other in others)),
        facts=tuple(_facts(results, best)),
        against=tuple(_against(results, best)),
        made=made,
    )


def outcome(difference: Mapping, zero: float = 0.0) -> str:
    """The verdict of an interval: "more", "less", "none" (the interval contains `zero`) or
    "unknown" (no interval).

    >>> outcome({"low": 0.06, "high": 0.10}), outcome({"low": -0.01, "high": 0.02})
    ('more', 'none')
    """
    low, high = difference["low"], difference["high"]
    if not (_known(low) and _known(high)):
        return "unknown"
    return "more" if low > zero else "less" if high < zero else "none"


def same_kl(a: Mapping, b: Mapping) -> bool:
    """Whether two policies have about the same KL."""
    first, second = a["kl"]["value"], b["kl"]["value"]
    return abs(first - second) <= SAME_KL * max(first, second)


def off_target(kl: Mapping, target: float) -> bool:
    """Whether a measured KL, with its interval, is not the one that was asked for: by more than a
    tenth, and by more than chance."""
    return abs(kl["value"] / target - 1) > SAME_KL and outcome(kl, target) != "none"


class _Best:
    """The policy with the highest win rate under one procedure."""

    def __init__(self, results: Mapping, decision: Mapping):
        policies = {policy["method"]: policy for policy in results["policies"]}
        self.policies, self.spec = policies, decision["procedure"]
        self.policy, self.name = policies[decision["policy"]], decision["policy"]
        self.words, self.against = map(
            procedure_words, (self.spec, results["procedures"][self.spec])
        )
        self.rate, self.label = self.policy["win_rates"][self.spec], self.policy["label"]
        self.untrained = decision["untrained"]
        self.chosen = decision.get("win_rate", self.rate)
        """Its win rate with an interval that allows for the choice among all policies; results of
        former versions lack it."""

        self.differences = {d["policy"]: d for d in decision["differences"]}
        """Its win rate minus that of each other policy, the closest first."""

        self.equals = [
            policies[name]["label"]
            for name, difference in self.differences.items()
            if outcome(difference) != "more"
        ]

    @property
    def closest(self) -> tuple[Mapping, Mapping] | None:
        """The policy that is next, and the difference from it."""
        for name, difference in self.differences.items():
            return self.policies[name], difference
        return None

    def title(self) -> tuple[str, bool]:
        """What to do, and whether that is known."""
        if self.untrained is None:
            return f"No decision: what the reference wins with {self.words} is not known", False
        match outcome(self.chosen, self.untrained):
            case "unknown":
                return "No decision: too few prompts for an interval", False
            case _ if self.all_lose:
                return f"Keep the reference: every policy wins less with {self.words}", True
            case "none" | "less":
                return f"Keep the reference: no policy wins more for sure with {self.words}", True
        names = [self.label, *self.equals]
        either = " or ".join([", ".join(names[:-1]), names[-1]]) if self.equals else self.label
        return f"Deploy {either}, decoded with {self.words}", True

    def sentences(self) -> Iterator[str]:
        """How much it wins, and how much more than the next policy."""
        how = f"decoded with {self.words}"
        if self.against != self.words:
            how += f" against {self.against}"
        if self.loses:
            yield f"{self.label}, {how}, wins only {self.won} of comparisons with the reference."
        else:
            yield f"{self.label}, {how}, beats the reference in {self.won} of comparisons."
        if self.against != self.words and self.untrained is not None:
            yield f"The reference itself, {how}, would win {_percent(self.untrained)}."
        if self.untrained is not None and outcome(self.rate, self.untrained) == "more":
            if outcome(self.chosen, self.untrained) != "more":
                low, high = self.chosen["low"], self.chosen["high"]
                yield (
                    f"It was chosen as the best of {len(self.policies)} policies: the interval "
                    f"that allows for this choice, [{100 * low:.1f}, {100 * high:.1f}], contains "
                    f"{_percent(self.untrained)}."
                )
        if self.closest:
            other, difference = self.closest
            yield (
                f"That is {_points(difference)} more than {other['label']}, "
                f"{_at_kls(self.policy, other)}."
                + {
                    "more": "",
                    "unknown": " There are too few prompts for an interval of the difference.",
                }.get(outcome(difference), " The difference is not significant.")
            )

    @property
    def won(self) -> str:
        """Its win rate with the interval."""
        return _percent_interval(self.rate)

    @property
    def loses(self) -> bool:
        """Whether it wins less than the reference itself would."""
        return self.untrained is not None and outcome(self.rate, self.untrained) == "less"

    @property
    def all_lose(self) -> bool:
        """Whether every policy wins less than the reference itself would."""
        rates = (policy["win_rates"][self.spec] for policy in self.policies.values())
        return self.untrained is not None and all(
            outcome(rate, self.untrained) == "less" for rate in rates
        )

    def elsewhere(self, deployed: str) -> str:
        """What is best here, and what the deployed policy wins less."""
        difference = self.differences.get(deployed)
        if difference is None and (self.loses or len(self.policies) == 1):
            return f"Decoded with {self.words}, it wins {'only ' * self.loses}{self.won}."
        if difference is None:
            return f"Decoded with {self.words}, it is the best as well: {self.won}."
        label, rate = self.policies[deployed]["label"], self.policies[deployed]["win_rates"]
        same = "" if outcome(difference) == "more" else ", which is not significant"
        return (
            f"Decoded with {self.words}, {self.label} is the best: {self.won}. {label} wins "
            f"{_percent_interval(rate[self.spec])}, {_points(difference)} less{same}."
        )


def _facts(results: Mapping, best: _Best) -> Iterator[Fact]:
    versus = "" if best.untrained is None else f"{_percent(best.untrained)} without training"
    yield Fact(f"Win rate with {best.words}", best.won, versus)
    if best.closest:
        other, difference = best.closest
        yield Fact(
            f"More than {other['label']}",
            _with_unit(points(difference), "points"),
            "paired by prompt",
        )
    kl = best.policy["kl"]
    target = f"target {results['target_kl']:.3g}" if "target_kl" in results else ""
    value = "not measured" if kl is None else _with_unit(with_interval(kl, 1, 3), "nats")
    yield Fact("KL from the reference", value, target)
    possible = (best.policy["frontier"] or {}).get(best.spec)
    if _known(possible):
        yield Fact("Best possible at this KL", _percent(possible), "for any policy, in theory")
    for name in results["gold"]:
        rate = best.policy["gold"][name][best.spec]
        yield Fact(f"Win rate by {name}", _percent_interval(rate), "a reward not trained on")
    if results["judge"]:
        rate = best.policy["judge"]["win_rate"]
        yield Fact("Win rate by the judge", _percent_interval(rate), str(results["judge"]))


def _against(results: Mapping, best: _Best) -> Iterator[str]:
    """What argues against the decision."""
    if not results["evidence"]:
        yield "Training and evaluation were cut short: the numbers are not evidence."
    yield from _by_gold(results, best)
    if results["judge"]:
        rate = best.policy["judge"]["win_rate"]
        if outcome(rate, 0.5) != "more":
            yield (
                f"By the judge, {best.label} does not win for sure: {_percent_interval(rate)}, of "
                f"{best.policy['judge']['pairs']} pairs."
            )
    yield from _by_length(best)
    yield from _by_kl(results, best)
    for decision in results["decisions"][1:]:
        other = _Best(results, decision)
        difference = other.differences.get(best.name)
        if decision["reward"] == "reward" and difference and outcome(difference) == "more":
            yield (
                f"It is tied to {best.words}: decoded with {other.words}, {best.label} wins "
                f"{_points(difference)} less than {other.label}."
            )
    yield from _by_statistics(results, best)
    possible = (best.policy["frontier"] or {}).get(best.spec)
    if _known(possible) and possible - best.rate["value"] > FAR:
        yield (
            f"A policy at its KL can win {_percent(possible)}, "
            f"{100 * (possible - best.rate['value']):.1f} points more: better training would "
            "gain more than a larger KL."
        )
    yield from _by_transform(best)
    calibration = results.get("calibration", {})
    share = calibration.get("saturated", {}).get(best.name)
    if share is not None and share > MOST_SATURATED:
        yield (
            f"{_percent(share)} of its responses score above or below all of the reference's to "
            "the prompt. Ranks cannot tell these apart."
        )
    yield from calibration.get("warnings", [])
    if not results["gold"] and not results["judge"]:
        yield (
            "Only the training reward has judged it. Errors of that reward look like gains: "
            "compare by a held-out reward (evaluate.gold, --gold) or a judge."
        )


def _by_gold(results: Mapping, best: _Best) -> Iterator[str]:
    for decision in results["decisions"]:
        name = decision["reward"]
        if decision["procedure"] != best.spec or name not in results["gold"]:
            continue
        rate = best.policy["gold"][name][best.spec]
        zero = decision["untrained"]
        if zero is not None and outcome(rate, zero) != "more":
            yield (
                f"By {name}, {best.label} does not win for sure: {_percent_interval(rate)}. The "
                "gain may come from errors of the training reward."
            )
        elif best.rate["value"] - rate["value"] > APART:
            yield (
                f"By {name}, {best.label} wins {_percent_interval(rate)}, "
                f"{100 * (best.rate['value'] - rate['value']):.1f} points less than by the "
                "training reward."
            )
        difference = {d["policy"]: d for d in decision["differences"]}.get(best.name)
        if difference and outcome(difference) == "more":
            label = best.policies[decision["policy"]]["label"]
            yield f"By {name}, {label} wins more: by {_points(difference)}."


def _by_length(best: _Best) -> Iterator[str]:
    control = best.policy["length_controlled"][best.spec]
    if not control:
        return
    if not identified(control):
        longer = control["longer"] > control["shorter"]
        yield (
            f"{100 * max(control['longer'], control['shorter']):.0f} % of its selected responses "
            f"are {'longer' if longer else 'shorter'} than the reference's: what it wins at equal "
            "length is not known."
        )
    elif (
        best.untrained is not None
        and outcome(best.rate, best.untrained) == "more"
        and outcome(control, best.untrained) != "more"
    ):
        yield (
            f"It may win by length: at equal length, its win rate is {_percent_interval(control)}."
        )


def _by_kl(results: Mapping, best: _Best) -> Iterator[str]:
    kl, target = best.policy["kl"], results.get("target_kl")
    if kl is None:
        yield "Its KL was not measured: a larger KL wins more by itself."
        return
    if target and off_target(kl, target):
        measured = _with_unit(with_interval(kl, 1, 3), "nats")
        yield (
            f"Its KL on held-out prompts is {measured}, and not the {target:.3g} that were asked "
            "for."
        )
    for name in best.differences:
        other = best.policies[name]
        if other["kl"] and not same_kl(best.policy, other):
            yield (
                f"{best.label} and {other['label']} ended at different KLs "
                f"({kl['value']:.2f} and {other['kl']['value']:.2f} nats). A larger KL gives a "
                "higher win rate by itself: compare each with the best possible at its own KL."
            )


def _by_transform(best: _Best) -> Iterator[str]:
    """Theory's transform for best-of-n pays for the top of a prompt, which is learned last."""
    for policy in best.policies.values():
        share = policy.get("kl_efficiency")
        optimal = policy.get("transform") == "optimal" and best.spec.startswith("best-of-n")
        if optimal and _known(share) and share < LEARNED:
            yield (
                f"Only {_percent(share)} of the KL of {policy['label']} changed ranks. A policy "
                "that learns a reward only in part may win more with a gentler transform, such as "
                "exponential:6 (docs/how-to-choose.md)."
            )
            return


def _by_statistics(results: Mapping, best: _Best) -> Iterator[str]:
    deciding = best.closest[1] if best.closest else best.rate
    if outcome(deciding) == "unknown":
        yield "There are too few prompts for an interval."
    elif (deciding["high"] - deciding["low"]) / 2 > WIDE:
        yield (
            f"{results['prompts']} prompts are few: the interval reaches "
            f"±{50 * (deciding['high'] - deciding['low']):.1f} points. infalign plan says how "
            "many a finer decision needs."
        )
    if len(best.policies) > 2 and best.equals:
        yield (
            f"It is the best of {len(best.policies)} policies on these prompts, without a "
            "significant lead: such a winner's win rate is likely to be overestimated."
        )


def _at_kls(a: Mapping, b: Mapping) -> str:
    if not (a["kl"] and b["kl"]):
        return "at a KL that was not measured"
    if same_kl(a, b):
        return "at about the same KL"
    return f"at {a['kl']['value']:.2f} and {b['kl']['value']:.2f} nats of KL"


def _percent(value: float) -> str:
    return f"{100 * value:.1f} %"


def _percent_interval(estimate: Mapping) -> str:
    """A win rate as the terminal prints it, with its unit."""
    return _with_unit(with_interval(estimate, 100, 1), "%")


def _points(difference: Mapping) -> str:
    """A difference in points with its interval, for sentences that say its sign."""
    return _with_unit(with_interval(difference, 100, 1), "points")


def _with_unit(cell: str, unit: str) -> str:
    value, bracket, rest = cell.partition(" [")
    return f"{value} {unit}{bracket}{rest}"


def _known(value: float | None) -> TypeGuard[float]:
    return value is not None and math.isfinite(value)
