"""A small network over 341 responses, all listed: is worst-of-4's gain learned, and how soon?

    python evidence/worst_of_n/listed.py

Exact gradients of the forward KL from each tilt, no samples. A policy is judged after 3 to 300
steps, at the multiple of its change of weights that has 0.5 nats. Rewards: additive in tokens, a
random network's, or independent from response to response. The raw reward is worth the quantile's
logarithm (a long left tail, as the bundled harmlessness reward has one). Writes listed.json; two
minutes on one core.
"""

import itertools
import json
from pathlib import Path

import numpy as np
import torch
import typer
from scipy.optimize import brentq
from transformers import LlamaConfig, LlamaForCausalLM

import infalign as ia

OUT = Path(__file__).with_suffix(".json")
LETTERS, LONGEST, WIDTH = 4, 4, 16
KL, PROCEDURE = 0.5, ia.WorstOfN(4)
JUDGED_AFTER = (3, 10, 30, 100, 300)
WORDS = [
    word
    for length in range(LONGEST + 1)
    for word in itertools.product(range(1, LETTERS + 1), repeat=length)
]
IDS = torch.tensor([[LETTERS + 1, *word, *[0] * (LONGEST - len(word))] for word in WORDS])
LENGTHS = torch.tensor([len(word) for word in WORDS])
COUNTED = (torch.arange(LONGEST) <= LENGTHS[:, None]).double()


def network(seed: int, scale: float) -> LlamaForCausalLM:
    """A random network."""
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=LETTERS + 2,
            hidden_size=WIDTH,
            intermediate_size=2 * WIDTH,
            num_hidden_layers=2,
            num_attention_heads=2,
            num_key_value_heads=2,
            max_position_embeddings=16,
            pad_token_id=0,
            eos_token_id=0,
            bos_token_id=None,
            tie_word_embeddings=False,
        )
    )
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, weights in model.named_parameters():
            if "norm" not in name:
                weights.copy_(scale * torch.randn(weights.shape, generator=generator))
    return model


def log_law(model: LlamaForCausalLM) -> torch.Tensor:
    """Log-probabilities of all words."""
    logs = model(IDS[:, :-1]).logits[..., : LETTERS + 1].double().log_softmax(-1)
    return (logs.gather(2, IDS[:, 1:, None])[..., 0] * COUNTED).sum(1)


def rewards(kind: str) -> np.ndarray:
    """A reward of each word, without ties."""
    rng = np.random.default_rng(5)
    if kind == "additive in tokens":
        worth = rng.normal(size=LETTERS + 1)
        return np.array([worth[list(word)].sum() for word in WORDS]) + 1e-6 * rng.normal(
            size=len(WORDS)
        )
    if kind == "a network's":
        with torch.no_grad():
            hidden = network(77, 0.6).model(IDS).last_hidden_state
        return hidden[torch.arange(len(WORDS)), LENGTHS].numpy() @ rng.normal(size=WIDTH)
    return rng.normal(size=len(WORDS))


def exact_kl(policy: np.ndarray, reference: np.ndarray) -> float:
    """KL of listed laws, nats."""
    return float(policy @ np.log(np.maximum(policy, 1e-300) / reference))


def tilted(reference: np.ndarray, shaped: np.ndarray) -> np.ndarray:
    """The policy trained exactly on a reward, at the KL."""

    def at(log_beta: float) -> np.ndarray:
        weights = reference * np.exp((shaped - shaped.max()) / np.exp(log_beta))
        return weights / weights.sum()

    return at(brentq(lambda b: exact_kl(at(b), reference) - KL, -9, 6))


def learned(target: np.ndarray, reference: np.ndarray, quantile: np.ndarray) -> dict[str, float]:
    """Win rates at the KL after so many steps toward `target`."""
    model = network(3, 0.4)
    start = {k: v.clone() for k, v in model.state_dict().items()}
    optimizer, aim = torch.optim.Adam(model.parameters(), lr=2e-3), torch.tensor(target)
    results = {}
    for step in range(1, max(JUDGED_AFTER) + 1):
        optimizer.zero_grad()
        (-(aim * log_law(model)).sum()).backward()
        optimizer.step()
        if step in JUDGED_AFTER:
            end = {k: v.clone() for k, v in model.state_dict().items()}
            policy = _landed(model, start, end, reference)
            won = ia.finite.win_rate(quantile, policy, reference, PROCEDURE)
            results[str(step)] = float(won)
            model.load_state_dict(end)
    return results


@torch.no_grad()
def _landed(model, start, end, reference: np.ndarray) -> np.ndarray:
    def at(alpha: float) -> np.ndarray:
        model.load_state_dict({k: torch.lerp(start[k], end[k], alpha) for k in end})
        law = log_law(model).exp().numpy()
        return law / law.sum()

    far = 1.0
    while exact_kl(at(far), reference) < KL:
        far *= 1.5
    return at(brentq(lambda a: exact_kl(at(a), reference) - KL, 0, far, xtol=1e-3))


def main(out: Path = OUT):
    """Train on each reward, raw and transformed."""
    torch.set_num_threads(1)
    with torch.no_grad():
        reference = log_law(network(3, 0.4)).exp().numpy()
    reference /= reference.sum()
    rows = []
    for kind in ("additive in tokens", "a network's", "independent"):
        reward = rewards(kind)
        quantile = ia.finite.calibrated_reward(reward, reference)
        best = ia.finite.solve(quantile, reference, PROCEDURE, kl=KL)
        for name, target in (
            ("raw", tilted(reference, np.log(quantile))),
            ("optimum", np.asarray(best.policy)),
        ):
            exact = float(ia.finite.win_rate(quantile, target, reference, PROCEDURE))
            steps = learned(target, reference, quantile)
            rows.append({"reward": kind, "trained on": name, "exact": exact, "steps": steps})
            print(rows[-1], flush=True)
    out.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    typer.run(main)
