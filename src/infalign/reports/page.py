"""One self-contained page from the saved results of a run.

The evaluation computed every number; this module words, lays out and draws them. Responses of a
model are hostile text: jinja2 escapes all of it, and the page allows neither scripts nor requests.
"""

import base64
import json
import math
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import TypeGuard

from jinja2 import Environment, StrictUndefined, UndefinedError
from markupsafe import Markup

from infalign import storage
from infalign._check import visible
from infalign.errors import DataError
from infalign.manifest import Manifest

from . import drawing, plots
from .tables import extrapolations

__all__ = [
    "build_report",
    "caution",
    "elsewhere",
    "interval",
    "number",
    "outcome",
    "percent",
    "read_results",
    "render",
    "results_of",
    "verdict",
]

SCHEMA_VERSION = 2
"""The `schema_version` of the results that this page reads."""

RESULTS = Path("evaluation", "results.json")
"""The results in the folder of a run or a comparison."""

SAME_KL = 0.1
"""Two KLs that differ by less than this fraction of the larger one are called about the same."""

STEPS = 20
"""Number of final training steps over which a share is averaged."""


def build_report(run: Path) -> Path:
    """Write `run`/report.html and `run`/plots/*.png from the saved evaluation; returns the page.

    Reads evaluation/results.json, and provenance.json if it exists. The page is a single file
    without scripts or requests. It is written last, so it never shows plots that do not exist.

    - `run`: a run folder that has been evaluated.

    Raises DataError when the results are missing, damaged, incomplete or of another schema version,
    and while another process writes the folder.
    """
    run = Path(run)
    results = results_of(run)
    with storage.locked(run):
        return _write(run, results)


def _write(run: Path, results: dict) -> Path:
    source, provenance = run / RESULTS, {}
    if (run / "provenance.json").exists():
        Manifest(run).require(run / "provenance.json")
        provenance = storage.read_json(run / "provenance.json")
    try:
        figures = plots.draw(results)
        page = render(results, provenance, figures)
    except (KeyError, UndefinedError) as error:
        raise DataError(f"{source} is incomplete ({error}). Evaluate again.") from error
    for name in plots.FIGURES:
        if name in figures:
            drawing.save_png(figures[name], run / "plots" / f"{name}.png")
        else:  # left over from an earlier evaluation with more figures
            (run / "plots" / f"{name}.png").unlink(missing_ok=True)
    storage.write_text(run / "report.html", page)
    return run / "report.html"


def results_of(run: Path) -> dict:
    """The results of a run or a comparison; DataError as in `read_results`, and if the file is not
    what was written."""
    path = run / RESULTS
    if not path.exists():
        raise DataError(f"{path} does not exist. Evaluate first.")
    Manifest(path.parent).require(path)
    return read_results(path)


def read_results(path: Path) -> dict:
    """The evaluation's results; DataError if they are missing or of another schema version."""
    results = storage.read_json(path)
    version = results.get("schema_version") if isinstance(results, dict) else None
    if version != SCHEMA_VERSION:
        raise DataError(
            f"{path} has results schema {version!r}; this version reads {SCHEMA_VERSION}. "
            "Evaluate again, or install the version that wrote it."
        )
    return results


def render(results: Mapping, provenance: Mapping, figures: Mapping) -> str:
    """The page as HTML, with `figures` (name to matplotlib figure) inside it as SVG."""
    environment = Environment(
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_shown,
    )
    environment.filters |= {
        "number": number,
        "percent": percent,
        "procedure": plots.procedure_words,
    }
    template = environment.from_string(
        files(__package__).joinpath("template.html").read_text(encoding="utf-8")
    )
    labels = {policy["method"]: policy["label"] for policy in results["policies"]}
    return template.render(
        results=results,
        sentences=[_unbroken(s) for s in (verdict(results), *elsewhere(results))],
        caution=caution(results),
        differences={
            (difference["b"], difference["procedure"]): {
                "points": number(100 * difference["value"], 1, signed=True),
                "interval": interval(difference, 100, 1),
                "outcome": OUTCOMES[outcome(difference)].format(labels[difference["a"]]),
            }
            for difference in results["differences"]
        },
        theory=any(policy.get("theory") for policy in results["policies"]),
        beyond=_beyond(results.get("training", {})),
        extrapolations=extrapolations(results),
        interval=interval,
        labels=labels,
        palette=drawing.PALETTE,
        figures=dict.fromkeys(plots.FIGURES)
        | {name: _data_uri(figure) for name, figure in figures.items()},
        provenance=sorted(_flat(provenance)),
    )


def _shown(value: object) -> object:
    """A value as the page shows it: texts with unseen characters escaped, halves of surrogate pairs
    among them, which no file can hold."""
    if isinstance(value, str) and not isinstance(value, Markup):
        return visible(value, "\n\t")
    return value


def _beyond(training: Mapping) -> dict[str, float]:
    """Share of responses above or below all calibration responses in the last steps, by method."""
    shares = {
        method: [x for x in record.get("saturated", []) if x is not None][-STEPS:]
        for method, record in training.items()
    }
    return {method: sum(last) / len(last) for method, last in shares.items() if last}


def verdict(results: Mapping) -> str:
    """The result of the run in words that follow the interval, not the estimate.

    It reports the first paired difference under the run's own procedure; without one, it compares
    the first policy with the reference.
    """
    paired = [d for d in results["differences"] if d["procedure"] == results["procedure"]]
    sentence = _paired(results, paired[0]) if paired else _alone(results)
    return sentence if results["evidence"] else f"Quick run, not evidence. {sentence}"


