"""How much of worst-of-4's gain do classes of policies reach that read the reference's states?

    python evidence/worst_of_n/classes.py [--work work/worst_of_n] [--reward FOLDER --out FILE]

A class gives every response a log-ratio from the states of the frozen reference: a linear function,
or one with a hidden layer of 48 units besides. Each class is trained on 320 prompts × 32 responses,
without sampling noise on these, by the forward KL from a tilt, by the reverse KL or on the win rate
itself, and judged at 0.5 nats on 128 other prompts × 64 responses. A class reads whole responses,
which a policy, token by token, need not achieve; what a class cannot do, more steps within it do
not mend. Writes classes.json; 3 minutes on one core once the samples are drawn (6 minutes).
With another reward, a classifier in a folder, half of the prompts and responses are scored by it.
"""

import json
from dataclasses import dataclass
from pathlib import Path

import bundled
import numpy as np
import torch
import typer
from scipy.optimize import brentq, isotonic_regression

import infalign as ia

KL, DRAWS, HIDDEN, STEPS = 0.5, 4, 48, 200
PROCEDURE = ia.WorstOfN(DRAWS)
PENALTY = 1e-3
FOLDS = 4
WORK, OUT = Path("work/worst_of_n"), Path(__file__).with_suffix(".json")


@dataclass(frozen=True)
class Data:
    """States and rewards of the prompts that are trained on and of the held-out ones."""

    states: torch.Tensor
    held_out: torch.Tensor
    rewards: np.ndarray
    held_out_rewards: np.ndarray
    quantiles: np.ndarray
    """Among all of a prompt's scored responses."""

    @classmethod
    def of(cls, work: Path, reward: Path | None) -> "Data":
        """Everything there is, or the part that another reward has scored."""
        train = bundled.Samples.of(work, "train", 320, 128)
        test = bundled.Samples.of(work, "test", 128, 64)
        states, held_out = train.states(work, 32), test.states(work, 64)
        rewards, other = train.rewards, test.rewards
        if reward is not None:
            rewards, other = train.scored(work, reward, 160, 16), test.scored(work, reward, 64, 32)
            states, held_out = states[:160, :16], held_out[:64, :32]
        k = states.shape[1]
        # A policy tilts within a prompt, so differences within a prompt are what counts.
        centered, beside = (x - x.mean(1, keepdims=True) for x in (states, held_out))
        scale = centered.reshape(-1, centered.shape[2]).std(0) + 1e-6
        return cls(
            torch.tensor(centered / scale),
            torch.tensor(beside / scale),
            rewards[:, :k],
            other,
            bundled.quantiles(rewards)[:, :k],
        )


def raw_beta(rewards: np.ndarray) -> float:
    """β at which the raw reward spends the KL."""
    return float(np.exp(brentq(lambda b: bundled.kl(rewards / np.exp(b)).mean() - KL, -8, 5)))


def fit(data: Data, hidden: bool, objective: str, reward: str) -> np.ndarray:
    """The log-ratios of the held-out responses."""
    torch.manual_seed(0)
    design = ia.design(PROCEDURE, kl=KL)
    shaped = torch.tensor({
        "optimum": design.transform(data.quantiles) / design.beta,
        "raw": data.rewards / raw_beta(data.rewards),
        "identity": data.quantiles / ia.compare(PROCEDURE, [ia.Identity()], kl=KL)[1].beta,
    }[reward], dtype=torch.float32)  # fmt: skip
    wanted = shaped.softmax(1)
    features, k = data.states.shape[2], data.states.shape[1]
    weights = [torch.zeros(features)]
    if hidden:
        first = 0.3 * torch.randn(features, HIDDEN) / features**0.5
        weights += [first, torch.zeros(HIDDEN), torch.zeros(HIDDEN)]
    for w in weights:
        w.requires_grad_()

    def log_ratio(x: torch.Tensor) -> torch.Tensor:
        straight = x @ weights[0]
        if not hidden:
            return straight
        return straight + torch.tanh(x @ weights[1] + weights[2]) @ weights[3]

    ascending = torch.tensor(np.argsort(data.rewards, axis=1))
    optimizer = torch.optim.Adam(weights, lr=3e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, STEPS)
    for _ in range(STEPS):
        logs = log_ratio(data.states).log_softmax(1)
        mass = logs.exp()
        kl = (mass * (logs + np.log(k))).sum(1).mean()
        if objective == "forward KL":
            loss = -(wanted * logs).sum(1).mean()
        elif objective == "reverse KL":
            loss = kl - (mass * shaped).sum(1).mean()
        else:
            loss = kl - _win_rate(mass.gather(1, ascending)) / design.beta
        loss = loss + PENALTY * sum((w**2).sum() for w in weights)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    with torch.no_grad():
        return log_ratio(data.held_out).double().numpy()


