"""`infalign design`: what scripts and readers rely on."""

import json
import re
import subprocess
import sys

import numpy as np
import pytest
from matplotlib.image import imread
from scipy.special import ndtri

import infalign as ia
from infalign.cli.design import DEFAULTS, GOOD_ENOUGH, HELP
from infalign.config import Config

CONTRACT = {"procedure", "against", "kl", "beta", "win_rate", "gap", "candidates"}
ADDED = {"certificate", "samples", "stderr", "recommended", "recommended_samples"}
ADVICE = {"recommended_win_rate", "recommended_loss"}


@pytest.fixture
def design(cli):
    """The command's JSON."""

    def call(*arguments):
        code, out, errors = cli("design", *arguments, "--json")
        assert code == 0, errors
        return json.loads(out)

    return call


@pytest.fixture
def refused(cli):
    """Exit code and message, unwrapped, of a command that fails."""

    def call(*arguments):
        code, out, errors = cli("design", *arguments)
        assert out == ""
        return code, " ".join(re.sub("[│╭╮╰╯─]", " ", errors).split())

    return call


def names(data):
    return [c["transform"] for c in data["candidates"]]


def test_the_example_of_the_help_runs(cli):
    code, out, _ = cli("design", "--help")
    example = re.search(r"Example: infalign (.*)", HELP)[1]
    assert code == 0 and example in out
    code, out, _ = cli(*example.split())
    assert code == 0 and "0.8733" in out


def test_the_json_has_the_keys_that_scripts_rely_on(design):
    data = design("--procedure", "best-of-n:4", "--kl", 0.5)
    assert set(data) == CONTRACT | ADDED | ADVICE
    assert data["procedure"] == data["against"] == "best-of-n:4"
    assert round(data["win_rate"], 4) == 0.8733 and data["gap"] < 1e-9
    assert "concave" in data["certificate"] and data["samples"] is None and data["stderr"] == 0
    assert len(data["candidates"]) == len(DEFAULTS)
    for candidate in data["candidates"]:
        assert set(candidate) == {
            *("transform", "kl", "win_rate", "stderr", "loss", "good_enough", "beta"),
        }
        assert abs(candidate["win_rate"] + candidate["loss"] - data["win_rate"]) < 1e-12
        assert candidate["good_enough"] == (candidate["loss"] <= GOOD_ENOUGH)


def test_the_numbers_are_those_of_the_library(design):
    data = design(*"--procedure worst-of-n:4 --against sampling --beta 0.3 --transform log".split())
    best = ia.design(ia.WorstOfN(4), beta=0.3, against=ia.Sampling())
    (log,) = ia.compare(ia.WorstOfN(4), [ia.Log()], kl=best.kl, against=ia.Sampling())[1:]
    assert (data["kl"], data["beta"], data["win_rate"]) == (best.kl, 0.3, best.win_rate)
    assert data["candidates"][0]["win_rate"] == log.win_rate and data["against"] == "sampling"


def test_several_budgets_are_as_many_single_ones(design):
    command = ["--procedure", "best-of-n:4", "--transform", "exponential:best", "--kl", 0.1]
    both = design(*command, "--kl", 1)
    assert set(both) == {"procedure", "against", "budgets"}
    first, second = both["budgets"]
    assert first == design(*command) and second["kl"] == pytest.approx(1)
    assert names(first) != names(second), "each budget has its own best t"


@pytest.mark.parametrize(("name", "family"), [("exponential", "exponential"), ("power", "power")])
def test_best_is_the_familys_best_member(design, name, family):
    data = design("--procedure", "best-of-n:8", "--kl", 0.5, "--transform", f"{name}:best")
    (best,) = data["candidates"]
    value = float(best["transform"].removeprefix(f"{family}:"))
    near = [f"{family}:{value * factor}" for factor in (0.8, 1.25)]
    others = design(
        *("--procedure", "best-of-n:8", "--kl", 0.5),
        *(word for n in near for word in ("--transform", n)),
    )
    assert all(c["win_rate"] < best["win_rate"] for c in others["candidates"])


