"""The stages of a run. Each does what its files do not yet show done, and nothing else."""

import warnings

from infalign import storage
from infalign.calibration.raw import require_spread
from infalign.calibration.store import CalibrationStore, StoreWriter, read_samples
from infalign.comparison.samples import draw
from infalign.comparison.shards import BATCHES, Report
from infalign.comparison.verdicts import compare_pairs
from infalign.models.rewards import score
from infalign.transforms import AbstractTransform, transform_from_json

from .folder import Run


def calibrate(run: Run, report: Report) -> None:
    """K reference samples per prompt, scored, into `calibration/`."""
    writer = StoreWriter(run.folder / "calibration", run.fingerprints, len(run.prompts))
    k = run.config.calibration.samples
    size = max(1, BATCHES * run.config.sampling.batch_size // k)
    shards = [run.prompts[i : i + size] for i in range(0, len(run.prompts), size)]
    done = len(writer)
    report("calibrate", done * size, len(run.prompts))
    if done == len(shards):
        return
    model = load_model(run, run.model_path)
    for prompt in (*run.prompts, *run.test_prompts):  # one that cannot be read shows now
        model.prompt_text(prompt.messages)
    for index in range(done, len(shards)):
        part = shards[index]
        conversations = [p.messages for p in part]
        ids = [p.id for p in part]
        drawn = model.sample(
            conversations,
            k,
            seed=run.seed("calibrate", index),
            batch_size=run.config.sampling.batch_size,
        )
        texts = [[r.text for r in row] for row in drawn]
        rewards = score(run.reward, conversations, texts, ids)
        flat = [r for row in drawn for r in row]
        writer.add(
            ids,
            texts,
            rewards,
            {"tokens": [list(r.tokens) for r in flat], "logprob": [r.logprob for r in flat]},
        )
        report("calibrate", min((index + 1) * size, len(run.prompts)), len(run.prompts))


def open_store(run: Run) -> CalibrationStore:
    """The run's calibration store, checked against what the run uses."""
    store = CalibrationStore.open(run.folder / "calibration")
    store.require(**run.fingerprints)
    return store


ATOMS = 0.05
"""Chance of a tie above which the theory of continuous rewards is no guide."""


def design(run: Run, report: Report) -> None:
    """The transform for the procedure and the KL budget, into `design.json`."""
    from infalign.training.objectives import plan

    path = run.folder / "design.json"
    if not path.exists():
        tied = open_store(run).tied()
        if tied > ATOMS:
            warnings.warn(
                f"Two reference samples of a prompt have the same reward {tied:.0%} of the time: "
                "win rates that assume continuous rewards, such as design.json's and the "
                "frontier, do not hold. Tied rewards are trained on the transform's average over "
                "their quantiles; `infalign.verifiable` and `infalign.finite` give exact figures.",
                stacklevel=2,
            )
        transform, policy = plan(
            run.procedure,
            run.against,
            run.config.transform,
            kl=run.config.kl,
            beta=run.config.beta,
        )
        storage.write_json(
            path,
            {
                "transform": transform.to_json(),
                "beta": policy.beta,
                "kl": policy.kl,
                "win_rate": policy.win_rate(run.procedure, run.against),
            },
        )
    report("design", 1, 1)


def read_design(run: Run) -> tuple[AbstractTransform, float, float]:
    """The transform, its β and its KL in nats."""
    data = storage.read_json(run.folder / "design.json")
    return transform_from_json(data["transform"]), data["beta"], data["kl"]


def train(run: Run, report: Report) -> None:
    """One policy per method into `train/METHOD/model`."""
    from infalign.policies import TiltedPolicy
    from infalign.training.objectives import raw_objective, shaped_objective
    from infalign.training.policy import train_policy
    from infalign.training.warm_start import StoredSamples

    transform, beta, kl = read_design(run)
    for method in run.config.methods:
        out = run.folder / "train" / method
        if (out / "landing.json").exists():
            report(f"train {method}", 1, 1)
            continue
        store = open_store(run)
        require_spread(store)
        objective = (
            raw_objective(run.reward, store, kl)
            if method == "rlhf"
            else shaped_objective(run.reward, store, TiltedPolicy(transform, beta))
        )
        samples = read_samples(run.folder / "calibration")
        shape = (len(run.prompts), run.config.calibration.samples)
        tokens = samples["tokens"].to_pylist()
        train_policy(
            run.config,
            run.model_path,
            run.prompts,
            StoredSamples(
                [tokens[i : i + shape[1]] for i in range(0, len(tokens), shape[1])],
                samples["logprob"].to_numpy().reshape(shape),
                samples["reward"].to_numpy().reshape(shape),
            ),
            objective,
            kl,
            run.seed("landing"),
            out,
            report=lambda what, done, total, method=method: report(
                f"train {method}: {what}", done, total
            ),
        )


def evaluate(run: Run, report: Report) -> None:
    """Samples, rewards and KLs on the held-out prompts, then `evaluation/results.json`."""
    from .results import summarize_run

    folder = run.folder / "evaluation"
    draw(run.comparison, folder, report)
    compare_pairs(run.comparison, folder, report)
    if not (folder / "results.json").exists():
        storage.write_json(folder / "results.json", summarize_run(run))


def load_model(run: Run, path: str):
    """A language model that samples as the run is configured to."""
    from infalign.models.hf import LanguageModel

    return LanguageModel(
        path,
        temperature=run.config.sampling.temperature,
        max_new_tokens=run.config.sampling.max_new_tokens,
        trust_remote_code=run.config.trust_remote_code,
    )
