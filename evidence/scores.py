"""Score the real model's responses with the rewards at hand; write numbers without texts.

    python evidence/scores.py --samples work/samples --rewards work/rewards

Rewards of HH score the prompts of both HH tasks, rewards of TL;DR its posts. Beside the trained
rewards are the bundled ones and the length of a response, a reward with many ties. A reward that is
in `samples.json` already is not computed again.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from infalign import storage
from infalign.models.rewards import load_reward

OUT = Path(__file__).parent / "samples.json"
DIGITS = 7
"""Significant digits: those of single precision, so that writing them makes no ties."""


def tasks_of(name: str) -> tuple[str, ...]:
    """The tasks whose prompts a reward of this name scores."""
    task = name.split("-")[0]
    hh = ("helpful", "harmless")
    return hh if task in hh else (task,) if task == "tldr" else (*hh, "tldr")


def length(prompts, completions, **columns) -> list[float]:
    """The number of words of each response."""
    return [float(len(text.split())) for text in completions]


def rewards_in(folder: Path) -> dict[str, Callable]:
    """Loaders of the trained rewards, the bundled ones and the length, by name.

    In single precision, so that rounding makes no ties.
    """
    trained = {
        path.name: lambda path=path: load_reward(str(path), dtype="float32")
        for path in sorted(folder.iterdir())
        if (path / "model.safetensors").is_file()
    }
    bundled = {
        f"{task}-bundled": lambda task=task: load_reward(f"bundled:{task}")
        for task in ("helpful", "harmless")
    }
    return {**trained, **bundled, "length": lambda: length}


def main(
    samples: Annotated[Path, typer.Option(help="Folder that samples.py wrote.")],
    rewards: Annotated[Path, typer.Option(help="Folder with the trained rewards.")],
):
    """Add the missing scores to samples.json beside this script."""
    known = storage.read_json(OUT) if OUT.is_file() else {"prompts": []}
    rows = {row["id"]: row for row in known["prompts"]}
    files = {path.stem: storage.read_json(path) for path in sorted(samples.glob("*-*.json"))}
    for name, load in rewards_in(rewards).items():
        mine = [key for key in files if key.split("-")[0] in tasks_of(name)]
        missing = [key for key in mine if name not in rows.get(key, {"rewards": {}})["rewards"]]
        if not missing:
            continue
        reward = load()
        for key in missing:
            texts = files[key]["responses"]
            scores = reward([files[key]["prompt"]] * len(texts), texts)
            row = rows.setdefault(key, {"id": key, "rewards": {}})
            row["rewards"][name] = [float(f"{score:.{DIGITS}g}") for score in scores]
        storage.write_text(OUT, as_text(rows))
        print(name, len(mine), flush=True)


def as_text(rows: dict[str, dict]) -> str:
    """JSON with one line per prompt."""
    lines = ",\n".join(storage.json_line(rows[key]).strip() for key in sorted(rows))
    return f'{{"prompts": [\n{lines}\n]}}\n'


if __name__ == "__main__":
    typer.run(main)
