"""Write the prompts of the trained study: those of one message, as files for a run.

    python evidence/prompts.py --data DATA --out work/prompts

Held out (`split` test) are the questions in buckets 0 and 1, of which neither MiniLM's rewards nor
the bundled ones have seen an answer. Ids are hashes of the text.
"""

import hashlib
from pathlib import Path
from typing import Annotated

import typer
from preferences import TASKS, bucket, load_task

from infalign import storage

LONGEST = {"helpful": 200, "harmless": 200, "tldr": 1_100}
"""Characters of the longest prompt: the sampler reads a prompt once, the rewards 512 times."""


def prompts_of(task: str, data: Path | None) -> list[dict[str, str]]:
    """The prompts of a task in the order of their ids, with their split."""
    texts = {pair.turns[0] for pair in load_task(task, data) if len(pair.turns) == 1}
    rows = [
        {
            "prompt_id": hashlib.sha256(text.encode()).hexdigest()[:12],
            "prompt": text,
            "split": "test" if bucket(text) < 2 else "train",
        }
        for text in texts
        if len(text) <= LONGEST[task]
    ]
    return sorted(rows, key=lambda row: row["prompt_id"])


def main(
    out: Annotated[Path, typer.Option(help="Folder of the prompts.")],
    data: Annotated[Path | None, typer.Option(help="Folder with preferences/.")] = None,
    hub: Annotated[bool, typer.Option(help="Download the pairs instead.")] = False,
):
    """Write OUT/TASK.jsonl for each task."""
    if (data is None) != hub:
        raise typer.BadParameter("give either --data FOLDER or --hub")
    out.mkdir(parents=True, exist_ok=True)
    for task in TASKS:
        rows = prompts_of(task, data)
        storage.write_text(out / f"{task}.jsonl", "".join(map(storage.json_line, rows)))
        print(task, len(rows))


if __name__ == "__main__":
    typer.run(main)
