"""The paper's claims on objectives and optima, and what the studies of this folder show of each.

A study that is not there leaves its claim open.
"""

import textwrap
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Any

import exact_page
from ablations_page import STRENGTHS
from hacking_page import KL, N, cell, chosen_by, exploits
from reward_faults import STRENGTHS as FAULTS
from trained_page import not_below

import infalign as ia

OPEN, SHOWN, PARTLY, NOT = "not run yet", "reproduced", "reproduced in part", "not reproduced"
UNDECIDED = "undecided"


@dataclass(frozen=True)
class Row:
    """One claim and what was measured about it."""

    claim: str
    command: str
    number: str
    verdict: str
    differs: str = ""

    def text(self) -> str:
        """The claim as a section of the page."""
        result = f"**{self.verdict.capitalize()}.** {self.number}".strip()
        lines = [f"### {self.claim}", "", result]
        parts = [f"Command: {self.command}.", self.differs]
        lines += ["", " ".join(filter(None, parts))]
        return "\n".join(line if line.startswith("#") else filled(line) for line in lines)


def filled(text: str, hang: str = "") -> str:
    """Text in lines of at most 100 characters, all but the first after `hang`."""
    return textwrap.fill(text, 100, subsequent_indent=hang, break_on_hyphens=False)


def points(interval: list[float]) -> str:
    """A gain with its interval."""
    if len(interval) < 3:
        return f"{100 * interval[0]:+.1f} (no interval)"
    value, low, high = (100 * x for x in interval[:3])
    return f"{value:+.1f} [{low:+.1f}, {high:+.1f}]"


def verdict_on(ends: Iterable[tuple[float | None, float | None]]) -> str:
    """The verdict on a claim that all these differences are above 0, by the ends of their
    intervals; an end that is None is unknown."""
    ends = list(ends)
    above = [low is not None and low > 0 for low, _ in ends]
    if ends and all(above):
        return SHOWN
    if any(above):
        return PARTLY
    return NOT if any(high is not None and high < 0 for _, high in ends) else UNDECIDED


def at_least_equal(difference: Mapping[str, Any]) -> str:
    """The verdict on a claim that a difference is not below 0, by its interval."""
    verdicts = {"above": SHOWN, "not below": SHOWN, "below": NOT}
    return verdicts.get(not_below(difference), UNDECIDED)


def gains(results: Mapping[str, Any], spec: str) -> dict[str, list[float]]:
    """What the design gains over the raw reward in each real world of the exact study."""
    exact = results["exact"]
    own = {w: exact_page.gain_over_raw(exact, w, spec) for w in exact_page.real(exact)}
    return {w: [x / 100 for x in gain] for w, gain in own.items() if gain}


def invariance(results: Mapping[str, Any]) -> Row:
    """Claim 2."""
    rates = [
        cell(results["hacking"], f"scales {s:g}", N, KL)["identity"]["gold_win_rate"][0]
        - cell(results["hacking"], "gold 0", N, KL)["identity"]["gold_win_rate"][0]
        for s in FAULTS["scales"]
    ]
    largest = max(map(abs, rates))
    moved = "does not change" if largest < 1e-9 else f"changes by up to {100 * largest:.2g} points"
    return Row(
        "The calibrated reward does not change under increasing maps of a prompt's rewards",
        "`make evidence-hacking`",
        "Each prompt's rewards are multiplied by a factor of its own, e^(s z) for a standard "
        f"normal z and s up to {FAULTS['scales'][-1]:g}. The win rate of training on the "
        f"calibrated reward {moved}.",
        SHOWN if largest < 1e-9 else NOT,
        "Tested with factors; for other increasing maps it follows from the ranks.",
    )


def transforms(results: Mapping[str, Any]) -> Row:
    """Claim 3."""
    known = results["ablations"]["exponents"]
    own = {s: min(v) for s, v in known.items() if s.startswith(("best-of-n", "worst-of-n"))}
    spec = max(own, key=own.__getitem__)
    signs = [
        STRENGTHS[losses.index(min(losses))] * (1 if s.startswith("best") else -1) > 0
        for s, losses in known.items()
        if s in own
    ]
    return Row(
        "Exponential transforms are close to optimal, with t > 0 for best-of-n and t < 0 for "
        "worst-of-n",
        "`make evidence-ablations`; for the trained policies: `evidence/worst_of_n/targets.py`",
        f"In theory, the best of {len(STRENGTHS)} exponents loses at most {100 * own[spec]:.2f} "
        f"points to the optimum ({spec}). The best t has the stated sign in {sum(signs)} of "
        f"{len(signs)} procedures. {_by_target(results)}".strip(),
        SHOWN if own[spec] < 0.01 and all(signs) else PARTLY,
        "The losses are exact for a continuous reward, so they have no interval.",
    )


