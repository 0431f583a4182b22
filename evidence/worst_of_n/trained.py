"""Trainings of the bundled policy toward worst-of-4's optimum and toward the raw reward's.

    python evidence/worst_of_n/trained.py [--work work/worst_of_n] [--no-further]

Offline: 320 prompts × 32 samples, one pass, weighted likelihood (`infalign.methods.losses`). On
policy: 20 more steps of 16 prompts × 16 responses by RLOO. Both rewards get the same of everything.
The control's reward is a lexicon: a weight for each token, fitted to the harmlessness reward and
summed over the response, which a policy can learn exactly. Policies are judged by their log-ratios
on 128 held-out prompts × 64 reference responses, multiplied so that their KL is 0.5 nats. They stay
in the work folder, so an interrupted call continues. Writes trained.json; 15 minutes on one core.
"""

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import bundled
import numpy as np
import torch
import typer
from classes import KL, PROCEDURE, raw_beta

import infalign as ia
from infalign.methods.losses import tilt_loss
from infalign.models.hf import LanguageModel
from infalign.models.shared_prompts import shared_logits

WORK, OUT = Path("work/worst_of_n"), Path(__file__).with_suffix(".json")
BUNDLE, BATCH, OFFLINE_STEP_SIZE = 8, 64, 3e-5
STEPS, PROMPTS, GROUP, ON_POLICY_STEP_SIZE = 20, 16, 16, 2e-5
STORED = 32
"""Samples of a prompt that are trained on, of the 128 in the store."""

SMOOTHING = 20.0
"""Ridge of the lexicon, in responses."""


def log_probabilities(network, prompts, responses, owners) -> torch.Tensor:
    """Log-probabilities of responses at the sampling temperature."""
    pad = bundled.TOKENIZER.pad_token_id
    ids, mask, logits = shared_logits(network, prompts, responses, owners, pad)
    logs = (logits.float() / bundled.TEMPERATURE).log_softmax(-1)
    return (logs.gather(2, ids[..., None])[..., 0] * mask).sum(1)


@torch.no_grad()
def log_ratios(network, samples: bundled.Samples) -> np.ndarray:
    """log π/π_ref of all responses."""
    network.eval()
    results = np.empty(samples.rewards.shape)
    for prompt, start in enumerate(samples.prompt_ids):
        responses = [samples.response(prompt, k) for k in range(results.shape[1])]
        for part in np.array_split(np.argsort([len(r) for r in responses]), 2):
            chosen = [responses[k] for k in part]
            logs = log_probabilities(network, [start], chosen, [0] * len(part))
            results[prompt, part] = logs.numpy() - samples.logprobs[prompt, part]
    return results


