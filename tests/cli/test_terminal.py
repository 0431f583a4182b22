"""What reaches a terminal, whatever texts and streams there are."""

import io
import json
import logging
import os
import signal
import subprocess
import sys
from pathlib import Path

import hostile
import numpy as np
import pytest
from rich.table import Table
from rich.text import Text

from infalign import DataError
from infalign._check import visible
from infalign.cli import terminal
from infalign.cli.progress import progress
from infalign.cli.sample import printable
from infalign.errors import ArgumentError
from infalign.stores import StoreWriter

INFALIGN = Path(sys.executable).with_name("infalign")
DESIGN = ("design", "--procedure", "best-of-n:4", "--kl", "0.5", "--transform", "identity")
every_text = pytest.mark.parametrize("text", hostile.TEXTS.values(), ids=hostile.TEXTS)


@pytest.fixture
def shown(monkeypatch):
    """Runs a function with guarded streams that are terminals; returns what reached them."""

    class Screen(io.TextIOWrapper):
        def isatty(self):
            return True

    def call(function):
        screens = [Screen(io.BytesIO(), encoding="utf-8", newline="") for _ in range(2)]
        monkeypatch.setenv("TERM", "xterm-256color")
        monkeypatch.setattr(sys, "stdout", screens[0])
        monkeypatch.setattr(sys, "stderr", screens[1])
        with terminal.guarded():
            function()
        for screen in screens:
            screen.flush()
        return [screen.buffer.getvalue().decode("utf-8", "surrogatepass") for screen in screens]

    return call


@every_text
def test_a_text_shows_every_character_that_steers(text):
    for keep in ("", "\n\t"):
        seen = visible(text, keep)
        assert hostile.steering(seen) == []
        assert visible(seen, keep) == seen
    assert ("\n" not in visible(text) and visible(text).isprintable()) or "\u3000" in text
    assert printable(text).plain.count("\n") == text.count("\n")


def test_words_in_any_script_stay_as_they_are():
    text = hostile.TEXTS["words in Japanese"] + " עברית العربية हिन्दी Ελληνικά €"
    assert visible(text) == text


@every_text
def test_nothing_printed_steers_a_terminal(shown, text):
    def prints():
        screen = terminal.console()
        print(text)
        print(text, file=sys.stderr)
        screen.print(text)
        screen.print(Text(text, "bold"))
        table = Table(text, title=text)
        table.add_column(text, no_wrap=True)
        table.add_row(text, Text(text))
        screen.print(table)
        terminal.print_json({"text": text})

    out, err = shown(prints)
    assert hostile.steering(out) == hostile.steering(err) == []
    lines = visible(text, "\n\t")
    assert out.startswith(lines + "\n") and err == lines + "\n"
    assert json.loads(out.splitlines()[-1]) == {"text": text}


@every_text
def test_progress_logs_and_prints_of_rewards_are_escaped(shown, text):
    def works():
        with progress() as report:
            report(text, 1, 2)
            logging.getLogger("infalign").info("%s", text)
            print(text)
            print(text, end="", file=sys.stderr)

    out, err = shown(works)
    moves = ("\x1b[?25l", "\x1b[?25h", "\x1b[2K", "\x1b[1A", "\r")  # of the bar itself
    for move in moves:
        err = err.replace(move, "")
    assert out == "" and hostile.steering(err) == []
    if len(text) < 20 and visible(text) == text:
        assert err.count(text) >= 4


@every_text
@pytest.mark.parametrize("kind", [DataError, RuntimeError])
def test_no_error_steers_a_terminal(cli, monkeypatch, text, kind):
    def fail(*arguments, **settings):
        raise kind(text)

    monkeypatch.setattr("infalign.cli.run.load_config", fail)
    for more in ((), ("--debug",)):
        code, out, errors = cli("demo", *more)
        assert (code, out) == (1, "") and hostile.steering(errors) == []


@every_text
def test_no_argument_of_the_command_line_steers_a_terminal(cli, text):
    text = text.replace("\0", "")
    for words in ([text], ["design", f"--{text}"], [*DESIGN, text]):
        code, out, errors = cli(*words)
        assert (code, out) == (2, "") and hostile.steering(errors) == []
        assert "Traceback" not in errors
    code, out, errors = cli("design", "--procedure", text, "--kl", "1")
    assert (code, out) == (2, "") and hostile.steering(errors) == []


def test_a_foreign_store_is_shown_without_what_steers(cli, tmp_path):
    texts = [text.encode("utf-8", "backslashreplace").decode() for text in hostile.TEXTS.values()]
    stated = dict(zip(hostile.TEXTS, texts, strict=True)) | {text: {text: "y"} for text in texts}
    with StoreWriter(tmp_path / "store", stated, prompts=1) as writer:
        writer.add(["a"], None, np.arange(2.0)[None])
    code, out, _ = cli("store", "show", tmp_path / "store")
    assert code == 0 and hostile.steering(out) == [] and "\\u202etxt.exe" in out
    code, out, _ = cli("store", "show", tmp_path / "store", "--json")
    assert hostile.steering(out) == [] and json.loads(out)["provenance"] == stated


