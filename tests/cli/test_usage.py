"""Errors of the library reach the command line as errors of its options."""

import os
import pickle

import pytest

from infalign import _check
from infalign.cli.app import WAITING, yield_cores
from infalign.errors import ArgumentError


def test_an_argument_error_names_its_argument_and_survives_a_pickle():
    with pytest.raises(ArgumentError) as caught:
        _check.count("n", 0)
    error = pickle.loads(pickle.dumps(caught.value))
    assert (error.argument, error.problem) == (
        "n",
        "must be a whole number of at least 1; got 0.",
    )
    assert str(error) == f"`n` {error.problem}"


CHECKS = {
    "count": lambda name: _check.count(name, 0),
    "positive": lambda name: _check.positive(name, -1.0),
    "real": lambda name: _check.real(name, "1"),
    "instance": lambda name: _check.instance(name, 1, str, "a text"),
    "one_of": lambda name: _check.one_of(name, "c", ["a", "b"]),
    "numbers": lambda name: _check.numbers(name, "a"),
    "unit_interval": lambda name: _check.unit_interval(name, [2.0]),
    "open_unit_interval": lambda name: _check.open_unit_interval(name, [0.0], "log is infinite"),
    "finite_matrix": lambda name: _check.finite_matrix(name, []),
}


@pytest.mark.parametrize("check", CHECKS)
def test_every_check_of_one_argument_carries_its_name(check):
    with pytest.raises(ArgumentError) as caught:
        CHECKS[check]("thing")
    assert caught.value.argument == "thing" and str(caught.value).startswith("`thing` must ")


@pytest.mark.parametrize("name", [None, *WAITING])
def test_threads_wait_asleep_unless_the_user_decides_otherwise(monkeypatch, name):
    monkeypatch.setattr("os.environ", {} if name is None else {name: "mine"})
    yield_cores()
    assert os.environ == (WAITING if name is None else {name: "mine"})


def test_a_process_of_a_launcher_with_others_says_what_uses_several_gpus(cli, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert cli("--version")[0] == 0  # set for the machines of a job, not by a launcher here
    monkeypatch.setenv("LOCAL_RANK", "1")
    code, out, error = cli("design", "--n", "4", "--kl", "0.5")
    assert (code, out) == (1, "") and "one of 2 (WORLD_SIZE). Start it without torchrun" in error
    monkeypatch.setenv("WORLD_SIZE", "1")
    assert cli("--version")[0] == 0
