"""The demo as a user runs it, and what it leaves in its folder."""

import json
import re
import runpy

import pyarrow.parquet as pq
from pages import ROOT


def test_the_quick_demo_prints_its_results_and_where_the_report_is(quick_demo):
    folder, stdout, stderr = quick_demo
    assert "InfAlign-CTRL" in stdout and "RLHF on the raw" in stdout
    assert str(folder / "report.html") in stdout.replace("\n", "")
    assert "not" in stdout and "evidence" in stdout
    assert "calibrate" in stderr and "calibrate" not in stdout


def test_the_run_folder_holds_what_the_contract_lists(quick_demo):
    folder, _, _ = quick_demo
    for name in ("config.yaml", "provenance.json", "report.html", "calibration/manifest.json"):
        assert (folder / name).is_file(), name
    for method in ("rloo", "rlhf"):
        assert (folder / "train" / method / "model" / "model.safetensors").is_file()
    assert not list(folder.rglob("*.part")) and not list(folder.rglob("checkpoint-*"))
    assert not [p for p in folder.rglob("*") if p.suffix in (".pt", ".pth", ".pkl", ".bin")]


def test_the_results_agree_with_the_samples_they_come_from(quick_demo):
    # Road two: the win rate under plain sampling is the share of pairs won, straight from Parquet.
    folder, _, _ = quick_demo
    results = json.loads((folder / "evaluation" / "results.json").read_text())
    rows = {
        name: pq.read_table(folder / "evaluation" / f"{name}.parquet").to_pylist()
        for name in ("reference", "rloo")
    }
    by_prompt = {name: {} for name in rows}
    for name, part in rows.items():
        for row in part:
            by_prompt[name].setdefault(row["prompt_id"], []).append(row["reward"])
    wins = [
        sum((a > b) + (a == b) / 2 for a in ours for b in by_prompt["reference"][prompt])
        / (len(ours) * len(by_prompt["reference"][prompt]))
        for prompt, ours in by_prompt["rloo"].items()
    ]
    stated = results["policies"][0]["win_rates"]["sampling"]["value"]
    assert abs(stated - sum(wins) / len(wins)) < 1e-12


def test_the_report_loads_nothing_and_escapes_what_models_write(quick_demo):
    folder, _, _ = quick_demo
    page = (folder / "report.html").read_text()
    assert not re.search(r"""(?:src|href)\s*=\s*["']?https?:""", page)
    assert page.count("<script>") == 1 and "script-src 'sha256-" in page


def test_the_report_says_what_the_run_cost_and_when(quick_demo):
    folder, _, _ = quick_demo
    page = (folder / "report.html").read_text()
    assert re.search(r"Report of a run · \d{4}-\d\d-\d\d \d\d:\d\d UTC", page)
    results = json.loads((folder / "evaluation" / "results.json").read_text())
    rows = [pq.read_table(p) for p in (folder / "evaluation").glob("*.parquet")]
    written, tokens = sum(map(len, rows)), sum(sum(r["tokens"].to_pylist()) for r in rows)
    cells = re.findall(r'<td role="cell" data-label="[^"]*"><span>([^<]*)</span>', page)
    at = cells.index(f"{written:,}")
    assert cells[at + 1] == f"{tokens:,}" and re.fullmatch(r"[\d.]+ \w+", cells[at + 2])
    assert results["landing"].keys() == {"rloo", "rlhf"}


def test_the_demo_page_shows_what_a_run_printed(quick_demo, tmp_path):
    folder, stdout, _ = quick_demo
    make = runpy.run_path(str(ROOT / "docs/make.py"))
    (tmp_path / "demo.md").write_text((ROOT / "docs/demo.md").read_text())
    make["write_demo"](folder, tmp_path)
    page = (tmp_path / "demo.md").read_text()
    block = page.split("```")[1].strip().splitlines()
    assert "InfAlign-CTRL" in page and "Report:" not in page
    assert [line.split() for line in block if "InfAlign-CTRL " in line] == [
        line.split() for line in stdout.splitlines() if "InfAlign-CTRL " in line
    ]
    assert page.split("```")[2] == (ROOT / "docs/demo.md").read_text().split("```")[2]
    drawn = (folder / "plots/win_rate.png").read_bytes()
    assert (tmp_path / "images/win_rate.png").read_bytes() == drawn


def test_a_second_call_does_nothing_again(quick_demo, runs):
    folder, _, _ = quick_demo
    before = {p: p.stat().st_mtime_ns for p in folder.rglob("*") if p.is_file()}
    again = runs("demo", "--quick", "--out", folder)
    after = {p: p.stat().st_mtime_ns for p in folder.rglob("*") if p.is_file()}
    changed = {p.name for p in after if after[p] != before.get(p)}
    assert again.code == 0 and "InfAlign-CTRL" in again.stdout
    assert changed <= {"report.html", ".lock", "costs.jsonl"} | {
        p.name for p in (folder / "plots").iterdir()
    }
