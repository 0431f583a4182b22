"""`infalign store`: what a calibration store holds, and whether it can be trusted."""

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from infalign.errors import ConfigError, DataError

from .usage import Command

app = typer.Typer(
    no_args_is_help=True, help="Calibration stores: show, check, merge, export, import."
)

Folder = Annotated[Path, typer.Argument(help="Folder of the store, such as runs/mine/calibration.")]
AsJson = Annotated[bool, typer.Option("--json", help="For machines.")]
PROMPTS = 2000
"""Prompts that the test of uniformity looks at, at most."""

FIRST = ("model", "reward", "sampling", "samples", "seed", "tokenizer", "chat_template", "prompts")

DIGEST, SHOWN = re.compile(r"\b[0-9a-f]{24,}\b"), 12
"""Fingerprints, and how much of one tells it apart at a glance; --json has all of it."""

SWAPPED = 0.005
"""Share of pairs in another order above which a reward is not the one that was used: batches of
other shapes change last digits, and with them the order of what is all but tied."""


@app.command(cls=Command)
def show(folder: Folder, as_json: AsJson = False):
    """What a store is: prompts, samples, size, and what it was made with.

    Example: infalign store show runs/demo/calibration
    """
    from infalign.stores.manifest import held, read_manifest

    manifest = read_manifest(folder)
    shards = [*manifest["rewards"], *manifest["samples"]]
    found = {
        "prompts": held(manifest),
        "of": manifest["prompts"],
        "rewards": sum(s["values"] for s in manifest["rewards"]),
        "with_texts": bool(manifest["samples"]),
        "bytes": sum(s["bytes"] for s in shards),
        "shards": len(shards),
        "packages": manifest["packages"],
        "provenance": manifest["provenance"],
    }
    if as_json:
        print(json.dumps(found, ensure_ascii=False))
        return
    unfinished = found["prompts"] < found["of"]
    per_prompt = found["bytes"] / max(found["prompts"], 1)
    table = Table.grid(padding=(0, 2))
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    table.add_row("holds", held_in(folder))
    table.add_row("state", f"unfinished, of {found['of']:,} prompts" if unfinished else "finished")
    table.add_row(
        "on disk", f"{found['bytes']:,} bytes, {per_prompt:,.0f} a prompt, {len(shards)} shards"
    )
    table.add_row("written by", ", ".join(f"{k} {v}" for k, v in manifest["packages"].items()))
    table.add_row("made with", "" if found["provenance"] else "nothing that is stated")
    for name, value in sorted(_entries(found["provenance"]), key=_interest):
        table.add_row(f"  {name}", Text(DIGEST.sub(lambda m: m[0][:SHOWN] + "…", value)))
    Console(highlight=False).print(table)


def _interest(entry: tuple[str, str]) -> int:
    """What a stranger asks first, first; the rest as it comes."""
    return next((i for i, name in enumerate(FIRST) if entry[0].startswith(name)), len(FIRST))


def held_in(folder: Path) -> str:
    """How many prompts and samples a store holds."""
    from infalign.stores.manifest import held, read_manifest

    manifest = read_manifest(folder)
    prompts, rewards = held(manifest), sum(s["values"] for s in manifest["rewards"])
    texts = "with texts" if manifest["samples"] else "rewards only"
    return f"{prompts:,} prompts, {rewards / max(prompts, 1):.4g} samples each, {texts}"


def _entries(provenance: Mapping, prefix: str = "") -> Iterator[tuple[str, str]]:
    """Every entry on a line of its own, those of entries too."""
    for name, value in provenance.items():
        if isinstance(value, Mapping) and value:
            yield from _entries(value, f"{prefix}{name}.")
        else:
            text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
            yield f"{prefix}{name}", text


@app.command(cls=Command)
def check(
    folder: Folder,
    procedure: Annotated[
        str | None, typer.Option(help="How the policy will be decoded: are there samples enough?")
    ] = None,
    kl: Annotated[float, typer.Option(help="At this KL, in nats.")] = 0.5,
    rescore: Annotated[
        int, typer.Option(help="Score the responses of so many prompts again.", min=0)
    ] = 0,
    config: Annotated[
        Path | None,
        typer.Option(
            help="With --rescore: the run's configuration; beside the store unless given."
        ),
    ] = None,
    seed: Annotated[int, typer.Option(help="Of what is chosen at random.")] = 0,
    as_json: AsJson = False,
):
    """Read everything again; test what calibration assumes; say whether K is enough.

    Exits with 1 if the files are not what was written, or if the reward that scores again is
    another one. Example: infalign store check runs/demo/calibration --procedure best-of-n:8
    --rescore 16
    """
    from infalign.stores.integrity import check as check_files

    integrity = check_files(folder)
    if not integrity.whole:
        raise DataError("\n".join(integrity.problems))
    rng = np.random.default_rng(seed)
    found = {"prompts": integrity.prompts, "rewards": integrity.rewards}
    lines = [f"{integrity.prompts:,} prompts, {integrity.rewards:,} rewards: all as written"]
    chosen = _calibrator(folder)
    for part in (
        _ties(folder),
        _uniformity(folder, rng),
        chosen,
        _resolution(folder, chosen[0]["calibrator"], procedure, kl),
        _drift(folder, config, rescore, rng) if rescore else None,
    ):
        if part is not None:
            figures, words = part
            found |= figures
            lines.append(words)
    if as_json:
        print(json.dumps(found))
        _require_same_reward(found)
        return
    console = Console(highlight=False, soft_wrap=True)
    for line in lines:
        console.print(line, markup=False)
    _require_same_reward(found)


