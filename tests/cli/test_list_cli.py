"""`infalign list`: every entry of the tables, in a form that its reader reads."""

import json

import pytest
from rich.cells import cell_len

from infalign.calibration.choice import CALIBRATORS
from infalign.config import parse_config
from infalign.core import PROCEDURES, TRANSFORMS, parse_procedure
from infalign.demo import KINDS
from infalign.methods import METHODS
from infalign.models.specs import ModelSpec

GIVEN = {"model": "m", "reward": "r", "prompts": {"file": "p"}, "kl": 0.5}
NAMES = {
    "methods": set(METHODS),
    "procedures": {e.name for e in PROCEDURES.values() if e.form} | {"majority-vote"},
    "transforms": {e.name for e in TRANSFORMS.values() if e.form} | {"optimal"},
    "calibrators": {*CALIBRATORS, "auto"},
    "rewards": {f"bundled:{name}" for name in KINDS["reward"]}
    | {"file", "module", "classifier", "server"},
}


def read(what, example):
    """Read an example as a run reads it."""
    match what:
        case "methods":
            parse_config(GIVEN | {"train": {"method": example, "group": 32}})
        case "procedures" if not example.startswith("majority-vote"):
            assert parse_procedure(example).spec == example
        case "transforms":
            parse_config(GIVEN | {"transform": example})
        case "calibrators":
            parse_config(GIVEN | {"calibration": {"calibrator": example}})
        case "rewards":
            ModelSpec.parse(example)


@pytest.mark.parametrize("what", NAMES)
def test_every_entry_is_listed_with_an_example_that_is_read(cli, what):
    code, out, _ = cli("list", what, "--json")
    rows = json.loads(out)
    assert code == 0 and {row["name"] for row in rows} == NAMES[what]
    for row in rows:
        assert row["meaning"][0] != " " and "\n" not in row["meaning"] and row["form"]
        read(what, row["example"])


@pytest.mark.parametrize("columns", [40, 80, 200])
@pytest.mark.parametrize("what", NAMES)
def test_every_form_and_example_is_whole_and_lines_fit_the_terminal(
    cli, monkeypatch, what, columns
):
    monkeypatch.setenv("COLUMNS", str(columns))
    rows = json.loads(cli("list", what, "--json")[1])
    code, shown, _ = cli("list", what)
    assert code == 0
    for row in rows:
        assert row["form"] in shown and row["example"] in shown
        assert " ".join(row["meaning"].split()) in " ".join(shown.split()) or columns == 40
    whole = [row["form"] for row in rows]
    for line in shown.splitlines():
        assert cell_len(line.rstrip()) <= columns or line.startswith(tuple(whole))


def test_another_word_is_refused_with_what_can_be_listed(cli):
    code, _, errors = cli("list", "models")
    assert code == 2 and "'methods', 'procedures'" in errors
