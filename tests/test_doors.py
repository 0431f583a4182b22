"""Every argument of every public function, given a value of each wrong kind.

A call may succeed where the value is legitimate. Otherwise it raises ValueError, TypeError or
InfalignError, and the message names the argument in backticks.
"""

import inspect
import itertools
from decimal import Decimal

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import scipy.sparse
import torch
from contracts import procedures, transforms
from matplotlib import pyplot
from matplotlib.figure import Figure

import infalign as ia

REFERENCE = np.random.default_rng(0).normal(size=(3, 6))
POLICY = REFERENCE[:, ::-1] + 0.25
SOLVED = np.array([[0, 1, 1, 0, 0, 1]] * 3)
OUTCOMES, CHANCES = np.array([0.0, 1.0, 2.0]), np.array([0.2, 0.3, 0.5])
STORE = ia.CalibrationStore.from_rewards(["a", "b", "c"], REFERENCE)
BEST = ia.BestOfN(2)


def reward(prompts, completions, **columns):
    return [float(len(text)) for text in completions]


def batch(**more):
    ids = ["a", "a", "b", "b"]
    return {"prompts": ids, "completions": ["x", "xy", "xyz", ""], "prompt_id": ids, **more}


INTERVAL = {"interval": ia.Student()}
U = {"u": [0.25, 0.5]}

