"""The report from made-up results: what it says, and what it must never load or run."""

import base64
import copy
import hashlib
import json
import re
from html.parser import HTMLParser

import matplotlib
import numpy as np
import pyarrow.parquet as pq
import pytest

from infalign import DataError
from infalign.manifest import Manifest
from infalign.reports import drawing, plots
from infalign.reports.origin import Cost, Origin
from infalign.reports.page import build_report, render
from infalign.reports.tables import tables

HOSTILE = "<script>alert(1)</script>"
WORST, SAMPLING = "worst-of-n:4", "sampling"


def estimate(value, reach):
    return {"value": value, "stderr": reach / 2, "low": value - reach, "high": value + reach}


def policy(method, label, transform, kl, win_rate, sampled):
    return {
        "method": method,
        "label": label,
        "transform": transform,
        "kl": estimate(kl, 0.02),
        "kl_efficiency": 0.61,
        "mean_tokens": 21.3,
        "mean_reward": 0.41,
        "win_rates": {SAMPLING: estimate(sampled, 0.016), WORST: estimate(win_rate, 0.018)},
        "length_controlled": {
            SAMPLING: estimate(0.575, 0.02) | {"longer": 0.58, "shorter": 0.4},
            WORST: None,
        },
        "model": f"train/{method}/model",
        "judge": {
            "win_rate": estimate(0.645, 0.1),
            "position_bias": estimate(0.075, 0.05),
            "consistency": estimate(0.815, 0.06),
            "pairs": 126,
            "excluded": 2,
        },
        "gold": {"gold": {SAMPLING: estimate(0.61, 0.02), WORST: estimate(0.555, 0.02)}},
        "theory": {SAMPLING: 0.752, WORST: 0.943},
        "frontier": {SAMPLING: 0.774, WORST: 0.951},
    }


def decision(procedure, reward, best, differences):
    return {
        "procedure": procedure,
        "reward": reward,
        "policy": best,
        "untrained": 0.5,
        "differences": [{"policy": p, **estimate(*d)} for p, d in differences.items()],
    }


def results():
    u, kl = np.linspace(0, 1, 101), np.linspace(0, 1, 21)
    curves = {name: (1 - 0.5 * np.exp(-rate * kl)).tolist() for name, rate in CURVES.items()}
    bins, steps = np.linspace(0, 1, 21), np.arange(1, 31)
    record = {
        "step": steps.tolist(),
        "kl": (steps / 60).tolist(),
        "quantile": [None, *(0.5 + steps[1:] / 150)],
        "beta": [0.1] * 30,
    }
    replies = [("reference", "Reference", "", 0.04), ("rloo", "InfAlign-CTRL", HOSTILE, 0.62)]
    return {
        "schema_version": 2,
        "evidence": True,
        "procedure": WORST,
        "target_kl": 0.5,
        "model": "a model",
        "reward": "a reward",
        "procedures": {WORST: WORST, SAMPLING: SAMPLING},
        "gold": {"gold": "a better reward"},
        "judge": "a judge",
        "prompts": 128,
        "samples": 32,
        "policies": [
            policy("rloo", "InfAlign-CTRL", "optimal", 0.492, 0.912, 0.702),
            policy("rlhf", "Plain RLHF", "raw reward", 0.503, 0.83, 0.741),
        ],
        "reference": {"mean_tokens": 24.0, "mean_reward": 0.0},
        "differences": [
            {"a": "rloo", "b": "rlhf", "procedure": WORST, **estimate(0.082, 0.021)},
            {"a": "rloo", "b": "rlhf", "procedure": SAMPLING, **estimate(-0.039, 0.016)},
        ],
        "frontier": {spec: {"kl": kl.tolist(), **curves} for spec in (SAMPLING, WORST)},
        "calibration": {
            "prompts": 256,
            "samples": 64,
            "uniformity": [400 + 5 * (-1) ** i for i in range(20)],
            "uniformity_deviation": 0.012,
            "saturated": {"rloo": 0.031},
            "calibrator": {"name": "pooled", "reason": "pooled: <b>better</b> by 3.0 ± 0.4 %"},
            "advice": "K = 64 is too few for worst-of-n:4",
        },
        "transform": {"u": u.tolist(), "phi": (u**0.3).tolist(), "raw": (u**0.8).tolist()},
        "quantile_density": {
            "edges": bins.tolist(),
            "rloo": (2 * bins[1:]).tolist(),
            "optimal": [1.0] * 20,
        },
        "training": {"rloo": record},
        "decisions": [
            decision(WORST, "reward", "rloo", {"rlhf": (0.082, 0.021)}),
            decision(WORST, "gold", "rloo", {"rlhf": (0.05, 0.02)}),
            decision(SAMPLING, "reward", "rlhf", {"rloo": (0.039, 0.016)}),
            decision(SAMPLING, "gold", "rlhf", {"rloo": (0.01, 0.02)}),
        ],
        "landing": {"rloo": {"alpha": 0.63, "kl": 0.502, "target": 0.5, "tried": [[1.0, 1.3]]}},
        "examples": [
            {
                "prompt_id": str(i),
                "prompt": f"Prompt {i} & {HOSTILE}",
                "rank": rank,
                "gain": 0.25,
                "responses": [
                    dict(zip(("policy", "label", "text", "quantile"), reply, strict=True))
                    | {"win_rate": None, "quantiles": [0.1, 0.9]}
                    for reply in replies
                ],
            }
            for i, rank in enumerate((0.9, 0.5, 0.1))
        ],
        "by_n": {
            family: {
                "n": [1, 2, 4],
                "win_rates": {
                    reward: {m: [estimate(0.6 + n / 10, 0.02) for n in range(3)] for m in METHODS}
                    for reward in ("reward", "gold")
                },
            }
            for family in ("best-of-n", "worst-of-n")
        },
        "minutes": {"calibrate": 0.9, "train": 4.0, "evaluate": 1.2},
    }


