"""The shapes and types that the core's signatures state are those of the values that pass."""

import inspect
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest

from infalign import BestOfN, core

HERE = Path(__file__).parent


def run_with_shapes_on(code):
    """Run code in a process where every call of the core is checked."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(HERE), *sys.path])}
    program = "import shapes_on\n" + textwrap.dedent(code)
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def test_the_examples_of_the_core_keep_their_shapes():
    tried = run_with_shapes_on("""
        import doctest, importlib, pkgutil
        import numpy as np
        from infalign import core

        tried = 0
        for module in pkgutil.walk_packages(core.__path__, "infalign.core."):
            result = doctest.testmod(importlib.import_module(module.name))
            assert result.failed == 0, module.name
            tried += result.attempted
        print(tried)
    """)
    assert int(tried) > 40


def test_public_calls_keep_their_shapes():
    run_with_shapes_on("""
        import numpy as np
        import infalign as ia
        from infalign import core

        rng = np.random.default_rng(0)
        rewards = rng.normal(size=(6, 16))
        laws = [ia.Sampling(), ia.BestOfN(4), ia.WorstOfN(3), ia.BestOfPoisson(2.5),
                ia.Mixture((ia.BestOfN(2), ia.Sampling()), (0.5, 0.5)),
                ia.SoftBestOfN(3, 0.2), ia.Rewind(0.7, 3)]
        transforms = [ia.Identity(), ia.Log(), ia.Exponential(3.0), ia.Power(4.0), ia.Probit()]
        inner = rng.uniform(0.1, 0.9, (2, 3))
        for law in laws:
            for u in (0.3, [0.2, 1], inner, inner[0]):
                law.cdf(u), law.density(u)
            ia.design(law, kl=0.3, against=ia.BestOfN(2)).policy.cdf([0.2, 0.5])
            ia.design(law, beta=0.3).transform(inner)
        for transform in transforms:
            policy = ia.TiltedPolicy(transform, 0.5)
            for u in (0.3, [0.2, 0.9], inner):
                transform(u), policy.density(u), policy.cdf(u)
            policy.win_rate(ia.BestOfN(2), ia.SoftBestOfN(2, 0.3))
        for given in (rewards, rewards.tolist(), np.arange(12).reshape(2, 6)):
            ia.quantiles(given, given, smoothing="add-half")
            core.randomized_quantiles(given, given, rng=rng)
            core.group_rewards(given, given, ia.BestOfN(2))
            core.group_win_rate(given, given, ia.BestOfN(2))
            core.first_tilt(given, core.SelectedReward(ia.BestOfN(2)), 0.1)
            core.coupled_tilt(given, core.ExponentialUtility(0.5), 0.1)
        ia.compare(ia.BestOfN(2), [*transforms, ia.RawRewards(rewards), ia.best_power], kl=[0.2])
        ia.compare(ia.BestOfN(2), transforms[:1], kl=0.2, samples=8)
        ia.design(ia.WorstOfN(2), kl=0.2, samples=8)
        ia.design(ia.OrderStatistic(5, 2), kl=0.2).gap
        ia.fixed_point(ia.BestOfN(2), beta=0.5, cells=20, damping=0.5)
        core.frontier(ia.BestOfN(2), ia.BestOfN(2), [0.1, 4.0])
        for passing in ([0.3, 0.6], np.array([0.2]), 0.4):
            ia.verifiable.solve(passing, ia.BestOfN(2), kl=0.05)
            ia.verifiable.win_rate(passing, 0.5, ia.BestOfN(2))
        one, two = [0.2, 0.3, 0.5], np.full((2, 3), 1 / 3)
        vote = ia.finite.MajorityVote(["a", "b", "a"], 3)
        square = ia.finite.Custom(lambda p: p**2 / (p**2).sum(-1, keepdims=True))
        for procedure in (ia.BestOfN(2), ia.WorstOfN(2), vote, square):
            ia.finite.solve([0, 1, 1], one, procedure, 0.5)
            ia.finite.solve(two * [1, 2, 3], two, procedure, 0.5)
            ia.finite.coupled_reward([0, 1, 2], one, one, procedure)
            ia.finite.win_rate([0, 1, 2], one, one, procedure, against=ia.Sampling())
        ia.finite.solve([0, 1, 1], one, ia.BestOfN(2), kl=0.1, starts=[one])
        ia.finite.kl(one, one), ia.finite.kl(two, two), ia.finite.calibrated_reward(two, two)
    """)


@pytest.mark.parametrize(
    "call",
    [
        "core.group_rewards(np.zeros((2, 3)), np.zeros((3, 2)), ia.BestOfN(2))",
        "core.graded(3, 3).cumulate(np.zeros(12))",
        "ia.quantiles(np.zeros(3), np.zeros((1, 3)))",
        "ia.RawRewards(np.arange(4.0)[None]).tilted('1')",
    ],
)
def test_the_check_finds_wrong_shapes_and_types(call):
    run_with_shapes_on(f"""
        import jaxtyping, numpy as np, infalign as ia
        from infalign import core
        try:
            {call}
        except jaxtyping.TypeCheckError:
            pass
        else:
            raise SystemExit("not found")
    """)


def test_users_meet_the_core_s_own_errors():
    with pytest.raises(ValueError, match="`utilities` must have the shape of `rewards`"):
        core.group_rewards(np.zeros((2, 3)), np.zeros((3, 2)), BestOfN(2))


def public_functions():
    """Functions and methods of the core's face, as (name, function)."""
    faces = {"core": core, "core.finite": core.finite, "core.verifiable": core.verifiable}
    for place, face in faces.items():
        names = getattr(face, "__all__", [n for n in vars(face) if not n.startswith("_")])
        for name in names:
            thing = getattr(face, name)
            if not getattr(thing, "__module__", "").startswith("infalign.core"):
                continue
            if inspect.isfunction(thing):
                yield f"{place}.{name}", thing
            elif inspect.isclass(thing):
                for method, function in vars(thing).items():
                    if inspect.isfunction(function) and not method.startswith("_"):
                        yield f"{place}.{name}.{method}", function


@pytest.mark.parametrize("function", [pytest.param(f, id=name) for name, f in public_functions()])
def test_public_signatures_state_types_and_shapes(function):
    hints = {k: v for k, v in inspect.signature(function).parameters.items() if k != "self"}
    stated = [parameter.annotation for parameter in hints.values()]
    stated.append(inspect.signature(function).return_annotation)
    assert inspect.Parameter.empty not in stated, "every argument and the result have a type"
    bare = [hint for hint in stated if hint is np.ndarray or hint == "np.ndarray"]
    assert bare == [], 'arrays state their shape, as Float[np.ndarray, "prompts k"]'