def _by_target(results: Mapping[str, Any]) -> str:
    """What policies win that are trained toward a gentle exponential, and toward the optimum."""
    known = results.get("targets", {}).get("rows", ())
    fewest = min((row["prompts"] for row in known), default=0)
    won = {(row["procedure"], row["target"]): row for row in known if row["prompts"] == fewest}
    said, harder = [], []
    for (procedure, target), own in won.items():
        if target.startswith("exponential"):
            steep = won[procedure, "optimum"]
            said.append(
                f"{_interval(own)} with t = {target.partition(':')[2]} and {_interval(steep)} with "
                f"the optimum's transform ({procedure})"
            )
            harder += [procedure] * (own["value"] > steep["value"])
    if not said:
        return ""
    less = f" Under {' and '.join(harder)}, they learn less of the steeper transform."
    return (
        f"Trained policies win {', '.join(said)}, in percent (`worst_of_n/targets.py`)."
        f"{less if harder else ''}"
    )


def _interval(row: Mapping[str, float]) -> str:
    """A win rate in percent with its 95 % interval over prompts."""
    value, half = 100 * row["value"], 196 * row["stderr"]
    return f"{value:.1f} [{value - half:.1f}, {value + half:.1f}]"


def exact_gain(kind: str, results: Mapping[str, Any]) -> Row:
    """Claims 4 and 5, as far as they concern the objective."""
    spec = f"{kind}:4"
    own = gains(results, spec)
    said = "; ".join(
        f"{w}: {points(gain)}{_standardized(results, w, spec)}" for w, gain in own.items()
    )
    verdict = verdict_on(
        tuple(gain[1:]) if len(gain) == 3 else (None, None) for gain in own.values()
    )
    return Row(
        f"At the optimum, training for {kind.replace('-n', '-4')} wins more under it than RLHF on "
        "the raw reward",
        "`make evidence-exact DATA=…`",
        f"Gain of the transformed over the raw reward on real rewards. {said}.",
        verdict,
        "Exact optima on public rewards, instead of trained policies.",
    )


def _standardized(results: Mapping[str, Any], world: str, spec: str) -> str:
    """The gain over rewards that are divided by their standard deviation in each prompt, in words;
    empty where that is unknown."""
    gain = exact_page.gain_over_raw(results["exact"], world + exact_page.World.ONE_SCALE, spec)
    return f", and {gain[0]:+.1f} over rewards standardized in each prompt" if gain else ""


def grows(results: Mapping[str, Any]) -> Row:
    """Claim 8."""
    said, growing, risen = [], [], []
    worlds = {"theory, normal reward": _in_theory()}
    for world in exact_page.real(results["exact"]):
        specs = {n: f"best-of-n:{n}" for n in exact_page.SIZES}
        by_n = {n: exact_page.gain_over_raw(results["exact"], world, s) for n, s in specs.items()}
        worlds[world] = {n: gain[0] for n, gain in by_n.items() if gain}
    for name, known in worlds.items():
        risen.append(max(known.values()) > known[min(known)])
        growing.append(all(a < b for a, b in pairwise(known.values())))
        by_n = ", ".join(f"{gain:+.1f} at n = {n}" for n, gain in known.items())
        said.append(f"{name}: {by_n} (highest at n = {max(known, key=known.__getitem__)})")
    return Row(
        "The gain under best-of-n grows with n",
        "`make evidence-exact DATA=…`",
        f"Gain of the transformed over the raw reward. {'; '.join(said)}.",
        SHOWN if all(growing) else PARTLY if any(risen) else NOT,
        "This verdict rests on the values; their differences between n have no interval.",
    )


def _in_theory() -> dict[int, float]:
    """What the optimum gains over the raw reward if rewards are normally distributed, by n."""
    gains = {}
    for n in exact_page.SIZES:
        best, raw = ia.compare(ia.BestOfN(n), [ia.Probit()], kl=[KL])
        gains[n] = 100 * (best.win_rate - raw.win_rate)
    return gains


def hacking(results: Mapping[str, Any]) -> Row:
    """Claim 7."""
    known = results["hacking"]
    own = {
        name: cell(known, name, N, KL)["identity"]["gain"]
        for name in known["proxies"]
        if name != "gold 0"
    }
    ahead = [n for n, (_, low, _) in own.items() if low > 0]
    behind = [n for n, (*_, high) in own.items() if high < 0]
    scales = [name for name in ahead if name.startswith("scales")]
    most, least = max(own, key=lambda n: own[n][0]), min(own, key=lambda n: own[n][0])
    over = [cell(known, name, N, KL)["design"]["over_calibrated"] for name in own]
    transformed = [cell(known, name, N, KL)["design"]["gain"] for name in own]
    return Row(
        "Calibration makes training robust to the reward and mitigates reward hacking",
        "`make evidence-hacking`",
        f"Under best-of-{N}, {len(own)} rewards that differ from gold were tried. The calibrated "
        f"reward has a higher gold win rate than the raw one for {len(ahead)}, up to "
        f"{points(own[most])} ({_fault(most)}), and a lower one for {len(behind)}, down to "
        f"{points(own[least])} ({_fault(least)}). For {len(scales)} of the {len(ahead)}, "
        "prompts differ in scale, which calibration removes by construction. "
        "The reward transformed for best-of-n is ahead of the calibrated one for "
        f"{sum(low > 0 for _, low, _ in over)} of the {len(own)} rewards and behind for "
        f"{sum(high < 0 for *_, high in over)}, and ahead of the raw one for "
        f"{sum(low > 0 for _, low, _ in transformed)} and behind for "
        f"{sum(high < 0 for *_, high in transformed)}. "
        "[The study](../evidence/hacking.md) has the list. "
        f"{_trained_on_fault(results)}".strip(),
        verdict_on((low, high) for _, low, high in own.values()),
        "The counts are of exact optima with planted faults.",
    )


