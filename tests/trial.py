"""The trial: what a new user does in the first hour, in an empty folder, step by step.

    python tests/trial.py [FOLDER]

A model, a reward and prompts of one's own, in three forms. Each step is a command; the trial stops
at the first one that does not do what a user expects, with what the command said. `test_trial.py`
runs one form with commands in forked processes.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Protocol

import pyarrow as pa
import pyarrow.parquet as pq
from runs import Ended

from infalign.demo import bundled

SMALL = (
    *("calibration.samples=8", "sampling.max_new_tokens=8", "sampling.temperature=0.7"),
    *("train.steps=2", "train.batch_size=16", "train.group=4", "train.warm_start_batch_size=32"),
    *("train.warm_start_learning_rate=2e-4", "train.learning_rate=2e-5", "train.baselines=[]"),
    *("evaluate.samples=4", "kl=0.1"),
)
"""Settings that make a run take seconds."""

REWARDS = """
def text_of(completion):
    return {text}


def score(prompts, completions, answer, **columns):
    texts = [text_of(completion) for completion in completions]
    return [text.count("e") - len(text) / 50 + (str(a) in text) for text, a in zip(texts, answer)]


def short(prompts, completions, **columns):
    return [-float(len(text_of(completion))) for completion in completions]
"""

SCRIPT = """
from datasets import Dataset
from infalign.frameworks import open_reward, open_run
from trl import RLOOConfig, RLOOTrainer

run = open_run("runs/first")
rows = [{"prompt": p.value, "prompt_id": p.id, **p.columns} for p in run.prompts]
settings = RLOOConfig(
    "own", max_steps=1, per_device_train_batch_size=8, num_generations=4, beta=0.1, use_cpu=True,
    max_completion_length=8, report_to="none", bf16=False, logging_steps=1,
)
trainer = RLOOTrainer("mine", reward_funcs=open_reward("runs/first"), args=settings,
                      train_dataset=Dataset.from_list(rows))
trainer.train()
print("trained", trainer.state.global_step)
"""

CELLS = (
    "import infalign as ia; ia.design(ia.BestOfN(4), kl=0.1, samples=8)",
    "ia.compare(ia.BestOfN(4), [ia.Identity(), ia.best_exponential], kl=[0.1, 0.2])",
    "store = ia.CalibrationStore.open('runs/first/calibration'); store",
    "store.to_frame()",
)
"""Cells of a notebook, each of which ends with something to look at."""


@dataclass(frozen=True)
class Form:
    """The form of a user's things."""

    name: str
    """The prompts file."""

    column: str = "question"
    messages: bool = False
    template: bool = True
    """Whether the model has a chat template."""


FORMS = (
    Form("asked.jsonl"),
    Form("asked.csv", column="Customer question", template=False),
    Form("asked.parquet", messages=True),
)


class Call(Protocol):
    """Runs `infalign WORDS` in a folder; Ctrl-C comes once the file `interrupted_after` exists."""

    def __call__(self, *words: str, cwd: Path, interrupted_after: Path | None = None) -> Ended: ...


def prepare(folder: Path, form: Form) -> None:
    """The user's own folder: a model, a Python file with two rewards, and prompts."""
    shutil.copytree(str(bundled("bundled:language-model", "model")), folder / "mine")
    if not form.template:
        (folder / "mine/chat_template.jinja").unlink()
    text = 'completion[-1]["content"]' if form.messages else "completion"
    (folder / "rewards.py").write_text(REWARDS.format(text=text))
    rows = [{"question": f"What is {i} plus {i}?", "answer": 2 * i} for i in range(60)]
    if not form.template:  # a text that the model goes on with
        for row in rows:
            row["question"] = f"<|user|>{row['question']}<|end|><|assistant|>"
    if form.messages:
        system = {"role": "system", "content": "Be brief."}
        for row in rows:
            row["question"] = [system, {"role": "user", "content": row["question"]}]
    path = folder / form.name
    match path.suffix:
        case ".jsonl":
            path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        case ".csv":
            lines = [f"{form.column},answer", *(f"{r['question']},{r['answer']}" for r in rows)]
            path.write_text("\n".join(lines))
        case _:
            pq.write_table(pa.Table.from_pylist(rows), path)


