"""One self-contained page from the saved results of a run or a comparison.

The evaluation computed every number; this module words, lays out and draws them. Responses of a
model are hostile text: templates escape all of it, and scripts show it as text.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from urllib.parse import quote

from jinja2 import UndefinedError
from markupsafe import Markup

from infalign import __version__, storage
from infalign._pages import Column, document, environment, read, table
from infalign.errors import DataError
from infalign.manifest import Manifest

from . import drawing, plots
from .decision import decide
from .origin import Cost, Origin
from .responses import SELECTED, counted, embedded_responses
from .tables import Table, filled, tables

__all__ = ["build_report", "read_results", "render", "results_of"]

SCHEMA_VERSION = 2
"""The `schema_version` of the results that this page reads."""

RESULTS = Path("evaluation", "results.json")
"""The results in the folder of a run or a comparison."""

STEPS = 20
"""Number of final training steps over which a share is averaged."""


def build_report(run: Path, origin: Origin | None = None) -> Path:
    """Write `run`/report.html and `run`/plots/*.png from the saved evaluation; returns the page.

    Reads what the evaluation has written, and config.yaml and provenance.json if they exist. The
    page is a single file that loads nothing. It is written last, so it never links to plots that do
    not exist.

    - `run`: a run folder that has been evaluated.
    - `origin`: the command, the date and the costs of the results.

    Raises DataError when the results are missing, damaged, incomplete or of another schema version,
    and while another process writes the folder.
    """
    run = Path(run)
    results = results_of(run)
    with storage.locked(run):
        return _write(run, results, origin or Origin())


def _write(run: Path, results: dict, origin: Origin) -> Path:
    config, provenance = "", {}
    if (run / "provenance.json").exists():
        Manifest(run).require(run / "provenance.json")
        provenance = storage.read_json(run / "provenance.json")
    if (run / "config.yaml").exists():
        Manifest(run).require(run / "config.yaml")
        config = (run / "config.yaml").read_text(encoding="utf-8")
    if (run / SELECTED).exists():
        Manifest(run / SELECTED.parts[0]).require(run / SELECTED)
    try:
        figures = plots.draw(results)
        page = render(
            results,
            provenance=provenance,
            config=config,
            origin=origin,
            responses=embedded_responses(run),
            files=_files(run, results),
        )
    except (KeyError, UndefinedError) as error:
        raise DataError(f"{run / RESULTS} is incomplete ({error}). Evaluate again.") from error
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


def _files(run: Path, results: Mapping) -> list[tuple[str, str]]:
    """Files beside the page, and what they hold."""
    samples = [("reference", "Reference")] + [
        (p["method"], p["label"]) for p in results["policies"]
    ]
    known = [
        (RESULTS, "every number of this page, as JSON"),
        (SELECTED, "the selected responses to every prompt"),
        *(
            (RESULTS.with_name(f"{name}.parquet"), f"all samples: {label}")
            for name, label in samples
        ),
        (Path("config.yaml"), "the configuration"),
        (Path("provenance.json"), "versions and fingerprints"),
        *(
            (Path("plots", f"{name}.png"), "figure")
            for name in plots.FIGURES
            if _has(results, name)
        ),
    ]
    return [
        (path.as_posix(), words)
        for path, words in known
        if path.parts[0] == "plots" or (run / path).exists()
    ]


def _has(results: Mapping, figure: str) -> bool:
    return bool(results.get(plots.FIGURES[figure][0]))


def render(
    results: Mapping,
    *,
    provenance: Mapping | None = None,
    config: str = "",
    origin: Origin | None = None,
    responses: Mapping | None = None,
    files: Sequence[tuple[str, str]] = (),
) -> str:
    """The page as HTML.

    - `config`: the text of the configuration.
    - `responses`: the responses of all prompts, as `embedded_responses`.
    - `files`: paths beside the page, and what they hold.
    """
    labels = {policy["method"]: policy["label"] for policy in results["policies"]}
    decision, origin = decide(results), origin or Origin()
    template = environment()
    template.filters |= {"procedure": plots.procedure_words, "link": quote}
    body = template.from_string(read(__package__, "template.html")).render(
        results=results,
        decision=decision,
        shown=[_as_html(own, list(labels.values())) for own in tables(results, theory=True)],
        beyond=_beyond(results.get("training", {})),
        labels=labels,
        figures=[name for name in plots.FIGURES if _has(results, name)],
        config=config,
        origin=origin,
        cost=_costs(origin.costs),
        spent=Cost.total(origin.costs).words(),
        counted=counted(responses) if responses else "",
        files=files,
        provenance=sorted(_flat(provenance or {})),
        version=__version__,
    )
    return document(
        f"infalign report: {decision.title}",
        Markup(body),
        style=read(__package__, "report.css"),
        scripts=[read(__package__, name) for name in ("figures.js", "responses.js")],
        data={
            "results": _drawn(results),
            "responses": responses,
            "examples": results["examples"],
        },
    )


def _as_html(own: Table, labels: Sequence[str]) -> tuple[str, Markup, tuple[str, ...]]:
    columns = [
        Column(name, words=index < own.words, mark=name == "policy")
        for index, name in enumerate(own.head)
    ]
    return own.title, table(own.title, columns, filled(own), labels), own.notes


def _costs(costs: Sequence[Cost]) -> Markup | None:
    if not costs:
        return None
    head = ("work", "responses written", "tokens", "time")
    columns = [Column(name, words=not index) for index, name in enumerate(head)]
    rows = [(cost.name, *cost.cells()) for cost in (*costs, Cost.total(costs))]
    return table("Cost", columns, rows, sortable=False)


def _drawn(results: Mapping) -> dict:
    """The part of the results that the figures show, with procedures in words."""
    keys = ("frontier", "by_n", "quantile_density", "transform", "training", "landing")
    return {
        "policies": [
            {key: policy.get(key) for key in ("method", "kl", "win_rates", "gold", "transform")}
            | {"label": drawing.label(policy["label"])}
            for policy in results["policies"]
        ],
        "words": {spec: plots.procedure_words(spec) for spec in results["procedures"]},
        "procedure": results["procedure"],
        "target_kl": results.get("target_kl"),
        "gold": list(results["gold"]),
        **{key: results.get(key) or {} for key in keys},
        "calibration": _uniformity(results.get("calibration")),
    }


def _uniformity(part: Mapping | None) -> dict | None:
    """Shares of the bins of the calibration check, and the band that holds 95 % of them."""
    if not part:
        return None
    counts = part["uniformity"]
    total = sum(counts)
    band = plots.uniform_band(total, len(counts), part["prompts"], part["samples"])
    return {"shares": [n / total for n in counts], "band": [end / total for end in band]}


def _beyond(training: Mapping) -> dict[str, float]:
    """Share of responses above or below all calibration responses in the last steps, by method."""
    shares = {
        method: [x for x in record.get("saturated", []) if x is not None][-STEPS:]
        for method, record in training.items()
    }
    return {method: sum(last) / len(last) for method, last in shares.items() if last}


def _flat(value, name: str = "") -> list[tuple[str, str]]:
    """Nested settings as rows: dotted name, value as text."""
    if isinstance(value, Mapping):
        inner = [_flat(item, f"{name}.{key}" if name else str(key)) for key, item in value.items()]
        return [row for rows in inner for row in rows]
    return [(name, value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))]