def test_raw_rewards_of_a_file_stand_beside_the_transforms(design, tmp_path):
    np.save(tmp_path / "normal.npy", ndtri((np.arange(4000) + 0.5) / 4000))
    path = f"raw:{tmp_path / 'normal.npy'}"
    command = ["--procedure", "best-of-n:4", "--kl", 0.5, "--transform", path]
    raw, probit = design(*command, "--transform", "probit")["candidates"]
    assert raw["transform"] == path and abs(raw["win_rate"] - probit["win_rate"]) < 5e-4
    # Plain RLHF uses no calibration, so few samples cost it nothing.
    few = design(*command, "--samples", 8)
    assert abs(few["candidates"][0]["win_rate"] - raw["win_rate"]) < 1e-9
    assert few["recommended"] == "optimal", "raw reward is no transform a run could train on"


def test_few_samples_give_expectations_with_errors(design):
    command = ["--procedure", "best-of-n:4", "--kl", 0.5, "--transform", "exponential:10"]
    data = design(*command, "--samples", 32)
    (candidate,) = data["candidates"]
    assert abs(candidate["win_rate"] - 0.848) < 0.002 and 0 < candidate["stderr"] < 0.002
    assert data["samples"] == 32 and data["gap"] is None and data["stderr"] > 0
    needed = data["samples_needed"]
    short = [
        design(*command)["candidates"][0]["win_rate"]
        - design(*command, "--samples", k)["candidates"][0]["win_rate"]
        for k in (needed, needed // 2)
    ]
    assert short[0] <= GOOD_ENOUGH < short[1]


@pytest.mark.parametrize(
    ("command", "recommended"),
    [
        ("--procedure sampling --kl 0.5", "identity"),
        ("--procedure best-of-n:4 --kl 0.5 --transform identity", "optimal"),
        ("--procedure best-of-n:4 --kl 0.5 --transform log --transform power:12", "power:12"),
    ],
)
def test_the_last_line_is_a_command_that_a_run_accepts(cli, command, recommended):
    code, out, _ = cli("design", *command.split())
    last = out.splitlines()[-1]
    assert code == 0 and last.startswith("Next: infalign run config.yaml ")
    given = dict(word.split("=") for word in last.split()[4:])
    assert given["transform"] == recommended and given["kl"] == "0.5"
    Config.model_validate({"model": "m", "reward": "r", "prompts": {"file": "p.jsonl"}, **given})


def test_the_table_marks_what_is_good_enough_and_says_what_that_means(cli):
    code, out, _ = cli("design", "--procedure", "best-of-n:4", "--kl", 0.5)
    marked = {line.split()[1]: "✓" in line for line in out.splitlines() if line.startswith("│")}
    assert code == 0 and marked["exponential:10"] and not marked["probit"]
    assert "Good enough: within 0.5 points of the best possible." in out
    assert "Certified: no policy" in out


SPECS = [
    *("sampling", "best-of-n:3", "worst-of-n:3", "order-statistic:3:2", "best-of-poisson:2.5"),
    *("soft-best-of-n:3:0.2", "rewind:0.8:4", "mixture:0.5*best-of-n:2+0.5*worst-of-n:2"),
]


@pytest.mark.parametrize("spec", SPECS)
def test_every_procedure_has_a_table(cli, spec):
    command = ["--kl", 0.3, "--transform", "identity", "--transform", "power:3"]
    code, out, errors = cli("design", "--procedure", spec, *command)
    assert code == 0, errors
    assert out.startswith(f"{spec} against {spec}") and out.splitlines()[-1].startswith("Next")


def test_what_is_not_for_a_run_is_said_in_python_that_works(cli):
    _, out, _ = cli(*"design --procedure rewind:0.8:4 --against sampling --kl 0.3".split())
    code = out.splitlines()[-1].removeprefix("Next, in Python: ")
    assert eval(code, {name: getattr(ia, name) for name in ia.__all__}).spec == "tabulated"


@pytest.mark.parametrize("options", [[], ["--samples", 4], ["--against", "sampling"]], ids=str)
def test_the_plot_is_a_picture(cli, tmp_path, options):
    picture = tmp_path / "new" / "plot.png"
    command = ["--procedure", "worst-of-n:2", "--kl", 0.2, "--kl", 0.4, "--transform", "probit"]
    code, _, errors = cli("design", *command, *options, "--plot", picture)
    assert code == 0, errors
    assert imread(picture).std() > 0.01


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ("--procedure best-of-n:0 --kl 1", "--procedure: `n` must be a whole number"),
        ("--procedure best --kl 1", "--procedure: must be sampling, best-of-n:N"),
        ("--procedure sampling --against 4 --kl 1", "--against: must be sampling, best-of-n:N"),
        ("--procedure sampling", "--kl / --beta: give exactly one"),
        ("--procedure sampling --kl 1 --beta 1", "--kl / --beta: give exactly one"),
        ("--procedure sampling --kl 1 --kl -2", "--kl: must be above 0; got -2."),
        ("--procedure sampling --kl nan", "--kl: must be a finite number; got nan."),
        ("--procedure sampling --beta 0", "--beta: must be above 0; got 0."),
        ("--procedure sampling --kl 1 --samples 0", "--samples: must be a whole number"),
        ("--procedure sampling --kl 1 --transform best", "--transform: must be identity, log"),
        ("--procedure sampling --kl 1 --transform power:-1", "--transform: `a` must be above 0"),
        ("--procedure rewind:0.9:4 --kl 1 --samples 8", "--samples: needs a procedure that"),
    ],
)
def test_wrong_usage_exits_2_and_names_the_option(refused, options, words):
    code, message = refused(*options.split())
    assert code == 2 and f"Invalid value for {words}" in message


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ("--procedure sampling --kl 3 --samples 4", "Use more samples, or a smaller kl"),
        ("--procedure sampling --kl 1 --transform raw:none.txt", "--transform raw:none.txt: none"),
    ],
)
def test_what_cannot_be_done_exits_1_with_one_message(refused, options, words):
    code, message = refused(*options.split())
    assert code == 1 and words in message and "Traceback" not in message


