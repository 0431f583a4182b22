"""How much of a reward does SmolLM2 see in its own responses, and what gain does theory leave then?

    python evidence/worst_of_n/real.py --work work

Takes the reference responses to held-out prompts from the trained study in `work`. A ridge
regression on the model's states predicts where a response stands among those to the same prompt (a
normal score of its rank), for prompts that it was not fitted on. The correlation is what a policy
sees that reads its own states and has learned from as many responses. A tilt of a score with this
correlation wins what `seen_in_part.py` computes. Beside it stands what the study's policies have
learned: the correlation of their log-ratio to the reference with the same score, by ranks, what
theory leaves at it, and the win rate of the policy along it that spends the KL, among the responses
of each prompt. Writes real.json; some minutes a task, and one for each policy.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import bundled
import numpy as np
import seen_in_part
import torch
import typer
from scipy.special import ndtri
from transformers import AutoModelForCausalLM

import infalign as ia
from infalign import storage
from infalign.config import Prompts
from infalign.models.hf import LanguageModel
from infalign.prompts import load_prompts

TASKS = {"harmless": ia.WorstOfN(8), "helpful": ia.BestOfN(8), "tldr": ia.BestOfN(8)}
KL = 0.5
FOLDS, CELLS, SEED = 5, 1000, 0
PENALTIES = (0.1, 1.0, 10.0, 100.0)
SHARES = (0.125, 0.25, 0.5, 1.0)
"""Of the prompts that are there to be fitted on."""
LAYERS = (10, 20, 30)
MODEL = Path("models", "SmolLM2-135M-Instruct")
FEW = 40, 16
"""Prompts, and responses of each, on which policies are judged."""
OUT = Path(__file__).with_suffix(".json")


def folder_of(work: Path, task: str) -> Path:
    """The folder of a task in the trained study."""
    return work / f"real-{task}" / "tasks" / f"{task}-8"


def reference_of(work: Path, task: str) -> Path:
    """The file of the reference's responses."""
    return folder_of(work, task) / "reference" / "evaluation" / "reference.parquet"


def responses(work: Path, task: str) -> Mapping[str, Mapping[str, list]]:
    """Prompt id → columns of its reference responses."""
    rows: dict[str, dict[str, list]] = {}
    for row in storage.read_table(reference_of(work, task)).to_pylist():
        own = rows.setdefault(row["prompt_id"], {"token_ids": [], "reward": []})
        for name in own:
            own[name].append(row[name])
    return rows


@dataclass(frozen=True)
class Read:
    """What a network computes over the responses to a prompt."""

    ids: torch.Tensor
    """Shape (responses, most tokens)."""

    inside: torch.Tensor
    """Whether a place belongs to its response."""

    hidden: Sequence[torch.Tensor]
    logits: torch.Tensor
    """Of each token before it is read."""


@torch.no_grad()
def read_responses(network, prompt: Sequence[int], rows: Sequence[Sequence[int]]) -> Read:
    """All responses to a prompt, which is read once."""
    k = len(rows)
    begun = network(torch.tensor([prompt]), use_cache=True)
    begun.past_key_values.batch_repeat_interleave(k)
    lengths = torch.tensor([len(row) for row in rows])
    ids = torch.zeros(k, int(lengths.max()), dtype=torch.long)
    for i, row in enumerate(rows):
        ids[i, : len(row)] = torch.tensor(row)
    inside = torch.arange(ids.shape[1]) < lengths[:, None]
    mask = torch.cat([torch.ones(k, len(prompt), dtype=torch.bool), inside], 1).long()
    out = network(
        ids, attention_mask=mask, past_key_values=begun.past_key_values, output_hidden_states=True
    )
    first = begun.logits[:, -1:].expand(k, 1, -1)
    return Read(ids, inside, out.hidden_states, torch.cat([first, out.logits[:, :-1]], 1))


def states(network, prompt: Sequence[int], rows: Sequence[Sequence[int]]) -> np.ndarray:
    """Means of some layers over each response, the last state, and the length, shape (responses,
    features)."""
    read = read_responses(network, prompt, rows)
    within = read.inside.float()[..., None]
    means = [(read.hidden[layer] * within).sum(1) / within.sum(1) for layer in LAYERS]
    ends = read.hidden[LAYERS[-1]][torch.arange(len(rows)), read.inside.sum(1) - 1]
    return torch.cat([*means, ends, within.sum(1)], 1).float().numpy()


def logprobs(network, prompt: Sequence[int], rows: Sequence[Sequence[int]]) -> np.ndarray:
    """The log-probability of each response."""
    read = read_responses(network, prompt, rows)
    own = read.logits.double().log_softmax(-1).gather(2, read.ids[..., None])[..., 0]
    return (own * read.inside).sum(1).numpy()


