"""Every transform keeps the laws of its interface; each is what its formula says."""

import json
import pickle
from itertools import pairwise

import numpy as np
import pytest
from contracts import TRANSFORMS, implementations, law, transforms
from hypothesis import example, given
from hypothesis import strategies as st

from infalign import (
    AbstractTransform,
    Exponential,
    Identity,
    Log,
    Power,
    Probit,
    Tabulated,
    parse_transform,
    transform_from_json,
)

U = np.linspace(0, 1, 101)
inside = st.floats(1e-12, 1 - 1e-12)
sharpness = st.floats(-1e3, 1e3)
every_transform = pytest.mark.parametrize("transform", transforms, ids=lambda t: repr(t)[:40])


def test_every_transform_has_examples():
    assert implementations(AbstractTransform) == set(TRANSFORMS)


@every_transform
@law
@given(inside, inside)
def test_transforms_increase(transform, a, b):
    low, high = transform([min(a, b), max(a, b)])
    assert low <= high + 1e-14  # rounding


@every_transform
def test_shapes_are_kept(transform):
    assert transform(np.full((2, 3), 0.5)).shape == (2, 3)
    assert np.shape(transform(0.5)) == ()


@every_transform
def test_a_bounded_transform_is_finite_at_the_ends_and_another_refuses_them(transform):
    assert np.isfinite(transform(U[1:-1])).all()
    if transform.bounded:
        assert np.isfinite(transform([0, 1])).all()
        return
    for end in (0, 1):
        with pytest.raises(ValueError) as caught:
            transform([0.5, end])
        message = str(caught.value)
        assert message.startswith("`u` must lie strictly inside (0, 1) because ")
        assert f"got {end} (1 of 2 entries)" in message
        assert 'Calibrate with smoothing="add-half", or choose a bounded transform.' in message


@every_transform
def test_pickle_and_json_bring_the_same_transform_back(transform):
    there = json.dumps(transform.to_json(), allow_nan=False)
    for back in (transform_from_json(json.loads(there)), pickle.loads(pickle.dumps(transform))):
        assert back == transform
        assert back(U[1:-1]).tolist() == transform(U[1:-1]).tolist()


@every_transform
def test_spec_brings_the_same_transform_back(transform):
    if isinstance(transform, Tabulated):  # a table has no one-word form; JSON carries it
        assert transform.spec == "tabulated"
    else:
        assert parse_transform(transform.spec) == transform


@law
@given(sharpness)
def test_spec_keeps_every_digit_of_the_exponent(t):
    assert parse_transform(Exponential(t).spec) == Exponential(t)


def test_json_takes_numpy_numbers():
    assert json.loads(json.dumps(Exponential(np.int64(10)).to_json())) == {
        "kind": "Exponential",
        "t": 10.0,
    }


@every_transform
@pytest.mark.parametrize("value", [3.2, -0.1, float("nan")])
def test_a_raw_reward_in_place_of_a_quantile_is_refused(transform, value):
    with pytest.raises(ValueError) as caught:
        transform([0.5, value])
    assert str(caught.value) == (
        f"`u` must lie in [0, 1]; got {value:g} (1 of 2 entries are outside). "
        "Raw rewards become quantiles with `infalign.quantiles`."
    )


def test_formulas_by_hand():
    assert Identity()([0, 0.25, 1]).tolist() == [0, 0.25, 1]
    np.testing.assert_allclose(Log()([1 / np.e, np.exp(-3)]), [-1, -3], rtol=1e-15)
    # 1.959964 is the 97.5 % point of the standard normal.
    np.testing.assert_allclose(Probit()([0.5, 0.975, 0.025]), [0, 1.959964, -1.959964], atol=1e-6)
    # t = log 4: (4^u - 1) / 3 = 0, 1/3, 1 at u = 0, 1/2, 1.
    np.testing.assert_allclose(Exponential(np.log(4))([0, 0.5, 1]), [0, 1 / 3, 1], atol=1e-15)
    # t = -log 4: (1 - 4^-u) · 4/3 = 0, 2/3, 1.
    np.testing.assert_allclose(Exponential(-np.log(4))([0, 0.5, 1]), [0, 2 / 3, 1], atol=1e-15)


