"""Time best-of-n decoding beside a bare `generate` with the same reward, and write the page.

    python benchmarks/decoding.py [--smoke] [--out FOLDER]

Writes benchmarks/decoding.json and docs/decoding-benchmarks.md. Both programs run alternately in
one process on one core, so that other load on the machine affects both. Only the bundled models
are needed.
"""

import argparse
import json
import os
import platform
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

from alternating import alternating

from infalign.pipeline.costs import processor

ROOT = Path(__file__).parents[1]
ONE_CORE = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
AIM = 0.95
"""Smallest accepted throughput of the package's decoding, as a multiple of the bare program's."""


@dataclass(frozen=True)
class Measurement:
    """The size of the measurement."""

    draws: tuple[int, ...] = (8, 32)
    """n of best-of-n."""

    lengths: tuple[int, ...] = (16, 64, 256)
    """Approximate number of tokens of the prompts."""

    responses: int = 256
    """Candidates drawn and scored in one repetition."""

    max_new_tokens: int = 64
    batch_size: int = 256
    repetitions: int = 5


SMOKE = Measurement(draws=(2,), lengths=(16,), responses=8, max_new_tokens=4, repetitions=2)


def conversations(model, count: int, length: int) -> list[list[dict]]:
    """Prompts of `length` / 2 to `length` tokens, made of the words of the bundled prompts."""
    from infalign.demo import bundled

    lines = bundled("bundled:helpful", "prompts").read_text(encoding="utf-8").splitlines()
    words = " ".join(json.loads(line)["prompt"] for line in lines).split()
    made, at = [], 0
    for i in range(count):
        limit, text = length * (0.5 + 0.5 * (i * 7 % count + 1) / count), []
        while not text or len(model.tokenizer(" ".join(text))["input_ids"]) < limit:
            text.append(words[at % len(words)])
            at += 1
        made.append([{"role": "user", "content": " ".join(text)}])
    return made