@pytest.mark.parametrize("width", [1, 20, 40])
def test_a_narrow_terminal_hides_no_word_of_a_table(cli, monkeypatch, width):
    monkeypatch.setenv("COLUMNS", str(width))
    code, out, _ = cli(*DESIGN)
    assert code == 0
    for word in ("optimal", "identity", "win rate", "0.8733", "0.7998", "short", "enough"):
        assert word in out


def run(*arguments, **settings):
    """The command line in a process of its own."""
    return subprocess.run([INFALIGN, *arguments], stderr=subprocess.PIPE, text=True, **settings)


def test_a_reader_that_stops_early_ends_the_command_quietly():
    reading, writing = os.pipe()
    os.close(reading)
    try:
        ended = run(*DESIGN, stdout=writing)
    finally:
        os.close(writing)
    assert (ended.returncode, ended.stderr) == (141, "")


def test_a_full_standard_output_is_named_with_where_the_results_are(tmp_path):
    with open("/dev/full", "w") as full:
        ended = run(*DESIGN, stdout=full)
        assert ended.returncode == 1
        assert ended.stderr == "infalign: standard output: No space left on device.\n"
        out = tmp_path / "page.html"
        ended = run("explore", "--out", out, stdout=full)
    assert ended.returncode == 1 and out.exists()
    assert ended.stderr.endswith(f"No space left on device. The results are in {out}.\n")


def test_a_closed_standard_output_is_named_and_no_file_takes_its_place():
    ended = run(*DESIGN, preexec_fn=lambda: os.close(1))
    assert (ended.returncode, ended.stderr) == (1, "infalign: standard output: it is closed.\n")


def test_a_standard_error_that_cannot_be_written_ends_nothing():
    with open("/dev/full", "w") as full:
        command = [INFALIGN, "explore", "--out", "/dev/null/page.html"]
        assert subprocess.run(command, stderr=full).returncode == 1
    closed = subprocess.run(
        [INFALIGN, *DESIGN, "--json"], stdout=subprocess.PIPE, preexec_fn=lambda: os.close(2)
    )
    assert closed.returncode == 0 and json.loads(closed.stdout)["procedure"] == "best-of-n:4"


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_every_encoding_shows_every_text(encoding):
    code = (
        "import sys; sys.path.insert(0, 'tests'); import hostile\n"
        "from infalign.cli import terminal\n"
        "with terminal.guarded():\n"
        "    for text in hostile.TEXTS.values():\n"
        "        terminal.print_json({'text': text})\n"
        "        terminal.console().print(text + ' ± − β')\n"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        check=True,
        cwd=Path(__file__).parents[2],
        env={**os.environ, "PYTHONIOENCODING": encoding},
    )
    out = ended.stdout.decode(encoding)
    assert hostile.steering(out) == []
    read = [json.loads(line)["text"] for line in out.splitlines() if line.startswith('{"text"')]
    assert read == list(hostile.TEXTS.values())


@pytest.mark.parametrize(
    ("number", "code", "word"),
    [(signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 143, "terminated")],
)
def test_a_signal_ends_a_command_with_one_line(tmp_path, number, code, word):
    with subprocess.Popen(
        [INFALIGN, "explore", "--serve", "--out", tmp_path / "page.html"]
        if number == signal.SIGTERM
        else [INFALIGN, "sample", "--model", "x", "--procedure", "sampling", "-"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        if number == signal.SIGTERM:
            process.stdout.readline()  # the page
            process.stdout.readline()  # the address
        else:
            wait_until_it_reads(process.pid)
        process.send_signal(number)
        _, errors = process.communicate()
    assert process.returncode == code
    assert errors.removeprefix("Ctrl-C ends it.\n") == f"infalign: {word}.\n"


def wait_until_it_reads(pid):
    """Until the process sleeps in a read of its standard input."""
    while not Path(f"/proc/{pid}/syscall").read_text().startswith("0 0x0 "):
        os.sched_yield()


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (OSError(28, "No space left on device", "runs/x"), "runs/x: No space left on device."),
        (MemoryError(), "The memory is not enough. Use smaller batches."),
        (RecursionError("maximum depth"), "The input is nested too deeply (maximum depth; --debug"),
        (
            UnicodeEncodeError("utf-8", "a\ud83d", 1, 2, "surrogates not allowed"),
            r"'\ud83d' cannot",
        ),
        (DataError("x" * 10**6), "x … x"),
        (SystemExit(0), "ended the process (SystemExit(0)); nothing after that was done."),
        (GeneratorExit(), "ended the process (GeneratorExit()); nothing after that was done."),
        (ArgumentError("other", "y" * 10**6), "y … y"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_else_goes_wrong_is_one_message_of_bounded_length(cli, monkeypatch, error, words):
    def fail(*arguments, **settings):
        raise error

    monkeypatch.setattr("infalign.cli.run.load_config", fail)
    code, out, errors = cli("demo")
    assert (code, out) == (1, "") and words in errors and errors.startswith("infalign: ")
    assert len(errors) < 10_000 and "Traceback" not in errors
