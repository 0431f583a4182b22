"""The page of the trained study, from the cells that are finished; no number is entered by hand.

    python evidence/trained_page.py

Writes trained.md, trained.json and a picture for each task beside this script, and what is finished
of the study of reward hacking into hacking.md.
"""

import textwrap
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

import hacking_page
from trained_cells import (
    GOALS,
    HERE,
    STUDIES,
    cells_of,
    done,
    earlier_settings,
    finished,
    is_current,
    label,
    none_of,
    results_of,
    slim,
    title,
    with_former,
)

import infalign as ia
from infalign import storage
from infalign.comparison.comparison import SELECTING
from infalign.core import words
from infalign.reports.decision import off_target, same_kl
from infalign.reports.drawing import save_png
from infalign.reports.tables import Table, in_markdown
from infalign.study.plots import by_kl
from infalign.study.tables import NOTE, curves, main_table

RESULTS = HERE / "trained.json"

OURS = ("rloo", "group")
"""The methods of which one is to beat the paper's rivals."""
OTHERS = ("pkpo", "rs-grpo")
"""Methods that maximize what the procedure selects; ours are not to be below them."""
KL = 0.5
"""The budget of the targets, in nats."""
GAIN = 0.03
"""The gain that is asked for."""
MARGIN = 0.01
"""How far below another a method may be and still count as at least equal to it."""

ONE_SEED = "one seed"
"""The verdict on differences whose interval lacks the variance between seeds."""

PAGE = """# The trained study

Which training method gives the best policy for a procedure, at the same KL? `make evidence` trains
every method and writes this page. So far, {finished:,} of {cells:,} cells are finished.{archived}
SmolLM2 is trained for n = 8 and for n = 4, the bundled models for n = 8.

{targets}

Targets at {kl:g} nats: the better one of {ours} leads the best baseline under the procedure by at
least {gain:g} points, more than by chance; it is not below {others}; and `identity` is not below
any baseline under plain sampling. The baselines are the methods that the paper compares with, and
its calibration without a transform (`identity`).

- *Reached*: the lead is more than chance, and at least the target. *Ahead, by less*: it is more
  than chance, and less than the target. *Missed*: the whole interval is below the target.
- *Not below*: the whole interval is above -{margin:g}. *Not shown*: the data do not decide.
- *One seed* (‡): the interval lacks the variance between seeds and is too narrow, so there is no
  verdict.
- *In theory*: the first number uses the study's reward and its calibration samples. It is the lead
  of exact training on our transform over the best baseline's exact training. The lead over
  `identity` is that of the optimum with exact quantiles.
{beyond_theory}
The better one of two is chosen on the same data, so a lead is more than chance only if it also
holds at the level of 97.5 %. {note}

{studies}

## What limits these numbers

- The trainings are short, as each study states, so a policy may be far from its method's optimum.
  "Best possible" and "exact training" say how far. Exact training is the optimum of the method's
  own objective on the study's calibration samples, not of the win rate. A policy that falls short
  of it can therefore win more. *KL efficiency* is the share of a policy's KL that moves responses
  up or down in the reward's ranking. The rest is spent on changes that the reward does not see.
- All methods of a study share one recipe, and each may gain from another. Harmlessness with
  worst-of-8 on the bundled models has three: the warm start by likelihood, that by regression
  ([log](../docs/log.md#2026-11-29-another-loss-for-the-warm-start)), and 150 steps on policy after
  the latter ([log](../docs/log.md#2026-11-29-a-controller-that-wound-up)).
- A small policy cannot express every transform, so a part of the gain in theory is out of reach for
  every method. [The log](../docs/log.md) and `worst_of_n/` measure this.
{sight}
- For best-of-8 on helpfulness, the transform is an exponential that is gentler than theory's,
  because these policies learn little of a steep one on that reward (`worst_of_n/targets.py`). On
  the harmlessness reward, which its policy sees well, the [demo](../docs/demo.md) trains on the
  steep one.
- The training rewards are right on {trained} % of held-out pairs ([rewards.md](rewards.md)). Win
  rates under a reward say how well a method optimizes, not how good the replies are.
- The gold rewards are no better. `ngrams`, a linear model of words, is right on {gold} %. It has
  learned from other pairs than the reward, but from those of the test prompts. `bundled` shares
  pairs with the reward.
"""


