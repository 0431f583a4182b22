"""`infalign init`: a commented configuration for what is here, and a reward function to edit."""

import logging
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any

import typer

from infalign import _check, storage
from infalign._check import visible
from infalign.config import load_config, parse_config
from infalign.core import PROCEDURES, RankProcedure
from infalign.errors import ArgumentError, ConfigError, DataError
from infalign.models.specs import ModelSpec
from infalign.prompts import RunPrompts, run_prompts
from infalign.prompts.columns import UnclearColumnError

from .candidates import Candidates, candidates, read_model_config
from .first_config import RUN, configuration, reward_function

HELP = (
    "Write a commented configuration for what is in this folder, and a reward function to edit.\n\n"
    "It looks for models, rewards (classifiers, and Python functions that take `completions`) and "
    "prompts in this folder and two levels below, and asks for everything that the options "
    "leave open. With --yes it asks nothing: it takes the only candidate, or the demo's model and "
    "prompts if there is none. It overwrites no file.\n\n"
    "Example: infalign init --yes --model Qwen/Qwen2.5-0.5B-Instruct --prompts bundled:helpful"
)
NEW = "new"
"""The answer that asks for a reward function to edit."""

MODEL, PROMPTS, PROCEDURE = "bundled:language-model", "bundled:helpful", "best-of-n:4"
SHARES = (0.1, 0.2, 0.3, 0.4, 0.5)
"""Shares of the prompts to hold out: the smallest that holds out `ENOUGH`, else the largest."""

LARGER = (0.6, 0.7, 0.8, 0.9)
"""Shares to hold out of so few prompts that a smaller share holds out none."""

ENOUGH = 32
"""Held-out prompts from which policies can be compared at all."""

NOTES = logging.getLogger("infalign.prompts")
"""The logger that says how prompts were read."""

LARGE = 5e8
"""Size of a model's weights above which adapters are trained, in bytes."""

TRACKERS = ("tensorboard", "trackio", "wandb")
"""What shows a run while it trains, if it is installed."""

ACCOUNT = ("WANDB_API_KEY", "WANDB_MODE")
"""Without one of these, wandb would ask for an account in the middle of a run."""


