"""A procedure or transform joins with one decorator, and everything by name follows."""

from dataclasses import dataclass

import numpy as np
import pytest

import infalign as ia
from infalign.core import (
    PROCEDURES,
    TRANSFORMS,
    families,
    family,
    procedure_forms,
    transform_forms,
    words,
)


def define_middle(name="middle-of-n", **options):
    """A procedure with parameters of its own, registered."""

    @ia.register_procedure(name, **options)
    @dataclass(frozen=True)
    class Middle(ia.RankProcedure):
        """Draw n (odd) responses, keep the middle one.

        The order statistic of that place.
        """

        n: int

        @property
        def draws(self):
            return self.n

        @property
        def _law(self):
            return ia.OrderStatistic(self.n, (self.n + 1) // 2)

        def cdf(self, u):
            return self._law.cdf(u)

        def density(self, u):
            return self._law.density(u)

        def slope(self, u):
            return self._law.slope(u)

    return Middle


@pytest.fixture(autouse=True)
def restored():
    yield
    for table, own in ((PROCEDURES, __name__), (TRANSFORMS, __name__)):
        for name in [n for n, entry in table.items() if entry.kind.__module__ == own]:
            table.remove(name)


def test_a_registered_procedure_is_known_everywhere_by_name():
    kind = define_middle(words="middle of {n}", family=True, example="middle-of-n:3")
    assert ia.parse_procedure("middle-of-n:5") == kind(5)
    assert kind(5).spec == "middle-of-n:5"
    assert procedure_forms().endswith(" or middle-of-n:N")
    assert words("middle-of-n:7") == words(kind(7)) == "middle of 7"
    assert families() == ["best-of-n", "worst-of-n", "middle-of-n"]
    assert family("middle-of-n", 9) == kind(9)
    entry = PROCEDURES["middle-of-n"]
    assert (entry.label, entry.example) == ("middle of n", "middle-of-n:3")
    assert entry.summary == "Draw n (odd) responses, keep the middle one."
    with pytest.raises(ValueError, match="middle-of-n:N; got 'middle-of-n'"):
        ia.parse_procedure("middle-of-n")


def test_a_registered_procedure_has_words_and_no_curve_by_default():
    kind = define_middle()
    assert words(kind(3)) == "middle-of-n:3"
    assert families() == ["best-of-n", "worst-of-n"]
    assert PROCEDURES["middle-of-n"].example is None


def test_a_procedure_may_be_part_of_a_mixture():
    kind = define_middle()
    mixture = ia.Mixture((kind(3), ia.Sampling()), (0.25, 0.75))
    assert ia.parse_procedure(mixture.spec) == mixture


def test_an_unregistered_procedure_is_its_repr():
    kind = define_middle()
    PROCEDURES.remove("middle-of-n")
    assert kind(3).spec == repr(kind(3))
    with pytest.raises(ValueError, match="got 'middle-of-n:3'"):
        ia.parse_procedure("middle-of-n:3")


def test_a_class_that_is_defined_again_replaces_itself():
    first = define_middle()
    second = define_middle(words="the middle of {n}")
    assert type(ia.parse_procedure("middle-of-n:3")) is second is not first
    assert words("middle-of-n:3") == "the middle of 3"
    third = define_middle("center-of-n")
    assert "middle-of-n" not in PROCEDURES and third(3).spec == "center-of-n:3"


@dataclass(frozen=True)
class SquareRoot(ia.AbstractTransform):
    """Φ(u) = c √u."""

    c: float = 1.0
    bounded = True

    def __call__(self, u):
        return self.c * np.sqrt(u)

    def integral(self, u):
        return self.c * 2 / 3 * np.power(u, 1.5)


def test_a_registered_transform_is_known_in_text_and_json():
    ia.register_transform("square-root")(SquareRoot)
    root = SquareRoot(2.0)
    assert root.spec == "square-root:2" and ia.parse_transform("square-root:2") == root
    assert ia.transform_from_json(root.to_json()) == root
    assert transform_forms("best:K").endswith(", power:A, square-root:C or best:K")


class Other:
    pass


@pytest.mark.parametrize("name", ["", "Best", "best of n", "best:n", "best-", 4, None])
def test_a_name_must_fit_into_text(name):
    with pytest.raises(ValueError, match=r"`name` must be lower-case words joined by hyphens"):
        define_middle(name)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": "best-of-n"}, r"`name` .* must be new; got 'best-of-n' for Middle, but 'best-of"),
        ({"words": "{m} of"}, r"`words` may hold {n}; got '{m} of'"),
        ({"words": "{} of"}, r"`words` may hold {n}; got '{} of'"),
    ],
)
def test_a_wrong_registration_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        define_middle(**options)
    assert "middle-of-n" not in PROCEDURES
    assert ia.parse_procedure("best-of-n:2") == ia.BestOfN(2)


def test_only_procedures_are_registered_as_procedures():
    with pytest.raises(ValueError, match="`register_procedure` must decorate a subclass of Abst"):
        ia.register_procedure("other")(Other)
    with pytest.raises(ValueError, match="`register_transform` must decorate a subclass of Abst"):
        ia.register_transform("other")(ia.BestOfN)


def test_a_second_class_of_one_name_is_refused():
    @dataclass(frozen=True)
    class Identity(ia.AbstractTransform):
        bounded = True

        def __call__(self, u):
            return u

        def integral(self, u):
            return u

    with pytest.raises(ValueError, match="got 'own' for Identity, but 'identity' is infalign"):
        ia.register_transform("own")(Identity)


def test_a_family_has_n_as_its_only_parameter():
    @dataclass(frozen=True)
    class Two(type(ia.OrderStatistic(2, 1))):
        pass

    with pytest.raises(ValueError, match=r"`family` needs .* `n: int`; Two has n, k"):
        ia.register_procedure("two", family=True)(Two)
    with pytest.raises(ValueError, match="`name` must be one of best-of-n, worst-of-n; got 'rew"):
        family("rewind", 3)


def test_a_parameter_that_text_cannot_give_needs_a_reader():
    @dataclass(frozen=True)
    class Odd(ia.AbstractTransform):
        parts: tuple[float, ...]
        bounded = True

        def __call__(self, u):
            return u

        def integral(self, u):
            return u

    with pytest.raises(ValueError, match="`parts` of Odd must be an int, a float or a str"):
        ia.register_transform("odd")(Odd)
    ia.register_transform("odd", form="")(Odd)
    assert "odd" not in transform_forms()
    assert ia.transform_from_json(Odd((1.0,)).to_json()) == Odd((1.0,))


def test_every_entry_reads_its_own_example_and_form():
    for table, parse in ((PROCEDURES, ia.parse_procedure), (TRANSFORMS, ia.parse_transform)):
        for entry in table.values():
            if entry.form:
                assert parse(entry.example).spec == entry.example
                assert entry.form.split(":")[0] == entry.name