class Task:
    """The reference responses to the held-out prompts of a task."""

    def __init__(self, work: Path, name: str):
        self.work, self.name = work, name
        self.reference = LanguageModel(work / MODEL, max_new_tokens=24)
        self.content = storage.sha256(reference_of(work, name))[:8]
        rows = responses(work, name)
        file = str(work / "prompts" / f"{name}.jsonl")
        asked = [p for p in load_prompts(Prompts(file=file, split="test")) if p.id in rows]
        self.starts = self.reference.prompt_ids(
            [p.messages for p in asked], [p.id for p in asked], 24
        )
        # An empty response is the end of the text alone.
        end = [self.reference.ends[0]]
        self.tokens = [[row or end for row in rows[p.id]["token_ids"]] for p in asked]
        self.rewards = np.array([rows[p.id]["reward"] for p in asked])

    def states(self) -> np.ndarray:
        """Of the reference, shape (prompts, K, features)."""
        pairs = list(zip(self.starts, self.tokens, strict=True))
        network = self.reference.model.eval()
        return self._kept("states", lambda: [states(network, *pair) for pair in pairs])

    def log_ratios(self, cell: Path) -> tuple[np.ndarray, np.ndarray]:
        """Of the policy of a cell to the reference, on some responses, with their rewards."""
        (model,) = (cell / "train").glob("*/model")
        landing = storage.sha256(model.parent / "landing.json")[:8]
        own = self._kept(f"{cell.name}-{landing}", lambda: self._logprobs(model))
        return self._beside_reference(own)

    def log_ratios_of(self, model: Path) -> tuple[np.ndarray, np.ndarray]:
        """Of another policy, as `log_ratios`."""
        return self._beside_reference(np.stack(self._logprobs(model)))

    def _beside_reference(self, own: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        reference = self._kept("reference", lambda: self._logprobs(self.work / MODEL))
        return own - reference, self.rewards[: FEW[0], : FEW[1]]

    def _logprobs(self, path: Path) -> list[np.ndarray]:
        network = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32).eval()
        few = zip(self.starts[: FEW[0]], self.tokens, strict=False)
        return [logprobs(network, start, rows[: FEW[1]]) for start, rows in few]

    def _kept(self, name: str, make) -> np.ndarray:
        path = self.work / f"seen-{self.name}-{self.content}-{name}.npy"
        if not path.exists():
            with storage.replacing(path) as temporary, temporary.open("wb") as file:
                np.save(file, np.stack(make()))
        return np.load(path)


def scores(rewards: np.ndarray) -> np.ndarray:
    """Normal scores of the ranks within prompts; they have the mean 0 there."""
    k = rewards.shape[1]
    return ndtri(np.clip(bundled.quantiles(rewards), 0.5 / k, 1 - 0.5 / k))


def sees(values: np.ndarray, rewards: np.ndarray) -> float:
    """The correlation, within prompts, of the normal scores of values and of rewards.

    A policy that tilts by a monotone function of a score has the correlation of that score, however
    its transform bends it.
    """
    return bundled.correlation(scores(values), scores(rewards))


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
        values.append(sees(centered[held_out] @ weights, rewards[held_out]))
    return np.array(values)


def left(rho: float, procedure) -> dict[str, float]:
    """Win rates in theory, in percent, where a policy sees a score with this correlation."""
    normal = ndtri((np.arange(CELLS) + 0.5) / CELLS)
    world = seen_in_part.World([1.0], [seen_in_part.gaussian(rho, CELLS)], normal)
    row = seen_in_part.row("", world, procedure, KL)
    return {name: 100 * row[name] for name in ("best", "designed_for_all", "identity", "raw")}


def learned(task: Task, procedure) -> list[dict]:
    """What each policy of the study has learned, as far as these are finished."""
    rows = []
    for cell in sorted(folder_of(task.work, task.name).glob("*-kl0.5-seed0")):
        if (cell / "evaluation" / "results.json").exists():
            ratios, rewards = task.log_ratios(cell)
            won = bundled.win_rate(rewards, bundled.landed(ratios, KL), procedure)
            own = {"method": cell.name.partition("-")[0]}
            own["correlation"] = sees(ratios, rewards)
            own["left"] = left(own["correlation"], procedure)
            own["win rate"] = {key: 100 * value for key, value in bundled.mean(won).items()}
            rows.append(own)
            print(task.name, own, flush=True)
    return rows


def main(
    work: Annotated[Path, typer.Option(help="Folder of the trained study.")],
    out: Path = OUT,
):
    """Measure the tasks of which the study has reference responses; the others stay as they are."""
    torch.set_num_threads(1)
    results = storage.read_json(out) if out.exists() else {"kl": KL, "tasks": {}}
    for task, procedure in TASKS.items():
        if not reference_of(work, task).exists():
            continue
        own = Task(work, task)
        prompts, k = own.rewards.shape
        rows = []
        for share in SHARES:
            by_fold = seen(own.states(), own.rewards, share)
            rho, error = float(by_fold.mean()), float(by_fold.std(ddof=1) / FOLDS**0.5)
            fitted_on = max(4, round(share * prompts * (FOLDS - 1) / FOLDS)) * k
            rows.append({"responses": fitted_on, "correlation": rho, "stderr": error})
            rows[-1] |= left(rho, procedure)
            print(task, rows[-1], flush=True)
        results["tasks"][task] = {
            "procedure": procedure.spec,
            "prompts": prompts,
            "samples": k,
            "few": FEW,
            "rows": rows,
            "sees all": left(0.9999, procedure),
            "learned": learned(own, procedure),
        }
    storage.write_json(out, results)


if __name__ == "__main__":
    typer.run(main)
