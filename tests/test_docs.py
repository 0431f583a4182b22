"""Words are tested too: the README's code runs, commands exist, public names explain themselves."""

import inspect
import re
import runpy
from types import SimpleNamespace

import numpy as np
import pytest
import yaml
from pages import ROOT, python_blocks
from test_layers import LEVELS

import infalign as ia
from infalign.cli.run import describe
from infalign.config import parse_config

PRIVATE = {"__init__", "__main__", "_moved"}
make = SimpleNamespace(**runpy.run_path(str(ROOT / "docs/make.py")))
README = (ROOT / "README.md").read_text()


PAGES = [
    "CONTRIBUTING.md",
    "docs/maths.md",
    "docs/how-to-choose.md",
    "docs/analyze.md",
    "docs/evaluating.md",
    "docs/calibration.md",
    "docs/stores.md",
    "docs/training.md",
    "docs/first-run.md",
    "docs/frameworks.md",
]


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.S)


@pytest.mark.parametrize("page", PAGES)
def test_the_python_of_a_page_runs_and_prints_what_it_says(page, capsys):
    names: dict = {}
    blocks = python_blocks(page)
    assert blocks
    for code, shown in blocks:
        exec(compile(code, page, "exec"), names)
        assert capsys.readouterr().out == shown, code


