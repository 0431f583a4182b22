"""The studies of examples/studies resolve without a network, and cost what docs/scaling.md says."""

import json
from pathlib import Path

import pytest

from infalign.cli.dry_run import _count
from infalign.config import load_study
from infalign.study.dry import dry_study

ROOT = Path(__file__).parents[2]
STUDIES = sorted((ROOT / "examples/studies").glob("*-*b.yaml"))
PAGE = (ROOT / "docs/scaling.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("file", STUDIES, ids=lambda file: file.stem)
def test_studies_differ_in_their_models_alone(file):
    grid, first = load_study(file), load_study(STUDIES[0])
    assert len(list(grid.cells)) == 30 and file.name in PAGE
    assert [task.name for task in grid.tasks] == ["helpful", "harmless", "tldr"]
    own = {"model", "train", "sampling", "common"}
    for task, other in zip(grid.tasks, first.tasks, strict=True):
        a, b = (t.config.model_dump(exclude=own) for t in (task, other))
        assert a == b
        batch = task.config.train.trl
        steps = batch["per_device_train_batch_size"] * batch["gradient_accumulation_steps"]
        assert steps == task.config.train.batch_size


def test_the_page_states_the_work_of_each_stage(tmp_path):
    rows = [
        {"prompt": f"{split} question {i}?", "split": split}
        for split, number in (("train", 2048), ("test", 256))
        for i in range(number)
    ]
    (tmp_path / "prompts.jsonl").write_text("\n".join(map(json.dumps, rows)))
    prompts = f"prompts={{file: {tmp_path}/prompts.jsonl, limit: 2048}}"
    stand_ins = ("tasks=[helpful.yaml]", "model=bundled:language-model", "reward=bundled:helpful")
    gold = "evaluate.gold={other: bundled:harmless}"
    grid = load_study(ROOT / "examples/studies/llama-3.1-8b.yaml", (prompts, *stand_ins, gold))
    dry = dry_study(grid, tmp_path / "out", seconds=0)
    (helpful,) = dry.tasks.values()
    lengths = [task.config.sampling.max_new_tokens for task in load_study(STUDIES[0]).tasks]
    assert helpful.longest == 128 and lengths == [128, 128, 64]
    stated = [
        f"| {work.name} | {work.generated:,} | {work.scored:,} | {work.learned:,} "
        f"| {_count(128 * work.generated)} | {_count(64 * work.generated)} |"
        for work in helpful.works
    ]
    assert "\n".join(stated) in PAGE
