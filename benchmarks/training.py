"""Time a step with the shaped reward beside the raw one, and offline training beside on policy.

    python benchmarks/training.py [--smoke] [--only PART] [--model FOLDER] [--out FOLDER]

Writes benchmarks/training.json and docs/training-benchmarks.md, each part as soon as it is known.
`--only PART` measures one part again and keeps the others. Only the bundled models are needed,
except for the throughput of a real model: `--only throughput --model FOLDER`.
"""

import argparse
import json
import os
import platform
import statistics
import sys
import tempfile
import time
import warnings
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import throughput
from one_calibration import begin

ROOT = Path(__file__).parents[1]
STEP = 1.02
"""Longest time of a step with the shaped reward, as a multiple of a step with the raw one."""
CHEAPER = 5.0
"""Shortest on-policy training to the same win rate, as a multiple of the offline one."""


@dataclass(frozen=True)
class Sizes:
    """Sizes of what is measured."""

    batch_size: int = 128
    group: int = 16
    max_new_tokens: int = 32
    samples: int = 32
    """Calibration samples per prompt."""

    blocks: int = 12
    """Steps with each reward."""

    prompts: int = 288
    steps: tuple[int, ...] = (10, 40)
    """Lengths of the on-policy trainings."""

    tested: int = 128
    """Held-out prompts."""


SMOKE = Sizes(16, 8, 4, 8, 2, 16, (1,), 8)


def configuration(sizes: Sizes, **train) -> dict:
    """A run's configuration on bundled models, best-of-n below the size of a group."""
    smoke = sizes.tested < 100
    return {
        "model": "bundled:language-model",
        "reward": "bundled:harmless",
        "prompts": {"file": "bundled:harmless", "limit": sizes.prompts},
        "procedure": f"best-of-n:{sizes.group // 2}",
        "kl": 0.2 if smoke else 0.5,
        "sampling": {
            "temperature": 0.7,
            "max_new_tokens": sizes.max_new_tokens,
            "batch_size": 512,
        },
        "calibration": {"samples": sizes.samples, "calibrator": "pooled"},
        "train": {
            "baselines": [],
            "warm_start_learning_rate": 1e-3 if smoke else 3e-5,
            "learning_rate": 1e-3 if smoke else 5e-5,
            "batch_size": sizes.batch_size,
            "group": sizes.group,
            **train,
        },
        "evaluate": {
            "prompts": {"split": "test", "limit": sizes.tested},
            "samples": sizes.group // 2 if smoke else 32,
        },
    }


class InTurn:
    """Rewards in random turns, one per step, each equally often; records their times."""

    def __init__(self, rewards: dict, seed: int = 0):
        self.rewards, self.rng = rewards, np.random.default_rng(seed)
        self.order: list[str] = []
        self.used: list[str] = []
        self.inside: list[float] = []
        self.__name__ = "in_turn"

    def __call__(self, **columns):
        if not self.order:
            self.order = list(self.rng.permutation(list(self.rewards)))
        self.used.append(self.order.pop())
        start = time.perf_counter()
        rewards = self.rewards[self.used[-1]](**columns)
        self.inside.append(time.perf_counter() - start)
        return rewards


class Timed:
    """A raw reward that records its own seconds, to be subtracted."""

    def __init__(self, reward):
        self.reward, self.seconds, self.__name__ = reward, [], "raw"

    def __call__(self, **columns):
        start = time.perf_counter()
        rewards = self.reward(**columns)
        self.seconds.append(time.perf_counter() - start)
        return rewards


