"""A run folder that is calibrated and designed, and its policy's text."""

import framework_run as given
import pytest

from infalign.frameworks.prompt_text import PolicyText


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return given.make_run(tmp_path_factory.mktemp("frameworks") / "run")


@pytest.fixture(scope="module")
def text():
    return PolicyText(given.model_folder())


@pytest.fixture
def calls():
    given.CALLS.clear()
    return given.CALLS