def init(
    model: Annotated[
        str | None, typer.Option(help="Model to train: a folder, hub id or bundled:language-model.")
    ] = None,
    reward: Annotated[
        str | None,
        typer.Option(help=f"Reward, as the key `reward` takes it, or {NEW}: a function to edit."),
    ] = None,
    prompts: Annotated[
        str | None, typer.Option(help="Prompts file or folder, hub id, or bundled:helpful.")
    ] = None,
    column: Annotated[
        str | None,
        typer.Option(help="Column that holds the prompt. Default: the one with a usual name."),
    ] = None,
    procedure: Annotated[
        str | None,
        typer.Option(
            help="How the policy will be decoded; `infalign list procedures` shows the forms. "
            f"Default: {PROCEDURE}."
        ),
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Ask nothing.")] = False,
    out: Annotated[Path, typer.Option(help="File to write.")] = Path("config.yaml"),
):
    if out.exists():
        raise ConfigError(f"{out} exists and is not overwritten. Name another file with --out.")
    here = candidates(Path.cwd(), column)
    choose = _taken if yes else _asked
    model = model or choose("model", here.models, MODEL, [])
    ModelSpec.parse(model)

    def choose_prompts() -> str:
        unclear = [] if yes else list(here.unclear)
        return choose("prompts", here.prompts + unclear, PROMPTS, _refusals(here, yes))

    source, read = _source(prompts, column, out.parent, choose_prompts, asking=not yes)
    reward = reward or choose("reward", here.rewards, NEW, [])
    ModelSpec.parse(reward)
    procedure = procedure or (PROCEDURE if yes else _asked_procedure())
    _require_by_rank(procedure)

    written = []
    if reward == NEW:
        file = _free(out.parent, ("reward.py", "rewards.py", "my_reward.py", "my_rewards.py"))
        first = read.train[0] if read is not None else None
        text = reward_function(
            file.name,
            out.name,
            first.plain if first else True,
            list(first.columns) if first else [],
        )
        reward = f"{file.name}:score"
        written.append((file, text))
    if read is not None:
        counts = f"{len(read.train)} to train on, {len(read.test)} to evaluate on"
        print(f"{source['file']}: {counts}", file=sys.stderr)
    values = _values(model, reward, source, read, procedure)
    text = configuration(values, out.as_posix())
    written.append((out, text))
    for path, content in written:
        storage.write_text(path, content)
    load_config(out)
    for path, _ in written:
        print(path)
    commands = f"Check it: infalign run {out} --dry-run\nRun it: infalign run {out} --out {RUN}"
    print(commands, file=sys.stderr)


def _asked(what: str, here: Sequence[str], default: str, notes: Sequence[str]) -> str:
    """The user's choice among what is here, or anything else that is typed."""
    for note in notes if not here else ():
        print(note, file=sys.stderr)
    for number, name in enumerate(here, 1):
        print(f"  {number}  {name}", file=sys.stderr)
    while True:
        answer = _ask(QUESTIONS[what], here[0] if here else default)
        if answer.isdecimal() and 0 < int(answer) <= len(here):
            return here[int(answer) - 1]
        if not answer.isdecimal() or Path(answer).exists():
            return answer
        print(
            f"There is no candidate {answer} among the {len(here)} listed. Type the number of one, "
            "or a name.",
            file=sys.stderr,
        )


def _asked_procedure() -> str:
    """The procedure that the user types; one that cannot be used is asked again."""
    while True:
        answer = _ask(QUESTIONS["procedure"], PROCEDURE)
        try:
            _require_by_rank(answer)
        except ArgumentError as error:
            print(error, file=sys.stderr)
        else:
            return answer


QUESTIONS = {
    "model": "Which model do you want to train (number, folder or hub id)?",
    "prompts": "Which prompts (number, file, folder or hub id)?",
    "procedure": "How will the policy be decoded (`infalign list procedures` shows the forms)?",
    "reward": f"Which reward (number, file.py:function, folder, hub id, URL, or {NEW})?",
}


def _taken(what: str, here: Sequence[str], default: str, notes: Sequence[str]) -> str:
    """The one candidate that is here, or the default. Raises ConfigError if there are several."""
    if len(here) > 1:
        raise ConfigError(
            f"There are {len(here)} candidates for `{what}` here: {', '.join(here[:10])}"
            f"{', …' if len(here) > 10 else ''}. Name one with --{what}."
        )
    if here:
        print(f"{what}: {here[0]}", file=sys.stderr)
        return here[0]
    if notes:
        raise DataError("\n".join(notes))
    stands_in = "a function to edit" if default == NEW else f"{default}, of the demonstration"
    print(f"{what}: {stands_in} (there is none here; --{what} names yours)", file=sys.stderr)
    return default


def _refusals(here: Candidates, all_of: bool) -> list[str]:
    """Why no file here can be read as prompts.

    - `all_of`: whether files with an unclear column are refused too.
    """
    refused = here.refused | (here.unclear if all_of else {})
    if here.prompts or not refused:
        return []
    shown = [f"  {reason}" for reason in list(refused.values())[:3]]
    return ["No file here can be read as prompts (--prompts names another):", *shown]


def _ask(question: str, default: str | None = None) -> str:
    """An answer from standard input; an empty one is the default, if there is one."""
    proposal = "" if default is None else f" [{default}]"
    while True:
        print(f"{question}{proposal} ", end="", file=sys.stderr, flush=True)
        line = sys.stdin.readline()
        if not line:
            raise ConfigError(
                "Standard input ended before all questions were answered. For scripts: --yes, with "
                "--model, --reward, --prompts and --procedure."
            )
        if answer := line.strip() or default:
            return answer


def _source(
    prompts: str | None,
    column: str | None,
    folder: Path,
    choose: Callable[[], str],
    *,
    asking: bool,
) -> tuple[dict[str, Any], RunPrompts | None]:
    """The section `prompts`, and the prompts themselves unless they are on the Hub. What cannot be
    read is asked again, if `asking`."""
    while True:
        prompts = prompts or choose()
        hub = not prompts.startswith("bundled:") and not any(
            (place / prompts).exists() for place in (folder, Path())
        )
        if hub and prompts.count("/") == 1 and not Path(prompts).suffix:
            return {"dataset": prompts, "split": "train", "limit": 2000}, None
        try:
            return _divided({"file": prompts} | ({"column": column} if column else {}), folder)
        except UnclearColumnError as error:
            if not asking:
                raise
            column = _asked_column(prompts, error.examples)
        except DataError as error:
            if not asking:
                raise
            print(error, file=sys.stderr)
            prompts = column = None


def _asked_column(prompts: str, examples: Mapping[str, Any]) -> str:
    """The column that the user names among those of a file, which are shown with examples."""
    names = list(examples)
    for number, name in enumerate(names, 1):
        example = _check.short(examples[name], 40)
        print(f"  {number}  {visible(name)}, such as {example}", file=sys.stderr)
    answer = _ask(f"Which column of {prompts} holds the prompt (number or name)?")
    if answer not in names and answer.isdecimal() and 0 < int(answer) <= len(names):
        return names[int(answer) - 1]
    return answer


def _divided(source: dict[str, Any], folder: Path) -> tuple[dict[str, Any], RunPrompts]:
    """A source with a share of its prompts held out, if that is needed. Raises DataError."""
    divided: list[tuple[dict[str, Any], RunPrompts]] = []
    last: DataError | None = None
    for share in (*SHARES, *LARGER):
        if divided and share not in SHARES:
            break
        own = source if share == SHARES[0] else source | {"test_fraction": share}
        config = parse_config({"model": "-", "reward": "-", "kl": 0.5, "prompts": own})
        config._folder = folder.resolve()
        read = run_prompts(config)
        try:
            with _quiet(NOTES):
                usable = bool(read.train and read.test)
        except DataError as error:
            last = error
            if "prompts.test_fraction" not in str(error):
                break
            continue
        if usable:
            divided.append((own, read))
            if not read.held_out or len(read.test) >= ENOUGH:
                break
    if not divided:
        raise last or DataError("There are no prompts.")
    return divided[-1]


@contextmanager
def _quiet(log: logging.Logger) -> Iterator[None]:
    """Without the notes of a logger: the prompts are read once for each share."""
    level = log.level
    log.setLevel(logging.WARNING)
    try:
        yield
    finally:
        log.setLevel(level)


def _require_by_rank(spec: str) -> None:
    procedure = PROCEDURES.parse(spec, argument="procedure")
    if not isinstance(procedure, RankProcedure):
        raise ArgumentError("procedure", f"must select by rank; {spec} reads calibrated rewards.")


def _free(folder: Path, names: Sequence[str]) -> Path:
    """A file that does not exist yet."""
    numbered = (f"reward_{number}.py" for number in range(2, 1000))
    return next(folder / n for n in (*names, *numbered) if not (folder / n).exists())


def _values(
    model: str, reward: str, source: dict[str, Any], read: RunPrompts | None, procedure: str
) -> dict[str, Any]:
    """The values of the configuration, which fit the model's length and the number of prompts."""
    config = parse_config({"model": model, "reward": reward, "kl": 0.5, "prompts": source})
    draws, group = PROCEDURES.parse(procedure).draws, config.train.group
    batch, few = config.train.batch_size, {}
    if read is not None:
        trained = config.train.trained_prompts(len(read.train))
        batch = min(batch, group * max(1, trained))
        if trained == len(read.train):
            few = {"validation": 0.0}  # the default share of them would be no prompt
    bundled = model == MODEL
    known = read_model_config(Path(model))
    context = next((known[k] for k in CONTEXT if isinstance(known.get(k), int)), 10**6)
    large = sum(f.stat().st_size for f in Path(model).glob("*.safetensors")) > LARGE
    own = ModelSpec.parse(model).kind == "path"
    return {
        "model": model,
        "reward": reward,
        "prompts": source,
        "procedure": procedure,
        "kl": 0.5,
        "transform": config.transform,
        "sampling": {
            "temperature": 0.7 if bundled else config.sampling.temperature,
            "max_new_tokens": 32 if bundled else min(128, max(1, context // 2)),
        },
        "calibration": {"samples": max(config.calibration.samples, 4 * draws)},
        "train": {
            "method": config.train.method,
            "baselines": list(config.train.baselines),
            "steps": 10 if bundled else config.train.steps,
            "learning_rate": config.train.learning_rate,
            "batch_size": batch,
            "group": group,
            "lora": 16 if own and (large or not Path(model).exists()) else 0,
        }
        | few
        | ({"report_to": _trackers()} if _trackers() else {}),
        "evaluate": {"samples": max(config.evaluate.samples, draws)},
        "seed": config.seed,
    }


def _trackers() -> list[str]:
    """The trackers that work at once on this machine."""
    account = any(name in os.environ for name in ACCOUNT)
    return [t for t in TRACKERS if find_spec(t) and (account or t != "wandb")]


CONTEXT = ("max_position_embeddings", "n_positions", "max_sequence_length", "seq_length")
"""Keys of a model's configuration that limit its length in tokens."""