def write() -> None:
    """Write the page, the numbers and the pictures, from the archived cells."""
    hacked = results_of(hacking_page.STUDY)
    hacking_page.write_trained(hacked if hacked["finished"] == hacked["cells"] else None)
    former = storage.read_json(RESULTS) if RESULTS.exists() else {}
    results = {name: with_former(slim(results_of(name)), former.get(name)) for name in STUDIES}
    known = {name: own for name, own in results.items() if any(map(done, own["tasks"]))}
    for name, result in known.items():
        for task in filter(done, result["tasks"]):
            picture = HERE / f"trained-{label(name, task)}.png"
            save_png(by_kl(_at(task, None), result["evidence"], over_n=KL), picture)
    storage.write_json(RESULTS, known)
    storage.write_text(HERE / "trained.md", page(known))


def page(known: Mapping[str, Mapping]) -> str:
    """The page, from the results of the studies that have a finished cell."""
    results = {name: known.get(name) or none_of(name) for name in STUDIES}
    return PAGE.format(
        finished=sum(result["finished"] for result in results.values()),
        cells=sum(result["cells"] for result in results.values()),
        archived=archived(results),
        kl=KL,
        ours=listed(OURS),
        others=listed(OTHERS),
        gain=100 * GAIN,
        margin=100 * MARGIN,
        targets=targets(results),
        beyond_theory=beyond_theory(results),
        note=NOTE,
        trained=accuracy(gold=False),
        gold=accuracy(gold=True),
        sight="\n".join(sight()),
        studies="\n\n".join(
            section(name, result, task)
            for name, result in results.items()
            for task in result["tasks"]
        ),
    )


def archived(results: Mapping[str, Mapping]) -> str:
    """How many of the finished cells the archive has; empty if it has all."""
    known = sum(result.get("archived", 0) for result in results.values())
    if known == sum(result["finished"] for result in results.values()):
        return " All are archived in `cells/`."
    return (
        f" Of these,\n{known:,} are archived in `cells/`; the others are known as numbers only, in "
        "`trained.json`."
    )


def accuracy(*, gold: bool) -> str:
    """The lowest and the highest accuracy of a gold reward of words, or of a training reward, in
    percent."""
    known = storage.read_json(HERE / "rewards.json").items()
    values = [100 * r["accuracy"][0] for name, r in known if name.endswith("ngrams") is gold]
    return f"{min(values):.0f} to {max(values):.0f}"


def sight() -> Iterator[str]:
    """How much of its reward SmolLM2 sees in its responses, and how much its policies learned."""
    known = HERE / "worst_of_n" / "real.json"
    for name, task in (storage.read_json(known)["tasks"] if known.is_file() else {}).items():
        if not task.get("learned"):
            continue
        most, learned = task["rows"][-1], task["learned"]
        own = ", ".join(f"{row['correlation']:.2f} (`{row['method']}`)" for row in learned)
        highest = max(learned, key=lambda row: row["correlation"])
        won = [row["win rate"]["value"] for row in learned]
        text = (
            f"- **SmolLM2, {GOALS[name]}** (`worst_of_n/real.py`): a ridge regression on the "
            f"model's states, fitted on {most['responses']:,} responses, predicts where a response "
            "to another prompt stands with a correlation of "
            f"{most['correlation']:.2f} ± {most['stderr']:.2f} (standard error; of ranks, as "
            "normal scores). The policies' log-ratios have less, on "
            f"{task['few'][0]} prompts × {task['few'][1]} responses: {own}. The less a policy "
            "sees, the less a transform gains. In a Gaussian model under "
            f"{words(task['procedure'])}, the best transform leads the better one of `identity` "
            f"and raw rewards by {lead_of(task['sees all']):.1f} points if policies see the whole "
            f"reward, by {lead_of(most):.1f} at what the states allow, and by "
            f"{lead_of(highest['left']):.1f} at the highest correlation learned. The model says "
            f"{highest['left']['best']:.0f} % there; the policies' log-ratios win "
            f"{min(won):.0f} to {max(won):.0f} % on those few responses."
        )
        yield textwrap.fill(text, 100, subsequent_indent="  ", break_on_hyphens=False)