def _win_rate(mass: torch.Tensor) -> torch.Tensor:
    """Worst-of-4's win rate; masses in ascending order of the reward, ties as they come."""
    k = mass.shape[1]
    law = 1 - (1 - mass.cumsum(1).clamp(max=1 - 1e-6)) ** DRAWS
    theirs = torch.tensor(np.diff(PROCEDURE.cdf(np.arange(k + 1) / k)), dtype=torch.float32)
    return (
        (torch.diff(law, prepend=torch.zeros(len(law), 1)) * (theirs.cumsum(0) - theirs / 2))
        .sum(1)
        .mean()
    )


def ridge(states: np.ndarray, target: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Linear predictions of `target`'s differences within prompts."""
    x = states.reshape(-1, states.shape[2]).astype(float)
    y = (target - target.mean(1, keepdims=True)).ravel()
    return other @ np.linalg.solve(x.T @ x / len(x) + 0.1 * np.eye(x.shape[1]), x.T @ y / len(x))


def seen(data: Data) -> dict:
    """Tilts of the prediction of a held-out quantile: what theory leaves at this visibility."""
    states, held_out = data.states.numpy(), data.held_out.numpy()
    fold, crossed = np.arange(len(states)) % FOLDS, np.empty_like(data.quantiles)
    for i in range(FOLDS):
        crossed[fold == i] = ridge(states[fold != i], data.quantiles[fold != i], states[fold == i])
    predicted = ridge(states, data.quantiles, held_out)
    order, theirs = np.argsort(crossed.ravel()), bundled.quantiles(data.held_out_rewards)
    rows = {"correlation with the quantile": bundled.correlation(predicted, theirs)}
    design = ia.design(PROCEDURE, kl=KL)
    centered = data.rewards - data.rewards.mean(1, keepdims=True)
    for name, target in (("optimum", design.transform(data.quantiles)), ("raw", centered)):
        rising = isotonic_regression(target.ravel()[order]).x
        rows[name] = np.interp(predicted, crossed.ravel()[order], rising)
    return rows


def judged(data: Data, log_ratio: np.ndarray) -> np.ndarray:
    """Win rates of the held-out prompts at the KL."""
    return bundled.win_rate(data.held_out_rewards, bundled.landed(log_ratio, KL), PROCEDURE)


def main(work: Path = WORK, reward: Path | None = None, out: Path = OUT):
    """Train the classes and judge them."""
    torch.set_num_threads(1)
    data = Data.of(work, reward)
    rewards = data.held_out_rewards
    design = ia.design(PROCEDURE, kl=KL)
    everything = {
        "optimum": design.transform(bundled.quantiles(rewards)),
        "raw": rewards,
        "identity": bundled.quantiles(rewards),
    }
    tilts = seen(data)
    results = {"correlation": tilts.pop("correlation with the quantile"), "rows": []}
    fits = [("sees all", "", name, x) for name, x in everything.items()]
    fits += [("any function of a linear prediction", "", name, x) for name, x in tilts.items()]
    for hidden in (False, True):
        name = "one hidden layer" if hidden else "linear"
        for objective, reward in (
            ("forward KL", "raw"),
            ("reverse KL", "raw"),
            ("forward KL", "optimum"),
            ("reverse KL", "optimum"),
            ("win rate", "optimum"),
            ("reverse KL", "identity"),
        ):
            fits.append((name, objective, reward, fit(data, hidden, objective, reward)))
    raw = {name: judged(data, x) for name, objective, reward, x in fits if reward == "raw"}
    for name, objective, reward, x in fits:
        won = judged(data, x)
        row = {"class": name, "objective": objective, "reward": reward, **bundled.mean(won)}
        if reward != "raw":
            row["gain over raw"] = bundled.mean(won - raw[name])
        results["rows"].append(row)
        print(row, flush=True)
    out.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    typer.run(main)