def offline(samples: bundled.Samples, log_weights: np.ndarray):
    """The policy after one pass of weighted likelihood."""
    torch.manual_seed(0)
    rng, network = np.random.default_rng(0), bundled.policy().train()
    prompts, k = log_weights.shape
    bundles = [(p, b) for p in range(prompts) for b in np.split(rng.permutation(k), k // BUNDLE)]
    order, at_once = rng.permutation(len(bundles)), BATCH // BUNDLE
    steps, largest = len(order) // at_once, float(np.exp(log_weights.max()))
    optimizer = torch.optim.AdamW(network.parameters(), lr=OFFLINE_STEP_SIZE, weight_decay=0.0)
    warm = max(1, steps // 20)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer,
        lambda i: min(
            (i + 1) / warm, 0.5 + 0.5 * np.cos(np.pi * max(0, i - warm) / (steps - warm))
        ),
    )
    for step in range(steps):
        rows = [bundles[i] for i in order[step * at_once : (step + 1) * at_once]]
        places = [(p, k) for p, b in rows for k in b]
        logs = log_probabilities(
            network,
            [samples.prompt_ids[p] for p, _ in rows],
            [samples.response(p, k) for p, k in places],
            [i for i, (_, b) in enumerate(rows) for _ in b],
        )
        reference = torch.tensor([samples.logprobs[p, k] for p, k in places]).float()
        weights = torch.tensor([log_weights[p, k] for p, k in places]).float().exp()
        _step(network, optimizer, tilt_loss(logs - reference, weights, largest))
        schedule.step()
    return network


def on_policy(network, samples: bundled.Samples, shaped: Callable):
    """The policy after RLOO on `shaped(prompt, rewards)`, in nats."""
    rng, reference = np.random.default_rng(1), bundled.policy().eval()
    optimizer = torch.optim.AdamW(network.parameters(), lr=ON_POLICY_STEP_SIZE, weight_decay=0.0)
    order = np.concatenate([rng.permutation(len(samples.rewards)) for _ in range(STEPS)])
    reward, owners = bundled.reward_model(), [i for i in range(PROMPTS) for _ in range(GROUP)]
    for step in range(STEPS):
        chosen = order[step * PROMPTS : (step + 1) * PROMPTS]
        asked = [samples.prompts[i].messages for i in chosen]
        sampler = LanguageModel.of(
            network.eval(),
            bundled.TOKENIZER,
            temperature=bundled.TEMPERATURE,
            max_new_tokens=bundled.LONGEST,
        )
        drawn = [r for row in sampler.sample(asked, GROUP, seed=1000 + step) for r in row]
        rewards = reward([list(asked[i]) for i in owners], [r.text for r in drawn])
        prompts, tokens = [samples.prompt_ids[i] for i in chosen], [r.tokens for r in drawn]
        with torch.no_grad():
            base = log_probabilities(reference, prompts, tokens, owners)
        logs = log_probabilities(network.train(), prompts, tokens, owners)
        values = np.stack([
            shaped(i, r)
            for i, r in zip(chosen, np.reshape(rewards, (PROMPTS, GROUP)), strict=True)
        ])  # fmt: skip
        gain = torch.tensor(values).float() - (logs - base).detach().reshape(PROMPTS, GROUP)
        advantage = (gain - gain.mean(1, keepdim=True)) * GROUP / (GROUP - 1)
        _step(network, optimizer, -(advantage.ravel() * logs).mean())
    return network


def _step(network, optimizer, loss: torch.Tensor) -> None:
    optimizer.zero_grad()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
    optimizer.step()


def lexicon(samples: bundled.Samples) -> np.ndarray:
    """A weight for each token whose sum best predicts the reward within prompts."""
    size = bundled.policy().config.vocab_size
    counts = token_counts(samples, STORED, size)
    counts = (counts - counts.mean(1, keepdims=True)).reshape(-1, size)
    rewards = samples.rewards[:, :STORED]
    wanted = (rewards - rewards.mean(1, keepdims=True)).ravel()
    gram = counts.T @ counts + SMOOTHING * np.eye(size)
    weights = np.linalg.solve(gram, counts.T @ wanted)
    weights[bundled.TOKENIZER.eos_token_id] = 0
    return weights


def token_counts(samples: bundled.Samples, k: int, size: int) -> np.ndarray:
    """How often each token occurs, shape (prompts, k, size)."""
    prompts = len(samples.rewards)
    cells = np.arange(prompts * k).reshape(prompts, k, 1) * size + samples.tokens[:, :k]
    present = samples.tokens[:, :k] >= 0
    return np.bincount(cells[present], minlength=prompts * k * size).reshape(prompts, k, size)


def scored(samples: bundled.Samples, weights: np.ndarray) -> np.ndarray:
    """The lexicon's rewards of all responses."""
    return np.where(samples.tokens >= 0, weights[samples.tokens], 0.0).sum(2)


def log_weights(rewards: np.ndarray) -> dict[str, np.ndarray]:
    """Targets on the first `STORED` samples of each prompt: the raw tilt, and the optimum's."""
    stored, design = rewards[:, :STORED], ia.design(PROCEDURE, kl=KL)
    targets = {"raw": stored / raw_beta(stored)}
    for k, name in ((STORED, "optimum"), (rewards.shape[1], "optimum, quantiles of 128")):
        quantile = bundled.quantiles(rewards[:, :k])[:, :STORED]
        targets[name] = design.transform(quantile) / design.beta
    exact = {n: x - np.log(np.exp(x).mean()) for n, x in targets.items()}
    return {**exact, "raw": bundled.normalized(targets["raw"])}


def shapes(samples: bundled.Samples) -> dict[str, Callable]:
    """Rewards of on-policy training, in nats."""
    design, beta = ia.design(PROCEDURE, kl=KL), raw_beta(samples.rewards[:, :STORED])
    stored = np.sort(samples.rewards, axis=1)

    def transformed(prompt: int, rewards: np.ndarray) -> np.ndarray:
        ends = [np.searchsorted(stored[prompt], rewards, side) for side in ("left", "right")]
        return design.transform(np.mean(ends, axis=0) / stored.shape[1]) / design.beta

    return {"optimum": transformed, "raw": lambda prompt, rewards: rewards / beta}


def judged(rewards: np.ndarray, policies: dict[str, np.ndarray]) -> Sequence[dict]:
    """Held-out win rates of log-ratios by name, at the KL, and gains over `raw`."""
    won = {
        k: bundled.win_rate(rewards, bundled.landed(x, KL), PROCEDURE) for k, x in policies.items()
    }
    raw = next(x for name, x in won.items() if name.startswith("raw"))
    return [
        {
            "policy": name,
            **bundled.mean(won[name]),
            "gain over raw": bundled.mean(won[name] - raw),
            "correlation with the quantile": bundled.correlation(x, bundled.quantiles(rewards)),
        }
        for name, x in policies.items()
    ]


def main(work: Path = WORK, further: bool = True, out: Path = OUT):
    """Train what is not trained yet, and judge; without on-policy steps if `further` is off."""
    torch.set_num_threads(1)
    train = bundled.Samples.of(work, "train", 320, 128)
    test = bundled.Samples.of(work, "test", 128, 64)
    weights = lexicon(train)
    ratios = work / "ratios"
    ratios.mkdir(exist_ok=True)

    def once(name: str, trained: Callable) -> np.ndarray:
        path = ratios / f"{name.replace(' ', '_')}.npy"
        if not path.exists():
            network = trained()
            network.save_pretrained(work / "policies" / path.stem)
            np.save(path, log_ratios(network, test))
        return np.load(path)

    def continued(name: str):
        network = bundled.policy(work / "policies" / name)
        return on_policy(network, train, shapes(train)[name])

    targets, control = log_weights(train.rewards), log_weights(scored(train, weights))
    many = "optimum, quantiles of 128"
    tests = {
        "offline": (
            test.rewards,
            {n: once(n, lambda x=x: offline(train, x)) for n, x in targets.items()},
        ),
        "offline, lexicon": (
            scored(test, weights),
            {
                n: once(f"lexicon {n}", lambda n=n: offline(train, control[n]))
                for n in ("raw", many)
            },
        ),
    }
    if further:
        policies = {n: once(f"{n} on policy", lambda n=n: continued(n)) for n in ("raw", "optimum")}
        tests["then 20 steps on policy"] = test.rewards, policies
    results = {}
    for name, (rewards, policies) in tests.items():
        design = ia.design(PROCEDURE, kl=KL)
        exact = {"raw": rewards, "optimum": design.transform(bundled.quantiles(rewards))}
        results[name] = {"trained": judged(rewards, policies), "exact": judged(rewards, exact)}
        print(name, json.dumps(results[name], indent=1), flush=True)
    out.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    typer.run(main)
