"""Benchmarked cases: designs, frontiers, the paper's fixed point, and the growth of times."""

import os
import platform
import sys
import time
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from statistics import median

import estimators
import intervals
import numpy as np
import waits
from scipy.optimize import brentq

import infalign as ia
from infalign.core import frontier
from infalign.pipeline.costs import processor

PROCEDURES = (ia.BestOfN, ia.WorstOfN)

REPETITIONS, PATIENCE = 9, 0.6
"""A case runs this many times, or until it has taken this many seconds, but at least 3 times."""

ACCURACY = 1e-9
"""Error of the win rate at which the fixed-point iteration stops."""

DAMPINGS = 0.5 ** np.arange(12)


@dataclass(frozen=True)
class Plan:
    """Sizes of all cases."""

    ns: tuple[int, ...]
    kls: tuple[float, ...]
    frontier_kls: tuple[float, ...]
    fixed_points: tuple[tuple[int, float], ...]
    """(n, KL) at which the fixed point is compared."""

    cells: int
    most_seconds: float
    """Longest run of the fixed point; longer ones are extrapolated from their first steps."""

    grids: tuple[int, ...]
    growing_ns: tuple[int, ...]
    growing_kls: tuple[float, ...]
    outcomes: tuple[int, ...]
    prompts: int
    samples: int
    growing_samples: tuple[int, ...]
    growing_prompts: tuple[int, ...]
    coverage_prompts: tuple[int, ...]
    runs: int
    """Simulated evaluations per case of coverage."""

    boundary_ns: tuple[int, ...]
    """The n at which SciPy solves the boundary-value problem."""

    command_ns: tuple[int, ...]

    bootstrap_runs: int


FULL = Plan(
    ns=(2, 4, 8, 16, 32, 64, 128),
    kls=(0.01, 0.1, 0.5, 1.0, 2.0),
    frontier_kls=tuple(np.geomspace(0.01, 1, 32).tolist()),
    fixed_points=((2, 0.5), (4, 0.1), (4, 0.5), (8, 0.1), (8, 0.5), (16, 0.5), (32, 0.1)),
    cells=20_000,
    most_seconds=20.0,
    grids=tuple(100 * 4**k for k in range(7)),
    growing_ns=(1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024),
    growing_kls=tuple(np.geomspace(1e-4, 6, 25).tolist()),
    outcomes=(10, 30, 100, 300, 1000, 3000, 10_000),
    prompts=1000,
    samples=128,
    growing_samples=(8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096),
    growing_prompts=(1, 10, 100, 1000, 10_000),
    coverage_prompts=(20, 50, 200),
    runs=4000,
    bootstrap_runs=1000,
    boundary_ns=(2, 8, 32),
    command_ns=(2, 16, 128),
)

SMOKE = Plan(
    ns=(2, 4),
    kls=(0.1, 0.5),
    frontier_kls=(0.1, 0.2, 0.3),
    fixed_points=((4, 0.1),),
    cells=1000,
    most_seconds=0.01,
    grids=(800, 1600),
    growing_ns=(1, 2),
    growing_kls=(0.01, 0.1),
    outcomes=(10, 20),
    prompts=50,
    samples=16,
    growing_samples=(8, 16),
    growing_prompts=(1, 10),
    coverage_prompts=(20,),
    runs=200,
    bootstrap_runs=10,
    boundary_ns=(2,),
    command_ns=(4,),
)


def measure(plan: Plan, only: tuple[str, ...] = ()) -> dict:
    """Results of a plan as plain data, with times in seconds; of the parts in `only`, if any."""
    results = {"machine": machine()}
    for name in only or PARTS:
        print(f"{name} …", file=sys.stderr)
        results[name] = PARTS[name](plan)
    results["machine"]["load_at_end"] = os.getloadavg()[0]
    return results


def machine() -> dict:
    """The machine and the versions that were measured."""
    return {
        "processor": processor(),
        "cores": os.cpu_count(),
        "cores_used": 1,
        "python": platform.python_version(),
        **{name: version(name) for name in ("numpy", "scipy", "infalign")},
        "load_at_start": os.getloadavg()[0],
    }


def timed(function) -> dict:
    """Seconds of a call: minimum and median of several, after a warm-up."""
    function()
    seconds = []
    while len(seconds) < 3 or (len(seconds) < REPETITIONS and sum(seconds) < PATIENCE):
        start = time.perf_counter()
        function()
        seconds.append(time.perf_counter() - start)
    return {"min": min(seconds), "median": median(seconds), "repetitions": len(seconds)}


