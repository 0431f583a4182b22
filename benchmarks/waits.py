"""How long a user waits: designs by family, frontiers, and `infalign design` with its defaults.

Times are seconds of processor time, so that other work on the machine matters less. Each is the
smallest of a few runs. The alternative to the solver is `scipy.integrate.solve_bvp`, given the same
boundary-value problem and the tilt of the reference at the requested KL as its start.
"""

import time
from functools import partial

import numpy as np
from scipy.integrate import solve_bvp
from typer.testing import CliRunner

import infalign as ia
from infalign.cli.commands import application
from infalign.core import frontier

DECIDED = 1e-9
"""Smallest 1 − W of a design that counts."""

RUNS = 3

BVP_TOLERANCE, BVP_NODES = 1e-8, 5_000
"""Residual and largest number of nodes of the alternative."""

FAMILIES = {
    "best-of-n against itself": lambda n: (ia.BestOfN(n), ia.BestOfN(n)),
    "best-of-n against sampling": lambda n: (ia.BestOfN(n), ia.Sampling()),
    "worst-of-n against itself": lambda n: (ia.WorstOfN(n), ia.WorstOfN(n)),
    "worst-of-n against sampling": lambda n: (ia.WorstOfN(n), ia.Sampling()),
    "median of n against itself": lambda n: (
        ia.OrderStatistic(n, (n + 1) // 2),
        ia.OrderStatistic(n, (n + 1) // 2),
    ),
    "worst-of-n against best-of-n": lambda n: (ia.WorstOfN(n), ia.BestOfN(n)),
}

COMMANDS = ("best-of-n", "worst-of-n", "order-statistic", "mixture", "soft-best-of-n")


def waits(plan) -> dict:
    """Times by family, of frontiers and of default commands."""
    return {
        "designs": [_family(name, pair, plan) for name, pair in FAMILIES.items()],
        "frontiers": [
            _frontier(procedure, list(plan.frontier_kls))
            for procedure in (P(n) for P in (ia.BestOfN, ia.WorstOfN) for n in plan.ns)
        ],
        "commands": [_commands(name, plan) for name in COMMANDS],
    }


def seconds(function) -> float:
    """Processor time of a call: the smallest of a few, after a warm-up."""
    function()
    times = []
    for _ in range(RUNS):
        start = time.process_time()
        function()
        times.append(time.process_time() - start)
    return min(times)


def _family(name: str, pair, plan) -> dict:
    times, alternatives, both = [], [], []
    for n in plan.ns:
        for kl in plan.kls:
            procedure, against = pair(n)
            best = ia.design(procedure, against=against, kl=kl)
            if best.optimum.losses < DECIDED:
                continue
            times.append(
                seconds(lambda p=procedure, a=against, kl=kl: ia.design(p, against=a, kl=kl))
            )
            if n not in plan.boundary_ns:
                continue
            start = time.process_time()
            if _boundary_values(procedure, against, kl, best.win_rate):
                alternatives.append(time.process_time() - start)
                both.append(times[-1])
    return {
        "family": name,
        "designs": len(times),
        **_quantiles(times),
        "solve_bvp": len(alternatives),
        "ratio": float(np.median(np.divide(alternatives, both))) if both else None,
    }


def _quantiles(times: list[float]) -> dict:
    p50, p95, worst = np.quantile(times, [0.5, 0.95, 1]).tolist()
    return {"p50": p50, "p95": p95, "worst": worst}


def _boundary_values(procedure, against, kl: float, win_rate: float) -> bool:
    """Whether SciPy's collocation finds the win rate to four digits.

    (y, F, K)′ = (h(F) g / β, e^y, y e^y) with F and K from 0 to 1 and to the KL; log β is unknown.
    """

    def slopes(u, z, log_beta):
        y, cdf = np.clip(z[0], -700, 700), np.clip(z[1], 0, 1)
        rise = procedure.density(cdf) * against.density(u) * np.exp(-log_beta[0])
        return np.array([rise, np.exp(y), y * np.exp(y)])

    def ends(low, high, _):
        return np.array([low[1], high[1] - 1, low[2], high[2] - kl])

    u = np.concatenate([np.linspace(0, 1, 101)[:-1], 1 - np.geomspace(0.009, 1e-6, 40), [1.0]])
    phi = np.append(0.0, np.cumsum(np.diff(u) * (procedure.density(u) * against.density(u))[1:]))
    try:
        tilt = ia.core.at_kl(ia.Tabulated(tuple(u), tuple(phi)), kl)
    except ia.SolveError:  # the reference's gradient is too flat to start from
        return False
    start = np.array([np.log(np.maximum(tilt.density(u), 1e-300)), tilt.cdf(u), kl * u])
    with np.errstate(all="ignore"):
        try:
            end = solve_bvp(
                slopes, ends, u, start, [np.log(tilt.beta)], tol=BVP_TOLERANCE, max_nodes=BVP_NODES
            )
        except (ValueError, np.linalg.LinAlgError, FloatingPointError):
            return False
        cdf = np.clip(end.y[1], 0, 1)
        lost = np.trapezoid(procedure.cdf(cdf) * against.density(end.x), end.x)
    return bool(end.success and abs(1 - lost - win_rate) < 1e-4)


def _frontier(procedure, kls: list[float]) -> dict:
    together = seconds(lambda: frontier(procedure, procedure, kls))
    apart = seconds(lambda: [ia.design(procedure, kl=kl) for kl in kls])
    return {
        "procedure": procedure.spec,
        "points": len(kls),
        "frontier": together,
        "ratio": apart / together,
    }


def _spec(name: str, n: int) -> str:
    return {
        "order-statistic": f"order-statistic:{n}:{(n + 1) // 2}",
        "mixture": f"mixture:0.5*best-of-n:{n}+0.5*worst-of-n:{n}",
        "soft-best-of-n": f"soft-best-of-n:{n}:0.1",
    }.get(name, f"{name}:{n}")


def _commands(name: str, plan) -> dict:
    """`infalign design` without --transform, in this process, so without imports; and the design
    inside it."""
    app = application()
    times, alone, refused = [], [], 0
    for n in plan.command_ns:
        for kl in plan.kls[1::2]:
            spec = _spec(name, n)
            words = ["design", "--procedure", spec, "--kl", str(kl), "--json"]
            procedure = ia.parse_procedure(spec)
            CliRunner().invoke(app, words)  # imports, the first time
            start = time.process_time()
            end = CliRunner().invoke(app, words)
            taken = time.process_time() - start
            if end.exit_code:
                refused += 1
                continue
            times.append(taken)
            alone.append(seconds(partial(ia.design, procedure, kl=kl)))
    return {
        "procedure": name,
        "commands": len(times),
        "refused": refused,
        **_quantiles(times),
        "ratio": float(np.median(np.divide(times, alone))),
    }
