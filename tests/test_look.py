"""Every object of the package can be looked at: in a terminal, a notebook, a plot and a table."""

import importlib
import pickle
import pkgutil
import re
import sys
from contextlib import suppress
from dataclasses import fields, is_dataclass
from html.parser import HTMLParser
from importlib.util import find_spec
from inspect import isabstract, isclass, isfunction
from types import SimpleNamespace
from xml.etree import ElementTree

import numpy as np
import pytest
from hostile import TEXTS, steering
from matplotlib import pyplot
from matplotlib.figure import Figure
from pages import ROOT

import infalign as ia
from infalign._look import brief, summary
from infalign.core import frontier
from infalign.errors import DataError, MissingExtraError, UnknownPromptError
from infalign.reports.tables import Table

RNG = np.random.default_rng(0)
REWARDS = RNG.normal(size=(300, 64))
IDS = [f"prompt-{i}" for i in range(300)]
EXACT = ia.design(ia.BestOfN(8), kl=0.5)
STORE = ia.CalibrationStore.from_rewards(IDS, REWARDS, {"reward": "r" * 5000})

OBJECTS = {
    "design": EXACT,
    "sampled design": ia.design(ia.BestOfN(8), kl=0.5, samples=64),
    "policy": EXACT.policy,
    "optimum": EXACT.optimum,
    "transform": EXACT.transform,
    "store": STORE,
    "estimate": ia.win_rate(REWARDS, RNG.normal(size=(300, 64)), ia.BestOfN(4)),
    "raw rewards": ia.RawRewards(REWARDS),
    "shaper": ia.Shaper(STORE, EXACT.transform),
    "shaped reward": ia.ShapedReward(len, STORE, EXACT.transform),
    "group shaped reward": ia.GroupShapedReward(len, STORE, ia.BestOfN(2), group=4),
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


def public_modules():
    """Every module whose path is public, apart from the command line's."""
    for module in pkgutil.walk_packages(ia.__path__, "infalign."):
        parts = module.name.split(".")[1:]
        if parts[0] == "cli" or any(part.startswith("_") for part in parts):
            continue
        with suppress(ImportError):  # of an extra that is not installed
            yield importlib.import_module(module.name)


MODULES = list(public_modules())


def public_dataclasses():
    """Every public dataclass of these modules."""
    found = {}
    for module in MODULES:
        found |= {value: None for value in vars(module).values() if isclass(value)}
    found |= {value: None for value in vars(ia).values() if isclass(value)}
    found |= {value: None for value in map(vars(ia.core).get, ia.core.__all__) if isclass(value)}
    own = [kind for kind in found if kind.__module__.startswith("infalign.") and is_dataclass(kind)]
    shown = [k for k in own if not k.__name__.startswith("_") and not isabstract(k)]
    return sorted(shown, key=lambda kind: (kind.__module__, kind.__name__))


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


def policies(name):
    """A comparison with a candidate of that name."""
    return ia.compare(ia.BestOfN(2), [ia.Log(), ia.RawRewards(REWARDS[:3], name)], kl=[0.1, 0.2])


OPTIMA = frontier(ia.BestOfN(8), ia.BestOfN(8), np.geomspace(0.01, 1, 60).tolist())
PICTURED = {name: OBJECTS[name] for name in list(OBJECTS)[:7]} | {
    "rows": policies("gold"),
    "rows at one budget": ia.compare(ia.BestOfN(2), [ia.Log()], kl=0.5),
    "frontier": OPTIMA,
    "log": ia.Log(),
    "identity": ia.Identity(),
    "sharp policy": ia.TiltedPolicy(ia.Log(), 0.01),
    "estimate of one prompt": ia.over_prompts([0.5]),
    "estimate of equal prompts": ia.over_prompts([0.5, 0.5]),
    "store with one prompt": ia.CalibrationStore.from_rewards(["a"], [[1.0, 1.0]]),
    "ragged store": ia.CalibrationStore.from_rewards(["a", "b"], [[1.0, 2.0], [3.0]]),
}
ROWS = {
    "design": 1,
    "sampled design": 1,
    "store": 300,
    "estimate": 300,
    "frontier": 60,
    "rows": 6,
    "transform": len(EXACT.transform.u),
}

every_picture = pytest.mark.parametrize("name", PICTURED)


@pytest.fixture
def axes():
    return Figure().subplots()


@every_picture
def test_a_result_is_drawn(name, axes):
    assert PICTURED[name].plot(axes) is axes
    assert axes.lines or axes.patches or axes.collections
    assert axes.get_xlabel()
    axes.figure.draw_without_rendering()


def test_a_plot_without_axes_makes_its_own_figure():
    axes = EXACT.plot()
    try:
        assert axes.lines and axes.figure.number in pyplot.get_fignums()
    finally:
        pyplot.close(axes.figure)


def test_a_plot_on_something_else_is_refused():
    with pytest.raises(ValueError, match=r"`ax` must be axes of matplotlib"):
        EXACT.plot("figure.png")


@every_picture
def test_a_result_becomes_a_data_frame(name):
    pandas = pytest.importorskip("pandas")
    frame = PICTURED[name].to_frame()
    assert isinstance(frame, pandas.DataFrame)
    assert len(frame) == ROWS.get(name, len(frame)) > 0


def test_without_pandas_polars_makes_the_data_frame(monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)
    monkeypatch.setitem(sys.modules, "polars", SimpleNamespace(DataFrame=dict))
    assert EXACT.to_frame()["win_rate"] == [EXACT.win_rate]


def test_the_columns_hold_the_numbers():
    pytest.importorskip("pandas")
    store, design = OBJECTS["store"].to_frame(), EXACT.to_frame()
    assert store["prompt_id"].tolist() == IDS
    np.testing.assert_allclose(store["max"], REWARDS.max(1))
    np.testing.assert_allclose(store["median"], np.median(REWARDS, axis=1))
    assert design["win_rate"][0] == EXACT.win_rate and design["procedure"][0] == "best-of-n:8"
    assert OPTIMA.to_frame()["win_rate"].tolist() == [o.win_rate for o in OPTIMA]
    assert policies("gold").to_frame()["transform"][2] == "raw:gold"


def test_without_a_library_of_data_frames_the_error_names_one(monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)
    monkeypatch.setitem(sys.modules, "polars", None)
    with pytest.raises(MissingExtraError, match="pip install pandas"):
        EXACT.to_frame()


def test_without_matplotlib_a_notebook_has_the_table_and_a_plot_names_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    html = EXACT._repr_html_()
    assert "<table>" in html and "0.929914" in html and "<svg" not in html
    with pytest.raises(MissingExtraError, match="pip install matplotlib"):
        EXACT.plot()


class Page(HTMLParser):
    """The tags and the visible text of a page."""

    def __init__(self, html):
        super().__init__()
        self.tags, self.handlers = [], []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.handlers += [name for name, value in attrs if name.startswith("on")]
        self.handlers += [value for _, value in attrs if value and "javascript:" in value]


@every_picture
def test_a_notebook_shows_a_table_and_a_picture(name):
    html = PICTURED[name]._repr_html_()
    tags = Page(html).tags
    assert tags.count("table") == 1 and tags.count("svg") == 1
    assert len(html) < 60_000 and "object at 0x" not in html
    ElementTree.fromstring(html[html.index("<svg") : html.index("</svg>") + len("</svg>")])


def test_texts_in_a_notebook_are_escaped():
    texts = list(TEXTS.values())
    storable = [text for text in texts if text.isprintable() or "\x1b" in text]
    raw = [ia.RawRewards(REWARDS[:3], text) for text in texts]
    results = [ia.compare(ia.BestOfN(2), raw[i : i + 12], kl=0.1) for i in range(0, len(raw), 12)]
    results.append(ia.compare(ia.BestOfN(2), raw[-3:], kl=[0.1, 0.2]))
    results.append(Table("t", ("name", "n"), tuple((text, text) for text in texts), 1, ()))
    for text in storable:
        provenance = dict.fromkeys(storable, text)
        results.append(ia.CalibrationStore.from_rewards([text], [[1.0, 2.0]], provenance))
    for result in results:
        # A store's picture has no texts.
        html = result._table() if isinstance(result, ia.CalibrationStore) else result._repr_html_()
        page = Page(html)
        assert steering(html) == [] and page.handlers == []
        assert not {"script", "img", "a"} & set(page.tags)
        assert steering(repr(result)) == [] and len(repr(result)) <= 2000


def test_rows_are_a_list_that_is_shown_as_a_table():
    rows = policies("gold")
    assert isinstance(rows, list) and rows == list(rows)
    assert pickle.loads(pickle.dumps(rows)) == rows
    head, first, *_ = repr(rows).splitlines()
    assert head.split() == ["transform", "kl", "beta", "win_rate", "loss", "stderr"]
    assert first.split()[0] == "optimal"
    assert repr(OPTIMA).splitlines()[-1] == "… 60 rows in all" and on_one_screen(repr(OPTIMA))
    assert "… 60 rows in all" in OPTIMA._repr_html_()
    assert repr(type(rows)()) == "[]" and "<table>" in type(rows)()._repr_html_()


def test_an_empty_cell_of_a_table_repeats_the_one_above():
    pytest.importorskip("pandas")
    table = Table("t", ("procedure", "policy", "rate"), (("a", "x", "1"), ("", "y", "")), 2)
    assert table.to_frame().to_dict("list") == {
        "procedure": ["a", "a"],
        "policy": ["x", "y"],
        "rate": ["1", ""],
    }


def documented():
    """Public modules that the documentation and examples import from → the names."""
    found: dict = {}
    files = [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("examples/*.py")]
    pattern = r"from (infalign(?:\.[a-z]\w*)*) import (?:\(([^)]*)\)|([^\n]*))"
    for file in files:
        for module, block, line in re.findall(pattern, file.read_text(encoding="utf-8")):
            names = re.findall(r"\w+", re.sub(r"#.*| as \w+", "", block or line))
            found.setdefault(module, set()).update(names)
    return {module: sorted(names) for module, names in sorted(found.items())}


def test_every_module_states_its_public_names():
    for module in MODULES:
        own = {
            name
            for name, value in vars(module).items()
            if (isclass(value) or isfunction(value)) and value.__module__ == module.__name__
        }
        own = {name for name in own if not name.startswith("_")}
        stated = set(getattr(module, "__all__", ()))
        assert own <= stated, module.__name__
        assert [name for name in stated if not hasattr(module, name)] == [], module.__name__


DOCUMENTED = documented()


@pytest.mark.parametrize("module", DOCUMENTED)
def test_what_the_documentation_imports_is_public(module):
    stated = importlib.import_module(module).__all__
    assert len(set(stated)) == len(stated)
    others = set(DOCUMENTED[module]) - set(stated)
    assert [name for name in others if find_spec(f"{module}.{name}") is None] == []
