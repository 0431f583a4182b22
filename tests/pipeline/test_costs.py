"""What the stages took, from `costs.jsonl`, whatever is in it."""

import pytest

from infalign.pipeline.costs import FILE, last_evaluation, metered, rate, spent

LINES = """
{"stage": "calibrate", "ended": "2026-01-02T03:04:05+00:00", "spent": {"calibrate": [10, 5.0]}}
{"stage": "train", "spent": {"train a: warm start": [4, 1.0], "train a: on policy": [2, 3.0]}}
{"stage": "train", "spent": {"train b: offline": [1, 7]}}
not JSON
{"stage": "evaluate", "ended": "2026-01-02T05:30:59+02:00", "spent": {"evaluate a": [4, 2.0]}}
{"stage": "evaluate", "ended": "yesterday", "spent": {"evaluate a": [4, 2.0]}}
{"stage": "calibrate", "spent": {"calibrate": [10, 1.0]}}
[1, 2]
{"stage": "train"}
"""


def test_time_is_that_of_all_calls_by_stage_and_method(tmp_path):
    assert spent(tmp_path) == {} and last_evaluation(tmp_path) == ""
    (tmp_path / FILE).write_text(LINES)
    assert spent(tmp_path) == {"calibrate": 6.0, "train a": 4.0, "train b": 7.0, "evaluate": 2.0}
    assert last_evaluation(tmp_path) == "2026-01-02 03:30 UTC"
    assert rate(tmp_path, "calibrate") == pytest.approx(0.1) and rate(tmp_path, "x") is None


def test_a_stage_notes_what_it_did_and_when_it_ended(tmp_path):
    with metered(tmp_path, "evaluate", lambda *_: None) as report:
        report("evaluate a", 0, 3)
        report("evaluate a", 3, 3)
    assert spent(tmp_path).keys() == {"evaluate"} and last_evaluation(tmp_path).endswith(" UTC")