ROWS = {
    "AbstractProcedure": None,  # abstract
    "Bootstrap": (ia.Bootstrap, {"seed": 0, "resamples": 100}),
    "CalibrationStore": (
        ia.CalibrationStore,
        {"rewards": {"a": REFERENCE[0]}, "provenance": {}},
    ),
    "CalibrationStore.column": (STORE.column, {"prompt_ids": ["a"]}),
    "CalibrationStore.from_dataset": (
        ia.CalibrationStore.from_dataset,
        {
            "dataset": STORE.to_table(),
            "rewards": "reference_rewards",
            "key": "prompt_id",
            "provenance": None,
        },
    ),
    "CalibrationStore.from_rewards": (
        ia.CalibrationStore.from_rewards,
        {"prompt_ids": ["a", "b", "c"], "rewards": REFERENCE, "provenance": {}},
    ),
    "CalibrationStore.intervals": (
        STORE.intervals,
        {"prompt_ids": ["a"], "rewards": [0.5], "smoothing": "none"},
    ),
    "CalibrationStore.open": (ia.CalibrationStore.open, {"path": "no-such-store", "verify": False}),
    "CalibrationStore.positions": (STORE.positions, {"prompt_ids": ["a"]}),
    "CalibrationStore.quantiles": (
        STORE.quantiles,
        {"prompt_ids": ["a"], "rewards": [0.5], "smoothing": "none"},
    ),
    "CalibrationStore.ranks": (STORE.ranks, {"prompt_ids": ["a"], "rewards": [0.5]}),
    "CalibrationStore.require": (STORE.require, {}),
    "CalibrationStore.require_answer": (STORE.require_answer, {"answer": "whole"}),
    "CalibrationStore.require_strip": (STORE.require_strip, {"strip": False}),
    "CalibrationStore.tied": (STORE.tied, {}),
    "CalibrationStore.to_table": (
        STORE.to_table,
        {"rewards": "reference_rewards", "key": "prompt_id"},
    ),
    "Exponential.paper_beta": (ia.Exponential(3).paper_beta, {"beta": 0.5}),
    "GroupShapedReward": (
        ia.GroupShapedReward,
        {
            "reward": reward,
            "store": STORE,
            "procedure": BEST,
            "group": None,
            "against": BEST,
            "calibrator": None,
            "key": "prompt_id",
        },
    ),
    "GroupShapedReward.__call__": (
        ia.GroupShapedReward(reward, STORE, ia.Sampling(), group=2),
        batch(log_metric=None),
    ),
    "Mixture.from_text": (ia.Mixture.from_text, {"text": "1*sampling"}),
    "RawRewards": (ia.RawRewards, {"rewards": REFERENCE, "source": "here"}),
    "RawRewards.tilted": (ia.RawRewards(REFERENCE).tilted, {"beta": 0.5}),
    "Rewind.passes": (ia.Rewind(0.5, 2).passes, {"quantile": 0.5}),
    "ShapedReward": (
        ia.ShapedReward,
        {
            "reward": reward,
            "store": STORE,
            "transform": ia.Identity(),
            "calibrator": None,
            "smoothing": "none",
            "procedure": BEST,
            "against": BEST,
            "key": "prompt_id",
        },
    ),
    "ShapedReward.__call__": (
        ia.ShapedReward(reward, STORE, ia.Identity()),
        batch(log_metric=None),
    ),
    "Shaper": (
        ia.Shaper,
        {"store": STORE, "transform": ia.Identity(), "calibrator": None, "smoothing": "none"},
    ),
    "Shaper.__call__": (
        ia.Shaper(STORE, ia.Identity()),
        {"prompt_ids": ["a", "b"], "rewards": [0.5, 0.25]},
    ),
    "SkewCorrected": (ia.SkewCorrected, {}),
    "Student": (ia.Student, {}),
    "TiltedPolicy": (ia.TiltedPolicy, {"transform": ia.Identity(), "beta": 0.5}),
    "TiltedPolicy.cdf": (ia.TiltedPolicy(ia.Identity(), 0.5).cdf, U),
    "TiltedPolicy.density": (ia.TiltedPolicy(ia.Identity(), 0.5).density, U),
    "TiltedPolicy.win_rate": (
        ia.TiltedPolicy(ia.Identity(), 0.5).win_rate,
        {"procedure": BEST, "against": None},
    ),
    "Widest": (ia.Widest, {"intervals": (ia.Student(), ia.SkewCorrected())}),
    "best_exponential": (ia.best_exponential, {"procedure": BEST, "kl": 0.5, "against": BEST}),
    "best_power": (ia.best_power, {"procedure": BEST, "kl": 0.5, "against": BEST}),
    "best_reward": (ia.best_reward, {"rewards": REFERENCE, "n": 2, **INTERVAL}),
    "compare": (
        ia.compare,
        {
            "procedure": BEST,
            "transforms": [ia.Identity()],
            "kl": 0.5,
            "against": BEST,
            "samples": None,
        },
    ),
    "design": (
        ia.design,
        {"procedure": BEST, "kl": 0.5, "beta": None, "against": BEST, "samples": None},
    ),
    "finite.Custom": (
        ia.finite.Custom,
        {"apply": lambda policy: policy, "pullback": None, "concave": True},
    ),
    "finite.MajorityVote": (ia.finite.MajorityVote, {"labels": np.arange(3), "n": 3}),
    "finite.calibrated_reward": (
        ia.finite.calibrated_reward,
        {"reward": OUTCOMES, "reference": CHANCES},
    ),
    "finite.coupled_reward": (
        ia.finite.coupled_reward,
        {
            "reward": OUTCOMES,
            "policy": CHANCES,
            "reference": CHANCES,
            "procedure": BEST,
            "against": BEST,
        },
    ),
    "finite.kl": (ia.finite.kl, {"policy": CHANCES, "reference": CHANCES}),
    "finite.selected": (
        ia.finite.selected,
        {"reward": OUTCOMES, "policy": CHANCES, "procedure": BEST},
    ),
    "finite.solve": (
        ia.finite.solve,
        {
            "reward": OUTCOMES,
            "reference": CHANCES,
            "procedure": BEST,
            "beta": 0.5,
            "kl": None,
            "against": BEST,
            "starts": (),
        },
    ),
    "finite.win_rate": (
        ia.finite.win_rate,
        {
            "reward": OUTCOMES,
            "policy": CHANCES,
            "reference": CHANCES,
            "procedure": BEST,
            "against": BEST,
        },
    ),
    "fixed_point": (
        ia.fixed_point,
        {
            "procedure": BEST,
            "beta": 0.5,
            "against": BEST,
            "cells": 50,
            "damping": 1.0,
            "tolerance": 1e-6,
            "max_steps": 100,
        },
    ),
    "majority_vote": (
        ia.majority_vote,
        {"answers": SOLVED, "correct": SOLVED, "n": 3, **INTERVAL},
    ),
    "over_prompts": (
        ia.over_prompts,
        {"per_prompt": [0.25, 0.5, 0.75], "level": 0.95, "bounds": (0, 1), **INTERVAL},
    ),
    "parse_procedure": (ia.parse_procedure, {"procedure": "sampling"}),
    "parse_transform": (ia.parse_transform, {"transform": "identity"}),
    "pass_all": (ia.pass_all, {"correct": SOLVED, "k": 2, **INTERVAL}),
    "pass_at": (ia.pass_at, {"correct": SOLVED, "k": 2, **INTERVAL}),
    "quantiles": (
        ia.quantiles,
        {"rewards": POLICY, "reference_rewards": REFERENCE, "smoothing": "none"},
    ),
    "register_procedure": (
        lambda **options: ia.register_procedure(**options)(Unnamed),
        {
            "name": "unnamed",
            "words": None,
            "label": None,
            "family": False,
            "example": None,
            "form": None,
        },
    ),
    "register_transform": (
        lambda **options: ia.register_transform(**options)(Plain),
        {"name": "plain", "words": None, "label": None, "example": None, "form": None},
    ),
    "samples_needed": (
        ia.samples_needed,
        {
            "procedure": BEST,
            "transform": ia.Identity(),
            "kl": 0.1,
            "loss": 0.05,
            "exact": 0.6,
            "against": BEST,
            "most": 8,
        },
    ),
    "selected_reward": (
        ia.selected_reward,
        {"rewards": POLICY, "procedure": BEST, "calibration": REFERENCE, **INTERVAL},
    ),
    "transform_from_json": (ia.transform_from_json, {"data": {"kind": "Identity"}}),
    "verifiable.solve": (
        ia.verifiable.solve,
        {"reference": [0.3, 0.6], "procedure": BEST, "kl": 0.1, "beta": None, "against": BEST},
    ),
    "verifiable.win_rate": (
        ia.verifiable.win_rate,
        {"pass_rate": [0.3, 0.6], "reference": [0.2, 0.5], "procedure": BEST, "against": BEST},
    ),
    "win_rate": (
        ia.win_rate,
        {
            "policy_rewards": POLICY,
            "reference_rewards": REFERENCE,
            "procedure": ia.Rewind(0.5, 2),
            "against": BEST,
            "calibration": REFERENCE + 0.5,
            **INTERVAL,
        },
    ),
    "win_rate_difference": (
        ia.win_rate_difference,
        {
            "a_rewards": POLICY,
            "b_rewards": POLICY,
            "reference_rewards": REFERENCE,
            "procedure": BEST,
            "against": BEST,
            "calibration": REFERENCE,
            **INTERVAL,
        },
    ),
    "worst_reward": (ia.worst_reward, {"rewards": REFERENCE, "n": 2, **INTERVAL}),
}
"""One valid call for each public name; procedures and transforms follow below."""


