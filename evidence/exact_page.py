"""The page and the plot of the exact study, from its results; no number is entered by hand."""

import textwrap
from pathlib import Path

import matplotlib
from exact_methods import METHODS
from exact_worlds import World, normal
from matplotlib.figure import Figure

import infalign as ia
from infalign import storage
from infalign.reports import drawing
from infalign.reports.drawing import MUTED, PALETTE, STYLE, WIDTH

KL = 0.5
"""KL of every method, in nats."""
KINDS = {"best-of-n": "best-of", "worst-of-n": "worst-of"}
SIZES = (2, 4, 8, 16, 32)
NONE = "–"

PAGE = """# The exact study

What could training gain on real rewards, if it reached its optimum? Here a prompt has K responses,
all equally likely under the reference, with real rewards. Then every method's optimum at a mean KL
is a matter of sums: nothing is sampled or trained. `make evidence-exact` writes this page.

Win rates are in percent, at {kl:g} nats, procedure against the same procedure, averaged over
prompts. Ties count one half, so a world with many ties has win rates nearer to 50.

| row | optimum of | training methods |
|---|---|---|
| `optimum` | the win rate itself, in this world | `group` |
| `design` | the transform for continuous rewards | `rloo`, `grpo`, `likelihood`, `regression` |
| `identity` | the calibrated reward | `identity`, `qrpo`, `ipo` |
| `log` | its logarithm | `vbon`, `bonbon` |
| `raw` | the raw reward | `rlhf` |
| `max@n` | the mean raw reward of the selected response | `pkpo` |
| `utility` | an exponential utility of the raw reward | `rs-grpo` |

## The worlds

{facts}

Tied pairs are pairs of responses to one prompt with equal rewards. The scale ratio is that of the
standard deviations of a prompt's rewards at the 90th and the 10th percentile of prompts.

## Where the gain over the raw reward comes from

Points of win rate that `design` gains over `raw`, in four worlds. The first column is theory, for a
normally distributed reward. The second has as few responses as the data. The third has the real
rewards, divided by each prompt's standard deviation: ties and skew. The last has them as they are,
so that prompts differ in scale; its interval covers 95 % of the chance in the choice of prompts.
The column on the right is the share of `raw`'s KL that goes to a tenth of the prompts.

{gains}

![Gain of the design over the raw reward](exact.png)

{conclusions}

Three things follow from the definitions, and the tables show them:

- `optimum`, `design`, `identity` and `log` see ranks only. No scale, offset or skew changes them.
- One β serves all prompts. Where scales differ, the raw reward spends its KL on the prompts whose
  rewards spread most.
- With two levels (pass or fail), the calibrated reward of a pass is ½ above that of a fail on every
  prompt, so `identity` is `raw`. What is left to gain is the choice of prompts that get more KL.

## All methods

A dash is a method whose search for an optimum at this KL fails. Either no more KL raises its
utility, or the utility is one of the worst of n: those are convex in the policy, and reinforce
themselves on some prompts at the expense of others. A KL in parentheses is below {kl:g} nats. Then
either no more KL raises the utility, or no β gives exactly {kl:g} nats. A method that spends all of
it can be ahead. For a continuous reward, `design` is the optimum. The 2,000 responses of the normal
world limit n = 32: there the optimum of a continuous reward wins {limit:.1f} %.

{tables}
"""


def write(results: dict, out: Path) -> None:
    """Write OUT/exact.md and OUT/exact.png."""
    drawing.save_png(figure(results), out / "exact.png")
    page = PAGE.format(
        kl=KL,
        limit=100 * ia.design(ia.BestOfN(SIZES[-1]), kl=KL).win_rate,
        facts=facts(results),
        gains=gains(results),
        conclusions="\n\n".join(wrapped(text) for text in conclusions(results)),
        tables="\n\n".join(table(name, results[name]) for name in [normal().name, *real(results)]),
    )
    storage.write_text(out / "exact.md", page)
    print(out / "exact.md")


def real(results: dict) -> list[str]:
    """The names of the worlds with real rewards."""
    return [n for n in results if not n.startswith("normal") and not n.endswith(World.ONE_SCALE)]


def get(results: dict, world: str, procedure: str, method: str) -> dict:
    """One result; empty where there is none."""
    entry = results.get(world, {"results": {}})["results"].get(f"{procedure} {KL:g} {method}", {})
    return {} if "failed" in entry else entry


def gain_over_raw(results: dict, world: str, procedure: str) -> list[float]:
    """Points that the design gains in a world, with its interval; empty where there is none.

    The design sees ranks only, so that it is the same in a world of one scale.
    """
    own = get(results, world.removesuffix(World.ONE_SCALE), procedure, "design")
    rival = get(results, world, procedure, "raw")
    if not own or not rival:
        return []
    if world.endswith(World.ONE_SCALE):
        return [100 * (own["win_rate"] - rival["win_rate"])]
    return [100 * value for value in own["gain"]]


def columns(results: dict, world: str) -> list[str]:
    """The worlds from theory to reality, for one real world."""
    k = results[world]["facts"]["responses"]
    return [normal().name, normal(k).name, world + World.ONE_SCALE, world]


def rows_of(markdown: list[list[str]]) -> str:
    """A table of Markdown; the first row is its head."""
    head, *body = markdown
    rule = ["---", *["--:"] * (len(head) - 1)]
    return "\n".join("| " + " | ".join(row) + " |" for row in [head, rule, *body])