CURVES = {"optimal": 5, "identity": 3, "probit": 2}
METHODS = ("rloo", "rlhf", *(f"m{i}" for i in range(7)))


@pytest.fixture
def build(tmp_path):
    """Writes results (and provenance) into a run folder and returns the page built from them."""

    def run(values, provenance=None, *, config=None, origin=None, rows=None):
        (tmp_path / "evaluation" / "selected").mkdir(parents=True, exist_ok=True)
        for name, content in (
            ("evaluation/results.json", json.dumps(values)),
            ("provenance.json", provenance and json.dumps(provenance)),
            ("config.yaml", config),
        ):
            if content is not None:
                path = tmp_path / name
                with Manifest(path.parent).recording(path, stage="evaluate"):
                    path.write_text(content)
        if rows is not None:
            path = tmp_path / "evaluation" / "selected" / "responses.parquet"
            with Manifest(tmp_path / "evaluation").recording(path, stage="evaluate"):
                pq.write_table(rows, path)
        page = build_report(tmp_path, origin)
        assert page == tmp_path / "report.html"
        return page.read_text(encoding="utf-8")

    return run


class Page(HTMLParser):
    """Every tag with its attributes, and the text between tags."""

    def __init__(self, html):
        super().__init__()
        self.tags, self.text = [], []
        self.feed(html)
        self.text = " ".join(" ".join(self.text).split())

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_data(self, data):
        self.text.append(data)


def test_the_page_loads_nothing_and_runs_its_one_script_only(build):
    html = build(results())
    tags = Page(html).tags
    assert not {"iframe", "object", "embed", "img"} & {tag for tag, _ in tags}
    kinds = [attributes.get("type", "script") for tag, attributes in tags if tag == "script"]
    assert sorted(kinds) == ["application/json"] * 3 + ["script"]
    for tag, attributes in tags:
        assert not [name for name in attributes if name.startswith("on") or name == "style"], tag
        for name in ("src", "href", "srcset", "action", "data"):
            value = attributes.get(name, "data:")
            assert value.startswith(("data:", "#", "evaluation/", "plots/")), (tag, attributes)
    assert "http://" not in html.replace("http://www.w3.org/2000/svg", "")
    assert "https://" not in html and "@import" not in html
    (policy,) = (attributes["content"] for tag, attributes in tags if "http-equiv" in attributes)
    assert policy.startswith("default-src 'none'; img-src data:;") and "unsafe" not in policy
    script = html.rpartition("<script>")[2].partition("</script>")[0]
    checksum = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{checksum}'" in policy
    assert not re.search(r"innerHTML|outerHTML|insertAdjacent|document\.write|eval\(", script)


def test_every_figure_is_in_the_page_and_beside_it_as_png(build, tmp_path):
    html = build(results())
    for name in plots.FIGURES:
        assert f'data-figure="{name}"' in html
        assert (tmp_path / "plots" / f"{name}.png").read_bytes().startswith(b"\x89PNG")
    assert not [path for path in tmp_path.rglob("*") if path.name.endswith(".part")]


