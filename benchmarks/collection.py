"""Time collection beside a bare loop, batches of other shapes, and two workers on Ray.

    python benchmarks/collection.py [--smoke] [--workers] [--out FOLDER]

Writes benchmarks/collection.json and docs/collection-benchmarks.md. What is compared runs in turn,
one core each, so that what else the machine does falls on both. Nothing but the bundled models is
needed, and Ray for the last part, which is left out without it; `--workers` measures that part
again and keeps the others.
"""

import argparse
import json
import os
import platform
import statistics
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path

from alternating import alternating

ROOT = Path(__file__).parents[1]
ONE_CORE = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
OVERHEAD = 1.05
"""Greatest time of a collection, as a share of the bare loop's."""
SPEED_UP = 1.7
"""Least throughput of two workers, as a multiple of one worker's."""
NO_END = [-1]
"""The end token of a model whose responses all have the greatest length."""


@dataclass(frozen=True)
class Plan:
    """What is measured."""

    cases: tuple[tuple[int, int], ...] = ((32, 4), (128, 4), (16, 16))
    """Prompts, and samples of each."""

    max_new_tokens: int = 32
    batch_size: int = 64
    repetitions: int = 3

    changed: int = 32
    """Prompts whose responses are drawn in batches of other sizes."""

    sizes: tuple[int, ...] = (64, 4, 16, 128)
    """These sizes; the first is what the others are compared with."""

    shards: int = 16
    """Shards of the work that is spread over workers."""

    seconds: float = 0.5
    """What a shard takes one processor that does nothing else, about."""

    rounds: int = 3


SMOKE = Plan(((2, 2),), 3, 4, 2, 2, (1, 2), 2, 0.01, 0)


def prompts(count: int):
    """So many of the bundled prompts, again from the first when they are used up."""
    from infalign.demo import bundled
    from infalign.prompts import Prompt

    lines = bundled("bundled:helpful", "prompts").read_text(encoding="utf-8").splitlines()
    texts = [json.loads(line)["prompt"] for line in lines]
    return [
        Prompt(f"p{i}", ({"role": "user", "content": texts[i % len(texts)]},)) for i in range(count)
    ]


def bare(model, reward, asked, samples: int, batch_size: int, seed: int) -> list[float]:
    """Rewards of samples, as one writes it with transformers alone: nothing is kept."""
    import torch
    from transformers import GenerationConfig

    torch.manual_seed(seed)
    tokenizer, texts, conversations = model.tokenizer, [], []
    config = GenerationConfig(
        do_sample=True,
        temperature=1.0,
        top_k=0,
        top_p=1.0,
        max_new_tokens=model.max_new_tokens,
        num_return_sequences=samples,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=NO_END,
        use_cache=True,
    )
    written = [
        tokenizer.apply_chat_template(p.messages, tokenize=False, add_generation_prompt=True)
        for p in asked
    ]
    lengths = [len(ids) for ids in tokenizer(written, add_special_tokens=False)["input_ids"]]
    order, size = sorted(range(len(asked)), key=lambda i: -lengths[i]), batch_size // samples
    for start in range(0, len(order), size):
        part = order[start : start + size]
        inputs = tokenizer(
            [written[i] for i in part],
            add_special_tokens=False,
            return_tensors="pt",
            padding=True,
            padding_side="left",
            return_token_type_ids=False,
        )
        with torch.no_grad():
            output = model.model.generate(**inputs, generation_config=config)
        new = output[:, inputs["input_ids"].shape[1] :]
        texts += tokenizer.batch_decode(new, skip_special_tokens=True)
        conversations += [list(asked[i].messages) for i in part for _ in range(samples)]
    return reward(
        prompts=conversations,
        completions=[[{"role": "assistant", "content": text}] for text in texts],
    )


def ours(model, reward, asked, samples: int, seed: int) -> None:
    """The same into a calibration store, with everything that it keeps."""
    from infalign.collection import Local, collect

    with tempfile.TemporaryDirectory() as folder:
        collect(asked, Local(lambda: (model, reward)), samples, Path(folder) / "store", seed=seed)


def overhead(plan: Plan, model, reward) -> list[dict]:
    """Seconds of every repetition of both roads."""
    own, model.model.generation_config.eos_token_id = (
        model.model.generation_config.eos_token_id,
        NO_END,
    )
    rows = []
    for count, samples in plan.cases:
        asked = prompts(count)
        roads = {
            "bare": lambda seed, a=asked, k=samples: bare(
                model, reward, a, k, plan.batch_size, seed
            ),
            "collect": lambda seed, a=asked, k=samples: ours(model, reward, a, k, seed),
        }
        times = alternating(roads, plan.repetitions)
        rows.append({"prompts": count, "samples": samples, "seconds": times})
        print(rows[-1], file=sys.stderr)
    model.model.generation_config.eos_token_id = own
    return rows


