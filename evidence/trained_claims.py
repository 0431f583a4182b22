"""The paper's claims on trained policies, and what the cells of the trained study show of each.

A task without a finished cell leaves its claims open.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from claims import NOT, OPEN, PARTLY, SHOWN, UNDECIDED, at_least_equal, filled, verdict_on
from hacking_page import KL
from trained_cells import BEYOND, STUDIES, earlier_settings, is_current, none_of, title
from trained_page import GAIN, has_seeds, kls, lead_of, listed, not_archived, points

from infalign.comparison.comparison import SELECTING

CTRL, GROUP, PLAIN = (
    "InfAlign-CTRL (`rloo`) leads the best baseline",
    "`group` (ours) leads the best baseline",
    "`identity` is at least equal to each baseline under plain sampling",
)
"""What is claimed of trained policies: the first and the last by the paper."""

WORDS = {SHOWN: "holds", PARTLY: "holds in part", NOT: "does not hold"}
"""The verdicts on claims that are not the paper's."""


@dataclass(frozen=True)
class Trained:
    """A task of the trained study, and what its finished cells say of each claim."""

    name: str
    study: str
    said: Mapping[str, tuple[str, str]]
    """Claim → what was measured, and the verdict; empty without a finished cell."""
    left: str = ""

    @property
    def verdicts(self) -> list[str]:
        """The verdict on each claim."""
        known = {claim: verdict for claim, (_, verdict) in self.said.items()}
        return [known.get(claim, OPEN) for claim in (CTRL, GROUP, PLAIN)]

    def text(self) -> str:
        """The task as a section of the page."""
        study = self.study
        command = (
            f"Command: `infalign compare evidence/studies/{study}.yaml --out runs/{study} "
            f"--archive evidence/cells/{study}`."
            if study.startswith("bundled")
            else "Command: `make evidence DATA=…`."
        )
        items = [
            filled(f"- {claim}: **{verdict}**. {number}".strip(), "  ")
            for claim, (number, verdict) in self.said.items()
        ]
        heading = f"### {self.name[0].upper()}{self.name[1:]}"
        parts = [heading, "\n".join(items), filled(f"{self.left} {command}".strip())]
        return "\n\n".join(filter(None, parts))


def trained(results: Mapping[str, Any]) -> Iterator[Trained]:
    """Claims 4 to 6 for trained policies, for each task."""
    for study in STUDIES:
        for task in (results["trained"].get(study) or none_of(study))["tasks"]:
            yield _trained(title(study, task), study, task, results.get("seen", {}))


def _trained(name: str, study: str, task: Mapping[str, Any], seen: Mapping[str, Any]) -> Trained:
    arms = {a["method"]: a for a in task["arms"] if a.get("target_kl", KL) == KL}
    due = sum(not cell["finished"] for arm in arms.values() for cell in arm["cells"])
    known = {method: arm for method, arm in arms.items() if arm.get("win_rates")}
    if not known:
        return Trained(name, study, {})
    if not is_current(task):
        number, _ = _lead_of("rloo", known, task["procedure"])
        earlier = f"With earlier settings ({earlier_settings(task)}), `rloo`: {number}"
        return Trained(name, study, {}, f"No training is finished. {earlier}")
    said = {
        CTRL: _lead_of("rloo", known, task["procedure"]),
        GROUP: _lead_of("group", known, task["procedure"]),
        PLAIN: _identity({m: arm["win_rates"][SELECTING] for m, arm in known.items()}),
    }
    left = [_learned(study, task, seen)]
    if due:
        said = {claim: (number, _so_far(verdict)) for claim, (number, verdict) in said.items()}
        left.append(f"{due} trainings at this KL are not finished.")
    left.append(not_archived(task, f"{KL:g}"))
    if missing := [method for method in arms if method not in known]:
        left.append(f"Methods without a finished training: {listed(missing)}.")
    for claim in (CTRL, GROUP, PLAIN) if study == BEYOND else (GROUP,):
        number, verdict = said[claim]
        said[claim] = number, _not_the_papers(verdict)
    return Trained(name, study, said, " ".join(filter(None, left)))


def _learned(study: str, task: Mapping[str, Any], seen: Mapping[str, Any]) -> str:
    """The correlation of the log-ratios of SmolLM2's policies with the reward, and the gain of the
    best transform there."""
    own = seen.get("tasks", {}).get(task["task"].partition("-")[0], {})
    learned = own.get("learned")
    if not study.startswith("real") or not learned or own["procedure"] != task["procedure"]:
        return ""
    least, most = (end(learned, key=lambda row: row["correlation"]) for end in (min, max))
    return (
        "Within prompts, the policies' log-ratios have a rank correlation of "
        f"{least['correlation']:.2f} to {most['correlation']:.2f} with the reward. At the highest "
        f"one, the best transform leads by {lead_of(most['left']):.1f} points over the better of "
        "`identity` and the raw reward, in a Gaussian model (`evidence/worst_of_n/real.py`)."
    )


def _so_far(verdict: str) -> str:
    return verdict if verdict in (OPEN, UNDECIDED) else f"{verdict}, so far"


def _not_the_papers(verdict: str) -> str:
    word, comma, rest = verdict.partition(",")
    return WORDS.get(word, word) + comma + rest


def _lead_of(method: str, known: Mapping[str, Any], spec: str) -> tuple[str, str]:
    """How far a method leads the best baseline, what theory says, and what it costs if sampled."""
    if method not in known or not (best := known[method]["win_rates"][SELECTING][spec]["to_best"]):
        return "", OPEN
    rival, spent = best["rival"], known[method]["kl_efficiency"]
    number = f"{points(best)} over `{rival}`{kls(known, method, rival)}"
    number += "; at 97.5 %, the interval includes 0." if _by_one_level(best) else "."
    theory = [known[m]["theory"] for m in (method, rival)]
    if None not in theory:
        number += (
            f" In theory, exact training for `{method}` leads that for `{rival}` by "
            f"{100 * (theory[0] - theory[1]):.1f} points."
        )
    if spent is not None:
        number += f" The KL efficiency is {100 * spent:.0f} %."
    if sampled := known[method]["win_rates"][SELECTING]["sampling"]["to_best"]:
        number += f" Under plain sampling: {points(sampled)} over `{sampled['rival']}`."
    if gold := list(_by_gold(known[method]["win_rates"], spec)):
        number += f" By the gold rewards: {' and '.join(gold)}."
    if not has_seeds(best):
        return number, UNDECIDED
    verdict = verdict_on([(best["low"] if best["ahead"] else None, best["high"])])
    return number, PARTLY if verdict == SHOWN and best["value"] < GAIN else verdict


def _by_one_level(best: Mapping[str, Any]) -> bool:
    """Whether a lead excludes 0 in its own interval, but not at the level for two candidates."""
    return has_seeds(best) and (best["low"] or 0) > 0 and not best["ahead"]


def _by_gold(rates: Mapping[str, Any], spec: str) -> Iterator[str]:
    """The difference to the best baseline by each reward that was not trained on."""
    for reward, own in rates.items():
        if reward != SELECTING and (best := own.get(spec, {}).get("to_best")):
            yield f"{points(best)} over `{best['rival']}` ({reward})"


def _identity(rates: Mapping[str, Any]) -> tuple[str, str]:
    least = rates.get("identity", {}).get("sampling", {}).get("to_best")
    if not least:
        return "", OPEN
    number = f"The smallest difference is {points(least)}, over `{least['rival']}`."
    return number, at_least_equal(least)