def test_generated_text_is_escaped():
    html = render(results(), provenance={"note": HOSTILE})
    assert HOSTILE not in html
    assert html.count("&lt;script&gt;alert(1)&lt;/script&gt;") == 1  # the provenance
    assert html.count("\\u003cscript>alert(1)\\u003c/script>") == 3 + 3  # prompts and responses
    assert HOSTILE in Page(html).text


def test_text_cut_inside_a_character_does_not_stop_the_report():
    values = results()
    values["examples"][0]["prompt"] = "half a pair \ud83d here"
    assert "half a pair \\\\ud83d here" in render(values)


def test_the_tables_hold_the_cells_of_the_terminal():
    text = Page(render(results(), provenance={"seed": 7, "model": {"sha": "abc123"}})).text
    shown = re.sub(r"\s", "", text)
    for table in tables(results(), theory=True):
        for cell in (*table.head, *(cell for row in table.rows for cell in row), *table.notes):
            assert re.sub(r"\s", "", cell) in shown, cell
    for words in ("in theory", "94.3", "model.sha", "abc123", "a better reward", "3.1 %"):
        assert words in text


def test_the_page_says_where_it_comes_from_and_what_it_cost():
    costs = [Cost("calibrate", 1000, 20_000, 90.0), Cost("evaluate", 500, None, 5400.0)]
    origin = Origin("infalign run 'my config.yaml' --out NEW", "2026-11-28 00:31 UTC", costs)
    text = Page(render(results(), config="model: a # <b>\n", origin=origin)).text
    for words in (
        "infalign run 'my config.yaml' --out NEW",
        "2026-11-28 00:31 UTC",
        "1,500 responses, 20,000 tokens, 1.52 hours",
        "1.5 minutes",
        "model: a # <b>",
    ):
        assert words in text
    assert "Reproduce" not in render(results()) and "What it cost" not in render(results())


def test_files_are_linked_if_they_are_there(build, tmp_path):
    (tmp_path / "evaluation").mkdir()
    (tmp_path / "evaluation" / "rlhf.parquet").write_bytes(b"")
    html = build(results())
    assert 'href="evaluation/rlhf.parquet"' in html and "rloo.parquet" not in html
    assert 'href="plots/by_n.png"' in html and "config.yaml" not in html
    odd = render(results(), files=[("evaluation/a #1 ü.parquet", "samples")])
    assert 'href="evaluation/a%20%231%20%C3%BC.parquet"' in odd


def test_a_page_without_provenance_has_no_section_for_it():
    assert "Provenance" not in render(results())


def test_results_of_another_schema_are_refused(build, tmp_path):
    with pytest.raises(DataError, match=r"results schema 3; this version reads 2\. Evaluate again"):
        build(results() | {"schema_version": 3})
    with pytest.raises(DataError, match="results schema None"):
        build([1, 2])
    assert not (tmp_path / "report.html").exists()


def test_missing_and_incomplete_results_are_refused(build, tmp_path):
    with pytest.raises(DataError, match=r"results\.json does not exist"):
        build_report(tmp_path)
    for part in ("policies", "model", "decisions"):
        values = results()
        del values[part]
        with pytest.raises(DataError, match=f"is incomplete .*{part}.*Evaluate again"):
            build(values)
    assert not (tmp_path / "report.html").exists()


@pytest.mark.parametrize("name", ["evaluation/results.json", "provenance.json"])
def test_files_that_have_changed_are_refused_by_name(build, tmp_path, name):
    build(results(), {"seed": 1})
    (tmp_path / "report.html").unlink()
    text = (tmp_path / name).read_text()
    (tmp_path / name).write_text(text.replace("1", "2", 1))
    with pytest.raises(DataError, match=f"{name} is not what was written.* run `evaluate` again"):
        build_report(tmp_path)
    assert not (tmp_path / "report.html").exists()


def test_results_without_checksums_are_refused(tmp_path):
    (tmp_path / "evaluation").mkdir()
    (tmp_path / "evaluation" / "results.json").write_text(json.dumps(results()))
    with pytest.raises(DataError, match=r"has no checksum, since .*manifest\.json does not exist"):
        build_report(tmp_path)


def test_plots_of_an_earlier_evaluation_do_not_stay(build, tmp_path):
    build(results())
    values = results() | {"training": {}}
    assert "faint as recorded" not in build(values)
    assert sorted(path.stem for path in (tmp_path / "plots").iterdir()) == sorted(
        set(plots.FIGURES) - {"training"}
    )