def changed(plan: Plan, model) -> list[dict]:
    """How many responses are others in batches of another size, by precision of the model."""
    import torch

    asked, samples, rows = prompts(plan.changed), 4, []
    ids, conversations = [p.id for p in asked], [p.messages for p in asked]
    for precision in ("float32", "bfloat16"):
        model.model.to(getattr(torch, precision))
        drawn = {}
        for size in (*plan.sizes, plan.sizes[0]):
            answers = model.sample(conversations, samples, seed=0, keys=ids, batch_size=size)
            found = [r.tokens for row in answers for r in row]
            if size in drawn:  # the first again: the same batches
                rows.append(_compared(precision, size, drawn[size], found))
            elif drawn:
                rows.append(_compared(precision, size, drawn[plan.sizes[0]], found))
            drawn.setdefault(size, found)
        print(rows[-len(plan.sizes) :], file=sys.stderr)
    model.model.to(torch.float32)
    return rows


def _compared(precision: str, size: int, first, other) -> dict:
    differ = sum(a != b for a, b in zip(first, other, strict=True))
    return {"precision": precision, "size": size, "responses": len(first), "differ": differ}


class Busy:
    """A policy that does nothing but keep one processor busy, the same work for every shard."""

    def __init__(self, steps: int):
        self.steps = steps

    def sample(self, conversations, n, *, seed, keys):
        """Texts that follow from keys and seed, after so many hashes."""
        import hashlib

        from infalign.models.interfaces import Response

        digest = b""
        for _ in range(self.steps):
            digest = hashlib.sha256(digest).digest()
        return [[Response(f"{key} {seed} {k}", (k,), -1.0) for k in range(n)] for key in keys]


def busy(steps: int):
    """What a worker loads: the policy, and a reward that costs nothing."""
    return Busy(
        steps
    ), lambda *, completions, **columns: [float(len(completions))] * len(completions)


def workers(plan: Plan) -> list[dict]:
    """Shards per second after the first, of one worker and of two, in turn."""
    if plan.rounds == 0 or find_spec("ray") is None or (os.cpu_count() or 1) < 2:
        return []
    from functools import partial

    from infalign.collection import OnRay, collect
    from infalign.collection.cluster import _cluster, _ray

    start = time.process_time()
    Busy(500_000).sample([], 1, seed=0, keys=[])
    steps = int(500_000 * plan.seconds / (time.process_time() - start))
    rows = []
    with _cluster(_ray()):
        for turn in range(plan.rounds):
            row = {"load": os.getloadavg()[0]}
            for count in (1, 2) if turn % 2 else (2, 1):
                told = []
                began = time.perf_counter()
                with tempfile.TemporaryDirectory() as folder:
                    collect(
                        prompts(plan.shards),
                        OnRay(partial(busy, steps), workers=count),
                        2,
                        Path(folder) / "store",
                        seed=0,
                        responses=2,
                        report=lambda done, total, told=told: told.append(
                            (done, time.perf_counter())
                        ),
                    )
                whole = time.perf_counter() - began
                # Actors start while nothing is done: from the first shard on, all of them work.
                (first, since), (last, until) = told[1], told[-1]
                row[str(count)] = {"rate": (last - first) / (until - since), "seconds": whole}
            rows.append(row)
            print(row, file=sys.stderr)
    return rows


def measure(plan: Plan) -> dict:
    """All parts."""
    import torch
    import transformers

    from infalign.demo import bundled
    from infalign.models.classifier import ClassifierReward
    from infalign.models.hf import LanguageModel

    torch.set_num_threads(1)
    load = os.getloadavg()[0]
    model = LanguageModel(
        bundled("bundled:language-model", "model"),
        max_new_tokens=plan.max_new_tokens,
        batch_size=plan.batch_size,
    )
    reward = ClassifierReward(bundled("bundled:helpful", "reward"))
    spread = workers(plan)
    return {
        "plan": asdict(plan),
        "machine": {
            "cores": os.cpu_count(),
            "load": load,
            "python": platform.python_version(),
            "torch": torch.__version__,
            "transformers": transformers.__version__,
        },
        "overhead": overhead(plan, model, reward),
        "changed": changed(plan, model),
        "workers": spread,
    }