class Unnamed(ia.RankProcedure):
    draws = 1
    cdf = density = slope = lambda self, u: u


class Plain(ia.AbstractTransform):
    bounded = True
    __call__ = integral = lambda self, u: u


del ROWS["AbstractProcedure"]
for example in [*procedures, *transforms]:
    kind = type(example)
    fields = {name: getattr(example, name) for name in inspect.signature(kind).parameters}
    ROWS[kind.__name__] = (kind, fields)
    for method, arguments in {
        "__call__": U,
        "average": {"low": [0.25], "high": [0.5]},
        "below_1": {"distance": [0.25]},
        "cdf": U,
        "density": U,
        "density_below_1": {"distance": [0.25]},
        "integral": U,
        "slope": U,
        "subset_cdf": {"m": 40},
        "to_json": {},
    }.items():
        if callable(getattr(example, method, None)):
            ROWS[f"{kind.__name__}.{method}"] = (getattr(example, method), arguments)

DRAWN = [
    *transforms,
    ia.TiltedPolicy(ia.Identity(), 0.5),
    ia.design(BEST, kl=0.5),
    ia.over_prompts([0.25, 0.5]),
    STORE,
]
for example in DRAWN:
    name = type(example).__name__
    ROWS[f"{name}.plot"] = (example.plot, {"ax": Figure().subplots()})
    ROWS[f"{name}.to_frame"] = (example.to_frame, {})

