"""The first hour of a user, small: see trial.py, which tries every form."""

from trial import FORMS, trial


def test_the_first_hour_goes_as_a_user_expects(runs, tmp_path):
    trial(tmp_path, FORMS[1], runs, say=lambda words: None)
