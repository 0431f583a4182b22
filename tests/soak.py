"""Interrupted collections: killed at random moments and resumed, they must give the same store.

    make soak        # or: python tests/soak.py [--kills 200] [--out FOLDER]

Writes docs/soak.md. Runs are short, so that many finish within minutes. A stand-in takes as long
for a response as a small model on a GPU, and its collection mostly waits and writes files; a random
language model mostly computes.
"""

import argparse
import json
import math
import multiprocessing
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from infalign.collection import Local, collect
from infalign.models.interfaces import Response
from infalign.prompts import Prompt
from infalign.seeds import uniforms
from infalign.stores import CalibrationStore, read_samples

ROOT = Path(__file__).parents[1]
LIBRARIES = ("infalign.collection", "pyarrow.parquet", "pandas")  # Arrow asks for pandas
TORCH = ("infalign.models.hf", "transformers.models.llama.modeling_llama")
SAMPLES = 4
SECONDS = 0.001
"""What a response takes the stand-in."""


@dataclass(frozen=True)
class StandIn:
    """A policy whose responses are random words, and which takes its time."""

    seconds: float = SECONDS

    def sample(self, conversations, n, *, seed, keys=None):
        time.sleep(self.seconds * n * len(conversations))
        rows = [uniforms(seed, key, 0, n, 3) for key in keys]
        return [
            [Response(f"{u[0]:.3f}", tuple((99 * u).astype(int).tolist()), -u[1]) for u in row]
            for row in rows
        ]


def first_digits(*, completions, **columns):
    """A reward with ties."""
    return [float(c[0]["content"][:4]) for c in completions]


def stand_in():
    """The stand-in and its reward."""
    return StandIn(), first_digits


def language_model(path):
    """A random language model of a few letters, and how many of them are an a."""
    from infalign.models.hf import LanguageModel

    def letters(*, completions, **columns):
        return [float(c[0]["content"].count("a")) for c in completions]

    return LanguageModel(path, max_new_tokens=3, batch_size=8), letters


@dataclass(frozen=True)
class Case:
    """One kind of collection."""

    name: str
    load: partial
    prompts: int

    def run(self, folder, ready) -> None:
        """The collection, or what of it is missing; says through a pipe that it begins."""
        ready.send(True)
        words = ["ab", "c", "cabba", "bcacb"]
        prompts = [
            Prompt(f"p{i}", ({"role": "user", "content": words[i % len(words)]},))
            for i in range(self.prompts)
        ]
        collect(prompts, Local(self.load), SAMPLES, folder, seed=3, responses=2 * SAMPLES)


def content(folder):
    """All that a store holds: samples in their order, and the sorted rewards by prompt."""
    store = CalibrationStore.open(folder)
    rewards = {prompt: list(row) for prompt, row in store.rewards.items()}
    return read_samples(folder).to_pydict(), rewards, dict(store.provenance)


