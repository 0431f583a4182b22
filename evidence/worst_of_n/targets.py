"""What a policy learns of a target: by the target's shape, and by the number of prompts.

    python evidence/worst_of_n/targets.py [--more PROMPTS] [--work work/targets]

The bundled policy is trained offline (`trained.py`) toward tilts of one KL: by the raw reward, by
the quantile, by an exponential of the quantile, and toward the optimum. A policy is judged by its
log-ratios on 64 held-out prompts × 512 reference responses, multiplied so that their mean KL is
0.5 nats. With few responses of a prompt, a prompt's law under a policy is a few random quantiles,
which best-of-n punishes: so many are drawn. PROMPTS, a file of more helpfulness prompts, adds
trainings on all of them. Writes targets.json; 40 minutes on one core.
"""

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import bundled
import numpy as np
import torch
import trained
import typer

import infalign as ia
from infalign.config import Prompts
from infalign.core import RankProcedure
from infalign.models.loading import prompt_text, tokenize
from infalign.prompts import Prompt, load_prompts

WORK, OUT = Path("work/targets"), Path(__file__).with_suffix(".json")
KL, LONGEST, STORED = 0.5, 24, 64
PROMPTS, HELD_OUT, DRAWN = 192, 64, 512
TOP = 1 / 64
"""The share of responses, those that the policy raises most, whose quantile is reported."""

LONGEST_PROMPT = 96
"""Longer prompts of a file are left out, in tokens."""


@dataclass(frozen=True)
class Task:
    """A bundled reward and the procedure that decodes."""

    name: str
    procedure: RankProcedure
    exponent: float

    def targets(self, rewards: np.ndarray) -> dict[str, np.ndarray]:
        """Log-weights of the tilts, whose weights have mean 1 on each prompt."""
        design, quantile = ia.design(self.procedure, kl=KL), bundled.quantiles(rewards)
        return {
            "identity": _tilt(quantile),
            "raw reward": _tilt(rewards - rewards.mean(1, keepdims=True)),
            f"exponential:{self.exponent:g}": _tilt(ia.Exponential(self.exponent)(quantile)),
            "optimum": bundled.normalized(design.transform(quantile) / design.beta),
        }


TASKS = (
    Task("helpful", ia.BestOfN(8), 6.0),
    Task("harmless", ia.WorstOfN(8), -6.0),
)


def _tilt(shape: np.ndarray) -> np.ndarray:
    return bundled.normalized(bundled.landed(shape, KL))


def judged(task: Task, test: bundled.Samples, log_ratio: np.ndarray) -> tuple[np.ndarray, dict]:
    """Win rate on each prompt, and figures of a policy, brought to the KL."""
    exact = bundled.normalized(bundled.landed(log_ratio, KL))
    quantile, count = bundled.quantiles(test.rewards), test.rewards.shape[1]
    won = bundled.win_rate(test.rewards, exact, task.procedure)
    order = np.argsort(log_ratio, axis=1)[:, -int(count * TOP) :]
    return won, {
        **bundled.mean(won),
        "correlation with the quantile": bundled.correlation(log_ratio, quantile),
        "mean quantile of the top": float(np.take_along_axis(quantile, order, 1).mean()),
        "KL before": float(bundled.kl(log_ratio).mean()),
    }


@dataclass(frozen=True)
class Study:
    """The samples of one task, and the policies trained on them."""

    work: Path
    task: Task
    train: bundled.Samples
    test: bundled.Samples

    @classmethod
    def of(cls, work: Path, task: Task, more: Path | None) -> "Study":
        """Draws what is not drawn yet."""
        train = bundled.prompts_of(task.name, "train")
        test = bundled.prompts_of(task.name, "test")
        train = [*train, *_new(more, [*train, *test])] if more else train[:PROMPTS]
        options = {"task": task.name, "longest": LONGEST}
        return cls(
            work,
            task,
            bundled.Samples.drawn(
                work / f"{task.name}-train-{len(train)}.npz",
                train,
                STORED,
                split="train",
                **options,
            ),
            bundled.Samples.drawn(
                work / f"{task.name}-test.npz", test[:HELD_OUT], DRAWN, split="test", **options
            ),
        )

    def log_ratios(self, prompts: int, target: str, log_weights: np.ndarray) -> np.ndarray:
        """Of a policy on the held-out responses; it is trained if it is not yet."""
        name = f"{self.task.name}-{prompts}-{target}"
        path = self.work / f"{re.sub('[ :]', '_', name)}.npy"
        if not path.exists():
            network = trained.offline(self.train.first(prompts), log_weights)
            np.save(path, trained.log_ratios(network, self.test))
        return np.load(path)

    def rows(self) -> Iterator[dict]:
        """Figures of each policy, and of each target if a policy could follow it exactly."""
        of_test = self.task.targets(self.test.rewards)
        for prompts in sorted({PROMPTS, len(self.train.prompts)}):
            identity, chosen = None, self.train.first(prompts)
            for target, weights in self.task.targets(chosen.rewards).items():
                if prompts > PROMPTS and target not in ("identity", "optimum"):
                    continue
                won, figures = judged(
                    self.task, self.test, self.log_ratios(prompts, target, weights)
                )
                identity = won if target == "identity" else identity
                yield {
                    "task": self.task.name,
                    "procedure": self.task.procedure.spec,
                    "prompts": prompts,
                    "target": target,
                    **figures,
                    "over identity": bundled.mean(won - identity),
                    "exact": judged(self.task, self.test, of_test[target])[1]["value"],
                }


def _new(file: Path, known: Sequence[Prompt]) -> list[Prompt]:
    """Short prompts of a file that are not among the known ones."""
    texts = {p.messages[-1]["content"] for p in known}
    new = [
        p for p in load_prompts(Prompts(file=str(file))) if p.messages[-1]["content"] not in texts
    ]
    ids = tokenize(bundled.TOKENIZER, [prompt_text(bundled.TOKENIZER, p.messages) for p in new])
    return [p for p, row in zip(new, ids["input_ids"], strict=True) if len(row) <= LONGEST_PROMPT]


def main(
    more: Annotated[Path | None, typer.Option(help="More helpfulness prompts.")] = None,
    work: Path = WORK,
    out: Path = OUT,
):
    """Train what is not trained yet, and judge."""
    torch.set_num_threads(1)
    rows = []
    for task in TASKS:
        for row in Study.of(work, task, more if task.name == "helpful" else None).rows():
            rows.append(row)
            print(json.dumps(row), flush=True)
    out.write_text(json.dumps({"kl": KL, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    typer.run(main)
