"""What a transform gains if the policy sees the reward only in part; exact, in cells.

    python evidence/worst_of_n/seen_in_part.py [--cells 300]

A policy sees a score S of a response, such as its own states, and the reward's quantile U has a
known law given S. Tilts of S by f have KL ∫ f log f and the law q of U with q(u) = ∫ f(s) c(u|s).
With g(s) = E[Φ_q(U) | S = s], the best of them is the tilt by g for its own q, InfAlign's coupled
problem with a conditional mean inside. It is compared with the tilts by E[Φ(U) | S] for the Φ that
`design` makes for a policy that sees everything, for Φs designed for other KLs, for the identity
and for the raw reward. Writes seen_in_part.json; minutes on one core.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import typer
from scipy.optimize import brentq
from scipy.special import ndtr, ndtri

import infalign as ia

OUT = Path(__file__).with_suffix(".json")
PROCEDURES = (ia.WorstOfN(4), ia.WorstOfN(16), ia.BestOfN(8))
DRAWN = 2_000_000
"""Simulated responses of a world without a closed form."""

OTHER_KLS = (0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 1.0, 1.5, 2.0)
"""KLs for which the other transforms are designed."""


@dataclass(frozen=True)
class World:
    """Prompts of several kinds, in cells of equal reference probability."""

    shares: Sequence[float]
    conditional: Sequence[np.ndarray]
    """P(cell of U | cell of S) of each kind, shape (cells, cells)."""

    raw: np.ndarray
    """The mean raw reward in each cell of U."""

    @property
    def cells(self) -> int:
        """Number of cells of U, and of S."""
        return self.raw.size

    def tilt(self, shaped: Sequence[np.ndarray], kl: float) -> list[np.ndarray]:
        """The masses on cells of S of the policies trained on rewards of U, one β for all kinds."""
        seen = [c @ phi for c, phi in zip(self.conditional, shaped, strict=True)]

        def at(log_beta: float) -> tuple[list[np.ndarray], float]:
            masses, spent = [], 0.0
            for share, g in zip(self.shares, seen, strict=True):
                mass = np.exp((g - g.max()) / np.exp(log_beta))
                mass /= mass.sum()
                masses.append(mass)
                spent += share * float(mass @ np.log(np.maximum(mass * self.cells, 1e-300)))
            return masses, spent

        return at(brentq(lambda b: at(b)[1] - kl, -30, 12, xtol=1e-12))[0]

    def win_rate(self, masses, procedure) -> tuple[float, list[np.ndarray]]:
        """W against the reference decoded the same way, and Φ_q of each kind."""
        opponent = np.diff(procedure.cdf(np.arange(self.cells + 1) / self.cells))
        utility = np.cumsum(opponent) - opponent / 2
        won, gradients = 0.0, []
        for share, c, mass in zip(self.shares, self.conditional, masses, strict=True):
            law = np.minimum(np.cumsum(mass @ c), 1)
            law[-1] = 1
            won += share * float(np.diff(procedure.cdf(law), prepend=0) @ utility)
            steps = procedure.density(law[:-1]) * np.diff(utility)
            gradients.append(np.concatenate([[0.0], np.cumsum(steps)]))
        return won, gradients

    def best(self, procedure, kl: float) -> float:
        """W of the best policy that sees only S.

        If H is concave, W is convex in the policy, and the tilt by the gradient at the same KL
        never lowers it. Otherwise the gradients are averaged along the way.
        """
        masses = [np.full(self.cells, 1 / self.cells) for _ in self.shares]
        convex = bool((procedure.slope(np.linspace(0, 1, 101)) >= 0).all())
        shaped = None
        for _ in range(400):
            _, new = self.win_rate(masses, procedure)
            if shaped is not None and convex:
                new = [0.7 * a + 0.3 * b for a, b in zip(shaped, new, strict=True)]
            shaped, before = new, masses
            masses = self.tilt(shaped, kl)
            if max(np.abs(a - b).max() for a, b in zip(before, masses, strict=True)) < 1e-11:
                break
        return self.win_rate(masses, procedure)[0]


def gaussian(rho: float, cells: int) -> np.ndarray:
    """P(cell of U | cell of S) if the normal scores of U and S have the correlation `rho`."""
    edges = ndtri(np.arange(1, cells) / cells)
    within = ndtri((np.arange(8 * cells) + 0.5) / (8 * cells)).reshape(cells, 8, 1)
    below = ndtr((edges - rho * within) / np.sqrt(1 - rho**2)).mean(1)
    law = np.diff(below, axis=1, prepend=0, append=1)
    for _ in range(50):  # exactly uniform margins
        law /= law.sum(0)
        law /= law.sum(1, keepdims=True)
    return law


def simulated(kind: str, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Scores and rewards of simulated responses."""
    z, noise = rng.standard_normal((2, DRAWN))
    if kind == "long left tail":
        s = -rng.exponential(size=DRAWN)
        return s, s + 0.75 * noise
    if kind == "long right tail":
        s = rng.exponential(size=DRAWN)
        return s, s + 0.75 * noise
    if kind == "heavy tails (t, 2 degrees)":
        s = rng.standard_t(2, size=DRAWN)
        return s, s + noise
    if kind == "noise with heavy tails":
        return z, z + 0.45 * rng.standard_t(2, size=DRAWN)
    if kind == "noise that grows to the bottom":
        return z, z + 0.4 * np.exp(-z) * noise
    if kind == "only the lowest fifth is seen":
        u = rng.random(DRAWN)
        return np.where(u < 0.2, u, 0.2 + 0.8 * rng.random(DRAWN)), u
    if kind == "the lowest tenth is not seen":
        return np.where(ndtr(z) < 0.1, rng.standard_normal(DRAWN), z), z
    if kind == "catastrophes, 2 %, seen":
        bad = rng.random(DRAWN) < 0.02
        return np.where(bad, z - 6, z), np.where(bad, -6, 0) + 0.5 * z + 0.866 * noise
    raise ValueError(kind)