def lead_of(row: Mapping[str, float]) -> float:
    """How far the best transform is ahead, in points of win rate."""
    return row["best"] - max(row["identity"], row["raw"])


def section(name: str, result: Mapping, task: Mapping) -> str:
    """What one task of a study gave."""
    heading = title(name, task)
    lines, cells = [f"## {heading[0].upper()}{heading[1:]}"], cells_of(task)
    if not finished(task):
        lines.append(f"None of its {len(cells)} cells is finished.")
    if not done(task):
        return "\n\n".join(lines)
    if not is_current(task):
        lines.append(
            f"**Earlier settings.** What follows are {done(task)} cells of an earlier "
            f"configuration: {earlier_settings(task)}. None of them is archived."
        )
    lines.append(
        f"`{task['model']}` with the reward `{task['reward']}`, decoded with "
        f"{words(task['procedure'])}. "
        + (f"Finished cells: {done(task)} of {len(cells)}." if is_current(task) else "")
    )
    lines.append(_facts(task))
    lines.append(in_markdown(main_table(_at(task, None), SELECTING)))
    lines.append(in_markdown(theories(_at(task, KL))))
    lines.append(in_markdown(main_table(_at(task, KL), SELECTING, "sampling")))
    lines.append(in_markdown(curves(_at(task, KL), SELECTING)))
    lines += [in_markdown(main_table(_at(task, KL), gold)) for gold in task["gold"]]
    lines.append(f"![Win rates of {label(name, task)}](trained-{label(name, task)}.png)")
    for kl in task.get("not_archived", ()):
        lines.append(not_archived(task, kl))
    if unseen := Counter(method for method, _ in task.get("not_shown", ())):
        said = ", ".join(f"{method} {count}" for method, count in unseen.items())
        lines.append(f"Archived, and shown once all of these are: {said}.")
    missing = Counter(method for method, has_ended in cells if not has_ended)
    if missing and is_current(task):
        said = ", ".join(f"{method} {count}" for method, count in missing.items())
        lines.append(f"**Cells that are not finished:** {said}.")
    if not result["evidence"]:
        lines.append("**Trial settings, as its configuration says: no evidence for the method.**")
    return "\n\n".join(lines)


def not_archived(task: Mapping, kl: str) -> str:
    """What of the results at a KL cannot be computed again, in words; empty if all can be."""
    if kl not in task.get("not_archived", ()):
        return ""
    archived, shown = task["not_archived"][kl]
    return (
        f"Of the {shown} cells at {kl} nats, `evidence/cells/` holds {archived}. The numbers come "
        "from an earlier machine; those of the other cells cannot be computed again."
    )


def theories(task: Mapping) -> Table:
    """Each method beside exact training on the same thing, and what its KL was spent on."""
    rows = []
    for arm in task["arms"]:
        measured = arm["win_rates"][SELECTING][task["procedure"]]["value"]
        values = (measured, arm["theory"], arm["kl_efficiency"])
        own = (f"{100 * value:.1f}" if value is not None else "" for value in values)
        rows.append((arm["method"], *own))
    return Table(
        f"{task['task']}: what training reached, in %",
        ("method", "win rate", "exact training", "KL efficiency"),
        tuple(rows),
        words=1,
    )


