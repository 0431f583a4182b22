"""The page and the plot of the study of reward hacking, from its results."""

import textwrap
from collections.abc import Iterator, Mapping
from pathlib import Path

import matplotlib
from exact_page import rows_of
from matplotlib.figure import Figure
from reward_faults import STRENGTHS

from infalign import storage
from infalign.comparison.comparison import SELECTING
from infalign.reports import drawing
from infalign.reports.drawing import MUTED, PALETTE, STYLE, WIDTH

FOLDER = Path(__file__).parent
STUDY = "hacking"
"""The name of the study of trained policies, `studies/hacking.yaml`."""
TRAINED = "hacking_trained.json"
ENDS = ("value", "low", "high")

COMPARED = ("raw", "identity", "design")
LABELS = {"raw": "raw reward", "identity": "calibrated", "design": "transformed"}
N, KL = 4, 0.5
"""Best-of-n where the KL varies, and the KL where n does."""
KLS = (0.1, 0.25, 0.5, 1.0, 2.0)
SIZES = (1, 2, 4, 8, 16, 32)

WORDS = {
    "phrase": "a bonus for a phrase",
    "length": "a bonus for length",
    "tails": "noise with long tails",
    "scales": "prompts of differing scale",
    "flips": "learned from flipped labels",
}

PAGE = """# Reward hacking

A proxy reward has a fault, and a policy is trained on it. How good are its responses by the gold
reward, which lacks the fault? `make evidence-hacking` writes this page; no number is entered by
hand.

Gold is the bundled harmlessness reward. {prompts} prompts with {responses} responses of the bundled
policy each are finite worlds, in which the optimum of each training reward at a mean KL is known
exactly. So this is what training *aims at*, without the errors of an optimizer; a few policies
[are trained](#trained-policies) as well. Both sides decode with best-of-n, selecting by the proxy.
A *gold win rate* is the chance that the policy's selected response has the higher gold reward.
Intervals cover 95 % of the chance in the choice of prompts; gains are paired by prompt.

| fault | the proxy is (strengths in units of gold's spread within prompts) |
|---|---|
| phrase | gold, and a bonus for responses that say "{phrase}" ({share:.1f} % of them) |
| length | gold, and a bonus for each standard deviation of length |
| tails | gold, and noise with the long tails of Student's t with 2 degrees |
| scales | gold, times a factor of each prompt, e to a normal number times the strength |
| flips | linear in tokens, learned from pairs of which this share has the label flipped |

## Gold win rates at {kl:g} nats under best-of-{n}

{main}

*Rank correlation* is that of proxy and gold within a prompt. The gains are points of gold win rate
over training on the raw reward.

![Gold win rate against KL and against n](hacking.png)

## What follows

{summary}

A calibrated reward is bounded: whatever a fault adds, it can move a response to the top of its
prompt and no further. So calibration helps where a fault is *large on few responses*, and where
prompts differ in scale. It sees ranks only, so a fault that reorders all responses, such as a bonus
for length, passes. And what stands at the top, deservedly or not, is what the transform for
best-of-n weights most. So the more of the top is due to the fault, the more of calibration's
protection it gives back. If the top of your reward may be faulty, train on the calibrated reward
(`identity`), use a small KL and a small n, and let a reward of another family choose the checkpoint
(`train.select: gold:NAME`). Curves bend back at large n, where best-of-n nears the best of the
{responses} responses that a world has.

{conclusions}

## Trained policies

{trained}

## Against KL, under best-of-{n}

{by_kl}

Gold reward of the selected response, above that of the reference's selected response:

{reward_by_kl}

## Against n, at {kl:g} nats

{by_n}
"""


def write_trained(results: Mapping | None) -> None:
    """Write what is finished of the study of trained policies, if anything, and the page."""
    if results is not None:
        storage.write_json(FOLDER / TRAINED, as_rows(results))
    write(storage.read_json(FOLDER / "hacking.json"), FOLDER)


def as_rows(results: Mapping) -> list[dict]:
    """The finished cells of the study of trained policies, each with what the page shows of it."""
    rows = []
    for task in results["tasks"]:
        for arm in task["arms"]:
            if "win_rates" not in arm:
                continue
            rates = {r: arm["win_rates"][r][task["procedure"]] for r in (SELECTING, "gold")}
            over = rates["gold"]["to_rivals"].get("rlhf")
            rows.append(
                {
                    "task": task["task"],
                    "method": arm["method"],
                    "target_kl": arm["target_kl"],
                    "kl": [arm["kl"][end] for end in ENDS],
                    "seeds": len(arm["seeds"]),
                    "proxy_win_rate": [rates[SELECTING][end] for end in ENDS],
                    "gold_win_rate": [rates["gold"][end] for end in ENDS],
                    "over_rlhf": over and [over[end] for end in ENDS],
                }
            )
    return rows