@law
@given(st.floats(-30, 30).filter(lambda t: abs(t) > 1e-3))
def test_the_exponential_is_its_formula(t):
    # Written with e^{tu} - 1, so cancellation costs 1e-16 / t here and not there.
    expected = (np.exp(t * U) - 1) / (np.exp(t) - 1)
    np.testing.assert_allclose(Exponential(t)(U), expected, atol=1e-12)


@law
@given(sharpness)
def test_the_exponential_runs_from_0_to_1_and_its_mirror_image_is_the_other_sign(t):
    values = Exponential(t)(U)
    assert values[[0, -1]].tolist() == [0, 1]
    np.testing.assert_allclose(1 - Exponential(-t)(1 - U), values, atol=1e-12)


@pytest.mark.parametrize("t", [0.0, 1e-300, -1e-300, 1e-12, -1e-12])
def test_the_exponential_becomes_the_identity_at_zero(t):
    np.testing.assert_allclose(Exponential(t)(U), U, atol=1e-12)


@pytest.mark.parametrize("t", [-10.0, -0.5, 0.5, 10.0])
def test_paper_beta_gives_the_same_policy(t):
    # The exponents may differ by a constant only, so compare them as differences from u = 0.
    beta = 0.3
    paper = np.sign(t) * np.exp(t * U) / Exponential(t).paper_beta(beta)
    np.testing.assert_allclose(paper - paper[0], Exponential(t)(U) / beta, atol=1e-12)


def test_a_table_passes_through_its_points_without_overshoot():
    table = Tabulated((0, 0.3, 0.9, 1), (-2, 0, 0, 5))
    np.testing.assert_allclose(table([0, 0.3, 0.6, 0.9, 1]), [-2, 0, 0, 0, 5], atol=1e-15)
    np.testing.assert_allclose(Tabulated((0, 0.2, 1), (1, 1.4, 3))(U), 1 + 2 * U, atol=1e-14)


@law
@given(st.lists(st.floats(0, 100), min_size=1, max_size=12))
@example([0.0, 5e-324])  # a step whose inverse overflows
def test_a_table_never_decreases(steps):
    phi = np.cumsum([0, *steps])
    table = Tabulated(tuple(np.linspace(0, 1, phi.size)), tuple(phi))
    assert (np.diff(table(np.linspace(0, 1, 1001))) >= -1e-12 * phi[-1]).all()


def test_a_table_made_of_arrays_equals_one_made_of_tuples():
    table = Tabulated(np.array([0, 0.5, 1]), np.array([0, 1, 2]))
    assert table == Tabulated((0.0, 0.5, 1.0), (0.0, 1.0, 2.0))
    assert len({table, Tabulated((0, 0.5, 1), (0, 1, 2))}) == 1


@pytest.mark.parametrize(
    ("u", "phi", "message"),
    [
        ((0, 1), (0, 1, 2), r"`u` and `phi` must be lists of one length.*\(2,\) and \(3"),
        ((0,), (0,), r"`u` and `phi` must be lists of one length, at least 2"),
        ((0.1, 1), (0, 1), r"`u` must increase from 0 to 1, .*; got 0\.1 … 1 with 0 of 1 steps"),
        ((0, 0.9), (0, 1), r"`u` must increase from 0 to 1, .*; got 0 … 0\.9 with 0 of 1 steps"),
        ((0, 0.5, 0.4, 1), (0, 1, 2, 3), r"`u` must increase .* with 1 of 3 steps that go down"),
        ((0, float("nan"), 1), (0, 1, 2), r"`u` must increase from 0 to 1"),
        ((0, 1), (1, 0), r"`phi` must be finite and must not decrease; 0 values .* 1 steps go"),
        ((0, 1), (-float("inf"), 0), r"`phi` must be finite and must not decrease; 1 values"),
        ((0, 1), (0, float("nan")), r"`phi` must be finite and must not decrease; 1 values"),
    ],
)
def test_a_table_that_is_none_is_refused(u, phi, message):
    with pytest.raises(ValueError, match=message):
        Tabulated(u, phi)


@pytest.mark.parametrize("t", [float("nan"), float("inf"), "10", None, True])
def test_the_exponent_must_be_a_number(t):
    with pytest.raises(ValueError, match=f"`t` must be a finite number; got {t!r}"):
        Exponential(t)


