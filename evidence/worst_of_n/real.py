"""How much of a reward does SmolLM2 see in its own responses, and what gain does theory leave then?

    python evidence/worst_of_n/real.py --work work

Takes the reference responses to held-out prompts from the trained study in `work`. A ridge
regression on the model's states predicts where a response stands among those to the same prompt (a
normal score of its rank), for prompts that it was not fitted on. The correlation is what a policy
sees that reads its own states and has learned from as many responses. A tilt of a score with this
correlation wins what `seen_in_part.py` computes. Writes real.json; some minutes a task.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated

import bundled
import numpy as np
import seen_in_part
import torch
import typer
from scipy.special import ndtri

import infalign as ia
from infalign import storage
from infalign.config import Prompts
from infalign.models.hf import LanguageModel
from infalign.prompts import load_prompts

TASKS = {"harmless": ia.WorstOfN(8), "helpful": ia.BestOfN(8)}
KL = 0.5
FOLDS, CELLS, SEED = 5, 300, 0
PENALTIES = (0.1, 1.0, 10.0, 100.0)
SHARES = (0.125, 0.25, 0.5, 1.0)
"""Of the prompts that are there to be fitted on."""
LAYERS = (10, 20, 30)
OUT = Path(__file__).with_suffix(".json")


def responses(work: Path, task: str) -> Mapping[str, Mapping[str, list]]:
    """Prompt id → columns of its reference responses."""
    folder = work / f"real-{task}" / "tasks" / f"{task}-8" / "reference" / "evaluation"
    rows: dict[str, dict[str, list]] = {}
    for row in storage.read_table(folder / "reference.parquet").to_pylist():
        own = rows.setdefault(row["prompt_id"], {"token_ids": [], "reward": []})
        for name in own:
            own[name].append(row[name])
    return rows


@torch.no_grad()
def states(model: LanguageModel, prompt: Sequence[int], rows: Sequence[Sequence[int]]):
    """Means of some layers over each response, the last state, and the length; the prompt is read
    once. Shape (responses, features)."""
    network, k = model.model, len(rows)
    cache = network(torch.tensor([prompt]), use_cache=True).past_key_values
    cache.batch_repeat_interleave(k)
    lengths = torch.tensor([len(row) for row in rows])
    ids = torch.zeros(k, int(lengths.max()), dtype=torch.long)
    for i, row in enumerate(rows):
        ids[i, : len(row)] = torch.tensor(row)
    inside = torch.arange(ids.shape[1]) < lengths[:, None]
    mask = torch.cat([torch.ones(k, len(prompt), dtype=torch.bool), inside], 1).long()
    hidden = network(
        ids, attention_mask=mask, past_key_values=cache, output_hidden_states=True
    ).hidden_states
    within = inside.float()[..., None]
    means = [(hidden[layer] * within).sum(1) / within.sum(1) for layer in LAYERS]
    ends = hidden[LAYERS[-1]][torch.arange(k), lengths - 1]
    return torch.cat([*means, ends, within.sum(1)], 1).float().numpy()


def read(work: Path, task: str) -> tuple[np.ndarray, np.ndarray]:
    """States and rewards of the responses, shapes (prompts, K, features) and (prompts, K)."""
    path = work / f"{task}-states.npz"
    if not path.exists():
        model = LanguageModel(work / "models" / "SmolLM2-135M-Instruct", max_new_tokens=24)
        model.model.eval()
        asked = load_prompts(Prompts(file=str(work / "prompts" / f"{task}.jsonl"), split="test"))
        rows = responses(work, task)
        asked = [prompt for prompt in asked if prompt.id in rows]
        ids = model.prompt_ids([p.messages for p in asked], [p.id for p in asked], 24)
        own = []
        for prompt, start in zip(asked, ids, strict=True):
            # An empty response is the end of the text alone.
            tokens = [r or [model.ends[0]] for r in rows[prompt.id]["token_ids"]]
            own.append(states(model, start, tokens))
        rewards = np.array([rows[prompt.id]["reward"] for prompt in asked])
        with storage.replacing(path) as temporary, temporary.open("wb") as file:
            np.savez(file, states=np.stack(own), rewards=rewards)
    with np.load(path) as known:
        return known["states"], known["rewards"]


def scores(rewards: np.ndarray) -> np.ndarray:
    """Normal scores of the ranks within prompts; they have the mean 0 there."""
    k = rewards.shape[1]
    return ndtri(np.clip(bundled.quantiles(rewards), 0.5 / k, 1 - 0.5 / k))


def ridge(states: np.ndarray, target: np.ndarray, penalty: float) -> np.ndarray:
    """Weights of differences within prompts; the states have the variance 1."""
    x = states.reshape(-1, states.shape[2])
    y = (target - target.mean(1, keepdims=True)).ravel()
    return np.linalg.solve(x.T @ x + penalty * len(x) * np.eye(x.shape[1]) / 100, x.T @ y)


def fitted(states: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Weights with the penalty that predicts the last quarter of the prompts best."""
    cut = max(1, 3 * len(states) // 4)
    first, last = slice(None, cut), slice(cut, None)

    def predicts(penalty: float) -> float:
        weights = ridge(states[first], target[first], penalty)
        return bundled.correlation(states[last] @ weights, target[last])

    return ridge(states, target, max(PENALTIES, key=predicts))


def seen(states: np.ndarray, rewards: np.ndarray, share: float) -> np.ndarray:
    """The correlation of the prediction with the score, for each fold of held-out prompts."""
    rng = np.random.default_rng(SEED)
    order = rng.permutation(len(states))
    centered = states - states.mean(1, keepdims=True)
    centered = centered / (centered.reshape(-1, states.shape[2]).std(0) + 1e-6)
    target, values = scores(rewards), []
    for fold in range(FOLDS):
        held_out, rest = order[fold::FOLDS], np.setdiff1d(order, order[fold::FOLDS])
        some = rng.permutation(rest)[: max(4, round(share * len(rest)))]
        weights = fitted(centered[some], target[some])
        values.append(bundled.correlation(centered[held_out] @ weights, target[held_out]))
    return np.array(values)


def left(rho: float, procedure) -> dict[str, float]:
    """Win rates in theory, in percent, where a policy sees a score with this correlation."""
    normal = ndtri((np.arange(CELLS) + 0.5) / CELLS)
    world = seen_in_part.World([1.0], [seen_in_part.gaussian(rho, CELLS)], normal)
    row = seen_in_part.row("", world, procedure, KL)
    return {name: 100 * row[name] for name in ("best", "designed_for_all", "identity", "raw")}


def main(
    work: Annotated[Path, typer.Option(help="Folder of the trained study.")],
    out: Path = OUT,
):
    """Measure both tasks, as far as the study has their reference responses."""
    torch.set_num_threads(1)
    results = {"kl": KL, "tasks": {}}
    for task, procedure in TASKS.items():
        own, rewards = read(work, task)
        prompts, k = rewards.shape
        rows = []
        for share in SHARES:
            by_fold = seen(own, rewards, share)
            rho, error = float(by_fold.mean()), float(by_fold.std(ddof=1) / FOLDS**0.5)
            learned = max(4, round(share * prompts * (FOLDS - 1) / FOLDS)) * k
            rows.append({"responses": learned, "correlation": rho, "stderr": error})
            rows[-1] |= left(rho, procedure)
            print(task, rows[-1], flush=True)
        results["tasks"][task] = {
            "procedure": procedure.spec,
            "prompts": prompts,
            "samples": k,
            "rows": rows,
            "sees all": left(0.9999, procedure),
        }
    storage.write_json(out, results)


if __name__ == "__main__":
    typer.run(main)