def chosen_by(row: Mapping) -> str:
    """What chose the checkpoint of a trained policy."""
    return "gold reward" if row["task"].endswith("-gold") else "objective"


def trained(rows: list[dict]) -> str:
    """The policies that are trained, judged by the gold reward."""
    if not rows:
        return "None of them is finished (`infalign compare evidence/studies/hacking.yaml`)."
    (kl,) = {row["target_kl"] for row in rows}
    lines = [["checkpoint chosen by", "method", "KL, nats", "proxy", "gold", "over `rlhf`"]]
    for row in rows:
        over = row["over_rlhf"]
        lines.append(
            [
                chosen_by(row),
                f"`{row['method']}`",
                f"{row['kl'][0]:.3f}",
                points(row["proxy_win_rate"]),
                points(row["gold_win_rate"]),
                f"{points(over, '+')}: {verdict(over)}" if over else "",
            ]
        )
    text = textwrap.fill(
        "Policies that are trained on gold with a bonus of two standard deviations for the "
        f"phrase, at {kl:g} nat under best-of-{N}: win rates in percent by the proxy that they are "
        "trained on and selected by, and by gold; and the gain in gold win rate over `rlhf`, "
        "in points. One short training each with trial settings, so intervals are over prompts "
        "only. Command: "
        "`infalign compare evidence/studies/hacking.yaml`.",
        100,
        break_on_hyphens=False,
    )
    exploited = textwrap.fill(exploits(rows), 100, break_on_hyphens=False)
    return "\n\n".join(filter(None, (text, rows_of(lines), exploited)))


def exploits(rows: list[dict]) -> str:
    """How much the policies trained on the raw reward exploit its fault, in words."""
    own = [row for row in rows if row["method"] == "rlhf"]
    if not own:
        return ""
    said = " and ".join(
        f"{100 * row['proxy_win_rate'][0]:.1f} % by the proxy and "
        f"{100 * row['gold_win_rate'][0]:.1f} % by gold (checkpoint by {chosen_by(row)})"
        for row in own
    )
    return (
        f"`rlhf` wins {said}. The less these two differ, the less a policy exploits the fault, and "
        "the less its training can say about protection from it."
    )


def write(results: dict, out: Path) -> None:
    """Write OUT/hacking.md and OUT/hacking.png."""
    known = FOLDER / TRAINED
    drawing.save_png(figure(results), out / "hacking.png")
    page = PAGE.format(
        prompts=results["prompts"],
        responses=results["responses"],
        phrase=results["phrase"],
        share=100 * results["phrase_share"],
        kl=KL,
        n=N,
        main=table(results),
        conclusions="\n".join(conclusions(results)),
        by_kl=curves(results, [(N, kl) for kl in KLS], "{1:g} nats"),
        summary="\n".join(summary(results)),
        trained=trained(storage.read_json(known) if known.is_file() else []),
        reward_by_kl=curves(results, [(N, kl) for kl in KLS], "{1:g} nats", "gold_reward"),
        by_n=curves(results, [(n, KL) for n in SIZES], "n = {0}"),
    )
    storage.write_text(out / "hacking.md", page)
    print(out / "hacking.md")


def cell(results: dict, name: str, n: int, kl: float) -> dict:
    """The results of one proxy at one KL under one procedure."""
    return results["proxies"][name]["cells"][f"{n} {kl:g}"]


def points(interval: list[float], sign: str = "") -> str:
    """A value in percent with its interval."""
    value, low, high = (100 * x for x in interval)
    return f"{value:{sign}.1f} [{low:{sign}.1f}, {high:{sign}.1f}]"


def table(results: dict) -> str:
    """All proxies, at the middle of the grid."""
    rows = [["proxy", "rank correlation", "raw", "calibrated", "gain", "transformed", "gain"]]
    for name, known in results["proxies"].items():
        at = cell(results, name, N, KL)
        own = [f"{100 * at['raw']['gold_win_rate'][0]:.1f}"]
        for method in COMPARED[1:]:
            own.append(f"{100 * at[method]['gold_win_rate'][0]:.1f}")
            own.append(points(at[method]["gain"], "+"))
        rows.append([called(name), f"{known['correlation'][0]:.2f}", *own])
    return rows_of(rows)


def called(name: str) -> str:
    """A proxy in a table."""
    return "gold itself" if name == "gold 0" else name


