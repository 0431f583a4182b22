"""Ablations: what each choice of the method is worth, by theory and on real responses.

    make evidence-ablations

Theory is exact, for a continuous reward. The worlds are those of hacking.py: responses of the
bundled policy, with the bundled harmlessness reward. Results go to ablations.json, from which the
page ablations.md and its plot are drawn.
"""

from pathlib import Path
from typing import Annotated

import ablations_page
import numpy as np
import typer
from ablations_page import KL, PROCEDURES, SAMPLED, SAMPLES, SIZES, STRENGTHS
from exact_methods import design, reference, tilted
from hacking import PROMPTS, interval, responses
from hacking import K as RESPONSES

import infalign as ia
from infalign import storage
from infalign.calibration import Counting
from infalign.calibration.choice import CALIBRATORS
from infalign.core import finite

FOLDER = Path(__file__).parent
CALIBRATED = (4, 16)
"""Numbers of responses that calibrate the reward."""
HELD_OUT = 32
"""Responses of a prompt that are its world where others calibrate the reward."""


def by_samples() -> dict:
    """The best win rate with K reference samples, by procedure; K = 0 stands for all quantiles."""
    rows: dict[str, dict[str, float]] = {}
    for spec in SAMPLED:
        procedure = ia.parse_procedure(spec)
        best = {"0": ia.design(procedure, kl=KL).win_rate}
        for k in SAMPLES:
            best[str(k)] = ia.design(procedure, kl=KL, samples=k).win_rate
        rows[spec] = {k: _short(value) for k, value in best.items()}
    return rows


def by_calibrator(rewards: np.ndarray) -> dict:
    """Win rates on held-out responses, trained with the first K of the others; K = 0 knows all."""
    world, uniform = rewards[:, -HELD_OUT:], reference(rewards[:, -HELD_OUT:])
    prompts, rows = np.arange(len(rewards)), {}
    fitted = {
        k: {name: c.fit(rewards[:, :k]).on(rewards[:, :k]) for name, c in CALIBRATORS.items()}
        for k in CALIBRATED
    }
    for spec in ("best-of-n:4", "worst-of-n:4"):
        procedure = ia.parse_procedure(spec)
        transform = ia.design(procedure, kl=KL).transform

        def won(values, procedure=procedure):
            return np.asarray(finite.win_rate(world, tilted(values, KL), uniform, procedure))

        known = won(Counting().fit(world).on(world).shaped(prompts, world, transform))
        rows[spec] = {"all": {"0": {"win_rate": interval(known)}}}
        for k, calibrators in fitted.items():
            plain = None
            for name, calibrator in calibrators.items():
                values = calibrator.shaped(prompts, world, transform)
                own = won(values)
                plain = own if plain is None else plain
                entry = {"win_rate": interval(own), "over_ecdf": interval(own - plain)}
                rows[spec].setdefault(name, {})[str(k)] = entry
    return rows


def by_exponent() -> dict:
    """What an exponential transform loses to the optimum, by procedure and exponent."""
    rows = {}
    for spec in PROCEDURES[1:]:
        candidates = [ia.Identity() if t == 0 else ia.Exponential(t) for t in STRENGTHS]
        best, *others = ia.compare(ia.parse_procedure(spec), candidates, kl=[KL])
        rows[spec] = [_short(best.win_rate - other.win_rate) for other in others]
    return rows


def crossed(rewards: np.ndarray, trained: tuple[str, ...], deployed: tuple[str, ...]) -> dict:
    """The win rate of training for one procedure and deploying another: by theory, and on the
    responses with what it loses to training for the procedure that is deployed."""
    uniform, rows = reference(rewards), {}
    own = {spec: design(rewards, ia.parse_procedure(spec), KL) for spec in {*trained, *deployed}}
    theory = {spec: ia.design(ia.parse_procedure(spec), kl=KL).policy for spec in own}
    for row in trained:
        for column in deployed:
            procedure = ia.parse_procedure(column)
            won, best = (
                np.asarray(finite.win_rate(rewards, own[spec], uniform, procedure))
                for spec in (row, column)
            )
            rows[f"{row} {column}"] = {
                "theory": _short(theory[row].win_rate(procedure)),
                "theory_loss": _short(
                    theory[column].win_rate(procedure) - theory[row].win_rate(procedure)
                ),
                "win_rate": interval(won),
                "loss": interval(best - won),
            }
    return rows


def _short(value: float) -> float:
    return float(f"{value:.5g}")


def study(work: Path, path: Path) -> None:
    """Write all results; those that are in the file already are not computed again."""
    rewards = responses(work, "test", PROMPTS, RESPONSES).gold
    sizes = tuple(f"best-of-n:{n}" for n in SIZES)
    facts = {"prompts": PROMPTS, "responses": RESPONSES, "held_out": HELD_OUT}
    facts["made_from"] = storage.fingerprint(
        [rewards.tolist(), KL, CALIBRATED, SAMPLES, SIZES, STRENGTHS, PROCEDURES]
    )
    known = storage.read_json(path) if path.is_file() else {}
    if {name: known.get(name) for name in facts} != facts:
        known = facts
    parts = {
        "exponents": by_exponent,
        "sizes": lambda: crossed(rewards, sizes, sizes),
        "procedures": lambda: crossed(rewards, PROCEDURES, PROCEDURES),
        "calibrators": lambda: by_calibrator(rewards),
        "samples": by_samples,
    }
    for name, part in parts.items():
        if name not in known:
            print(name, flush=True)
            known[name] = part()
            storage.write_json(path, known)


def main(
    work: Annotated[Path, typer.Option(help="Folder of the responses.")] = Path("runs/hacking"),
    out: Annotated[Path, typer.Option(help="Folder of the results and the page.")] = FOLDER,
    page: Annotated[bool, typer.Option("--page", help="Only the page, of known results.")] = False,
):
    """Write OUT/ablations.json, OUT/ablations.md and its plot."""
    if not page:
        study(work, out / "ablations.json")
    ablations_page.write(storage.read_json(out / "ablations.json"), out)


if __name__ == "__main__":
    typer.run(main)