def designs(plan: Plan) -> list[dict]:
    """One design at a KL budget, without and with the table of its transform."""
    rows = []
    for procedure in (P(n) for P in PROCEDURES for n in plan.ns):
        for kl in plan.kls:
            optimum = ia.design(procedure, kl=kl)
            rows.append(
                {
                    "procedure": procedure.spec,
                    "n": procedure.n,
                    "kl": kl,
                    "win_rate": optimum.win_rate,
                    "gap": optimum.gap,
                    "design": timed(partial(ia.design, procedure, kl=kl)),
                    "with_transform": timed(
                        lambda p=procedure, kl=kl: ia.design(p, kl=kl).transform
                    ),
                }
            )
    return rows


def frontiers(plan: Plan) -> list[dict]:
    """All budgets in one call, and one design for each."""
    rows, kls = [], list(plan.frontier_kls)
    for p in (P(n) for P in PROCEDURES for n in plan.ns):
        together = [optimum.win_rate for optimum in frontier(p, p, kls)]
        apart = [ia.design(p, kl=kl).win_rate for kl in kls]
        times = {
            "frontier": timed(lambda p=p: frontier(p, p, kls)),
            "compare": timed(lambda p=p: ia.compare(p, [], kl=kls)),
            "designs": timed(lambda p=p: [ia.design(p, kl=kl) for kl in kls]),
        }
        rows.append(
            {
                "procedure": p.spec,
                "n": p.n,
                "points": len(kls),
                **times,
                "ratio": times["designs"]["min"] / times["frontier"]["min"],
                "largest_difference": float(np.abs(np.subtract(together, apart)).max()),
            }
        )
    return rows


def fixed_points(plan: Plan) -> list[dict]:
    """The paper's iteration and a design, at the β of a design and at equal accuracy."""
    return [
        _beside_fixed_point(procedure(n), kl, plan)
        for procedure in PROCEDURES
        for n, kl in plan.fixed_points
    ]


def _beside_fixed_point(procedure, kl: float, plan: Plan) -> dict:
    beta = ia.design(procedure, kl=kl).beta
    exact = ia.design(procedure, beta=beta)
    design = timed(lambda: ia.design(procedure, beta=beta))
    damping = _best_damping(procedure, beta)

    def iterate(cells, beta=beta, damping=damping, **stop):
        return ia.fixed_point(procedure, beta=beta, cells=cells, damping=damping, **stop)

    limit, finer = (iterate(cells) for cells in (plan.cells, 2 * plan.cells))
    steps = _steps_until(ACCURACY, limit, iterate)
    on_the_grid = timed(lambda: iterate(plan.cells, max_steps=steps))
    grid_error = abs(limit.win_rate - exact.win_rate)
    equal = _at_equal_accuracy(exact, grid_error, steps, iterate, plan)
    at_kl, runs = timed(lambda: ia.design(procedure, kl=kl)), []
    # The least help that works: a bracket around the β of the budget.
    search = timed(lambda: runs.append(_search_beta(kl, beta, damping, iterate, plan)))
    return {
        "procedure": procedure.spec,
        "n": procedure.n,
        "kl": kl,
        "beta": beta,
        "win_rate": exact.win_rate,
        "gap": exact.gap,
        "extrapolated_win_rate": (4 * finer.win_rate - limit.win_rate) / 3,
        "design": design,
        "damping": float(damping),
        "steps": steps,
        "cells": plan.cells,
        "fixed_point": on_the_grid,
        "grid_error": grid_error,
        "ratio": on_the_grid["min"] / design["min"],
        "equal": equal,
        "equal_ratio": equal["seconds"] / design["min"],
        "budget": {"design": at_kl, "fixed_point": search, "runs": runs[0]},
        "budget_ratio": search["min"] / at_kl["min"],
    }


def _at_equal_accuracy(exact, grid_error: float, steps: int, iterate, plan: Plan) -> dict:
    """The iteration on the number of cells that reduces the grid's error to `ACCURACY`."""
    # The grid's error falls like the square of the cell width.
    cells = int(np.ceil(plan.cells * np.sqrt(max(grid_error / ACCURACY, 1e-4))))
    # One more gradient than steps is computed, for the last residual.
    seconds = timed(lambda: iterate(cells, max_steps=2))["min"] / 3 * (steps + 1)
    measured, error = seconds <= plan.most_seconds, None
    if measured:
        start = time.perf_counter()
        error = abs(iterate(cells, max_steps=steps).win_rate - exact.win_rate)
        seconds = time.perf_counter() - start
    return {"cells": cells, "seconds": seconds, "measured": measured, "error": error}


def _search_beta(kl: float, near: float, damping: float, iterate, plan: Plan) -> int:
    """Number of runs of the iteration until its KL equals the budget. A smaller β needs damping."""
    settings = {"tolerance": ACCURACY, "damping": damping if damping == 1 else damping / 2}

    def excess(log_beta):
        return np.log(iterate(plan.cells, float(np.exp(log_beta)), **settings).kl / kl)

    low, high = np.log(near) + np.array([-0.4, 0.4])
    return brentq(excess, low, high, xtol=ACCURACY, full_output=True)[1].function_calls