def _fault(name: str) -> str:
    """A fault and its strength, in words."""
    fault, strength = name.split()
    said = {"phrase": "a bonus for a phrase", "length": "a bonus for length"}.get(fault)
    return f"{said} of strength {strength}" if said else name


def _trained_on_fault(results: Mapping[str, Any]) -> str:
    """What the policies that are trained on a faulty reward gain, each beside RLHF."""
    said = [
        f"`{row['method']}` {points(row['over_rlhf'])}‡ (checkpoint by {chosen_by(row)})"
        for row in results.get("hacked", ())
        if row["over_rlhf"]
    ]
    if not said:
        return ""
    (kl,) = {row["target_kl"] for row in results["hacked"]}
    exploited = exploits(results["hacked"])
    return (
        "Differences to `rlhf` in gold win rate after training on a bonus for a phrase, at "
        f"{kl:g} nat, with one seed and trial settings: {', '.join(said)}. {exploited}".strip()
    )


def calibrated(results: Mapping[str, Any]) -> Row:
    """Claim 6, as far as it concerns the objective."""
    at = cell(results["hacking"], "gold 0", 1, KL)["identity"]
    value, low, high = at["gain"]
    return Row(
        "At the optimum, calibration alone is at least equal to RLHF under plain sampling",
        "`make evidence-hacking`",
        f"The calibrated reward gains {points([value, low, high])} over the raw one on the "
        "bundled harmlessness reward.",
        at_least_equal({"low": low, "high": high}),
        "An exact optimum on one reward.",
    )


def other_procedures(results: Mapping[str, Any]) -> Row:
    """Claim 9."""
    known = results["ablations"]["procedures"]
    from_sampling = {
        key.split()[1]: entry["loss"] for key, entry in known.items() if key.startswith("sampling ")
    }
    others = {s: x for s, x in from_sampling.items() if s != "sampling"}
    ahead = [s for s, (_, low, _) in others.items() if low > 0]
    most = max(others, key=lambda s: others[s][0])
    return Row(
        "Every procedure has a transformed reward of its own",
        "`make evidence-ablations`",
        f"For {len(ahead)} of {len(others)} procedures, training for the procedure gains over "
        f"training for plain sampling, with {most} {points(others[most])}. [Their "
        "transforms](figures.md) are drawn.",
        verdict_on((low, high) for _, low, high in others.values()),
    )


def worst_of_n(results: Mapping[str, Any]) -> Row:
    """Claim 5, trained on the bundled models."""
    own = results["worst_of_n"]["offline"]
    trained, exact = (
        next(row for row in own[kind] if row["policy"] == "optimum")["gain over raw"]
        for kind in ("trained", "exact")
    )
    value, spread = trained["value"], 1.96 * trained["stderr"]
    share = value / exact["value"]
    return Row(
        "A short training for worst-of-4 gains over the raw reward on harmlessness",
        "`python evidence/worst_of_n/trained.py`",
        f"On the bundled models: {points([value, value - spread, value + spread])}‡, "
        f"where the optimum gains {100 * exact['value']:+.1f}: a share of {100 * share:.0f} %. "
        "[The log](log.md) analyzes the causes. A short training learns a log-ratio that is "
        "nearly linear in the reward, where theory asks for one that is flat above the middle.",
        UNDECIDED,
        "One training each, offline; the interval is over prompts alone.",
    )


CLAIMS: tuple[tuple[str, Callable[[Mapping[str, Any]], Row], str], ...] = (
    ("hacking", invariance, "The calibrated reward does not change under increasing maps"),
    ("ablations", transforms, "Exponential transforms are close to optimal"),
    ("exact", partial(exact_gain, "best-of-n"), "Training for best-of-n: the optimum"),
    ("exact", partial(exact_gain, "worst-of-n"), "Training for worst-of-n: the optimum"),
    ("worst_of_n", worst_of_n, "Worst-of-n, trained"),
    ("hacking", calibrated, "Calibration alone under plain sampling"),
    ("hacking", hacking, "Calibration mitigates reward hacking"),
    ("exact", grows, "The gain grows with n"),
    ("ablations", other_procedures, "Every procedure has a transformed reward of its own"),
)
"""The study that a claim needs, what says its row, and its name where the study is absent."""