def facts(results: dict) -> str:
    """What distinguishes the worlds."""
    head = ["rewards", "prompts", "K", "tied pairs", "constant prompts", "skewness", "scale ratio"]
    rows = [head]
    for name in real(results):
        f = results[name]["facts"]
        shares = (f"{100 * f[key]:.1f} %" for key in ("tied_pairs", "constant_prompts"))
        ratio = f["scale_ratio"]
        scale = f"{ratio:,.0f}" if ratio >= 100 else f"{ratio:.3g}"
        counts = (f"{f['prompts']:,}", f"{f['responses']:,}")
        rows.append([name, *counts, *shares, f"{f['median_skewness']:.2f}", scale])
    return rows_of(rows)


def gains(results: dict) -> str:
    """The gain over the raw reward from theory to reality."""
    rows = [["rewards, procedure", "theory", "K", "ties, skew", "scales", "interval", "top tenth"]]
    for name in real(results):
        for kind in KINDS:
            for n in (4, 8):
                spec = f"{kind}:{n}"
                steps = [gain_over_raw(results, w, spec) for w in columns(results, name)]
                cells = [f"{step[0]:+.1f}" if step else NONE for step in steps]
                last = steps[-1]
                cells.append(f"[{last[1]:+.1f}, {last[2]:+.1f}]" if len(last) == 3 else NONE)
                share = get(results, name, spec, "raw").get("top_kl")
                cells.append(NONE if share is None else f"{100 * share:.0f} %")
                rows.append([f"{name}, {KINDS[kind]}-{n}", *cells])
    return rows_of(rows)


def table(name: str, world: dict) -> str:
    """Win rates of all methods in one world."""
    specs = [f"{kind}:{n}" for kind in KINDS for n in SIZES]
    here = {name: world}
    present = [s for s in specs if any(get(here, name, s, m) for m in METHODS)]
    head = [f"{KINDS[s.split(':')[0]]}-{s.split(':')[1]}" for s in present]
    rows = [["method", *head]]
    for method in METHODS:
        cells = [get(here, name, s, method) for s in present]
        if any(cells):
            rows.append([f"`{method}`", *(cell_of(c) for c in cells)])
    return f"### {name[:1].upper()}{name[1:]}\n\n{rows_of(rows)}"


def cell_of(entry: dict) -> str:
    """A win rate, with its KL where that is smaller than the others'."""
    if not entry:
        return NONE
    less = f" ({entry['kl']:.2f} nats)" if entry["kl"] < 0.99 * KL else ""
    return f"{100 * entry['win_rate']:.1f}{less}"


def conclusions(results: dict) -> list[str]:
    """What the numbers say about each world, in sentences."""
    texts = []
    for name in real(results):
        said = [f"**{name[:1].upper()}{name[1:]}.**"]
        for kind, words in KINDS.items():
            steps = [gain_over_raw(results, w, f"{kind}:4") for w in columns(results, name)]
            if all(steps):
                theory, few, shape, scale = (step[0] for step in steps)
                said.append(
                    f"At {words}-4, theory gives {theory:+.1f} points over the raw reward. K alone "
                    f"changes that by {few - theory:+.1f}, ties and skew by {shape - few:+.1f}, "
                    f"and differing scales by {scale - shape:+.1f}, to {scale:+.1f}."
                )
        if lost := losses(results, name):
            said.append(
                "The transform made for continuous rewards is at most "
                f"{max(lost):.2f} points below the optimum of this world, over all procedures."
            )
        texts.append(" ".join(said))
    return texts


def losses(results: dict, name: str) -> list[float]:
    """Points that the design lacks to the optimum, for each procedure."""
    specs = [f"{kind}:{n}" for kind in KINDS for n in SIZES]
    pairs = [[get(results, name, s, m) for m in ("optimum", "design")] for s in specs]
    return [100 * (best["win_rate"] - own["win_rate"]) for best, own in pairs if best and own]


def wrapped(text: str) -> str:
    """Lines of at most 100 characters, broken between words."""
    return textwrap.fill(text, 100, break_on_hyphens=False)


def figure(results: dict) -> Figure:
    """The gain over the raw reward against n, from theory to reality."""
    names = real(results)
    with matplotlib.rc_context(STYLE):
        drawn = Figure(figsize=(WIDTH, 1.1 + 2.1 * len(names)), layout="constrained")
        panels = drawn.subplots(len(names), 2, sharex=True, sharey="row", squeeze=False)
        looks = [(MUTED, "--"), (MUTED, "-"), (PALETTE[0], "-"), (PALETTE[1], "-")]
        labels = ("theory", "K responses", "with ties and skew", "with differing scales")
        for line, name in zip(panels, names, strict=True):
            for panel, kind in zip(line, KINDS, strict=True):
                for world, (color, style), label in zip(
                    columns(results, name), looks, labels, strict=True
                ):
                    points = [(n, gain_over_raw(results, world, f"{kind}:{n}")) for n in SIZES]
                    some = [(n, gain[0]) for n, gain in points if gain]
                    if some:
                        panel.plot(*zip(*some, strict=True), style, color=color, lw=2, label=label)
                panel.axhline(0, color=MUTED, lw=0.8)
                panel.set_xscale("log", base=2)
                panel.set_xticks(SIZES, [str(n) for n in SIZES])
                panel.set_title(f"{name}: {kind}", fontsize=9)
                drawing.grid(panel)
            line[0].set_ylabel("points over raw")
        for panel in panels[-1]:
            panel.set_xlabel("n")
        panels[0, 0].legend(fontsize=8, frameon=False)
    return drawn
