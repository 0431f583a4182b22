"""Time calibration stores as they grow: opening, looking up, disk and memory.

    python benchmarks/store.py [--smoke] [--out FOLDER]

Writes benchmarks/store.json and docs/store-benchmarks.md. Every measurement is that of a process of
its own, which opens a store that another one wrote. Beside it what anybody would write: a dict of
sorted arrays, read from one NumPy file, and `np.searchsorted` for each prompt.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
ONE_CORE = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")

OPENS, BYTES, LOOK_UPS = 1.0, 300, 1e6
"""Aims at the largest store: seconds to open, bytes a prompt, look-ups a second."""

BLOCK = 20_000
"""Prompts that are written at once."""


@dataclass(frozen=True)
class Plan:
    """What is measured."""

    prompts: tuple[int, ...] = (1_000, 10_000, 100_000, 1_000_000)
    samples: int = 64
    """Rewards of each prompt, as prompts grow."""

    growing_samples: tuple[int, ...] = (4, 16, 64, 256, 1024)
    fixed_prompts: int = 50_000
    """Prompts, as samples grow."""

    batches: tuple[int, ...] = (64, 1024, 65_536)
    """Look-ups at once."""

    seconds: float = 3.0
    """For look-ups in each size of batch."""


SMOKE = Plan((40, 80), 4, (2, 4), 40, (8, 16), 0.05)


def main() -> None:
    """Measure, save, report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--smoke", action="store_true", help="tiny cases, to test the script")
    parser.add_argument("--out", type=Path, default=ROOT, help="folder instead of the repository")
    parser.add_argument("--child", nargs=2, metavar=("WHAT", "CASE"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        what, case = arguments.child
        print(json.dumps(CHILDREN[what](**json.loads(case))))
        return
    plan = SMOKE if arguments.smoke else Plan()
    results = {"machine": machine(), "plan": asdict(plan), "cases": cases(plan)}
    for folder in ("benchmarks", "docs"):
        (arguments.out / folder).mkdir(parents=True, exist_ok=True)
    saved = arguments.out / "benchmarks" / "store.json"
    saved.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    text = page(results)
    (arguments.out / "docs" / "store-benchmarks.md").write_text(text, encoding="utf-8")
    print(text)


def machine() -> dict:
    """Where it was measured."""
    from importlib.metadata import version

    names = ("infalign", "numpy", "pyarrow")
    return {
        "python": platform.python_version(),
        "cores": os.cpu_count(),
        "load": os.getloadavg()[0],
        **{name: version(name) for name in names},
    }


def cases(plan: Plan) -> list[dict]:
    """One row for each store: first those whose prompts grow, then those whose samples do."""
    sizes = [("prompts", prompts, plan.samples) for prompts in plan.prompts]
    sizes += [("samples", plan.fixed_prompts, samples) for samples in plan.growing_samples]
    rows = []
    for grows, prompts, samples in sizes:
        print(f"{prompts:,} prompts, K = {samples} …", file=sys.stderr)
        with tempfile.TemporaryDirectory() as name:
            case = {"folder": name, "prompts": prompts, "samples": samples}
            written = child("write", case)
            lookup = {"batches": plan.batches, "seconds": plan.seconds}
            row = {"grows": grows, "prompts": prompts, "samples": samples, **written}
            row["store"] = child("store", case | lookup)
            row["dict"] = child("dict", case | lookup)
            rows.append(row)
    return rows


def child(what: str, case: dict) -> dict:
    """A measurement in a process of its own."""
    command = [sys.executable, __file__, "--child", what, json.dumps(case)]
    environment = os.environ | dict.fromkeys(ONE_CORE, "1")
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    if done.returncode:
        sys.exit(done.stderr)
    return json.loads(done.stdout)


# --- What processes of their own do. ---


def prompt_id(number: int) -> str:
    """Ids as long as a data set's often are."""
    return f"prompt-{number:08d}"


def write(folder: str, prompts: int, samples: int) -> dict:
    """A store, and the same rewards in one NumPy file."""
    import numpy as np

    from infalign.stores import StoreWriter

    rng = np.random.default_rng(0)
    values = rng.normal(size=(prompts, samples)).astype(np.float32)  # as a classifier gives them
    np.save(Path(folder) / "rewards.npy", np.sort(values, axis=1))
    store, start = Path(folder) / "store", time.perf_counter()
    with StoreWriter(store, {}, prompts) as out:
        for first in range(0, prompts, BLOCK):
            part = values[first : first + BLOCK].astype(float)
            ids = [prompt_id(i) for i in range(first, first + len(part))]
            out.add(ids, None, part)
    seconds = time.perf_counter() - start
    size = sum(file.stat().st_size for file in store.iterdir())
    return {"write_seconds": seconds, "bytes": size}


def store(folder: str, prompts: int, samples: int, batches: list[int], seconds: float) -> dict:
    """Open, look up, and what it takes of memory."""
    import numpy as np

    from infalign.stores import CalibrationStore

    before, start = memory(), time.perf_counter()
    opened = CalibrationStore.open(Path(folder) / "store")
    found = {"open_seconds": time.perf_counter() - start, "opened": less(memory(), before)}
    start = time.perf_counter()
    opened.quantiles([prompt_id(0)], np.zeros(1))
    found["first_seconds"] = time.perf_counter() - start
    found["look_ups"] = looked_up(opened.quantiles, prompts, batches, seconds)
    found["used"] = less(memory(), before)
    return found


def by_dict(folder: str, prompts: int, samples: int, batches: list[int], seconds: float) -> dict:
    """The same with a dict of sorted arrays."""
    import numpy as np

    before, start = memory(), time.perf_counter()
    rewards = np.load(Path(folder) / "rewards.npy").astype(float)
    known = {prompt_id(i): row for i, row in enumerate(rewards)}
    found = {"open_seconds": time.perf_counter() - start, "opened": less(memory(), before)}

    def quantiles(prompt_ids, asked):
        told = np.empty(len(asked))
        for i, (name, reward) in enumerate(zip(prompt_ids, asked, strict=True)):
            row = known[name]
            below, up_to = row.searchsorted(reward, "left"), row.searchsorted(reward, "right")
            told[i] = (below + up_to) / 2 / row.size
        return told

    found["look_ups"] = looked_up(quantiles, prompts, batches, seconds)
    found["used"] = less(memory(), before)
    return found


CHILDREN = {"write": write, "store": store, "dict": by_dict}


def looked_up(quantiles, prompts: int, batches: list[int], seconds: float) -> dict:
    """Quantiles of one reward each a second, of random prompts, for each size of batch; after
    every prompt has been used once, so that no file is read for the first time."""
    import numpy as np

    rng = np.random.default_rng(1)
    for first in range(0, prompts, BLOCK):
        ids = [prompt_id(i) for i in range(first, min(first + BLOCK, prompts))]
        quantiles(ids, np.zeros(len(ids)))
    rates = {}
    for size in batches:
        drawn = [
            ([prompt_id(i) for i in rng.integers(prompts, size=size)], rng.normal(size=size))
            for _ in range(max(1, 65_536 // size))
        ]
        done, start = 0, time.perf_counter()
        while time.perf_counter() - start < seconds:
            ids, asked = drawn[done % len(drawn)]
            quantiles(ids, asked)
            done += 1
        rates[str(size)] = done * size / (time.perf_counter() - start)
    return rates


def memory() -> dict:
    """Resident memory of this process, in bytes: its own, and that of mapped files, which the
    system takes back when it needs it."""
    found = {}
    for line in Path("/proc/self/smaps_rollup").read_text().splitlines()[1:]:
        name, _, value = line.partition(":")
        found[name] = int(value.split()[0]) * 1024
    return {"own": found["Anonymous"], "mapped": found["Rss"] - found["Anonymous"]}


def less(after: dict, before: dict) -> dict:
    """The difference."""
    return {name: after[name] - before[name] for name in after}


# --- The page. ---

PAGE = """# Speed and size of calibration stores

Generated by `python benchmarks/store.py`.

One of {cores} cores; Python {python}, numpy {numpy}, pyarrow {pyarrow}. Load before the start:
{load:.1f}. Rewards are in single precision, as classifiers return them, and ids have 15 letters.
Every measurement runs in its own process. *Own* memory belongs to the process; *mapped* memory
belongs to files, and the system reclaims it when needed. Both exclude memory in use before the
measurement. *dict* is a dict of sorted double-precision arrays, read entirely from one NumPy file,
with `searchsorted` for each look-up.

Aims at {largest:,} prompts × {samples}: open in {opens:g} s: **{open_met}**
({open_seconds:.2f} s); {bytes} bytes per prompt on disk: **{bytes_met}** ({per_prompt:.0f});
{look_ups:,.0f} look-ups per second in batches: **{look_ups_met}** ({rate:,.0f} in batches of
{batch:,}).

## Number of prompts

{prompts}

## Number of samples

{grown}
"""


def page(results: dict) -> str:
    """The results as Markdown."""
    rows = results["cases"]
    by_prompts = [row for row in rows if row["grows"] == "prompts"]
    top = by_prompts[-1]
    rates = top["store"]["look_ups"]
    batch = max(rates, key=rates.get)
    per_prompt = top["bytes"] / top["prompts"]
    return PAGE.format(
        **results["machine"],
        largest=top["prompts"],
        samples=top["samples"],
        opens=OPENS,
        bytes=BYTES,
        look_ups=LOOK_UPS,
        open_seconds=top["store"]["open_seconds"],
        open_met=_met(top["store"]["open_seconds"] <= OPENS),
        per_prompt=per_prompt,
        bytes_met=_met(per_prompt <= BYTES),
        rate=rates[batch],
        batch=int(batch),
        look_ups_met=_met(rates[batch] >= LOOK_UPS),
        prompts=_table("prompts", by_prompts),
        grown=_table("samples", [row for row in rows if row["grows"] == "samples"]),
    )


def _met(good: bool) -> str:
    return "met" if good else "not met"


def _table(grows: str, rows: list[dict]) -> str:
    fixed = f"K = {rows[0]['samples']}" if grows == "prompts" else f"{rows[0]['prompts']:,} prompts"
    batches = list(rows[0]["store"]["look_ups"])
    head = ["prompts" if grows == "prompts" else "K", "write, s", "bytes per prompt", "open, ms"]
    head += ["dict", "first use, ms", "own, MB", "mapped, MB", "dict: own, MB"]
    lines = [
        [
            f"{row[grows]:,}",
            f"{row['write_seconds']:.2f}",
            f"{row['bytes'] / row['prompts']:.0f}",
            f"{1e3 * row['store']['open_seconds']:.3g}",
            f"{1e3 * row['dict']['open_seconds']:.3g}",
            f"{1e3 * row['store']['first_seconds']:.3g}",
            *(f"{row['store']['used'][name] / 1e6:.0f}" for name in ("own", "mapped")),
            f"{row['dict']['used']['own'] / 1e6:.0f}",
        ]
        for row in rows
    ]
    times = ["prompts" if grows == "prompts" else "K"]
    for size in batches:
        times += [f"batches of {int(size):,}", "/ dict"]
    rates = []
    for row in rows:
        line = [f"{row[grows]:,}"]
        for size in batches:
            ours, theirs = row["store"]["look_ups"][size], row["dict"]["look_ups"][size]
            line += [f"{ours / 1e6:.2f}", f"{ours / theirs:.1f}×"]
        rates.append(line)
    return (
        f"{fixed}. Memory is measured after every prompt has been "
        f"used.\n\n{_markdown(head, lines)}\n\n"
        "Millions of look-ups per second, and their ratio to the dict's "
        f"rate:\n\n{_markdown(times, rates)}"
    )


def _markdown(head: list[str], lines: list[list[str]]) -> str:
    rule = ["---:"] * len(head)
    return "\n".join(f"| {' | '.join(line)} |" for line in (head, rule, *lines))


if __name__ == "__main__":
    main()