def step(sizes: Sizes, folder: Path) -> dict:
    """Seconds of steps of one trainer at step size 0, the rewards in random turn."""
    from datasets import Dataset
    from transformers import TrainerCallback
    from trl import RLOOConfig, RLOOTrainer

    from infalign import GroupShapedReward, ShapedReward
    from infalign.calibration import Pooled
    from infalign.config import parse_config
    from infalign.models.loading import load_tokenizer
    from infalign.pipeline.folder import Run
    from infalign.pipeline.read import open_store, read_design
    from infalign.pipeline.run import run

    config = parse_config(configuration(sizes))
    run(config, folder, until="design")
    current = Run.start(config, folder)
    store, design = open_store(current), read_design(current)
    raw = Timed(current.reward)
    rewards = InTurn({
        "raw": raw,
        "ShapedReward": ShapedReward(raw, store, design.transform),
        "ShapedReward, pooled": ShapedReward(raw, store, design.transform, calibrator=Pooled()),
        "GroupShapedReward": GroupShapedReward(raw, store, current.procedure, group=sizes.group),
    })  # fmt: skip
    times: list[float] = []

    class Clock(TrainerCallback):
        def on_step_begin(self, args, state, control, **kwargs):
            self.since = time.perf_counter()

        def on_step_end(self, args, state, control, **kwargs):
            times.append(time.perf_counter() - self.since)

    steps = len(rewards.rewards) * (sizes.blocks + 1)  # the first block warms up
    rows = [
        {"prompt": list(current.prompts[i % len(current.prompts)].messages),
         "prompt_id": current.prompts[i % len(current.prompts)].id}
        for i in range(steps * sizes.batch_size // sizes.group)
    ]  # fmt: skip
    with warnings.catch_warnings(), tempfile.TemporaryDirectory() as out:
        warnings.simplefilter("ignore")
        trainer = RLOOTrainer(
            model=str(current.model_path),
            reward_funcs=rewards,
            args=RLOOConfig(
                out,
                max_steps=steps,
                learning_rate=0.0,
                beta=design.beta,
                temperature=config.sampling.temperature,
                per_device_train_batch_size=sizes.batch_size,
                num_generations=sizes.group,
                max_completion_length=sizes.max_new_tokens,
                save_strategy="no",
                report_to="none",
                use_cpu=True,
                disable_tqdm=True,
                logging_steps=steps,
            ),
            train_dataset=Dataset.from_list(rows),
            processing_class=load_tokenizer(current.model_path, False),
            callbacks=[Clock()],
        )
        trainer.train()
    measured = slice(len(rewards.rewards), None)
    used, whole = rewards.used[measured], times[measured]
    own = np.subtract(rewards.inside, raw.seconds)[measured]
    return {
        name: {
            "step": [t for n, t in zip(used, whole, strict=True) if n == name],
            "own": [float(t) for n, t in zip(used, own, strict=True) if n == name],
        }
        for name in rewards.rewards
    }


def offline(sizes: Sizes, folder: Path) -> list[dict]:
    """Seconds and win rates of an offline method and of on-policy trainings of several lengths, all
    brought to the same KL, from one calibration."""
    from infalign.config import parse_config
    from infalign.pipeline.run import run

    variants = {"offline": {"method": "likelihood", "passes": 1}}
    for count in sizes.steps:
        variants[f"on policy, {count} steps"] = {"warm_start": 0, "steps": count}
    rows, first = [], None
    for number, (name, train) in enumerate(variants.items()):
        config, out = parse_config(configuration(sizes, **train)), folder / str(number)
        first = first or out
        begin(config, out, first)
        run(config, out)
        method = config.train.method
        results = json.loads((out / "evaluation/results.json").read_text())
        policy = next(p for p in results["policies"] if p["method"] == method)
        won = policy["win_rates"][config.procedure]
        seconds = 0.0
        for log in (out / "train" / method).glob("*/metrics.jsonl"):
            logged = [json.loads(line) for line in log.read_text().splitlines()]
            seconds += next(r["train_runtime"] for r in logged if "train_runtime" in r)
        rows.append({
            "name": name,
            "seconds": seconds,
            "kl": policy["kl"]["value"],
            "win_rate": won["value"],
            "stderr": won["stderr"],
        })  # fmt: skip
        print(rows[-1], file=sys.stderr)
    return rows


def variance(sizes: Sizes, folder: Path) -> list[dict]:
    """Variance of the gradient of the win rate, all subsets of a group beside one subset.

    A softmax over 12 outcomes, whose exact gradient is known; both estimates are unbiased. One
    subset: what the best of n wins, less what that of n others does, on the score of the first n.
    """
    from infalign import BestOfN
    from infalign.core import finite, group_rewards

    rng, outcomes, groups = np.random.default_rng(3), 12, 4_000 if sizes.tested < 100 else 200_000
    reward, reference = rng.normal(size=outcomes), rng.dirichlet(np.ones(outcomes))
    logits = np.log(reference) + 0.7 * rng.normal(size=outcomes)
    policy = np.exp(logits) / np.exp(logits).sum()
    rows = []
    for n, m in ((2, 4), (4, 8), (4, 16), (8, 16), (8, 64)):
        procedure = BestOfN(n)
        order = np.argsort(reward)
        upper = np.cumsum(reference[order])
        law = (procedure.cdf(np.minimum(upper, 1)) + procedure.cdf(upper - reference[order])) / 2
        chance = np.empty(outcomes)
        chance[order] = law
        drawn = rng.choice(outcomes, size=(groups * 8 // m, m), p=policy)
        wins, values = chance[drawn], reward[drawn]
        counts = [(drawn == y).astype(float) for y in range(outcomes)]
        whole = group_rewards(values, wins, procedure) / (m - 1)
        every = np.stack([(whole * c).sum(1) for c in counts], 1)  # Σ advantages is 0
        alone = np.take_along_axis(wins[:, :n], values[:, :n].argmax(1)[:, None], 1)[:, 0]
        other = wins[:, n : 2 * n]
        other = np.take_along_axis(other, values[:, n : 2 * n].argmax(1)[:, None], 1)[:, 0]
        score = np.stack([c[:, :n].sum(1) for c in counts], 1) - n * policy
        one = (alone - other)[:, None] * score
        step = 1e-5 * np.eye(outcomes)

        def won(x, procedure=procedure):
            p = np.exp(x - x.max())
            return finite.win_rate(reward, p / p.sum(), reference, procedure)

        exact = np.array([(won(logits + e) - won(logits - e)) / 2e-5 for e in step])
        off = np.abs(every.mean(0) - exact) / (every.std(0) / np.sqrt(len(every)))
        rows.append({
            "n": n,
            "m": m,
            "all": float(every.var(0).sum()),
            "one": float(one.var(0).sum()),
            "worst_error": float(off.max()),
        })  # fmt: skip
    return rows


PARTS = {"step": step, "offline": offline, "variance": variance}


def measure(sizes: Sizes, part: str) -> dict:
    """One part."""
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as folder:
        return {part: {"load": load, "found": PARTS[part](sizes, Path(folder) / "run")}}


def stated(sizes: Sizes) -> dict:
    """What was measured, and where."""
    import torch
    import transformers
    import trl

    return {
        "plan": asdict(sizes),
        "machine": {
            "cores": os.cpu_count(),
            "threads": torch.get_num_threads(),
            "python": platform.python_version(),
            "torch": torch.__version__,
            "transformers": transformers.__version__,
            "trl": trl.__version__,
        },
    }


def page(results: dict) -> str:
    """The results as a page of Markdown."""
    machine, plan = results["machine"], results["plan"]
    lines = [
        "# Training benchmarks",
        "",
        "Generated by `python benchmarks/training.py`.",
        "",
        f"{machine['threads']} of {machine['cores']} cores; Python {machine['python']}, "
        f"torch {machine['torch']}, transformers {machine['transformers']}, TRL {machine['trl']}; "
        "bundled models.",
    ]
    if "step" in results:
        lines += _step_lines(results["step"], plan)
    if "offline" in results:
        lines += _offline_lines(results["offline"], plan)
    if "variance" in results:
        lines += _variance_lines(results["variance"])
    if "throughput" in results:
        lines += throughput.lines(results["throughput"])
    return "\n".join(lines) + "\n"


def _step_lines(part: dict, plan: dict) -> list[str]:
    measured = part["found"]
    lines = [
        "",
        "## The cost of shaping per step",
        "",
        f"Steps of one `RLOOTrainer`, {plan['batch_size']} responses in groups of {plan['group']}, "
        f"{plan['samples']} reference samples per prompt. The rewards alternate in random order, "
        f"{plan['blocks']} steps each{_loaded(part)}. *Own time*: the time for calibrating, "
        "transforming and logging, also as a share of a step with the raw reward. *Whole step*: "
        "the time of a step relative to a raw-reward step, as a median over turns with a 95 % "
        f"bootstrap interval. Goal: at most {STEP:.2f} times.",
        "",
        "| reward | step, s | own time, ms | own time, share of a step | whole step |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]
    base = statistics.median(measured["raw"]["step"])
    for name, row in measured.items():
        own = statistics.median(row["own"])
        ratios = np.divide(row["step"], measured["raw"]["step"])
        again = np.random.default_rng(0).choice(ratios, (2000, len(ratios)))
        low, high = np.quantile(np.median(again, axis=1), [0.025, 0.975])
        share, mark = own / base, "" if own / base <= STEP - 1 else "**"
        lines.append(
            f"| {name} | {statistics.median(row['step']):.2f} | {1e3 * own:.1f} "
            f"| {mark}{share:.2%}{mark} | {np.median(ratios):.3f}× ({low:.3f} to {high:.3f}) |"
        )
    return lines


def _offline_lines(part: dict, plan: dict) -> list[str]:
    rows = part["found"]
    ours, rivals = rows[0], rows[1:]
    lines = [
        "",
        "## Offline and on-policy training",
        "",
        f"Best-of-{plan['group'] // 2}, {plan['prompts']} prompts with {plan['samples']} "
        f"calibration samples each, which both kinds of training need{_loaded(part)}. Offline: "
        "one pass over "
        "these samples (`likelihood`). On policy: `rloo` without a warm start. All policies are "
        f"brought to the same target KL. Win rates are measured on {plan['tested']} held-out "
        "prompts.",
        "",
        "| training | seconds | KL, nats | win rate, % |",
        "| --- | ---: | ---: | ---: |",
    ]
    lines += [
        f"| {r['name']} | {r['seconds']:.0f} | {r['kl']:.2f} "
        f"| {100 * r['win_rate']:.1f} ± {100 * r['stderr']:.1f} |"
        for r in rows
    ]
    # As good within what the measurement can tell.
    reached = [r for r in rivals if r["win_rate"] >= ours["win_rate"] - ours["stderr"]]
    if reached:
        ratio = reached[0]["seconds"] / ours["seconds"]
        verdict = (
            "On-policy training first reaches the same win rate, within a standard error, after "
            f"{ratio:.1f} times the time of offline training."
        )
    else:
        ratio = rivals[-1]["seconds"] / ours["seconds"]
        verdict = (
            f"On-policy training does not reach the same win rate in up to {ratio:.1f} times the "
            "time of offline training."
        )
    goal = "met" if ratio >= CHEAPER else "**missed**" if reached else "**not shown**"
    return [*lines, "", f"{verdict} Goal: at least {CHEAPER:.0f} times; {goal}."]


def _variance_lines(part: dict) -> list[str]:
    rows = part["found"]
    worst = max(r["worst_error"] for r in rows)
    return [
        "",
        "## The exact group objective: variance of the gradient",
        "",
        "Total variance of the gradient of the best-of-n win rate from a group of m responses, on "
        "a softmax over 12 outcomes whose exact gradient is known. The mean gradient over all "
        f"subsets is within {worst:.1f} standard errors of the exact one in every entry. *One "
        "subset* uses only 2n of the m responses, so the last column multiplies the ratio by 2n/m "
        "to compare at equal numbers of responses.",
        "",
        "| n | m | all subsets | one subset | ratio | ratio at equal numbers |",
        "| ---: | ---: | ---: | ---: | ---: | ---: |",
        *(
            f"| {r['n']} | {r['m']} | {r['all']:.4f} | {r['one']:.4f} | {r['one'] / r['all']:.1f}× "
            f"| {r['one'] / r['all'] * 2 * r['n'] / r['m']:.1f}× |"
            for r in rows
        ),
    ]


def _loaded(part: dict) -> str:
    return "; other work shared the machine" if part["load"] > 0.5 else ""


def main() -> None:
    """Measure, keep the figures, write the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--smoke", action="store_true", help="small and quick: does it run")
    parser.add_argument(
        "--only", choices=[*PARTS, "throughput"], help="measure this part only; keep the others"
    )
    parser.add_argument("--model", help="folder of the model of the part throughput")
    parser.add_argument("--out", type=Path, default=ROOT, help="folder to write into")
    options = parser.parse_args()
    if (options.only == "throughput") != (options.model is not None):
        parser.error("--only throughput and --model go together")
    data = options.out / "benchmarks/training.json"
    target = options.out / "docs/training-benchmarks.md"
    for folder in (data.parent, target.parent):
        folder.mkdir(parents=True, exist_ok=True)
    sizes = SMOKE if options.smoke else Sizes()
    for part in [options.only] if options.only else PARTS:
        stored = json.loads(data.read_text()) if data.exists() else {}
        if part == "throughput":
            found = throughput.measured(options.model)
            results = {**stored, part: {"model": Path(options.model).name, "found": found}}
        else:
            results = {**stored, **stated(sizes), **measure(sizes, part)}
        data.write_text(json.dumps(results, indent=1) + "\n")
        target.write_text(page(results), encoding="utf-8")
    print(page(results), end="")


if __name__ == "__main__":
    main()
