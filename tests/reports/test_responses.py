"""The responses in a page: all of them while they fit, and a stated rule where they do not."""

import json

import numpy as np
import pyarrow as pa
import pytest
from test_reports import Page, results

from infalign.reports.page import render
from infalign.reports.responses import MOST_BYTES, SHORTEST, _fitted, counted

POLICIES = ("reference", "rloo", "rlhf")


def rows(prompts, length=20, samples=4, policies=POLICIES, text=None):
    """A table as the evaluation writes it."""
    rng, count = np.random.default_rng(0), prompts * len(policies)
    texts = [text or f"{i} " + "é" * (length - 2) for i in range(count)]
    return pa.table(
        {
            "prompt_id": [f"p{i}" for i in range(prompts) for _ in policies],
            "prompt": [text or f"Prompt {i}?" for i in range(prompts) for _ in policies],
            "policy": list(policies) * prompts,
            "sample": [0] * count,
            "response": texts,
            "tokens": [7] * count,
            "quantile": rng.uniform(size=count),
            "reward": rng.normal(size=count),
            "reward_gold": rng.normal(size=count),
            "win_rate": [
                None if i % len(policies) == 0 else round(float(u), 4)
                for i, u in enumerate(rng.uniform(size=count))
            ],
            "win_rate_gold": [None if i % len(policies) == 0 else 0.25 for i in range(count)],
            "quantiles": [rng.uniform(size=samples).tolist() for _ in range(count)],
        }
    )


def test_all_prompts_are_in_the_page_whole_while_they_fit():
    table = rows(5)
    data = _fitted(table, MOST_BYTES)
    assert data["policies"] == list(POLICIES) and data["cut"] is None and data["left_out"] == 0
    assert [own["id"] for own in data["prompts"]] == [f"p{i}" for i in range(5)]
    assert [row[0] for own in data["prompts"] for row in own["rows"]] == table[
        "response"
    ].to_pylist()
    columns = data["columns"]
    assert columns[:4] == ["sample", "tokens", "quantile", "win_rate"]
    assert set(columns[4:]) == {"reward", "reward_gold", "win_rate_gold"}
    first = dict(zip(columns, data["prompts"][0]["rows"][1][2:], strict=True))
    stated = table.to_pylist()[1]
    assert all(first[c] == pytest.approx(stated[c], abs=1e-4) for c in columns)
    pairs = data["prompts"][0]["rows"][1][1]
    shown = [int(pairs[i : i + 2]) / 99 for i in range(0, len(pairs), 2)]
    assert shown == pytest.approx(stated["quantiles"], abs=0.006)
    assert counted(data) == "5 prompts"


def size(data):
    return len(json.dumps(data, ensure_ascii=False).encode())


def test_long_texts_are_cut_to_fit_and_the_page_says_so():
    data = _fitted(rows(40, length=3000), 200_000)
    assert data["left_out"] == 0 and len(data["prompts"]) == 40
    assert SHORTEST <= data["cut"] < 3000 and 120_000 < size(data) <= 200_000
    longest = max(len(row[0]) for own in data["prompts"] for row in own["rows"])
    assert longest == data["cut"] + 1
    assert counted(data) == f"40 prompts; texts are cut at {data['cut']} characters"


def test_where_cutting_is_not_enough_prompts_are_left_out_evenly():
    data = _fitted(rows(400, length=1000), 100_000)
    kept = [int(own["id"][1:]) for own in data["prompts"]]
    assert len(set(np.diff(kept))) == 1 and kept[0] == 0
    assert data["left_out"] == 400 - len(kept) and size(data) <= 110_000
    assert f"{len(kept)} of 400 prompts, evenly spaced" in counted(data)


def test_a_large_run_makes_a_page_of_bounded_size():
    # 2,000 prompts × 5 sets of 32 samples, 1,500 characters each: 30 MB of two-byte text.
    table = rows(2000, length=1500, samples=32, policies=(*POLICIES, "a", "b"))
    data = _fitted(table, MOST_BYTES)
    assert len(data["prompts"]) == 2000 and data["cut"] >= SHORTEST
    assert size(data) <= 1.05 * MOST_BYTES


@pytest.mark.parametrize(
    "text", ["</script><script>alert(1)</script>", "<!--<script>", "a\u2028\x1b[2J"]
)
def test_no_text_ends_the_element_that_holds_it(text):
    html = render(results(), responses=_fitted(rows(2, text=text), MOST_BYTES))
    assert text not in html and html.count("<script") == 4 and html.count("</script") == 4
    data = html.partition('id="responses">')[2].partition("</script>")[0]
    (shown,) = {row[0] for own in json.loads(data)["prompts"] for row in own["rows"]}
    assert shown == text.replace("\u2028", "\\u2028").replace("\x1b", "\\x1b")
    assert "2 prompts" in Page(html).text