def forking(*libraries: str):
    """A context whose processes have these libraries loaded when they begin."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([*libraries, *LIBRARIES])
    return context


def soak(context, case: Case, kills: int, seed: int, folder: Path) -> dict:
    """Kill and resume collections until so many were killed once or more; what came of them."""
    rng = random.Random(seed)
    start = time.monotonic()

    def ended_within(seconds, path) -> bool:  # None: however long it takes
        ready, told = context.Pipe()
        process = context.Process(target=case.run, args=(path, told))
        process.start()
        ready.recv()
        process.join(seconds)
        if alive := process.exitcode is None:
            process.kill()
            process.join()
        code = process.exitcode
        process.close()
        ready.close()
        told.close()
        # One that ends by itself right before the kill has ended well.
        assert code == 0 or (alive and code == -9), f"{case.name} ended with {code}"
        return code == 0

    assert ended_within(None, folder / "first")  # waits for the libraries
    whole, began = folder / "whole", time.monotonic()
    assert ended_within(None, whole)
    duration = time.monotonic() - began
    expected, moments = content(whole), Counter()
    runs = equal = killed = total = most = 0
    while killed < kills:
        path, own = folder / f"run-{runs}", 0
        # Anywhere in most runs; early in some, which are then killed again and again.
        often = runs % 10 == 9
        longest = duration * (0.3 if often else 1)
        while not ended_within(rng.random() * longest, path):
            own += 1
            moments[moment(path)] += 1
            if not often and rng.random() < 0.5:
                break
        ended_within(None, path)
        killed, total = killed + (own > 0), total + own
        runs, most, equal = runs + 1, max(most, own), equal + (content(path) == expected)
        shutil.rmtree(path)
    return {
        "case": case.name,
        "killed": killed,
        "kills": total,
        "runs": runs,
        "most": most,
        "equal": equal,
        "moments": dict(moments),
        "shards": math.ceil(case.prompts / 2),
        "uninterrupted": duration,
        "seconds": time.monotonic() - start,
    }


MOMENTS = ("before the first file", "in a file", "between file and manifest", "between shards")


def moment(folder: Path) -> str:
    """The moment of the kill, by the files that the process left."""
    names = [p.name for p in folder.iterdir()] if folder.exists() else []
    if any(name.endswith(".part") for name in names):
        return "in a file"
    shards = {name for name in names if name.endswith(".parquet")}
    manifest = folder / "manifest.json"
    if not shards and not manifest.exists():
        return "before the first file"
    text = manifest.read_text() if manifest.exists() else ""
    return "between shards" if all(name in text for name in shards) else "between file and manifest"


def cases(folder: Path) -> list[tuple[Case, float]]:
    """The collections to kill, and the share of the kills of each."""
    from enumerable import EnumerableModel

    EnumerableModel.make(folder / "model", seed=1)
    return [
        (Case("stand-in", stand_in, 40), 0.75),
        (Case("language model", partial(language_model, folder / "model"), 40), 0.25),
    ]


def page(results: list[dict]) -> str:
    """The results as a page of Markdown."""
    lines = [
        "# Interrupted collections",
        "",
        "Generated by `make soak`.",
        "",
        "A process that collects a calibration store is killed with SIGKILL at random moments and "
        "restarted, until it finishes. Its store must equal that of an uninterrupted collection: "
        "every sample with its tokens, log-probability and reward, their order, the sorted "
        "rewards, and the provenance.",
        "",
        f"**{sum(r['killed'] for r in results)} of {sum(r['runs'] for r in results)} collections "
        f"were killed, {sum(r['kills'] for r in results)} times in all; "
        f"{sum(r['equal'] for r in results)} of {sum(r['runs'] for r in results)} stores are "
        "equal.**",
        "",
        "| policy | shards | uninterrupted | collections | killed | kills | most kills of one "
        "collection | equal stores |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for r in results:
        lines.append(
            f"| {r['case']} | {r['shards']} | {r['uninterrupted']:.2f} s | {r['runs']} "
            f"| {r['killed']} | {r['kills']} | {r['most']} | {r['equal']} |"
        )
    lines += ["", "When the kills happened, judging by the files that the process left:", ""]
    lines += ["| policy | " + " | ".join(MOMENTS) + " |", "| --- |" + " ---: |" * len(MOMENTS)]
    for r in results:
        counts = " | ".join(str(r["moments"].get(m, 0)) for m in MOMENTS)
        lines.append(f"| {r['case']} | {counts} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Soak, save, report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=ROOT / "docs", help="folder of the page")
    arguments = parser.parse_args()
    results, context = [], forking(*TORCH)
    with tempfile.TemporaryDirectory() as name:
        for case, share in cases(Path(name)):
            kills = math.ceil(arguments.kills * share)
            results.append(soak(context, case, kills, arguments.seed, Path(name) / case.name))
            print(json.dumps(results[-1]), file=sys.stderr)
    text = page(results)
    (arguments.out / "soak.md").write_text(text, encoding="utf-8")
    print(text)
    if any(r["equal"] < r["runs"] for r in results):
        sys.exit("Some stores differ.")


if __name__ == "__main__":
    main()