def page(results: dict) -> str:
    """The results as a page of Markdown."""
    machine, plan = results["machine"], results["plan"]
    ratios = [_ratios(case) for case in results["overhead"]]
    lines = [
        "# Speed of collection",
        "",
        "Generated by `python benchmarks/collection.py`.",
        "",
        f"One of {machine['cores']} cores; Python {machine['python']}, torch {machine['torch']}, "
        f"transformers {machine['transformers']}. Load before the start: {machine['load']:.1f}."
        + (" Other work shared the machine." if machine["load"] > 0.5 else ""),
        "",
        "## Compared with a bare loop",
        "",
        "`infalign.collection.collect` writes a store to disk. The bare loop calls "
        "`model.generate(num_return_sequences=K)` on left-padded batches of prompts of similar "
        "length, then the same classifier in batches, and stores nothing. Both use the bundled "
        f"models, the same prompts, batches of {plan['batch_size']}, and {plan['max_new_tokens']} "
        f"tokens per response; they run alternately in one process, {plan['repetitions']} times "
        "each. The ratio is the median over pairs of runs, with the smallest and the largest in "
        "parentheses. Ratios are below 1 because `collect` processes each prompt once for all its "
        f"samples, and the bare loop K times. Aim: at most {OVERHEAD:.2f}. "
        f"{sum(r[1] <= OVERHEAD for r in ratios)} of {len(ratios)} cases meet it; the others are "
        "bold.",
        "",
        "| prompts | K | bare, samples per s | collect, samples per s | collect / bare |",
        "| ---: | ---: | ---: | ---: | ---: |",
    ]
    for case, (low, middle, high) in zip(results["overhead"], ratios, strict=True):
        drawn = case["prompts"] * case["samples"]
        rates = [drawn / min(seconds) for seconds in case["seconds"].values()]
        ratio = f"{middle:.2f}×" if middle <= OVERHEAD else f"**{middle:.2f}×**"
        lines.append(
            f"| {case['prompts']} | {case['samples']} | {rates[0]:.0f} | {rates[1]:.0f} "
            f"| {ratio} ({low:.2f} to {high:.2f}) |"
        )
    lines += [
        "",
        "## Other batch sizes",
        "",
        "Each sample has its own random numbers, so a different batch size gives the same "
        "responses up to rounding: the last digits of logits depend on the batch shape. The table "
        f"counts responses of up to {plan['max_new_tokens']} tokens that differ in any token from "
        f"those of batch size {plan['sizes'][0]}; the row for that size repeats the same call.",
        "",
        "| precision | batch size | responses | different |",
        "| --- | ---: | ---: | ---: |",
    ]
    for row in results["changed"]:
        lines.append(
            f"| {row['precision']} | {row['size']} | {row['responses']} "
            f"| {row['differ']} ({row['differ'] / row['responses']:.1%}) |"
        )
    lines += [
        "",
        "The same call therefore gives the same store, resumed or not, on any number of workers, "
        "since shards and batches are the same. Another batch size changes the shares of "
        "responses shown above, but not their distribution. Run folders and stores with another "
        "batch size are rejected.",
        "",
        "## Workers on Ray",
        "",
    ]
    if not results["workers"]:
        return "\n".join([*lines, "Not measured: it needs Ray and two cores."]) + "\n"
    speed = [r["2"]["rate"] / r["1"]["rate"] for r in results["workers"]]
    middle = statistics.median(speed)
    lines += [
        f"{plan['shards']} shards of CPU-bound work, of about {plan['seconds']} s each, on a "
        "cluster of this machine with one thread per worker. Rates are measured from the first "
        "finished shard to the last, so they exclude the workers' start. Runs with one and two "
        "workers alternate; the load is measured before each pair. "
        f"Two workers are {middle:.2f} times as fast as one (median; "
        f"{min(speed):.2f} to {max(speed):.2f}). Aim: at least {SPEED_UP}; "
        + ("met." if middle >= SPEED_UP else "**missed**."),
        "",
        "| load | 1 worker, shards per s | 2 workers | ratio | whole call, 1 | 2 |",
        "| ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for row, ratio in zip(results["workers"], speed, strict=True):
        one, two = row["1"], row["2"]
        lines.append(
            f"| {row['load']:.1f} | {one['rate']:.2f} | {two['rate']:.2f} | {ratio:.2f} "
            f"| {one['seconds']:.1f} s | {two['seconds']:.1f} s |"
        )
    return "\n".join(lines) + "\n"


def _ratios(case: dict) -> tuple[float, float, float]:
    """Least, median and greatest ratio of the times of paired repetitions."""
    pairs = [
        c / b for b, c in zip(case["seconds"]["bare"], case["seconds"]["collect"], strict=True)
    ]
    return min(pairs), statistics.median(pairs), max(pairs)


def main() -> None:
    """Measure, save, report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--smoke", action="store_true", help="a tiny case, to test the script")
    parser.add_argument("--workers", action="store_true", help="only the part on Ray, again")
    parser.add_argument("--out", type=Path, default=ROOT, help="folder instead of the repository")
    arguments = parser.parse_args()

    # Read once, when numpy and torch are imported.
    os.environ |= dict.fromkeys(ONE_CORE, "1")
    plan = SMOKE if arguments.smoke else Plan()
    if arguments.workers:
        results = json.loads((arguments.out / "benchmarks" / "collection.json").read_text())
        results |= {"workers": workers(plan), "plan": asdict(plan)}
    else:
        results = measure(plan)
    for folder in ("benchmarks", "docs"):
        (arguments.out / folder).mkdir(parents=True, exist_ok=True)
    text = json.dumps(results, indent=1) + "\n"
    (arguments.out / "benchmarks" / "collection.json").write_text(text)
    path = arguments.out / "docs" / "collection-benchmarks.md"
    path.write_text(page(results), encoding="utf-8")
    print(page(results))


if __name__ == "__main__":
    main()
