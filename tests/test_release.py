"""One version: the package states it; the changelog and the citation name the last release."""

import re
import tomllib
from datetime import date

import yaml
from packaging.version import Version
from pages import ROOT

import infalign

CHANGELOG = (ROOT / "CHANGELOG.md").read_text()
SECTIONS = re.findall(r"^## (.+)\n(?s:(.*?))(?=^## |\Z)", CHANGELOG, re.M)
RELEASES = re.findall(r"^## (\d+\.\d+\.\d+) \((\d{4}-\d\d-\d\d)\)$", CHANGELOG, re.M)


def test_the_version_is_stated_in_the_package_only():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert "version" not in project["project"] and project["project"]["dynamic"] == ["version"]
    stated = ROOT / project["tool"]["hatch"]["version"]["path"]
    assert f'__version__ = "{infalign.__version__}"' in stated.read_text()


def test_releases_are_dated_and_the_newest_comes_first():
    titles = [title for title, _ in SECTIONS]
    assert titles[titles[0] == "Unreleased" :] == [f"{v} ({day})" for v, day in RELEASES]
    dates = [(Version(version), date.fromisoformat(day)) for version, day in RELEASES]
    assert dates and dates == sorted(dates, reverse=True)


def test_the_version_is_the_last_release_or_prepares_the_next():
    (title, text), last, ours = SECTIONS[0], Version(RELEASES[0][0]), Version(infalign.__version__)
    if title == "Unreleased" and text.strip():
        assert ours.is_devrelease and ours > last
    else:
        assert ours == last


def test_the_citation_names_the_last_release():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert (citation["version"], str(citation["date-released"])) == RELEASES[0]
