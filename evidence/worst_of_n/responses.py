"""How much of the harmlessness reward does SmolLM2 learn, by the number of responses?

    python evidence/worst_of_n/responses.py --work work

The first pass of the trained study (its warm start) on the responses to more and more training
prompts, and more passes over the few, for the raw reward, the calibrated reward and the optimum for
worst-of-8. Each policy is judged as in `real.py`: by the correlation of its log-ratio to the
reference with a normal score of the reward's rank, and by the win rate of the policy along it that
spends the KL, on reference responses to held-out prompts that the study in `work` has drawn. Writes
responses.json after each policy; half an hour a policy with 256 prompts on one core. The same
command continues.
"""

import shutil
from contextlib import chdir
from pathlib import Path
from typing import Annotated

import bundled
import numpy as np
import real
import torch
import typer

from infalign import storage
from infalign.config import load_study
from infalign.manifest import Manifest, Stage
from infalign.methods import METHODS
from infalign.methods.tasks import toward_likelihood
from infalign.pipeline import stages
from infalign.pipeline.run import run
from infalign.training.offline import train_offline
from infalign.training.recipe import Recipe

TASK = "harmless"
STUDY = Path(__file__).parents[1].resolve() / "studies" / f"real-{TASK}.yaml"
GRID = (
    *((method, 64, 1) for method in ("rloo", "rlhf", "identity")),
    *((method, 256, 1) for method in ("rloo", "rlhf", "identity")),
    ("rloo", 64, 4),
)
"""Method, training prompts, and passes over their responses."""
OUT = Path(__file__).with_suffix(".json")


def trained(method: str, prompts: int, passes: int, out: Path) -> int:
    """Train one policy to `out`/model; the number of responses that it learns from."""
    overrides = (f"kl=[{real.KL}]", "seeds=[0]", f"prompts.limit={prompts}")
    cells = load_study(STUDY, overrides, [f"{TASK}-8"]).cells
    config = next(cell for cell in cells if cell.method == method).config
    planned = run(config, out.parent / f"run-{prompts}", until="design")
    setting = stages._setting(planned, stages.open_store(planned))
    samples = stages.stored_samples(planned)
    samples = samples.first(config.train.trained_prompts(len(samples.prompts)))
    train_offline(
        Recipe.of(config, planned.model_path),
        samples,
        toward_likelihood(METHODS[method].objective(setting).tilt(samples.rewards)),
        passes=passes,
        out=out,
        stage=Stage(Manifest(out), "train", {}),
        report=lambda done, total: None,
    )
    return samples.rewards.size


def judged(task: real.Task, model: Path) -> dict:
    """What a policy has learned, on some held-out prompts."""
    ratios, rewards = task.log_ratios_of(model)
    won = bundled.win_rate(rewards, bundled.landed(ratios, real.KL), real.TASKS[TASK])
    rate = {key: 100 * value for key, value in bundled.mean(won).items()}
    correlation = bundled.correlation(ratios, real.scores(rewards))
    return {"correlation": correlation, "win rate": rate, "per prompt": np.asarray(won).tolist()}


def main(
    work: Annotated[Path, typer.Option(help="Folder of the trained study.")],
    out: Path = OUT,
):
    """Train and judge the policies that are not in `out` yet."""
    torch.set_num_threads(1)
    out = out.resolve()
    rows = storage.read_json(out) if out.exists() else []
    done = {(row["method"], row["prompts"], row["passes"]) for row in rows}
    with chdir(work):  # the study's paths are those of its working folder
        task = real.Task(Path(), TASK)
        for method, prompts, passes in GRID:
            if (method, prompts, passes) in done:
                continue
            folder = Path("responses", f"{method}-{prompts}-{passes}")
            responses = trained(method, prompts, passes, folder)
            row = {"method": method, "prompts": prompts, "passes": passes, "responses": responses}
            row |= judged(task, folder / "model")
            print({key: value for key, value in row.items() if key != "per prompt"}, flush=True)
            rows.append(row)
            storage.write_json(out, rows)
            shutil.rmtree(folder)


if __name__ == "__main__":
    typer.run(main)