def _require_same_reward(found: Mapping) -> None:
    if found.get("swapped", 0) > SWAPPED:
        raise typer.Exit(1)


def _ties(folder: Path):
    from infalign.stores import CalibrationStore

    tied = CalibrationStore.open(folder).tied()
    advice = "" if tied < 0.05 else ": the theory of continuous rewards is no guide here"
    return {"ties": tied}, f"Two samples of a prompt tie {tied:.1%} of the time{advice}"


def _rewards(folder: Path) -> np.ndarray | None:
    """Raw rewards in the order drawn, shape (prompts, K); None where K differs or none are kept."""
    from infalign.stores import CalibrationStore, samples_of

    ids = list(CalibrationStore.open(folder).rewards)
    try:
        return samples_of(folder, ids, ["reward"]).matrix("reward")
    except DataError:
        return None


def _uniformity(folder: Path, rng):
    from infalign.calibration.diagnostics import SURE, uniformity

    rewards = _rewards(folder)
    if rewards is None or rewards.shape[1] < 2:
        return None
    chosen = rng.permutation(len(rewards))[:PROMPTS]
    half = rewards.shape[1] // 2
    found = uniformity(rewards[chosen, half:], rewards[chosen, :half], rng=rng)
    p = min(found.p_deviation, found.p_shift)
    verdict = (
        "nothing changed while it was collected"
        if p >= SURE
        else "reward, model or sampling changed while it was collected"
    )
    figures = {"shift": found.shift, "p_deviation": found.p_deviation, "p_shift": found.p_shift}
    return figures, (
        f"Later samples among earlier ones: quantiles shifted by {found.shift:+.3f} "
        f"(p = {found.p_shift:.3f}), shape p = {found.p_deviation:.3f}: {verdict}"
    )


def _calibrator(folder: Path):
    """Which calibrator the samples ask for; the choice that a run makes."""
    from infalign.calibration import choose
    from infalign.calibration.in_store import some_rewards
    from infalign.stores import CalibrationStore

    chosen = choose(some_rewards(CalibrationStore.open(folder)))
    return {"calibrator": chosen.name}, f"Calibrator {chosen.reason}"


def _resolution(folder: Path, calibrator: str, procedure: str | None, kl: float):
    if procedure is None:
        return None
    from infalign.calibration.choice import CALIBRATORS
    from infalign.calibration.diagnostics import resolution
    from infalign.calibration.expected import expected
    from infalign.calibration.in_store import some_rewards
    from infalign.core import parse_procedure
    from infalign.stores import CalibrationStore

    store = CalibrationStore.open(folder)
    rewards = some_rewards(store)
    outlook = expected(CALIBRATORS[calibrator].fit(rewards), rewards)
    found = resolution(
        parse_procedure(procedure), kl, store.samples, outlook=outlook, calibrator=calibrator
    )
    figures = {"samples": store.samples, "exact": found.exact, "needed": found.needed}
    if not np.isnan(found.reached):
        figures["reached"] = found.reached
    return figures, found.advice


def _drift(folder: Path, config: Path | None, prompts: int, rng):
    """What the reward in use gives to stored responses."""
    from infalign.collection.rescore import rescore
    from infalign.config import load_config
    from infalign.models.rewards import load_reward
    from infalign.prompts import load_prompts

    from .run import quiet_libraries

    quiet_libraries()
    config = config or folder.parent / "config.yaml"
    if not config.exists():
        raise ConfigError(
            f"{config} does not exist: scoring again needs the configuration of the run, for its "
            "prompts and reward. Name it with --config."
        )
    run = load_config(config)
    reward = load_reward(run.reward, trust_remote_code=run.trust_remote_code)
    found = rescore(folder, load_prompts(run.prompts), reward, most=prompts, rng=rng)
    verdict = (
        "the reward is the one that was used"
        if found.changed == 0
        else "the reward is another one: calibrate again"
        if found.swapped > SWAPPED
        else "rewards moved, but their order within a prompt hardly did"
    )
    figures = {"rescored": found.responses, "changed": found.changed, "swapped": found.swapped}
    return figures, (
        f"{found.responses:,} responses scored again: {found.changed:.1%} changed, "
        f"{found.swapped:.2%} of a prompt's pairs in another order: {verdict}"
    )