def _best_damping(procedure, beta: float) -> float:
    """The damping of 1, 1/2, 1/4, … with the fewest steps on a coarser grid."""
    ends = []
    for damping in DAMPINGS:
        end = ia.fixed_point(procedure, beta=beta, damping=damping, max_steps=1000, cells=2000)
        ends.append(end.steps if end.converged else np.inf)
        if len(ends) > 1 and ends[-2] < ends[-1]:
            break
    return DAMPINGS[int(np.argmin(ends))]


def _steps_until(accuracy: float, limit, iterate) -> int:
    """Fewest steps after which the win rate is within `accuracy` of its limit on the same grid."""
    few, enough = 0, limit.steps
    while enough - few > 1:
        middle = (few + enough) // 2
        end = iterate(len(limit.density), max_steps=middle)
        if abs(end.win_rate - limit.win_rate) > accuracy:
            few = middle
        else:
            enough = middle
    return enough


def accuracy(plan: Plan) -> list[dict]:
    """Error and time of the iteration as its grid is refined, and of one design."""
    rows = []
    for procedure in (ia.BestOfN(4), ia.BestOfN(8), ia.BestOfN(32), ia.WorstOfN(4)):
        kl = 0.1 if procedure.n == 32 else 0.5
        beta = ia.design(procedure, kl=kl).beta
        exact = ia.design(procedure, beta=beta)
        damping = _best_damping(procedure, beta)
        points, wins = [], []
        for cells in plan.grids:
            settings = {"cells": cells, "damping": damping}
            wins.append(ia.fixed_point(procedure, beta=beta, **settings).win_rate)
            error = abs(wins[-1] - exact.win_rate)
            # Iterating beyond the accuracy of the grid is pointless.
            settings["tolerance"] = max(error / 10, 1e-12)
            run = partial(ia.fixed_point, procedure, beta=beta, **settings)
            points.append({"cells": cells, "error": error, "fixed_point": timed(run)})
        # The error is of second order in the cells.
        square = (plan.grids[-1] / plan.grids[-2]) ** 2
        extrapolated = (square * wins[-1] - wins[-2]) / (square - 1)
        design = timed(partial(ia.design, procedure, beta=beta))
        rows.append(
            {
                "procedure": procedure.spec,
                "n": procedure.n,
                "kl": kl,
                "design": design,
                "two_roads": abs(extrapolated - exact.win_rate),
                "grids": points,
            }
        )
    return rows


def growth_in_n(plan: Plan) -> list[dict]:
    """One design as n grows."""
    return [_growth(P(n), kl) for P in PROCEDURES for kl in (0.1, 0.5) for n in plan.growing_ns]


def growth_in_kl(plan: Plan) -> list[dict]:
    """One design as the KL budget grows."""
    return [_growth(P(n), kl) for P in PROCEDURES for n in (4, 32) for kl in plan.growing_kls]


def _growth(procedure, kl: float) -> dict:
    row = {"procedure": procedure.spec, "n": procedure.n, "kl": kl}
    try:
        row["win_rate"] = ia.design(procedure, kl=kl).win_rate
    except ia.SolveError as error:
        return row | {"refused": str(error)}
    return row | {"design": timed(lambda: ia.design(procedure, kl=kl))}


def finite(plan: Plan) -> list[dict]:
    """The exact solution on a finite outcome set, all rewards distinct, as outcomes grow."""
    rows = []
    for procedure in (ia.BestOfN(4), ia.WorstOfN(4)):
        for outcomes in plan.outcomes:
            reference = np.full(outcomes, 1 / outcomes)
            reward = np.arange(outcomes)

            def solve(reward=reward, reference=reference, procedure=procedure):
                return ia.finite.solve(reward, reference, procedure, 0.2)

            rows.append(
                {
                    "procedure": procedure.spec,
                    "outcomes": outcomes,
                    "win_rate": solve().win_rate,
                    "solve": timed(solve),
                }
            )
    return rows


PARTS = {
    "designs": designs,
    "frontiers": frontiers,
    "fixed_points": fixed_points,
    "accuracy": accuracy,
    "growth_in_n": growth_in_n,
    "growth_in_kl": growth_in_kl,
    "finite": finite,
    "estimators": partial(estimators.estimators, timed=timed),
    "estimators_growth": partial(estimators.estimators_growth, timed=timed),
    "coverage": intervals.coverage,
    "waits": waits.waits,
}
"""The measured parts, in the order of the results."""