def test_raw_rewards_under_a_procedure_that_reads_quantiles(refused, tmp_path):
    (tmp_path / "r.txt").write_text("1\n2\n3\n")
    code, message = refused(
        *("--procedure", "rewind:0.9:4", "--kl", 0.5, "--transform", f"raw:{tmp_path / 'r.txt'}")
    )
    assert code == 2 and "--procedure: must" in message and "by rank" in message


def test_design_loads_no_training_library():
    command = ["design", "--procedure", "sampling", "--kl", "1"]
    code = (
        f"import sys; from infalign.cli.app import main; sys.argv[1:] = {command}\n"
        "main.__globals__['application'](sys.argv[1:])(sys.argv[1:], standalone_mode=False)\n"
        "print({'torch', 'transformers'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "set()"


@pytest.mark.parametrize(
    "command", ["best-of-n:4 --kl 0.5", "best-of-n:16 --kl 0.3", "worst-of-n:4 --kl 0.5"]
)
def test_the_recommendation_is_for_the_samples_that_a_run_draws(design, cli, command):
    words = ["--procedure", *command.split()]
    of_a_run = Config.model_fields["calibration"].annotation().samples
    plain, few = design(*words), design(*words, "--samples", of_a_run)
    assert plain["samples"] is None and plain["recommended_samples"] == of_a_run == 64
    rates = {row["transform"]: row["win_rate"] for row in few["candidates"]}
    rates["optimal"] = few["win_rate"]
    if plain["recommended"] in rates:
        assert few["win_rate"] - rates[plain["recommended"]] <= GOOD_ENOUGH
        assert plain["recommended_win_rate"] == pytest.approx(rates[plain["recommended"]], abs=2e-3)
    assert plain["recommended_loss"] <= GOOD_ENOUGH
    code, out, _ = cli("design", *words)
    said = " ".join(out.split())
    assert code == 0 and "Recommended for K = 64 calibration samples per prompt" in said
    assert f"the default of a run: {plain['recommended']} (" in said


@pytest.mark.parametrize(
    "words", ["rewind:0.8:4 --against sampling --kl 0.3", "sampling --kl 4.9 --transform log"]
)
def test_without_a_theory_for_few_samples_the_recommendation_is_for_exact_quantiles(design, words):
    data = design("--procedure", *words.split())
    assert data["recommended_samples"] is None and "recommended_loss" not in data