def trial(folder: Path, form: Form, call: Call, say: Callable[[str], None] = print) -> None:
    """All commands of the trial, one after the other."""

    def does(what: str, *words: str, code: int = 0, **more) -> Ended:
        begun = time.monotonic()
        ended = call(*words, cwd=folder, **more)
        require(ended.code == code, f"{what}: exit code {code}", ended)
        require("Traceback" not in ended.stderr, f"{what}: no traceback", ended)
        say(f"{form.name}: {what} ({time.monotonic() - begun:.0f} s)")
        return ended

    def run(what: str, *more: str, **how) -> Ended:
        return does(what, "run", "config.yaml", "--out", "runs/first", *settings, *more, **how)

    settings = [*SMALL]
    prepare(folder, form)
    home = folder / "runs/first"
    named = () if form.column == "question" else ("--column", form.column)
    written = does("init", "init", "--yes", "--reward", "rewards.py:score", *named)
    require(written.stdout.split() == ["config.yaml"], "init writes one file", written)
    dry = run("dry run", "--dry-run", "--measure", "0")
    require("checks passed" in dry.stdout + dry.stderr, "the dry run names its checks", dry)
    require(not (folder / "runs").exists(), "the dry run writes nothing", dry)
    stopped = run("Ctrl-C", code=130, interrupted_after=home / "calibration/manifest.json")
    require("continues" in stopped.stderr, "it is said how to continue", stopped)
    continued = run("the same command")
    require("rewards.py" in continued.stderr, "it is said which reward was loaded", continued)
    first, calibrated = results(home), samples(home / "calibration")
    require({"config.yaml", "report.html"} <= set(os.listdir(home)), "there is a report", continued)

    settings += ["train.learning_rate=4e-5", "--until", "evaluate"]
    other = run("another step size")
    require("calibrate: reused" in other.stderr, "it is said what is reused", other)
    require(samples(home / "calibration") == calibrated, "the calibration is reused", other)
    require(results(home) != first, "the policy is another one", other)
    trained = {p.name for p in (home / "train").iterdir()}
    require(len(trained) == 2, "the first policy is still there", other)
    settings += ["evaluate.samples=6"]
    more = run("more samples")
    require(results(home)["samples"] == 6, "more samples are drawn", more)
    require({p.name for p in (home / "train").iterdir()} == trained, "nothing is trained", more)
    settings += ["evaluate.gold.short=rewards.py:short"]
    gold = run("a gold reward")
    require("short" in json.dumps(results(home)), "the gold reward judges", gold)


def results(home: Path) -> dict:
    """The results of a run."""
    return json.loads((home / "evaluation/results.json").read_text())


def samples(store: Path) -> dict[str, bytes]:
    """The files of a calibration store."""
    return {p.name: p.read_bytes() for p in sorted(store.glob("*.parquet"))}


class Failed(Exception):
    """A step did not do what a user expects."""


def require(condition: bool, expected: str, ended: Ended) -> None:
    """Raise Failed, with what the command said, unless the condition holds."""
    if not condition:
        raise Failed(
            f"Expected: {expected}. Exit code {ended.code}.\n{ended.stdout}\n{ended.stderr}"
        )


def infalign(*words: str, cwd: Path, interrupted_after: Path | None = None) -> Ended:
    """A command in a process of its own."""
    command = [sys.executable, "-m", "infalign", *words]
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        process = subprocess.Popen(command, cwd=cwd, stdout=out, stderr=err)
        if interrupted_after is not None:
            while process.poll() is None and not interrupted_after.exists():
                time.sleep(0.05)
            process.send_signal(signal.SIGINT)
        code = process.wait()
        out.seek(0), err.seek(0)
        return Ended(code, out.read(), err.read())


def own_script(folder: Path) -> None:
    """The reward of the run in a script of the user's own, with TRL's trainer."""
    (folder / "own.py").write_text(SCRIPT)
    command = [sys.executable, "own.py"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    ended = Ended(done.returncode, done.stdout, done.stderr)
    require("trained 1" in done.stdout, "the reward works in an own script", ended)
    print(f"{folder.name}: own script with TRL", flush=True)


def notebook(folder: Path) -> None:
    """The results of the run in a notebook, if Jupyter is installed."""
    if not (find_spec("nbclient") and find_spec("ipykernel")):
        print(f"{folder.name}: no notebook (install nbclient and ipykernel)", flush=True)
        return
    import nbclient
    import nbformat

    cells = [nbformat.v4.new_code_cell(cell) for cell in CELLS]
    book = nbformat.v4.new_notebook(cells=cells)
    nbclient.NotebookClient(book, resources={"metadata": {"path": str(folder)}}).execute()
    for cell in book.cells:
        shown = [output.get("data", {}) for output in cell.outputs]
        ended = Ended(0, json.dumps(cell.outputs), "")
        require(any("text/html" in data for data in shown), "every cell shows a table", ended)
    print(f"{folder.name}: notebook", flush=True)


def main() -> None:
    """The trial of every form."""
    # A shell starts what runs in the background with Ctrl-C ignored, and commands inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with tempfile.TemporaryDirectory() as place:
        root = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(place)
        for form in FORMS:
            folder = root / form.name.replace(".", "-")
            folder.mkdir(parents=True)
            try:
                trial(folder, form, infalign)
                own_script(folder)
                notebook(folder)
            except Failed as failure:
                sys.exit(f"{form.name}: {failure}")


if __name__ == "__main__":
    main()
