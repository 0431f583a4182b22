"""Draw responses of the real model for the exact study: 512 to each of 24 prompts.

    python evidence/samples.py --models MODELS --data DATA --out work/samples

Eight prompts of each task, of one message and in buckets that MiniLM's rewards have not seen; the
model in bfloat16. One file per prompt, with its responses; a prompt that has one is not redone.
"""

from pathlib import Path
from typing import Annotated

import torch
import typer
from preferences import TASKS
from prompts import prompts_of

from infalign.models.hf import LanguageModel
from infalign.storage import write_json

PROMPTS = 8
"""Prompts of each task."""
RESPONSES = 512
NEW_TOKENS = 32


def chosen_prompts(task: str, data: Path) -> dict[str, str]:
    """The first held-out prompts of a task by their id."""
    rows = [row for row in prompts_of(task, data) if row["split"] == "test"]
    return {row["prompt_id"]: row["prompt"] for row in rows[:PROMPTS]}


def main(
    models: Annotated[Path, typer.Option(help="Folder that real_model.py wrote.")],
    data: Annotated[Path, typer.Option(help="Folder with preferences/.")],
    out: Annotated[Path, typer.Option(help="Folder of the responses.")],
):
    """Write OUT/TASK-ID.json for each prompt: its text and its responses."""
    model = LanguageModel(
        models / "SmolLM2-135M-Instruct", max_new_tokens=NEW_TOKENS, batch_size=RESPONSES
    )
    model.model.to(torch.bfloat16)
    out.mkdir(parents=True, exist_ok=True)
    by_task = {task: list(chosen_prompts(task, data).items()) for task in TASKS}
    for i in range(PROMPTS):
        for task, prompts in by_task.items():
            key, text = prompts[i]
            path = out / f"{task}-{key}.json"
            if not path.exists():
                conversation = [{"role": "user", "content": text}]
                (drawn,) = model.sample([conversation], RESPONSES, seed=17, keys=[key])
                responses = [r.text for r in drawn]
                write_json(path, {"prompt": text, "responses": responses})
                print(path, flush=True)


if __name__ == "__main__":
    typer.run(main)