def test_the_same_results_give_the_same_page_and_are_not_changed(build):
    values = results()
    before = copy.deepcopy(values)
    assert build(values) == build(values)
    plots.draw(values)
    assert values == before


def test_drawing_leaves_matplotlib_as_it_was(tmp_path):
    before = dict(matplotlib.rcParams)
    for figure in plots.draw(results()).values():
        drawing.save_png(figure, tmp_path / "figure.png")
    assert dict(matplotlib.rcParams) == before


def test_many_policies_without_intervals_and_other_procedures_still_draw(build):
    values = results()
    for index in range(7):
        extra = copy.deepcopy(values["policies"][1]) | {
            "method": f"m{index}",
            "label": f"Method $ number {index}",
            "kl_efficiency": None,
        }
        extra["kl"] |= {"stderr": None, "low": None, "high": None}
        extra["win_rates"][WORST] |= {"low": None, "high": None}
        values["policies"].append(extra)
    assert "Method $ number 6" in build(values)


def test_the_band_of_uniform_bins_covers_what_calibration_gives():
    # Simulation: quantiles of fresh replies are ranks among their own prompt's K, spread over
    # the gap that the rank names.
    rng = np.random.default_rng(0)
    prompts, samples, each, bins = 64, 32, 16, 20
    inside = []
    for _ in range(200):
        stored = np.sort(rng.random((prompts, samples)), axis=1)
        fresh = rng.random((prompts, each))
        ranks = (fresh[:, :, None] > stored[:, None, :]).sum(2)
        spread = (ranks + rng.random(ranks.shape)) / (samples + 1)
        counts, _ = np.histogram(spread, bins, (0, 1))
        low, high = plots.uniform_band(prompts * each, bins, prompts, samples)
        inside.append(((counts >= low) & (counts <= high)).mean())
    error = np.std(inside) / np.sqrt(len(inside))
    assert abs(np.mean(inside) - 0.95) < 4 * error + 0.01  # whole counts in a normal band


def test_the_page_says_how_quantiles_were_made_and_whether_samples_were_enough():
    values = results()
    values["training"]["rloo"]["saturated"] = [1.0] * 5 + [0.25, None] * 10 + [0.15] * 10
    page = Page(render(values))
    assert "pooled: <b>better</b> by 3.0 ± 0.4 %" in page.text  # as text, escaped
    assert "K = 64 is too few for worst-of-n:4" in page.text
    # The last twenty that were recorded.
    assert "InfAlign-CTRL 20.0 %" in page.text.replace("\u202f", " ").replace("\xa0", " ")


def test_a_comparison_without_training_has_a_page_too():
    values = results()
    for part in ("target_kl", "calibration", "transform", "training", "landing", "minutes"):
        del values[part]
    for policy in values["policies"]:
        del policy["theory"], policy["transform"]
    values["policies"][1] |= {"kl": None, "kl_efficiency": None, "frontier": None}
    text = Page(render(values)).text
    assert "Report of a comparison" in text and "target" not in text.partition("{")[0]
    assert "in theory" not in text.partition("Results")[2].partition("{")[0].lower()
    assert "at a KL that was not measured" in text


def test_the_page_marks_unidentified_win_rates_and_says_what_it_does_not_know():
    assert "†" not in Page(render(results())).text
    values = results()
    # A file of a former version, whose figure was an extrapolation.
    more = {"longer": 0.01, "shorter": 0.98, "extrapolated": True, "warning": "…"}
    values["policies"][0]["length_controlled"][SAMPLING] |= more
    values["policies"][0]["kl_efficiency_interval"] = [0.524, 0.696]
    values["policies"][1] |= {"kl_efficiency": None, "kl_efficiency_note": "too few prompts"}
    text = " ".join(Page(render(values)).text.replace("\xa0", " ").split())
    assert text.count("57.5 [55.5, 59.5]") == 1  # of the other policy
    assert "† Not identified" in text and "plain sampling: 98 % shorter" in text
    assert "[52, 70]" in text and "too few" in text


def test_a_training_that_is_not_the_first_of_its_method_is_named():
    own = results()
    own["policies"][0]["trained"] = own["policies"][0]["method"]
    assert "trained in train/" not in render(own)
    own["policies"][0]["trained"] = "rloo-2"
    assert render(own).count("trained in train/rloo-2") == 1