def _facts(task: Mapping) -> str:
    """The settings of a study, as a sentence."""
    said = ", ".join(f"{key} {value}" for key, value in task["settings"].items())
    made, minutes = task["made_with"], task["made_with"]["minutes a cell"]
    took = "" if minutes is None else f", {minutes:g} minutes a cell by the clock"
    versions = ", ".join(f"{k} {made['versions'][k]}" for k in ("torch", "transformers", "trl"))
    return (
        f"Settings: {said}. Made in {made['dtype']} on {' and on '.join(made['machines'])}{took}; "
        f"{versions}."
    )


def _at(task: Mapping, kl: float | None) -> dict:
    """A task with the arms of one KL, or all, that are finished with some seed."""
    arms = [a for a in task["arms"] if "win_rates" in a and kl in (None, a["target_kl"])]
    return {**task, "arms": arms}


def targets(results: Mapping[str, Mapping]) -> str:
    """What was asked for and what came out, beside what theory leaves to gain."""
    lines = [
        f"| task | lead in theory, points | measured lead | methods | against {listed(OTHERS)} "
        "| `identity` against the best baseline, plain sampling |",
        "|---|---|---|---|---|---|",
    ]
    for name, result in results.items():
        for task in result["tasks"]:
            spec, arms = task["procedure"], {}
            cells = ["no cell yet"] * 4
            if done(task):
                arms = {arm["method"]: arm for arm in _at(task, KL)["arms"]}
                rivals = result.get("rivals", ())
                cells = [*lead(arms, spec, rivals), *others(arms, spec), plain(arms)]
            left = room(spec, arms, result.get("rivals", ()))
            now = "" if is_current(task) else f"; earlier settings: {earlier_settings(task)}"
            row = [title(name, task) + now, left, *cells]
            lines.append("| " + " | ".join(row) + " |")
    return "\n".join(lines)


def over_identity(spec: str) -> float:
    """How far the optimum is ahead of the calibrated reward in theory, at the KL of the targets."""
    best, identity = ia.compare(ia.parse_procedure(spec), [ia.Identity()], kl=[KL])
    return best.win_rate - identity.win_rate


def room(spec: str, arms: Mapping[str, Mapping], rivals: Sequence[str]) -> str:
    """What theory leaves to gain: over the best rival on this reward with the calibration's
    samples, where that is known, and over `identity` with exact quantiles."""
    said = f"{100 * over_identity(spec):+.1f} over `identity`"
    if not (own := lead_in_theory(arms, rivals)):
        return said
    value, rival = own
    return f"{100 * value:+.1f} over `{rival}` with these samples; {said}"


def lead_in_theory(arms: Mapping[str, Mapping], rivals: Sequence[str]) -> tuple[float, str] | None:
    """How far exact training for `rloo` leads that of the best rival, and which that is; None
    where it is not known."""
    own = arms.get("rloo", {}).get("theory")
    known = {m: arms[m]["theory"] for m in rivals if arms.get(m, {}).get("theory") is not None}
    if own is None or not known:
        return None
    best = max(known, key=known.__getitem__)
    return own - known[best], best


def beyond_theory(results: Mapping[str, Mapping]) -> str:
    """The tasks on which theory leaves less than the target; empty if there are none."""
    tasks = [
        title(name, task)
        for name, result in results.items()
        for task in filter(done, result["tasks"])
        for arms in [{arm["method"]: arm for arm in _at(task, KL)["arms"]}]
        if (own := lead_in_theory(arms, result.get("rivals", ()))) and own[0] < GAIN
    ]
    if not tasks:
        return ""
    text = f"- *Beyond theory*: that first number is below the target on {'; on '.join(tasks)}."
    return textwrap.fill(text, 100, subsequent_indent="  ", break_on_hyphens=False) + "\n"


