"""Reward hacking: what a policy that exploits a faulty reward does to the reward that is meant.

    make evidence-hacking

The bundled harmlessness reward is gold. Proxies are gold with a planted fault (reward_faults.py).
The bundled policy's responses to a prompt are a finite world, in which the optimum of training on a
proxy is known exactly. So no policy is trained here, and gold win rates differ by nothing but the
training reward. Responses are drawn once, into --work; results go to hacking.json, from which the
page hacking.md and its plot are drawn.
"""

import json
import sys
from pathlib import Path
from typing import Annotated

import hacking_page
import numpy as np
import typer
from exact_methods import METHODS, reference
from hacking_page import COMPARED, KL, KLS, SIZES, N
from reward_faults import FAULTS, STRENGTHS, Responses, flips
from scipy.stats import spearmanr

import infalign as ia
from infalign import storage
from infalign.core import finite
from infalign.evaluation.uncertainty import over_prompts

FOLDER = Path(__file__).parent
PHRASE = "you could"
PROMPTS, K = 128, 64
LEARNED_FROM, PAIRED = 320, 16
"""Prompts and responses on which rewards with flipped labels are learned."""


def responses(work: Path, split: str, prompts: int, k: int) -> Responses:
    """Responses of the bundled policy, with gold rewards."""
    sys.path.append(str(FOLDER / "worst_of_n"))
    from bundled import TOKENIZER, Samples

    drawn = Samples.of(work, split, prompts, k)
    texts = [
        [TOKENIZER.decode(drawn.response(i, j), skip_special_tokens=True) for j in range(k)]
        for i in range(prompts)
    ]
    marked = np.array([[PHRASE in text.lower() for text in row] for row in texts])
    spread = np.sqrt(drawn.rewards.var(1).mean())
    return Responses(drawn.rewards / spread, drawn.tokens, marked)


def proxies(on: Responses, learn_from: Responses) -> dict[str, np.ndarray]:
    """Every proxy by the name of its fault and strength; "gold" is the one without a fault."""
    rows = {"gold 0": on.gold}
    for fault, strengths in STRENGTHS.items():
        for strength in strengths:
            known = FAULTS.get(fault)
            values = flips(on, strength, learn_from) if known is None else known(on, strength)
            rows[f"{fault} {strength:g}"] = values
    return rows


def judged(gold: np.ndarray, proxy: np.ndarray, n: int, kl: float) -> dict[str, dict]:
    """What each training reward does, at one KL and under best-of-n by the proxy."""
    procedure, uniform = ia.BestOfN(n), reference(gold)
    opponent = finite.selected(proxy, uniform, procedure)
    won, rows = {}, {}
    for method in COMPARED:
        policy = METHODS[method](proxy, procedure, kl)
        chosen = finite.selected(proxy, policy, procedure)
        won[method] = np.asarray(finite.win_rate(gold, chosen, opponent, ia.Sampling()))
        rows[method] = {
            "gold_win_rate": interval(won[method]),
            "gold_reward": interval(((chosen - opponent) * gold).sum(1)),
            "proxy_win_rate": interval(
                np.asarray(finite.win_rate(proxy, policy, uniform, procedure))
            ),
            "gain": interval(won[method] - won["raw"]),
            "over_calibrated": interval(won[method] - won.get("identity", won["raw"])),
        }
    return rows


def interval(per_prompt: np.ndarray) -> list[float]:
    """A mean over prompts, and both ends of its interval."""
    mean = over_prompts(per_prompt)
    return [float(f"{x:.4g}") for x in (mean.value, mean.low, mean.high)]


def main(
    work: Annotated[Path, typer.Option(help="Folder of the responses.")] = Path("runs/hacking"),
    out: Annotated[Path, typer.Option(help="Folder of the results and the page.")] = FOLDER,
    page: Annotated[bool, typer.Option("--page", help="Only the page, of known results.")] = False,
):
    """Write OUT/hacking.json, OUT/hacking.md and its plot."""
    path = out / "hacking.json"
    if not page:
        lines = json.dumps(study(work), separators=(",", ":")).replace('},"', '},\n"')
        storage.write_text(path, lines + "\n")
    hacking_page.write(storage.read_json(path), out)


def study(work: Path) -> dict:
    """All results."""
    on = responses(work, "test", PROMPTS, K)
    learn_from = responses(work, "train", LEARNED_FROM, PAIRED)
    cells = list(dict.fromkeys([*((N, kl) for kl in KLS), *((n, KL) for n in SIZES)]))
    known = {}
    for name, proxy in proxies(on, learn_from).items():
        print(name, flush=True)
        known[name] = {
            "correlation": interval(correlations(on.gold, proxy)),
            "cells": {f"{n} {kl:g}": judged(on.gold, proxy, n, kl) for n, kl in cells},
        }
    return {
        "prompts": PROMPTS,
        "responses": K,
        "phrase": PHRASE,
        "phrase_share": float(on.marked.mean()),
        "proxies": known,
    }


def correlations(gold: np.ndarray, proxy: np.ndarray) -> np.ndarray:
    """The rank correlation of proxy and gold within each prompt."""
    return np.array([spearmanr(a, b).statistic for a, b in zip(gold, proxy, strict=True)])


if __name__ == "__main__":
    typer.run(main)
