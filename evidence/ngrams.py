"""Train a gold reward of another family: a linear Bradley-Terry model of words and pairs of words.

    python evidence/ngrams.py harmless --data DATA --out work/rewards

It learns from half b, of which MiniLM's rewards learn nothing, and has no network, so it shares
neither pairs nor weights with them. The penalty is fixed: half of the squared weights, for every
task. Writes OUT/TASK-ngrams with the weights and `reward.py`, a function for `evaluate.gold`.
"""

from pathlib import Path
from typing import Annotated

import ngram_reward
import numpy as np
import typer
from ngram_reward import FEATURES, WEIGHTS, rows
from preferences import TASKS, Pair, half_of, load_task
from scipy.optimize import minimize

from infalign import storage

HALF = "b"
"""The half of the pairs that it learns from."""


def learned(pairs: list[Pair]) -> np.ndarray:
    """The weights: most probable under Bradley-Terry and a standard normal prior."""
    differences = rows([p.chosen for p in pairs]) - rows([p.rejected for p in pairs])

    def loss(weights: np.ndarray) -> tuple[float, np.ndarray]:
        margins = differences @ weights
        slopes = -np.exp(-np.logaddexp(0, margins))
        value = np.logaddexp(0, -margins).sum() + weights @ weights / 2
        return float(value), differences.T @ slopes + weights

    return minimize(loss, np.zeros(FEATURES), jac=True, method="L-BFGS-B").x


def main(
    task: Annotated[str, typer.Argument(help=", ".join(TASKS))],
    out: Annotated[Path, typer.Option(help="Folder of the rewards.")],
    data: Annotated[Path | None, typer.Option(help="Folder with preferences/.")] = None,
    hub: Annotated[bool, typer.Option(help="Download the pairs instead.")] = False,
):
    """Write the reward to OUT/TASK-ngrams; a reward that exists is not redone."""
    if (data is None) != hub:
        raise typer.BadParameter("give either --data FOLDER or --hub")
    folder = out / f"{task}-ngrams"
    if (folder / "reward.py").is_file():
        return print(f"{folder} is complete")
    pairs = [pair for pair in load_task(task, data) if half_of(pair) == HALF]
    folder.mkdir(parents=True, exist_ok=True)
    np.save(folder / WEIGHTS, learned(pairs))
    source = Path(ngram_reward.__file__).read_text(encoding="utf-8")
    line = f'CHECKSUM = "{storage.sha256(folder / WEIGHTS)}"'
    storage.write_text(folder / "reward.py", source.replace('CHECKSUM = ""', line))
    print(f"{folder}: {len(pairs)} pairs")


if __name__ == "__main__":
    typer.run(main)