def leading(arms: Mapping[str, Mapping], spec: str) -> tuple[str, Mapping] | None:
    """Our better method, and its difference to the best of the paper's; None without a rival.

    - `arms`: method → what was measured of it.
    """
    known = {
        name: best
        for name in OURS
        if name in arms and (best := arms[name]["win_rates"][SELECTING][spec]["to_best"])
    }
    return max(known.items(), key=lambda own: own[1]["value"], default=None)


def lead(arms: Mapping[str, Mapping], spec: str, rivals: Sequence[str] = ()) -> Sequence[str]:
    """How far our better method is ahead of the best baseline, and which these are."""
    if not (own := leading(arms, spec)):
        return "not yet", ""
    name, best = own
    missing = [rival for rival in rivals if rival not in arms]
    so_far = f"; no {listed(missing)} yet" if missing else ""
    which = f"`{name}` over `{best['rival']}`{kls(arms, name, best['rival'])}"
    return f"{points(best)}: {verdict(best)}{so_far}", which


def kls(arms: Mapping[str, Mapping], method: str, rival: str) -> str:
    """The KLs of two methods, in words; empty if they are about the same, and on target."""
    first, second = arms[method], arms[rival]
    if same_kl(first, second) and not any(off_target(arm["kl"], KL) for arm in (first, second)):
        return ""
    return f", at {first['kl']['value']:.2f} and {second['kl']['value']:.2f} nats"


def has_seeds(difference: Mapping) -> bool:
    """Whether the interval of a difference includes the variance between seeds."""
    return bool(difference.get("seed_variance", True))


def verdict(best: Mapping) -> str:
    """Whether a difference to the best rival is the one that is asked for."""
    if not has_seeds(best):
        return ONE_SEED
    if best["ahead"]:
        return "reached" if best["value"] >= GAIN else "ahead, by less"
    return "missed" if _below(best, GAIN) else "not shown"


def others(arms: Mapping[str, Mapping], spec: str) -> Iterator[str]:
    """Whether our better method is below those that maximize what the procedure selects."""
    own = leading(arms, spec)
    known = arms[own[0]]["to_all"][spec] if own else {}
    said = [f"`{o}` {points(known[o])}: {not_below(known[o])}" for o in OTHERS if o in known]
    missing = [f"no `{o}` yet" for o in OTHERS if o not in known]
    yield "; ".join([*said, *missing]) if said else "not yet"


def plain(arms: Mapping[str, Mapping]) -> str:
    """Whether calibration alone is at least equal to the paper's methods when sampled."""
    best = "identity" in arms and arms["identity"]["win_rates"][SELECTING]["sampling"]["to_best"]
    return f"{points(best)} to `{best['rival']}`: {not_below(best)}" if best else "not yet"


def not_below(difference: Mapping) -> str:
    """Whether a difference is above 0, at least not below it up to a margin, or below it."""
    if not has_seeds(difference):
        return ONE_SEED
    if difference["low"] is not None and difference["low"] > -MARGIN:
        return "above" if difference["low"] > 0 else "not below"
    return "below" if _below(difference, 0) else "not shown"


def _below(difference: Mapping, value: float) -> bool:
    return difference["high"] is not None and difference["high"] < value


def points(difference: Mapping) -> str:
    """A difference in points, with its interval; marked if that lacks the seeds."""
    ends = [difference["low"], difference["high"]]
    low, high = ("?" if end is None else f"{100 * end:+.1f}" for end in ends)
    mark = "" if has_seeds(difference) else "‡"
    return f"{100 * difference['value']:+.1f} [{low}, {high}]{mark}"


def listed(names: Sequence[str]) -> str:
    """Names of methods, such as `ipo`, `vbon` and `bonbon`."""
    *first, last = (f"`{name}`" for name in names)
    return f"{', '.join(first)} and {last}" if first else last


if __name__ == "__main__":
    write()