def elsewhere(results: Mapping) -> list[str]:
    """The verdict on the same two policies under each of the other procedures, which shows what the
    gain costs there."""
    paired = [d for d in results["differences"] if d["procedure"] == results["procedure"]]
    return [
        _paired(results, difference)
        for difference in results["differences"]
        if paired
        and (difference["a"], difference["b"]) == (paired[0]["a"], paired[0]["b"])
        and difference["procedure"] != results["procedure"]
    ]


def caution(results: Mapping) -> str | None:
    """A warning if the compared policies differ in KL, else None."""
    policies = {policy["method"]: policy for policy in results["policies"]}
    for difference in results["differences"]:
        a, b = policies[difference["a"]], policies[difference["b"]]
        if a["kl"] and b["kl"] and not _same_kl(a, b):
            return (
                f"{a['label']} and {b['label']} ended at different KLs "
                f"({number(a['kl']['value'], 2)} and {number(b['kl']['value'], 2)} nats). More KL "
                "gives a higher win rate by itself, so compare each with the best possible at its "
                "own KL."
            )
    return None


def outcome(difference: Mapping) -> str:
    """The verdict of an interval: "more", "less", "none" (the interval contains 0) or "unknown" (no
    interval).

    >>> outcome({"low": 0.06, "high": 0.10}), outcome({"low": -0.01, "high": 0.02})
    ('more', 'none')
    """
    low, high = difference["low"], difference["high"]
    if not (_known(low) and _known(high)):
        return "unknown"
    return "more" if low > 0 else "less" if high < 0 else "none"


OUTCOMES = {
    "more": "{} wins more",
    "less": "{} wins less",
    "none": "no significant difference",
    "unknown": "no interval",
}


def number(value: float | None, digits: int, *, signed: bool = False) -> str:
    """A number for display, with a true minus sign; a dash if it was not measured.

    >>> number(-0.25, 1), number(8.24, 1, signed=True), number(None, 1)
    ('−0.2', '+8.2', '–')
    """
    if not _known(value):
        return "–"
    text = f"{value:{'+' if signed else ''}.{digits}f}"
    if float(text) == 0:
        text = text.lstrip("+-")
    return text.replace("-", "−")


def percent(value: float | None) -> str:
    """A share as a percentage.

    >>> percent(0.912)
    '91.2 %'
    """
    return f"{number(100 * value, 1)} %" if _known(value) else "–"


def interval(estimate: Mapping, scale: float, digits: int) -> str:
    """Both ends of an estimate's interval, times `scale`; a dash if it has none."""
    low, high = estimate["low"], estimate["high"]
    if not (_known(low) and _known(high)):
        return "–"
    return f"{number(scale * low, digits)} to {number(scale * high, digits)}"


def _paired(results: Mapping, difference: Mapping) -> str:
    policies = {policy["method"]: policy for policy in results["policies"]}
    a, b = policies[difference["a"]], policies[difference["b"]]
    spec = difference["procedure"]
    decoded = f"Decoded with {plots.procedure_words(spec)}"
    rate_a, rate_b = (percent(policy["win_rates"][spec]["value"]) for policy in (a, b))
    kl = "at about the same KL"
    if not (a["kl"] and b["kl"]):
        kl = "at a KL that was not measured"
    elif not _same_kl(a, b):
        kl = f"at {number(a['kl']['value'], 2)} and {number(b['kl']['value'], 2)} nats of KL"
    both = f"{a['label']} beats the reference in {rate_a} of comparisons"
    both += f", and {b['label']} does so in {rate_b}, {kl}."
    points = number(100 * difference["value"], 1)
    shown = f"The difference is {points} points (95 % interval {interval(difference, 100, 1)})."
    match outcome(difference):
        case "more":
            return f"{decoded}, {both} {shown}"
        case "less":
            return f"{decoded}, {a['label']} wins less than {b['label']}. {both} {shown}"
        case "none":
            same = f"{a['label']} and {b['label']} do not differ significantly"
            return f"{decoded}, {same}. {both} {shown}"
        case _:
            return f"{decoded}, {both} There are too few prompts for an interval of the difference."


def _alone(results: Mapping) -> str:
    policy, spec = results["policies"][0], results["procedure"]
    rate = policy["win_rates"][spec]
    centered = {end: rate[end] - 0.5 if _known(rate[end]) else None for end in ("low", "high")}
    ending = {
        "more": ", more than the 50 % of the reference against itself",
        "less": ", less than the 50 % of the reference against itself",
        "none": ". The reference scores 50 % against itself, so the difference is not significant",
        "unknown": ", so its significance is unknown",
    }[outcome(centered)]
    spread = interval(rate, 100, 1)
    spread = "no interval: too few prompts" if spread == "–" else f"95 % interval {spread}"
    return (
        f"Decoded with {plots.procedure_words(spec)}, {policy['label']} beats the reference in "
        f"{percent(rate['value'])} of comparisons ({spread}){ending}."
    )


def _same_kl(a: Mapping, b: Mapping) -> bool:
    first, second = a["kl"]["value"], b["kl"]["value"]
    return abs(first - second) <= SAME_KL * max(first, second)


def _known(value: float | None) -> TypeGuard[float]:
    return value is not None and math.isfinite(value)


def _unbroken(sentence: str) -> str:
    """The sentence with non-breaking spaces before percent signs."""
    return sentence.replace(" %", "\N{NO-BREAK SPACE}%")


def _data_uri(figure) -> str:
    return "data:image/svg+xml;base64," + base64.b64encode(drawing.as_svg(figure)).decode()


def _flat(value, name: str = "") -> list[tuple[str, str]]:
    """Nested settings as rows: dotted name, value as text."""
    if isinstance(value, Mapping):
        inner = [_flat(item, f"{name}.{key}" if name else str(key)) for key, item in value.items()]
        return [row for rows in inner for row in rows]
    return [(name, value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))]