@pytest.mark.filterwarnings("ignore")  # of TRL and transformers
def test_the_python_of_the_readme_designs_and_learns(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (design, shown), (training, _) = python_blocks("README.md")
    names: dict = {}
    exec(compile(design, "README.md", "exec"), names)
    assert capsys.readouterr().out == shown
    exec(compile(training, "README.md", "exec"), names)
    rates, low = (
        [row[f"infalign/win_rate{end}"] for row in names["measured"]] for end in ("", "_low")
    )
    assert low[1] > rates[0] + 0.1  # it learns: the interval lies above
    words = README.partition("# before and after: ")[2].partition("\n")[0]
    stated = [int(number) / 100 for number in re.findall(r"(\d+)%", words)]
    # Other processors round differently, and then draw other responses.
    assert rates == pytest.approx(stated, abs=0.1)


def test_the_commands_of_the_readme_on_bundled_models_run(cli, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = "".join(blocks("bash")).replace("\\\n", "")  # a command may go on in the next line
    lines = [line.partition("#")[0] for line in text.splitlines()]
    ran = 0
    for line in lines:
        if line.startswith(("infalign evaluate", "infalign red-team", "infalign explore")):
            # The policy of the demo, which takes a minute to train, is the reference here.
            words = line.replace("runs/demo/train/rloo/model", "bundled:language-model")
            code, _, errors = cli(*words.split()[1:], *FEWER.get(words.split()[1], []))
            assert code == 0, (line, errors)
            ran += 1
    assert ran == 3
    assert all(line.split()[1] in COMMANDS for line in lines)


FEWER = {
    "evaluate": ["--samples", "8", "--max-new-tokens", "4", "--kl-samples", "1"],
    "red-team": ["--max-new-tokens", "4"],
}
COMMANDS = {command.split()[1] for command, _ in make.commands()}


def test_every_command_of_the_guide_runs(cli, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    guide = (ROOT / "docs/how-to-choose.md").read_text()
    commands = re.findall(r"^infalign (.+?)(?: +#.*)?$", guide, re.M)
    assert len(commands) >= 3
    for command in commands:
        if "--samples" in command:  # takes seconds; tested with few of them elsewhere
            continue
        code, out, _ = cli(*command.split())
        assert code == 0 and out, command


def test_the_guide_says_what_its_table_of_raw_rewards_says():
    guide = (ROOT / "docs/how-to-choose.md").read_text()
    table = guide[guide.index("```text\nraw reward, 0.5 nats") :]
    rows = re.findall(r"^(\w.*?)  +([\d.]+) +([\d.]+) +([\d.]+) +([\d.]+)$", table, re.M)
    wins = {name: np.array(own, float) for name, *own in rows[:6]}
    normal, _, right, left, saturated = (wins["optimum"] - own for own in list(wins.values())[:5])
    words = " ".join(guide.split())
    assert list(wins)[2:5] == [
        "long right tail (exponential)",
        "long left tail (exponential)",
        "saturated, sigmoid(3 z + 3)",
    ]
    for said in (
        f"The wrong tail costs {left[1]:.1f} to {right[3]:.1f} points.",
        f"costs {saturated[1]:.1f} to {saturated[2]:.1f} points under best-of-n, and "
        f"{saturated[3]:.1f} under worst-of-n",
        f"gains {right[1]:.1f} points over a raw reward with an exponential right tail, "
        f"{normal[1]:.1f} over a normal one and {left[1]:.1f} over one with a left tail",
    ):
        assert said in words


@pytest.mark.parametrize("page", ["README.md", *(f"docs/{p.name}" for p in ROOT.glob("docs/*.md"))])
def test_no_paragraph_says_a_sentence_twice(page):
    text = re.sub(r"```.*?```", "", (ROOT / page).read_text(), flags=re.S)
    for paragraph in re.split(r"\n\s*\n", text):
        sentences = [" ".join(s.split()) for s in re.split(r"(?<=[.:])\s+", paragraph)]
        long = [s for s in sentences if len(s) > 30]
        assert len(set(long)) == len(long), paragraph


@pytest.mark.parametrize("page", ["README.md", *(f"docs/{p.name}" for p in ROOT.glob("docs/*.md"))])
def test_links_between_pages_lead_somewhere(page):
    for target in re.findall(r"\]\((?!https?:)([^)]+)\)", (ROOT / page).read_text()):
        name, _, anchor = target.partition("#")
        file = (ROOT / page).parent / name if name else ROOT / page
        assert file.exists(), target
        if anchor:
            titles = re.findall(r"^#+ (.+)$", file.read_text(), re.M)
            assert anchor in [re.sub(r"[^\w\- ]", "", t.lower()).replace(" ", "-") for t in titles]


def test_the_configuration_of_the_readme_is_valid():
    assert parse_config(yaml.safe_load(blocks("yaml")[0])).train.lora == 16


def test_the_design_command_of_the_readme_runs(cli):
    command = next(line for line in README.splitlines() if line.startswith("infalign design"))
    code, out, _ = cli(*command.partition("#")[0].split()[1:])
    assert code == 0 and "optimal" in out and "0.9299" in out


def test_the_map_names_every_public_module_and_no_other():
    tree = README[README.index("## Map") :]
    lines = re.findall(r"^[├└]── (.+)", tree, re.M)
    mapped = [n for line in lines for n in re.match(r"[\w/.]+(, [\w.]+)*", line)[0].split(", ")]
    package = ROOT / "src/infalign"
    files = {f.name for f in package.glob("*.py") if not f.name.startswith("_")}
    folders = {f"{f.parent.name}/" for f in package.glob("[!_]*/__init__.py")}
    assert sorted(mapped) == sorted(files | folders)


def test_the_readme_is_short():
    assert len(README.splitlines()) <= 135


def test_the_reference_lists_every_command_and_every_public_name():
    # `make reference` writes the page; its wording may lag behind, its names may not.
    page = (ROOT / "docs/reference.md").read_text()
    listed = re.findall(r"^\| `(.+?)` \| (.*) \|$", page, re.M)
    written = re.findall(r"^\| `(.+?)` \| (.*) \|$", make.reference(), re.M)
    assert [name for name, _ in listed] == [name for name, _ in written]
    assert all(sentence for _, sentence in written)


def test_the_layers_of_the_guide_are_those_that_are_checked():
    table = (ROOT / "CONTRIBUTING.md").read_text().split("## Layers")[1].split("\n## ")[0]
    rows = re.findall(r"^\| (\d+) \| (.+?) \|", table, re.M)
    stated = {int(level): set(re.findall(r"`(\w+)`", units)) for level, units in rows}
    assert stated == {
        level: {u for u in units if u not in PRIVATE}
        for level, units in enumerate(LEVELS)
        if not units <= PRIVATE
    }


def test_every_public_name_is_documented():
    for name in dir(ia):
        value = getattr(ia, name)
        if not name.startswith("_") and (inspect.isclass(value) or inspect.isfunction(value)):
            assert inspect.getdoc(value), name


def test_every_key_of_the_configuration_has_a_sentence():
    assert [line for line in describe() if line.endswith("None")] == []


@pytest.mark.parametrize("command", [command for command, _ in make.commands()])
def test_every_command_explains_itself(command, cli):
    code, out, _ = cli(*command.split()[1:], "--help")
    assert code == 0 and "Usage: infalign" in out and "--help" in out
