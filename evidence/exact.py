"""The exact study: every method's optimum in finite worlds with real rewards, at matched KL.

    make evidence-exact DATA=DATA

No policy is trained and nothing is sampled: win rates are sums over the responses of each world.
Results go to exact.json, from which the page exact.md and its plot are drawn. A result that is
there already, for the same rewards, is not computed again.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import exact_page
import numpy as np
import typer
from exact_methods import METHODS, reference
from exact_worlds import FROM_DATA, World, normal, scored

import infalign as ia
from infalign import storage
from infalign.core import RankProcedure, finite
from infalign.errors import SolveError
from infalign.evaluation.uncertainty import over_prompts

FOLDER = Path(__file__).parent
KLS = (exact_page.KL,)
SIZES = (2, 4, 8, 16, 32)
COMPARED = ("design", "raw")
SCALED = ("raw", "max@n", "utility")
"""Methods for which the scale of a prompt's rewards matters; the others see ranks only."""


def real_worlds(data: Path | None, scores: Path) -> Iterator[World]:
    """The worlds that can be read; prints which are left out, and why."""
    for name, load in {**FROM_DATA, **scored(scores)}.items():
        try:
            if name in FROM_DATA and data is None:
                raise FileNotFoundError("no --data folder was given")
            yield load(data or Path())
        except FileNotFoundError as error:
            print(f"Skipped {name!r}: {error}")


def procedures(k: int) -> list[RankProcedure]:
    """Best-of-n and worst-of-n for each n up to K: more draws than responses say little."""
    return [kind(n) for kind in (ia.BestOfN, ia.WorstOfN) for n in SIZES if n <= k]


def result(rewards: np.ndarray, method: str, procedure: RankProcedure, kl: float) -> dict:
    """Win rate and KL of a method's optimum, and its gain over the raw reward's.

    `top_kl` is the share of the KL that goes to the tenth of the prompts with the most.
    """
    uniform = reference(rewards)
    try:
        policy = METHODS[method](rewards, procedure, kl)
    except SolveError as error:
        return {"failed": str(error)}
    won = finite.win_rate(rewards, policy, uniform, procedure)
    rival = finite.win_rate(rewards, METHODS["raw"](rewards, procedure, kl), uniform, procedure)
    gain = over_prompts(won - rival)
    several = len(rewards) > 1
    spent = np.sort(finite.kl(policy, uniform))[::-1]
    return {
        "win_rate": float(won.mean()),
        "kl": float(spent.mean()),
        "top_kl": float(spent[: -(-len(spent) // 10)].sum() / spent.sum()),
        "gain": [gain.value, *((gain.low, gain.high) if several else ())],
    }


def add(results: dict, world: World, methods: tuple[str, ...]) -> None:
    """Compute what a world still lacks."""
    print_of = storage.fingerprint(world.rewards.tolist())
    entry = results.get(world.name)
    if entry is None or entry["fingerprint"] != print_of:
        entry = results[world.name] = {
            "fingerprint": print_of,
            "facts": world.facts,
            "results": {},
        }
    for kl in KLS:
        for procedure in procedures(world.rewards.shape[1]):
            for method in methods:
                key = f"{procedure.spec} {kl:g} {method}"
                if key not in entry["results"]:
                    entry["results"][key] = result(world.rewards, method, procedure, kl)


def main(
    data: Annotated[Path | None, typer.Option(help="Folder with samples/ and counts/.")] = None,
    scores: Annotated[Path, typer.Option(help="Scores of own samples.")] = FOLDER / "samples.json",
    out: Annotated[Path, typer.Option(help="Folder of the JSON file and the page.")] = FOLDER,
):
    """Write OUT/exact.json, OUT/exact.md and its plot."""
    path = out / "exact.json"
    results = storage.read_json(path) if path.is_file() else {}
    # For a continuous reward, the design is the optimum.
    order = [(normal(), tuple(m for m in METHODS if m != "optimum"))]
    for world in real_worlds(data, scores):
        order += [(normal(world.rewards.shape[1]), COMPARED), (world.one_scale, SCALED)]
        order += [(world, tuple(METHODS))]
    for world, methods in order:
        print(world.name, world.rewards.shape, flush=True)
        add(results, world, methods)
        storage.write_json(path, results)
    exact_page.write(results, out)


if __name__ == "__main__":
    typer.run(main)
