"""The campaign's own parts, and a small share of its cases."""

import json
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest
from campaigns import Journal

from faults.campaign import thinned
from faults.hostile import PAYLOADS
from faults.outcomes import Case, Outcome, Verdict, judge
from faults.page import counts, page
from faults.processes import Ended

TESTS = Path(__file__).parents[1]


@pytest.mark.parametrize(
    ("ended", "outcome"),
    [
        (Ended(0, "same", ""), Outcome.survived),
        (Ended(0, "other", ""), Outcome.silent),
        (Ended(1, "", "progress\ninfalign: a/design.json is damaged. Run again.\n"), Outcome.named),
        (Ended(2, "", "│ Invalid value for a/desi │\n│ gn.json: no │"), Outcome.named),
        (Ended(1, "", "infalign: something is damaged.\n"), Outcome.unclear),
        (Ended(1, "", "infalign: design.json\ninfalign: and more\n"), Outcome.unclear),
        (Ended(1, "", ""), Outcome.unclear),
        (
            Ended(1, "", "infalign: KeyError: 'design.json' (--debug shows where)"),
            Outcome.traceback,
        ),
        (Ended(0, "same", "Traceback (most recent call last):\n"), Outcome.traceback),
        (Ended(3, "", "infalign: design.json"), Outcome.traceback),
        (Ended(-11, "", ""), Outcome.traceback),
        (Ended(0, "same", "", hung=True), Outcome.hang),
    ],
)
def test_an_outcome_is_read_from_what_a_command_leaves(ended, outcome):
    assert judge(ended, lambda: ended.stdout == "same", names=["design.json"]).outcome == outcome


def _case(kind: str, name: str) -> Case:
    return Case(kind, name, lambda scratch: Verdict(Outcome.survived))


def test_a_journal_that_a_kill_cut_off_continues_where_it_ended(tmp_path):
    journal = Journal(tmp_path / "j")
    journal.add({"case": "a", "outcome": "named", "words": "a\nb"})
    journal.add({"case": "b", "outcome": "survived"})
    journal.path.write_bytes(journal.path.read_bytes()[:-20])
    assert journal.tried() == {"a"}
    journal.add({"case": "b", "outcome": "silent"})
    assert [(r["case"], r["outcome"]) for r in journal.rows()] == [("a", "named"), ("b", "silent")]
    assert journal.tried() == {"a", "b"}
    assert journal.tried(but=["silent"]) == {"a"}


def test_a_share_has_cases_of_every_kind_and_follows_from_the_seed():
    cases = [_case("ab"[i > 4], f"{i}") for i in range(100)]
    some = [thinned(cases, 0.1, random.Random(seed)) for seed in (1, 1, 2)]
    assert some[0] == some[1] != some[2]
    assert [sum(c.kind == kind for c in some[0]) for kind in "ab"] == [1, 10]
    assert thinned(cases, 1.0, random.Random(1)) == cases


def test_the_page_counts_every_outcome_and_lists_the_defects():
    rows = [
        {"kind": "k", "case": f"c{o}", "outcome": o, "words": f"the words\nof {o}"} for o in Outcome
    ]
    names = ("processor", "cores", "system", "python", "infalign", "torch", "transformers", "trl")
    defects = [{"part": "files", **row} for row in rows[2:]]
    facts = {"seed": 0, "whole": 12, "date": "d", "machine": dict.fromkeys((*names, "pyarrow"), 1)}
    text = page(facts | {"counts": {"files": counts(rows)}, "defects": defects})
    assert "**6 cases were tried: 1 were named and 1 survived; 1 were silent, 1 unclear" in text
    assert "Seed 0; a random 50.0% of the cases." in text
    assert "| k | 6 | 1 | 1 | 1 | 1 | 1 | 1 |" in text
    assert "- silent: files, csilent: `the words of silent`" in text


def test_every_hostile_text_has_a_name_that_can_be_part_of_an_address():
    assert all(name.replace("-", "").isalnum() for name in PAYLOADS)
    assert len(set(PAYLOADS.values())) == len(PAYLOADS)


SMALL = {
    "files": ("calibrated run", "calibration store", "export of a store"),
    "fuzz": ("fuzzed configurations", "fuzzed prompts files", "fuzzed reward returns"),
    "servers": ("servers as reward", "servers as policy"),
    "texts": ("texts on the terminal", "texts in stores"),
}
"""Parts of the campaign that need no training and no browser."""


def test_a_small_share_of_the_campaign_has_no_defects(tmp_path):
    script = "import sys; from faults.campaign import main; sys.exit(main(sys.argv[1:]))"
    kinds = [kind for own in SMALL.values() for kind in own]
    words = ["--parts", *SMALL, "--kinds", *kinds, "--scale", "0.006", "--seed", "1", "--fresh"]
    words += ["--work", tmp_path / "work", "--out", tmp_path / "out"]
    ended = subprocess.run(
        [sys.executable, "-c", script, *map(str, words)],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": f"{TESTS}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"},
    )
    assert ended.returncode in (0, 1), ended.stderr
    results = json.loads((tmp_path / "out/benchmarks/faults.json").read_text())
    assert {kind for own in results["counts"].values() for kind in own} == set(kinds)
    assert results["defects"] == []
