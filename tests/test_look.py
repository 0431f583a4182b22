"""Every object of the package can be looked at: in a terminal, a notebook, a plot and a table."""

import importlib
import pkgutil
from dataclasses import fields, is_dataclass
from inspect import isabstract, isclass

import numpy as np
import pytest
from hostile import TEXTS, steering

import infalign as ia
from infalign._look import brief, summary
from infalign.errors import DataError, UnknownPromptError

RNG = np.random.default_rng(0)
REWARDS = RNG.normal(size=(300, 64))
IDS = [f"prompt-{i}" for i in range(300)]
EXACT = ia.design(ia.BestOfN(8), kl=0.5)

OBJECTS = {
    "design": EXACT,
    "sampled design": ia.design(ia.BestOfN(8), kl=0.5, samples=64),
    "policy": EXACT.policy,
    "optimum": EXACT.optimum,
    "transform": EXACT.transform,
    "store": ia.CalibrationStore.from_rewards(IDS, REWARDS, {"reward": "r" * 5000}),
    "estimate": ia.win_rate(REWARDS, RNG.normal(size=(300, 64)), ia.BestOfN(4)),
    "raw rewards": ia.RawRewards(REWARDS),
    "fixed point": ia.fixed_point(ia.BestOfN(2), beta=0.5),
    "finite solution": ia.finite.solve(
        RNG.normal(size=(50, 40)), RNG.dirichlet(np.ones(40), 50), ia.BestOfN(2), beta=0.5
    ),
}
"""Objects with as much in them as those of a user."""


def on_one_screen(shown):
    return len(shown) <= 2000 and shown.count("\n") < 40 and not steering(shown)


@pytest.mark.parametrize("name", OBJECTS)
def test_a_result_is_shown_on_one_screen(name):
    shown = repr(OBJECTS[name])
    assert on_one_screen(shown) and "object at 0x" not in shown
    assert shown.startswith(type(OBJECTS[name]).__name__)


def test_a_repr_states_what_a_user_wants_to_know():
    design, store = repr(EXACT), repr(OBJECTS["store"])
    for words in ("win_rate=0.929914", "kl=0.5", "certificate='", "BestOfN(n=8)"):
        assert words in design.replace('"', "'")
    assert "kl=0.5," in repr(EXACT.policy)
    assert "prompts=300" in store and "samples=64" in store and "prompt-0" in store


def public_dataclasses():
    """Every public dataclass of a module whose path is public, apart from the command line's."""
    found = {}
    for module in pkgutil.walk_packages(ia.__path__, "infalign."):
        parts = module.name.split(".")[1:]
        if parts[0] == "cli" or any(part.startswith("_") for part in parts):
            continue
        try:
            names = vars(importlib.import_module(module.name))
        except ImportError:  # of an extra that is not installed
            continue
        found |= {value: None for value in names.values() if isclass(value)}
    found |= {value: None for value in vars(ia).values() if isclass(value)}
    found |= {value: None for value in map(vars(ia.core).get, ia.core.__all__) if isclass(value)}
    own = [kind for kind in found if kind.__module__.startswith("infalign.") and is_dataclass(kind)]
    return [k for k in own if not k.__name__.startswith("_") and not isabstract(k)]


def big(annotation):
    """A value of a field's type that is larger than a screen."""
    words = str(annotation)
    if any(part in words for part in ("ndarray", "Float[", "Int[", "Rows", "PerPrompt", "Values")):
        return np.linspace(0, 1, 100_000).reshape(1000, 100)
    if "Mapping" in words or "dict" in words:
        return {f"prompt {i}\x1b[2J": "x\u202e" * 500 for i in range(5000)}
    if any(part in words for part in ("tuple", "Sequence", "list", "Iterable", "set[")):
        return tuple(i / 7 for i in range(5000))
    return "x" * 60 if "str" in words else 1 / 3 if "float" in words else 3


@pytest.mark.parametrize("kind", public_dataclasses(), ids=lambda k: f"{k.__module__}.{k.__name__}")
def test_every_public_class_is_shown_on_one_screen(kind):
    instance = object.__new__(kind)
    for field in fields(kind):
        object.__setattr__(instance, field.name, big(field.type))
    assert on_one_screen(repr(instance))


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
def test_texts_in_a_repr_are_escaped(text):
    store = ia.CalibrationStore.from_rewards(["a"], [[1.0, 2.0]], {text or "empty": text})
    assert steering(repr(store)) == []


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (np.float64(2 / 3), "0.666667"),
        (1234567.0, "1.23457e+06"),
        (float("nan"), "nan"),
        (np.array([1.0, np.inf]), "[1, inf]"),
        (np.array(7), "array of one value, from 7 to 7: [7]"),
        (np.zeros((0, 3)), "array of 0×3: []"),
        (np.full(9, np.nan), "array of 9, 9 not finite: [nan, nan, nan, nan, …]"),
        (list(range(99)), "list of 99, from 0 to 98: [0, 1, 2, 3, …]"),
        ([1.0, "a"] * 9, "[1, 'a', 1, 'a', … 18 in all]"),
        ({i: i for i in range(9)}, "{0: 0, 1: 1, 2: 2, 3: 3, … 9 in all}"),
        ((1,), "(1,)"),
        ({2}, "{2}"),
        ((), "()"),
        (True, "True"),
        (np.str_("a"), "'a'"),
    ],
    ids=str,
)
def test_a_value_is_shown_briefly(value, shown):
    assert brief(value) == shown


def test_an_object_whose_facts_fail_is_shown_by_its_fields():
    class Broken(ia.AbstractTransform):
        bounded = True

        def __call__(self, u):
            raise ZeroDivisionError

        def integral(self, u):
            raise ZeroDivisionError

    assert repr(ia.TiltedPolicy(Broken(), 1.0)).endswith("beta=1,\n)")
    assert summary(ia.BestOfN(8)) == "BestOfN(n=8)"


def test_a_store_is_read_by_prompt(tmp_path):
    store = OBJECTS["store"]
    assert len(store) == 300 and list(store) == IDS
    assert "prompt-7" in store and "prompt" not in store and 7 not in store
    row = store["prompt-7"]
    np.testing.assert_array_equal(row, np.sort(REWARDS[7]))
    row[:] = 0  # an array of its own
    np.testing.assert_array_equal(store["prompt-7"], np.sort(REWARDS[7]))


@pytest.mark.parametrize("key", ["prompt-7x", "", 7, None, slice(3), ["prompt-7"], "\x1b[2J"])
def test_an_unknown_prompt_is_an_error_of_every_kind(key):
    for kind in (UnknownPromptError, KeyError, DataError):
        with pytest.raises(kind) as caught:
            OBJECTS["store"][key]
    assert "is not in the calibration store, which has 300 prompts" in str(caught.value)
    assert steering(str(caught.value)) == []


def test_the_nearest_prompt_is_named():
    with pytest.raises(KeyError, match=r"Did you mean prompt-299\?"):
        OBJECTS["store"]["promt-299"]
