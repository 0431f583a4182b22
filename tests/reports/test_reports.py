"""The report from made-up results: what it says, and what it must never load or run."""

import base64
import copy
import json
from html.parser import HTMLParser

import matplotlib
import numpy as np
import pytest

from infalign import DataError
from infalign.manifest import Manifest
from infalign.reports import drawing, plots
from infalign.reports.page import build_report, caution, outcome, render, verdict

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
        "length_controlled": {SAMPLING: estimate(0.575, 0.02), WORST: None},
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
        "examples": [
            {
                "prompt_id": str(i),
                "prompt": f"Prompt {i} & {HOSTILE}",
                "responses": [
                    dict(zip(("policy", "label", "text", "quantile"), reply, strict=True))
                    for reply in replies
                ],
            }
            for i in range(6)
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

    def run(values, provenance=None):
        (tmp_path / "evaluation").mkdir(exist_ok=True)
        for name, content in (("evaluation/results.json", values), ("provenance.json", provenance)):
            if content is not None:
                with Manifest((tmp_path / name).parent).recording(
                    tmp_path / name, stage="evaluate"
                ):
                    (tmp_path / name).write_text(json.dumps(content))
        page = build_report(tmp_path)
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


def test_the_page_loads_and_runs_nothing(build):
    html = build(results())
    tags = Page(html).tags
    assert not {"script", "iframe", "object", "embed", "form"} & {tag for tag, _ in tags}
    for tag, attributes in tags:
        assert not [name for name in attributes if name.startswith("on")], tag
        for name in ("src", "href", "srcset", "action", "data"):
            assert attributes.get(name, "data:").startswith(("data:", "#")), (tag, attributes)
    assert "http://" not in html and "https://" not in html
    assert "@import" not in html and "url(" not in html
    assert "default-src &#39;none&#39;" in html or "default-src 'none'" in html


def test_every_plot_is_in_the_page_with_alt_text_and_beside_it_as_png(build, tmp_path):
    images = [attributes for tag, attributes in Page(build(results())).tags if tag == "img"]
    assert len(images) == len(plots.FIGURES)
    for attributes in images:
        assert len(attributes["alt"]) > 40
        kind, data = attributes["src"].split(",")
        assert kind == "data:image/svg+xml;base64"
        assert b"<svg" in base64.b64decode(data)
    for name in plots.FIGURES:
        assert (tmp_path / "plots" / f"{name}.png").read_bytes().startswith(b"\x89PNG")
    assert not [path for path in tmp_path.rglob("*") if path.name.endswith(".part")]


def test_generated_text_is_escaped(build):
    html = build(results(), {"note": HOSTILE})
    assert HOSTILE not in html
    assert html.count("&lt;script&gt;alert(1)&lt;/script&gt;") == 6 + 6 + 1
    assert HOSTILE in Page(html).text


def test_text_cut_inside_a_character_does_not_stop_the_report(build):
    values = results()
    values["examples"][0]["prompt"] = "half a pair \ud83d here"
    assert "half a pair \\ud83d here" in build(values)


def test_the_tables_hold_the_numbers(build):
    text = Page(build(results(), {"seed": 7, "model": {"sha": "abc123"}})).text
    for value in (
        "0.492",
        "0.472 to 0.512",
        "61.0 %",
        "70.2 %",
        "91.2 %",
        "89.4 to 93.0",
        "95.1 %",
    ):
        assert value in text
    for value in ("+8.2", "6.1 to 10.3", "−3.9", "−5.5 to −2.3", "wins more", "wins less"):
        assert value in text
    for value in ("By gold", "55.5 %", "53.5 to 57.5", "a better reward", "57.5 %"):
        assert value in text
    for value in ("a judge compared", "64.5 %", "7.5 %", "81.5 %", "126", "2 without verdict"):
        assert value in text
    for value in ("24.0 tokens", "0.41", "3.1 %", "model.sha abc123", "seed 7"):
        assert value in text
    assert "(empty response)" in text and "2 more" in text


def test_a_page_without_provenance_has_no_section_for_it(build):
    assert "Provenance" not in build(results())


@pytest.mark.parametrize("evidence", [True, False])
def test_only_a_quick_run_warns_that_it_is_not_evidence(build, evidence):
    text = Page(build(results() | {"evidence": evidence})).text
    assert ("not evidence" in text) is not evidence
    assert ("Quick run: these numbers are not evidence." in text) is not evidence


def test_a_win_is_worded_as_one():
    assert verdict(results()) == (
        "Decoded with worst-of-4, InfAlign-CTRL beats the reference in 91.2 % of comparisons, "
        "and Plain RLHF does so in 83.0 %, at about the same KL. The difference is 8.2 points "
        "(95 % interval 6.1 to 10.3)."
    )


def test_an_interval_that_holds_zero_shows_no_difference():
    values = results()
    values["differences"][0] |= {"value": 0.004, "low": -0.01, "high": 0.018}
    assert "InfAlign-CTRL and Plain RLHF do not differ significantly." in verdict(values)
    assert "The difference is 0.4 points (95 % interval −1.0 to 1.8)." in verdict(values)
    values["differences"][0] |= {"low": None, "high": None}
    assert verdict(values).endswith("There are too few prompts for an interval of the difference.")


def test_a_loss_is_called_one(build):
    values = results()
    values["differences"][0] |= {"value": -0.03, "low": -0.05, "high": -0.01}
    assert verdict(values) == (
        "Decoded with worst-of-4, InfAlign-CTRL wins less than Plain RLHF. InfAlign-CTRL beats the "
        "reference in 91.2 % of comparisons, and Plain RLHF does so in 83.0 %, at about the same "
        "KL. The difference is −3.0 points (95 % interval −5.0 to −1.0)."
    )


def test_a_single_policy_is_held_against_the_reference(build):
    values = results()
    values["policies"], values["differences"] = values["policies"][:1], []
    assert verdict(values).endswith("more than the 50 % of the reference against itself.")
    values["policies"][0]["win_rates"][WORST] = estimate(0.51, 0.02)
    assert verdict(values).endswith("so the difference is not significant.")
    assert "Plain RLHF" not in build(values)


def test_policies_at_different_kls_come_with_a_caution(build):
    values = results()
    assert caution(values) is None
    values["policies"][1]["kl"] = estimate(0.7, 0.02)
    assert "at 0.49 and 0.70 nats of KL" in verdict(values)
    assert "ended at different KLs (0.49 and 0.70 nats)" in Page(build(values)).text


@pytest.mark.parametrize(
    "low, high, said",
    [(0.1, 0.2, "more"), (-0.2, -0.1, "less"), (0.0, 0.1, "none"), (None, None, "unknown")],
)
def test_the_interval_decides_what_is_said(low, high, said):
    assert outcome({"low": low, "high": high}) == said


def test_results_of_another_schema_are_refused(build, tmp_path):
    with pytest.raises(DataError, match=r"results schema 3; this version reads 2\. Evaluate again"):
        build(results() | {"schema_version": 3})
    with pytest.raises(DataError, match="results schema None"):
        build([1, 2])
    assert not (tmp_path / "report.html").exists()


def test_missing_and_incomplete_results_are_refused(build, tmp_path):
    with pytest.raises(DataError, match=r"results\.json does not exist"):
        build_report(tmp_path)
    for part in ("policies", "model"):
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
    assert "Faint lines" not in build(values)
    assert sorted(path.stem for path in (tmp_path / "plots").iterdir()) == sorted(
        set(plots.FIGURES) - {"training"}
    )


def test_the_same_results_give_the_same_page_and_are_not_changed(build):
    values = results()
    before = copy.deepcopy(values)
    assert build(values) == build(values)
    plots.draw(values)
    assert values == before


def test_drawing_leaves_matplotlib_as_it_was():
    before = dict(matplotlib.rcParams)
    for figure in plots.draw(results()).values():
        drawing.as_svg(figure)
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
    values["frontier"] |= {"best-of-n:2": values["frontier"][WORST]}
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


def test_the_page_says_how_quantiles_were_made_and_whether_samples_were_enough(build):
    values = results()
    values["training"]["rloo"]["saturated"] = [1.0] * 5 + [0.25, None] * 10 + [0.15] * 10
    page = Page(build(values))
    assert "pooled: <b>better</b> by 3.0 ± 0.4 %" in page.text  # as text, escaped
    assert "K = 64 is too few for worst-of-n:4" in page.text
    # The last twenty that were recorded.
    assert "InfAlign-CTRL 20.0 %" in page.text.replace("\u202f", " ").replace("\xa0", " ")


def test_a_comparison_without_training_has_a_page_too(build):
    values = results()
    for part in ("target_kl", "calibration", "transform", "training", "minutes"):
        del values[part]
    for policy in values["policies"]:
        del policy["theory"], policy["transform"]
    values["policies"][1] |= {"kl": None, "kl_efficiency": None, "frontier": None}
    text = Page(build(values)).text
    assert "Compared under worst-of-4" in text and "Target KL" not in text
    assert "In theory" not in text and "at a KL that was not measured" in text


def test_the_page_marks_extrapolated_win_rates_and_says_what_it_does_not_know(build):
    assert "†" not in Page(build(results())).text
    values = results()
    more = {"longer": 0.01, "shorter": 0.98, "extrapolated": True, "warning": "…"}
    values["policies"][0]["length_controlled"][SAMPLING] |= more
    values["policies"][0]["kl_efficiency_interval"] = [0.524, 0.696]
    values["policies"][1] |= {"kl_efficiency": None, "kl_efficiency_note": "too few prompts"}
    text = " ".join(Page(build(values)).text.replace("\xa0", " ").split())
    assert "57.5 %†" in text.replace("\u202f", " ")
    assert "† Extrapolated to equal length" in text and "plain sampling: 98 % shorter" in text
    assert "52 to 70" in text and "too few prompts" in text


def test_a_training_that_is_not_the_first_of_its_method_is_named():
    own = results()
    own["policies"][0]["trained"] = own["policies"][0]["method"]
    assert "trained in train/" not in render(own, {}, {})
    own["policies"][0]["trained"] = "rloo-2"
    assert render(own, {}, {}).count("trained in train/rloo-2") == 1