ROWS["Estimate.figures"] = (ia.over_prompts(np.arange(3.0)).figures, {})

VALUES = ("Candidate", "Design", "Estimate", "FixedPoint", "Shaped", "finite.Solution")
VALUES += ("verifiable.VerifiableOptimum",)
"""Results: what functions return, not what callers build."""

INNER = {"selected_cdf", "gradient", "curvature", "below", "curve", "rates", "reach"}
INNER |= {"subset_law", "slope_range", "density_on", "selected_density"}
INNER |= {"choose", "settled", "selected", "starts"}
"""Methods that solvers and decoders call with values that are checked already."""

LOOP: list = []
LOOP.append(LOOP)


class Foreign:
    """An array of a library that cannot give it."""

    def __array__(self, *arguments, **settings):
        raise AttributeError("no data")


WRONG = {
    "None": None,
    "a text": "nonsense",
    "a number": 3.5,
    "nan": float("nan"),
    "infinity": float("inf"),
    "a negative number": -1,
    "zero": 0,
    "a truth value": True,
    "texts": ["a", "b"],
    "an empty list": [],
    "a list of objects": [object()],
    "a ragged list": [[1.0], [1.0, 2.0]],
    "nan in a list": [float("nan"), 0.5, 0.5],
    "a cube": np.zeros((2, 2, 2)),
    "a matrix of another shape": np.full((2, 7), 0.5),
    "an object": object(),
    "a class": int,
    "a dictionary": {"a": 1},
    "bytes": b"bytes",
}
ARRAYS = {
    "a huge integer": 10**400,
    "huge integers": [[10**400, 1]],
    "a huge decimal": [Decimal("1e400")],
    "complex numbers": np.ones((3, 6), complex),
    "a complex number": 1j,
    "dates": np.array([["2020-01-01"] * 6] * 3, "M8[D]"),
    "numbers as texts": [["1", "0"]],
    "records": np.zeros(3, [("a", float)]),
    "a ragged array of objects": np.array([[1.0], [1.0, 2.0]], object),
    "an array without dimensions": np.array(1.5),
    "a masked array": np.ma.array([[0.5, 1]] * 3, mask=[[True, False]] * 3),
    "a sparse array": scipy.sparse.csr_array(np.eye(3)),
    "a generator": itertools.repeat(0.5),
    "a huge range": range(10**12),
    "a set": {0.5},
    "a list in itself": LOOP,
    "an array of another library": Foreign(),
    "a missing value of pandas": pd.NA,
    "a series of lists": pd.Series([[0.5], [0.5, 1.0]]),
    "a frame": pd.DataFrame({"a": pd.array([True, None], "boolean"), "b": [1, 2]}),
    "an Arrow array": pa.array([[0.5], None]),
    "a tensor": torch.ones(3, 6, dtype=torch.bfloat16, requires_grad=True),
    "a complex tensor": torch.ones(2, dtype=torch.complex64),
    "a tensor without data": torch.ones(2, device="meta"),
}

NEVER = {"an object", "a class", "a generator", "a set", "a complex number", "complex numbers"}
NEVER |= {"dates", "records", "a list in itself", "an array of another library"}
"""Kinds that no argument takes."""