@pytest.mark.parametrize("text", ["", "exp", "exponential", "exponential:x", "log:2", "tabulated"])
def test_an_unknown_transform_is_refused_with_the_known_ones(text):
    with pytest.raises(ValueError) as caught:
        parse_transform(text)
    assert str(caught.value) == (
        f"`transform` must be identity, log, probit, exponential:T or power:A; got {text!r}."
    )


@pytest.mark.parametrize(
    "data",
    [
        {},
        {"kind": "Nothing"},
        {"kind": "Exponential"},
        {"kind": "Exponential", "t": 1.0, "u": 2},
        {"t": 1.0},
    ],
)
def test_json_of_something_else_is_refused(data):
    with pytest.raises(ValueError) as caught:
        transform_from_json(data)
    assert str(caught.value) == (
        "`data` must be a transform written by `to_json` "
        f"(Exponential, Identity, Log, Power, Probit, Tabulated); got {str(data)!r}."
    )


def test_an_argument_out_of_range_is_named():
    with pytest.raises(ValueError, match="`t` must be a finite number; got nan"):
        parse_transform("exponential:nan")
    with pytest.raises(ValueError, match="`a` must be above 0; got 0"):
        parse_transform("power:0")


# --- Averages: what an atom is worth. ---


@every_transform
@law
@given(st.floats(0, 1), st.floats(0, 1))
def test_the_integral_is_that_of_the_transform(transform, a, b):
    low, high = sorted([a, b])
    nodes, weights = np.polynomial.legendre.leggauss(40)
    # Towards the ends, where logarithms are steep, pieces shrink geometrically.
    pieces = np.unique(
        np.clip(
            [
                low,
                *np.geomspace(1e-18, 0.5, 60),
                *(1 - np.geomspace(1e-16, 0.5, 60)),
                0.3,
                0.9,
                high,
            ],
            low,
            high,
        )
    )
    expected = sum(
        weights @ transform(np.clip(x + (1 + nodes) / 2 * (y - x), 1e-300, 1 - 1e-16)) * (y - x) / 2
        for x, y in pairwise(pieces)
    )
    area = float(transform.integral(high) - transform.integral(low))
    assert area == pytest.approx(float(expected), abs=1e-7)


@every_transform
def test_an_average_over_nothing_is_the_value(transform):
    u = np.linspace(0.05, 0.95, 7)
    np.testing.assert_allclose(transform.average(u, u), transform(u), rtol=1e-14)


def test_averages_by_hand():
    # ∫₀¹ u = 1/2; ∫₀¹ log u = -1; the normal quantile's mean over its upper half is √(2/π).
    assert Identity().average([0, 0.5], [1, 1]).tolist() == [0.5, 0.75]
    assert Log().average(0, 1) == -1
    assert Probit().average(0.5, 1) == pytest.approx(np.sqrt(2 / np.pi))
    assert Power(3).average(0, 1) == 0.25


def test_an_interval_the_wrong_way_round_is_refused():
    with pytest.raises(ValueError, match=r"`high` must not lie below `low`; got \[0.5, 0.25\] "):
        Identity().average([0, 0.5], [1, 0.25])


def test_a_table_may_jump():
    table = Tabulated((0, 0.5, 0.5, 1), (0, 1, 3, 4))
    assert table([0, 0.25, 0.499999, 0.5, 0.75]).tolist() == pytest.approx(
        [0, 0.5, 1, 3, 3.5], abs=1e-5
    )
    assert table.integral(1.0) == pytest.approx(0.25 + 1.75)
    assert table.jumps == (0.5,)
    assert transform_from_json(json.loads(json.dumps(table.to_json()))) == table


def test_a_table_may_fall_only_when_it_is_said():
    with pytest.raises(ValueError, match="1 steps go down"):
        Tabulated((0, 0.5, 0.5, 1), (0, 3, 1, 4))
    table = Tabulated((0, 0.5, 0.5, 1), (0, 3, 1, 4), increasing=False)
    assert table([0.499999, 0.5]).tolist() == pytest.approx([3, 1], abs=1e-4)
