"""The prompts of the trained study: single questions, held out as the rewards' data are."""

import pyarrow as pa
import pyarrow.parquet as pq


def test_prompts_are_single_short_questions_split_by_bucket(tmp_path):
    from preferences import bucket
    from prompts import LONGEST, prompts_of

    (tmp_path / "preferences").mkdir()
    texts = [f"question {i}" for i in range(60)]
    asked = [f"\n\nHuman: {text}\n\nAssistant:" for text in [*texts, texts[0]]]
    asked.append("\n\nHuman: first\n\nAssistant: answer\n\nHuman: second\n\nAssistant:")
    asked.append(f"\n\nHuman: {'x' * (LONGEST['helpful'] + 1)}\n\nAssistant:")
    columns = {"prompt": asked, "chosen": ["a"] * len(asked), "rejected": ["b"] * len(asked)}
    pq.write_table(pa.table(columns), tmp_path / "preferences" / "hh_helpful_base_test.parquet")
    rows = prompts_of("helpful", tmp_path)
    assert sorted(row["prompt"] for row in rows) == sorted(texts)
    assert [row["prompt_id"] for row in rows] == sorted({row["prompt_id"] for row in rows})
    splits = {row["prompt"]: row["split"] for row in rows}
    assert splits == {t: "test" if bucket(t) < 2 else "train" for t in texts}
    assert set(splits.values()) == {"test", "train"}