ANYTHING = {
    "finite.MajorityVote.labels",
    "majority_vote.answers",
    "selected_reward.calibration",
    "win_rate_difference.calibration",
    "ShapedReward.reward",
    "GroupShapedReward.reward",
    "ShapedReward.__call__.prompts",
    "GroupShapedReward.__call__.prompts",
}
"""Arguments that an object or a class fits: labels, calibration that the procedure does not read,
callables, and prompts, which only the reward function reads."""


OTHER_WAYS = {
    f"CalibrationStore.{method}.prompt_ids": ["prompt_id "]
    for method in ("column", "intervals", "positions", "quantiles", "ranks")
}
OTHER_WAYS["Shaper.__call__.prompt_ids"] = ["prompt_id "]
OTHER_WAYS |= {f"{kind}ShapedReward.__call__.prompt_id": ["prompt_id "] for kind in ("", "Group")}
OTHER_WAYS["GroupShapedReward.__call__.prompt_id"] += ["of one prompt are needed"]
# Any hashable values are answers; equal ones must then be equally correct.
OTHER_WAYS["majority_vote.answers"] = ["`correct` must be the same for equal answers"]
OTHER_WAYS["CalibrationStore.from_dataset.dataset"] = ["Its columns are a, b"]
OTHER_WAYS |= {
    f"CalibrationStore.open.{argument}": ["no-such-store/manifest.json", "nonsense/manifest.json"]
    for argument in ("path", "verify")
}
"""Errors that name the entry at fault instead, such as an unknown prompt."""


def public():
    """Every public function, class and method: its dotted name, and whether callers may call it."""
    for name in ia.__all__:
        value = getattr(ia, name)
        if inspect.ismodule(value):
            yield from ((f"{name}.{part}", getattr(value, part)) for part in value.__all__)
        elif callable(value):
            yield name, value


def is_own(value):
    return inspect.isfunction(value) or inspect.ismethod(value)


def doors():
    for name, value in public():
        if not inspect.isclass(value):
            yield name
            continue
        if issubclass(value, Exception):
            continue
        if not inspect.isabstract(value) and name not in VALUES:
            yield name
        if inspect.isabstract(value):
            continue
        methods = [m for m, f in inspect.getmembers(value) if is_own(f) and m not in INNER]
        yield from (f"{name}.{m}" for m in methods if m == "__call__" or m[0] != "_")


def test_every_public_name_has_a_row():
    assert set(doors()) - set(ROWS) == set()
    assert set(ROWS) - set(doors()) == set()


@pytest.fixture(autouse=True)
def figures():
    """Figures of a test do not stay."""
    yield
    pyplot.close("all")


@pytest.fixture(autouse=True)
def registries(monkeypatch):
    """Registrations of a test do not stay."""
    from infalign.core import PROCEDURES, TRANSFORMS

    for table in (PROCEDURES, TRANSFORMS):
        monkeypatch.setattr(table, "_entries", dict(table._entries))
        monkeypatch.setattr(table, "_by_kind", dict(table._by_kind))


@pytest.mark.parametrize("name", sorted(set(ROWS) - {"CalibrationStore.open"}))
def test_the_row_is_a_valid_call(name):
    function, arguments = ROWS[name]
    function(**arguments)


CASES = [(name, argument) for name in sorted(ROWS) for argument in ROWS[name][1]]


@pytest.mark.parametrize(("name", "argument"), CASES, ids=".".join)
def test_a_wrong_value_is_named(name, argument):
    function, arguments = ROWS[name]
    problems = []
    for kind, value in (WRONG | ARRAYS).items():
        try:
            function(**{**arguments, argument: value})
        except (ValueError, TypeError, ia.InfalignError) as error:
            ways = (f"`{argument}`", f"{argument}=", *OTHER_WAYS.get(f"{name}.{argument}", ()))
            if not any(way in str(error) for way in ways):
                problems.append(f"{kind}: {type(error).__name__}: {error}")
        except BaseException as error:
            problems.append(f"{kind}: {type(error).__name__}: {error}")
        else:
            if kind in NEVER and f"{name}.{argument}" not in ANYTHING:
                problems.append(f"{kind} is accepted")
    assert problems == []
