"""Which loss should the warm start have when responses are few?

    python evidence/worst_of_n/warm_start.py [--work work/warm_start]

The bundled policy after one pass over 16 responses to each of 218 training prompts, toward the
tilts of three methods at half a nat, by each loss of `train.warm_start_loss`. Judged on 32
reference responses to each of 128 held-out prompts: by the correlation of its log-ratio with the
reward, by ranks; by the win rate along its log-ratio, multiplied so that the KL is half a nat; and
by the win rate where the weights lie between the reference and the policy at that KL, as KL
targeting places them. Writes warm_start.json after each policy; two minutes each on one core. The
same command continues.
"""

import shutil
from pathlib import Path

import bundled
import numpy as np
import real
import torch
import trained
import typer
from scipy.optimize import brentq

import infalign as ia
from infalign import storage
from infalign.config import load_study
from infalign.manifest import Manifest, Stage
from infalign.methods import METHODS
from infalign.methods.tasks import TOWARD_TILT
from infalign.pipeline import stages
from infalign.pipeline.run import run
from infalign.training.offline import train_offline
from infalign.training.recipe import Recipe

PROCEDURES = {"harmless": ia.WorstOfN(8), "helpful": ia.BestOfN(8)}
GRID = (
    *(("harmless", method) for method in ("rloo", "identity", "rlhf")),
    ("helpful", "rloo"),
)
KL, PROMPTS, SAMPLES, STEP_SIZE, BATCH = 0.5, 218, 16, 1e-4, 32
HELD_OUT, K, LONGEST = 128, 32, 24
STUDIES = Path(__file__).parents[1].resolve() / "studies"
WORK, OUT = Path("work/warm_start"), Path(__file__).with_suffix(".json")


def policy(task: str, method: str, loss: str, work: Path):
    """The network after the warm start."""
    overrides = [f"kl=[{KL}]", "seeds=[0]", f"prompts.limit={PROMPTS}", "train.validation=0"]
    overrides += [f"calibration.samples={SAMPLES}", f"train.warm_start_batch_size={BATCH}"]
    overrides += [f"train.warm_start_learning_rate={STEP_SIZE}"]
    cells = load_study(STUDIES / f"bundled-{task}.yaml", overrides, [f"{task}-8"]).cells
    config = next(cell for cell in cells if cell.method == method).config
    planned = run(config, work / f"{task}-{method}", until="design")
    setting = stages._setting(planned, stages.open_store(planned))
    samples = stages.stored_samples(planned)
    out = work / f"{task}-{method}-{loss}"
    train_offline(
        Recipe.of(config, planned.model_path),
        samples,
        TOWARD_TILT[loss](METHODS[method].objective(setting).tilt(samples.rewards)),
        passes=1,
        out=out,
        stage=Stage(Manifest(out), "train", {}),
        report=lambda done, total: None,
    )
    network = bundled.policy(out / "model")
    shutil.rmtree(out)
    return network


def placed(network, samples: bundled.Samples) -> tuple[float, np.ndarray]:
    """The share of the way from the reference's weights at which the KL is met, and the log-ratios
    there."""
    start, end = bundled.policy().state_dict(), network.state_dict()
    middle = bundled.policy()

    def at(share: float) -> np.ndarray:
        middle.load_state_dict({name: torch.lerp(start[name], end[name], share) for name in end})
        return trained.log_ratios(middle, samples)

    def excess(log_share: float) -> float:
        return float(np.log(bundled.kl(at(np.exp(log_share))).mean() / KL))

    share = float(np.exp(brentq(excess, np.log(0.05), np.log(2), xtol=0.02)))
    return share, at(share)


def judged(network, samples: bundled.Samples, procedure) -> dict:
    """What a policy has learned, and what it wins at the KL."""

    def won(log_ratio: np.ndarray) -> dict[str, float]:
        rates = bundled.win_rate(samples.rewards, bundled.landed(log_ratio, KL), procedure)
        return {key: 100 * value for key, value in bundled.mean(rates).items()}

    ratios = trained.log_ratios(network, samples)
    share, between = placed(network, samples)
    return {
        "correlation": real.sees(ratios, samples.rewards),
        "kl": float(bundled.kl(ratios).mean()),
        "along the log-ratio": won(ratios),
        "share of the weights": share,
        "between the weights": won(between),
    }


def main(work: Path = WORK, out: Path = OUT):
    """Train and judge the policies that are not in `out` yet."""
    torch.set_num_threads(1)
    rows = storage.read_json(out) if out.exists() else []
    done = {(row["task"], row["method"], row["loss"]) for row in rows}
    for task, method in GRID:
        asked = bundled.prompts_of(task, "test")[:HELD_OUT]
        file = work / f"{task}.npz"
        samples = bundled.Samples.drawn(file, asked, K, split="test", task=task, longest=LONGEST)
        for loss in TOWARD_TILT:
            if (task, method, loss) in done:
                continue
            network = policy(task, method, loss, work)
            row = {"task": task, "method": method, "loss": loss}
            row |= judged(network, samples, PROCEDURES[task])
            print(row, flush=True)
            rows.append(row)
            storage.write_json(out, rows)


if __name__ == "__main__":
    typer.run(main)