def curves(
    results: dict,
    places: list[tuple[int, float]],
    head: str,
    quantity: str = "gold_win_rate",
) -> str:
    """Gold win rates, or rewards, of the strongest proxies along a line of the grid."""
    shown = "{:+.2f}" if quantity == "gold_reward" else "{:.1f}"
    unit = 1 if quantity == "gold_reward" else 100
    rows = [["proxy", "trained on", *(head.format(*place) for place in places)]]
    for name in ["gold 0", *strongest()]:
        for method in COMPARED:
            values = [unit * cell(results, name, *p)[method][quantity][0] for p in places]
            rows.append([called(name), LABELS[method], *map(shown.format, values)])
    return rows_of(rows)


def strongest() -> list[str]:
    """Each fault at its greatest strength."""
    return [f"{fault} {strengths[-1]:g}" for fault, strengths in STRENGTHS.items()]


def verdict(interval: list[float]) -> str:
    """What a gain shows."""
    _, low, high = interval
    return "better" if low > 0 else "worse" if high < 0 else "not distinguishable"


def summary(results: dict) -> Iterator[str]:
    """Which proxies one training reward serves better than another, at the middle of the grid."""
    for method, gain, over in (
        ("identity", "gain", "the raw reward"),
        ("design", "over_calibrated", "the calibrated reward"),
        ("design", "gain", "the raw reward"),
    ):
        by_verdict: dict[str, list[str]] = {}
        for name in results["proxies"]:
            own = verdict(cell(results, name, N, KL)[method][gain])
            by_verdict.setdefault(own, []).append(called(name))
        words = {"better": "ahead", "worse": "behind", "not distinguishable": "not distinguishable"}
        parts = [f"{w}: {', '.join(by_verdict[v])}" for v, w in words.items() if v in by_verdict]
        text = f"- **The {LABELS[method]} reward against {over}.** {'; '.join(parts).capitalize()}."
        yield textwrap.fill(text, 100, subsequent_indent="  ", break_on_hyphens=False)


def conclusions(results: dict) -> Iterator[str]:
    """What the numbers say, one sentence for each fault."""
    for fault, strengths in STRENGTHS.items():
        said = []
        for method in COMPARED[1:]:
            gains = {s: cell(results, f"{fault} {s:g}", N, KL)[method]["gain"] for s in strengths}
            at = [f"{points(g, '+')} at {s:g} ({verdict(g)})" for s, g in gains.items()]
            said.append(f"{LABELS[method]} {', '.join(at)}")
        text = f"- **{WORDS[fault].capitalize()}**: {'; '.join(said)}."
        yield textwrap.fill(text, 100, subsequent_indent="  ", break_on_hyphens=False)
    for fault in strongest():
        falls = [m for m in COMPARED if falling(results, fault, m)]
        if falls:
            names = ", ".join(LABELS[m] for m in falls)
            text = (
                f"- With {fault}, more KL makes the gold win rate fall, from some KL on, when "
                f"training is on: {names}."
            )
            yield textwrap.fill(text, 100, subsequent_indent="  ", break_on_hyphens=False)


def falling(results: dict, name: str, method: str) -> bool:
    """Whether the gold win rate has its highest value before the largest KL."""
    rates = [cell(results, name, N, kl)[method]["gold_win_rate"][0] for kl in KLS]
    return max(rates) > rates[-1]


def figure(results: dict) -> Figure:
    """Gold win rates against KL and against n, for the strongest of each fault."""
    names = strongest()
    with matplotlib.rc_context(STYLE):
        drawn = Figure(figsize=(WIDTH, 0.8 + 1.75 * len(names)), layout="constrained")
        panels = drawn.subplots(len(names), 2, sharex="col", sharey="row", squeeze=False)
        for line, name in zip(panels, names, strict=True):
            by_kl, by_n = line
            for axes, places, xs in (
                (by_kl, [(N, kl) for kl in KLS], KLS),
                (by_n, [(n, KL) for n in SIZES], SIZES),
            ):
                for index, method in enumerate(COMPARED):
                    known = [cell(results, name, *p)[method]["gold_win_rate"] for p in places]
                    value, low, high = ([100 * k[i] for k in known] for i in range(3))
                    axes.plot(xs, value, color=PALETTE[index], lw=1.8, label=LABELS[method])
                    axes.fill_between(xs, low, high, color=PALETTE[index], alpha=0.12, lw=0)
                axes.axhline(50, color=MUTED, lw=0.8)
                drawing.grid(axes)
            by_n.set_xscale("log", base=2)
            by_n.set_xticks(SIZES, [str(n) for n in SIZES])
            by_kl.set_title(f"{WORDS[name.split()[0]]}: best-of-{N}", fontsize=9)
            by_n.set_title(f"{WORDS[name.split()[0]]}: {KL:g} nats", fontsize=9)
            by_kl.set_ylabel("gold win rate, %")
        panels[-1, 0].set_xlabel("KL, nats")
        panels[-1, 1].set_xlabel("n")
        panels[0, 0].legend(fontsize=8, frameon=False)
    return drawn