def bare(model, reward, prompts, n: int, batch_size: int, seed: int) -> list[str]:
    """The best response to each prompt, as a program with transformers alone selects it."""
    import torch
    from transformers import GenerationConfig

    torch.manual_seed(seed)
    tokenizer, selected = model.tokenizer, []
    config = GenerationConfig(
        do_sample=True,
        temperature=1.0,
        top_k=0,
        top_p=1.0,
        max_new_tokens=model.max_new_tokens,
        num_return_sequences=n,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
        use_cache=True,
    )
    candidates: list[str] = []
    for start in range(0, len(prompts), batch_size // n):
        texts = [
            tokenizer.apply_chat_template(p, tokenize=False, add_generation_prompt=True)
            for p in prompts[start : start + batch_size // n]
        ]
        inputs = tokenizer(
            texts,
            add_special_tokens=False,
            return_tensors="pt",
            padding=True,
            padding_side="left",
            return_token_type_ids=False,
        )
        with torch.no_grad():
            output = model.model.generate(**inputs, generation_config=config)
        new = output[:, inputs["input_ids"].shape[1] :]
        candidates += tokenizer.batch_decode(new, skip_special_tokens=True)
    rewards = reward(
        prompts=[p for p in prompts for _ in range(n)],
        completions=[[{"role": "assistant", "content": text}] for text in candidates],
    )
    for i in range(len(prompts)):
        own = range(i * n, (i + 1) * n)
        selected.append(candidates[max(own, key=lambda j: rewards[j])])
    return selected


def ours(model, reward, prompts, n: int, seed: int) -> list[str]:
    """The best response to each prompt by the package's decoder."""
    from infalign import BestOfN
    from infalign.decoding import decode

    return [d.response.text for d in decode(BestOfN(n), model, reward, prompts, seed=seed)]


def measure(plan: Measurement) -> dict:
    """All cases: seconds of every repetition of both roads."""
    import torch
    import transformers

    from infalign.demo import bundled
    from infalign.models.classifier import ClassifierReward
    from infalign.models.hf import LanguageModel

    torch.set_num_threads(1)
    load = os.getloadavg()[0]
    model = LanguageModel(
        bundled("bundled:language-model", "model"), max_new_tokens=plan.max_new_tokens
    )
    reward = ClassifierReward(bundled("bundled:helpful", "reward"))
    rows = []
    for length in plan.lengths:
        for n in plan.draws:
            prompts = conversations(model, max(1, plan.responses // n), length)
            programs = {
                "generate": lambda seed, n=n, p=prompts: bare(
                    model, reward, p, n, plan.batch_size, seed
                ),
                "infalign": lambda seed, n=n, p=prompts: ours(model, reward, p, n, seed),
            }
            times = alternating(programs, plan.repetitions)
            print(f"{length} tokens, n = {n}: {times}", file=sys.stderr)
            rows.append({"tokens": length, "n": n, "prompts": len(prompts), "seconds": times})
    return {
        "plan": asdict(plan),
        "machine": {
            "processor": processor(),
            "cores": os.cpu_count(),
            "load": load,
            "python": platform.python_version(),
            "torch": torch.__version__,
            "transformers": transformers.__version__,
        },
        "cases": rows,
    }


def page(results: dict) -> str:
    """The results as a page in Markdown."""
    machine, plan = results["machine"], results["plan"]
    lines = [
        "# Decoding throughput",
        "",
        "Generated by `python benchmarks/decoding.py`.",
        "",
        "Best-of-n with the bundled models: `infalign.decoding.decode` compared with "
        "`model.generate(num_return_sequences=n)`, with the same batch size and reward; the two "
        f"alternate on one core. Each of {plan['repetitions']} repetitions draws "
        f"{plan['responses']} candidates of up to {plan['max_new_tokens']} tokens. `infalign` also "
        "returns the log-probability of each candidate. It processes each prompt once for all of "
        "its n responses, and batches prompts of similar length; `generate` processes each prompt "
        "n times.",
        "",
        f"{machine['processor']}, 1 of {machine['cores']} cores; Python {machine['python']}, "
        f"torch {machine['torch']}, transformers {machine['transformers']}. Load before the "
        f"start: {machine['load']:.1f}."
        + (
            " Other programs shared the machine, so the rates are underestimates."
            if machine["load"] > 0.5
            else ""
        ),
        "",
        "Candidates per second are those of the fastest repetition. The ratio is the median over "
        "pairs of repetitions, with the range in parentheses. "
        f"Aim: at least {AIM:.2f}. {sum(_ratios(c)[1] >= AIM for c in results['cases'])} of "
        f"{len(results['cases'])} cases meet it; the others are bold.",
        "",
        "| prompt tokens | n | generate, per s | infalign, per s | infalign / generate |",
        "| ---: | ---: | ---: | ---: | ---: |",
    ]
    for case in results["cases"]:
        rates = [case["n"] * case["prompts"] / min(t) for t in case["seconds"].values()]
        low, middle, high = _ratios(case)
        ratio = f"{middle:.2f}×" if middle >= AIM else f"**{middle:.2f}×**"
        lines.append(
            f"| {case['tokens']} | {case['n']} | {rates[0]:.0f} | {rates[1]:.0f} "
            f"| {ratio} ({low:.2f} to {high:.2f}) |"
        )
    return "\n".join(lines) + "\n"


def _ratios(case: dict) -> tuple[float, float, float]:
    """Smallest, median and largest ratio of the throughputs of paired repetitions."""
    import numpy as np

    pairs = np.array(case["seconds"]["generate"]) / np.array(case["seconds"]["infalign"])
    return float(pairs.min()), float(np.median(pairs)), float(pairs.max())


def main() -> None:
    """Measure, save and print the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--smoke", action="store_true", help="a tiny case, to test the script")
    parser.add_argument("--out", type=Path, default=ROOT, help="folder instead of the repository")
    arguments = parser.parse_args()

    # Read once, when numpy and torch are imported.
    os.environ |= dict.fromkeys(ONE_CORE, "1")
    results = measure(SMOKE if arguments.smoke else Measurement())
    for folder in ("benchmarks", "docs"):
        (arguments.out / folder).mkdir(parents=True, exist_ok=True)
    text = json.dumps(results, indent=1) + "\n"
    (arguments.out / "benchmarks" / "decoding.json").write_text(text)
    (arguments.out / "docs" / "decoding-benchmarks.md").write_text(page(results), encoding="utf-8")
    print(page(results))


if __name__ == "__main__":
    main()