def in_cells(scores: np.ndarray, rewards: np.ndarray, cells: int) -> World:
    """The world of simulated responses."""
    rows, columns = (np.argsort(np.argsort(x)) * cells // x.size for x in (scores, rewards))
    law = np.bincount(rows * cells + columns, minlength=cells**2).reshape(cells, cells)
    raw = np.sort(rewards)[: rewards.size // cells * cells].reshape(cells, -1).mean(1)
    return World([1.0], [law / law.sum(1, keepdims=True)], raw)


def worlds(cells: int):
    """Every world by its name."""
    normal = ndtri((np.arange(cells) + 0.5) / cells)
    for rho in (0.5, 0.7, 0.85, 0.95):
        yield f"normal, correlation {rho:g}", World([1.0], [gaussian(rho, cells)], normal)
    for kind in (
        "long left tail",
        "long right tail",
        "heavy tails (t, 2 degrees)",
        "noise with heavy tails",
        "noise that grows to the bottom",
        "only the lowest fifth is seen",
        "the lowest tenth is not seen",
        "catastrophes, 2 %, seen",
    ):
        yield kind, in_cells(*simulated(kind, np.random.default_rng(0)), cells)
    mixed = [gaussian(rho, cells) for rho in (0.6, 0.7, 0.8, 0.9)]
    yield "normal, .6 to .9 by prompt", World([0.25] * 4, mixed, normal)
    far = [gaussian(0.95, cells), gaussian(0.2, cells)]
    yield "normal, .95 or .2 by prompt", World([0.5] * 2, far, normal)


def row(name: str, world: World, procedure, kl: float) -> dict:
    """Win rates of one world, procedure and KL."""
    u, kinds = (np.arange(world.cells) + 0.5) / world.cells, len(world.shares)

    def won(phi: np.ndarray) -> float:
        return world.win_rate(world.tilt([phi] * kinds, kl), procedure)[0]

    other = {k: won(ia.design(procedure, kl=k).transform(u)) for k in OTHER_KLS}
    return {
        "world": name,
        "procedure": procedure.spec,
        "kl": kl,
        "best": world.best(procedure, kl),
        "designed_for_all": won(ia.design(procedure, kl=kl).transform(u)),
        "best_design_for_another_kl": max(other.values()),
        "that_kl": max(other, key=other.__getitem__),
        "identity": won(u),
        "raw": won(world.raw),
    }


def main(cells: int = 300, out: Path = OUT):
    """Compare transforms in all worlds."""
    rows = []
    for name, world in worlds(cells):
        for procedure in PROCEDURES:
            rows.append(row(name, world, procedure, 0.5))
            print(rows[-1])
    out.write_text(json.dumps({"cells": cells, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    typer.run(main)
