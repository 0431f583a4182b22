"""Words are tested too: the README's code runs, commands exist, public names explain themselves."""

import inspect
import re
from pathlib import Path

import pytest
import yaml

import infalign as ia
from infalign.cli.run import describe
from infalign.config import parse_config

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.S)


def test_the_python_of_the_readme_runs_and_prints_what_it_says(capsys):
    code = "\n".join(blocks("python"))
    exec(compile(code, "README.md", "exec"), {})
    said = re.findall(r"print\(.*\)\s+# (.+)", code)
    assert capsys.readouterr().out.split() == said


def test_the_configuration_of_the_readme_is_valid():
    assert parse_config(yaml.safe_load(blocks("yaml")[0])).train.lora == 16


def test_the_design_command_of_the_readme_runs(cli):
    command = next(line for line in README.splitlines() if line.startswith("infalign design"))
    code, out, _ = cli(*command.split()[1:])
    assert code == 0 and "optimal" in out and "0.9299" in out


def test_every_file_in_the_map_exists():
    tree = README[README.index("## Map") :]
    for name in re.findall(r"^[├└]── (\S+)", tree, re.M):
        assert (ROOT / "src/infalign" / name).exists(), name


def test_every_public_name_is_documented():
    for name in dir(ia):
        value = getattr(ia, name)
        if not name.startswith("_") and (inspect.isclass(value) or inspect.isfunction(value)):
            assert inspect.getdoc(value), name


def test_every_key_of_the_configuration_has_a_sentence():
    assert [line for line in describe() if line.endswith("None")] == []


@pytest.mark.parametrize(
    "command", ["demo", "run", "design", "explore", "calibrate", "evaluate", "report"]
)
def test_every_command_explains_itself(command, cli):
    code, out, _ = cli(command, "--help")
    assert code == 0 and ("--procedure" if command == "design" else "--out") in out
