"""Accuracy of the rewards on pairs that they have not learned from; writes rewards.md.

    python evidence/reward_table.py --rewards work/rewards --data DATA

Each trained reward is measured on the other half of its task's pairs, and each bundled one on
buckets 0 and 1; pairs of TL;DR are those that the judge compared. Beside them: "the longer reply
wins", and the shorter one. A pair of equal scores counts one half. Accuracies are averaged over
prompts, and so are their 95 % intervals. A reward that is in rewards.json is not measured again.
"""

from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from ngrams import HALF
from preferences import TASKS, Pair, bucket, half_of, load_task
from rewards import LIMIT, TRUNKS, messages, tokens

from infalign import storage
from infalign.evaluation.uncertainty import over_prompts
from infalign.models.rewards import load_reward

FOLDER = Path(__file__).parent
FAMILIES = {**{name: trunk.half for name, trunk in TRUNKS.items()}, "ngrams": HALF}
"""The half of the pairs that each family of rewards learns from."""
UNSEEN = 2
"""Buckets below this one are held out from the bundled rewards."""

PAGE = """# The rewards

Held-out pair accuracy in percent, with 95 % intervals over prompts. `evidence/reward_table.py`
writes this page.

{table}

- **Halves.** The hash of a pair's first message decides its half. `minilm` is a transformer,
  `ngrams` a linear model of words. Each is measured on the half from which it has not learned. The
  bundled rewards of 2 million parameters learn from four fifths of the pairs of HH, so they are
  measured on the last fifth.
- **On the last fifth** are rewards that have not learned from it, on the pairs of the bundled ones.
- **Longer** and **shorter** are what the length of the reply alone decides, on the pairs of the
  row. Pairs of TL;DR compare a model's summary with a person's.
"""


def correct(scores: np.ndarray, pairs: list[Pair]) -> np.ndarray:
    """The share of correctly ordered pairs of each prompt; equal scores count one half.

    - `scores`: of the chosen and the rejected reply, shape (pairs, 2).
    """
    right = (1 + np.sign(scores[:, 0] - scores[:, 1])) / 2
    _, which = np.unique([pair.turns[0] for pair in pairs], return_inverse=True)
    return np.bincount(which, right) / np.bincount(which)


def estimate(scores: np.ndarray, pairs: list[Pair]) -> list[float]:
    """Accuracy over prompts, with the ends of its interval."""
    mean = over_prompts(correct(scores, pairs), bounds=(0, 1))
    return [mean.value, mean.low, mean.high]


def lengths(pairs: list[Pair]) -> np.ndarray:
    """The lengths of both replies in characters."""
    return np.array([[len(pair.chosen), len(pair.rejected)] for pair in pairs], float)


def measured(reward, pairs: list[Pair]) -> dict:
    """Accuracy of a reward, on all pairs that fit its positions, and on the last fifth."""
    rows, tokenizer = [], getattr(reward, "tokenizer", None)
    for pair in pairs:
        replies = (pair.chosen, pair.rejected)
        if tokenizer is None:
            rows.append((pair, [[{"content": pair.turns[-1]}, {"content": r}] for r in replies]))
            continue
        chats = [messages(pair, reply, tokenizer) for reply in replies]
        if max(tokens(chat, tokenizer) for chat in chats) <= LIMIT:
            rows.append((pair, chats))
    pairs = [pair for pair, _ in rows]
    chats = [chat for _, both in rows for chat in both]
    scores = reward([c[:-1] for c in chats], [c[-1]["content"] for c in chats])
    scores = np.array(scores).reshape(-1, 2)
    row = {
        "pairs": len(pairs),
        "accuracy": estimate(scores, pairs),
        "longer": estimate(lengths(pairs), pairs)[0],
        "shorter": estimate(-lengths(pairs), pairs)[0],
    }
    last = [i for i, pair in enumerate(pairs) if bucket(pair.turns[0]) < UNSEEN]
    if last:
        row["last_fifth"] = estimate(scores[last], [pairs[i] for i in last])
    return row


def main(
    rewards: Annotated[Path, typer.Option(help="Folder with the trained rewards.")],
    data: Annotated[Path | None, typer.Option(help="Folder with preferences/.")] = None,
    hub: Annotated[bool, typer.Option(help="Download the pairs instead.")] = False,
):
    """Measure what is missing; write rewards.json and rewards.md beside this script."""
    if (data is None) != hub:
        raise typer.BadParameter("give either --data FOLDER or --hub")
    path = FOLDER / "rewards.json"
    rows = storage.read_json(path) if path.is_file() else {}
    for task in TASKS:
        pairs = load_task(task, data, judged=True)
        for family, half in FAMILIES.items():
            name, folder = f"{task}-{family}", rewards / f"{task}-{family}"
            files = [folder / "model.safetensors", folder / "weights.npy"]
            if not (known := [storage.sha256(file) for file in files if file.is_file()]):
                continue
            if rows.get(name, {}).get("weights") == known[0]:
                continue
            others = [pair for pair in pairs if half_of(pair) != half]
            spec = f"{folder}/reward.py:score" if family == "ngrams" else str(folder)
            rows[name] = measured(load_reward(spec, dtype="float32"), others)
            rows[name] |= {"weights": known[0], "learned from": f"half {half}"}
            storage.write_json(path, rows)
        if task != "tldr" and f"{task}-bundled" not in rows:
            last = [pair for pair in pairs if bucket(pair.turns[0]) < UNSEEN]
            rows[f"{task}-bundled"] = measured(load_reward(f"bundled:{task}"), last)
            rows[f"{task}-bundled"]["learned from"] = "four fifths"
            storage.write_json(path, rows)
    storage.write_text(FOLDER / "rewards.md", PAGE.format(table=table(rows)))
    print(table(rows))


def table(rows: dict[str, dict]) -> str:
    """All rewards as a table of Markdown."""
    lines = [
        "| reward | learned from | pairs | accuracy | on the last fifth | longer | shorter |",
        "|---|---|--:|--:|--:|--:|--:|",
    ]
    for name in sorted(rows):
        row = rows[name]
        cells = [name, row["learned from"], f"{row['pairs']:,}", spread(row["accuracy"])]
        cells.append(spread(row["last_fifth"]) if "last_fifth" in row else "–")
        cells += [f"{100 * row[key]:.1f}" for key in ("longer", "shorter")]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def spread(values: list[float]) -> str:
    """An estimate with its interval, in percent."""
    value, low, high = (100 * x for x in values)
    return f"{value:.1f} [{low:.1f}, {high:.1f}]"


if __name__ == "__main__":
    typer.run(main)
