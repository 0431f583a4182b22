"""What a run shows while it goes on: bars, its stage, the time that is left, and live metrics."""

import io
import threading
from types import SimpleNamespace

import pytest
from rich.console import Console

from infalign.cli import progress
from infalign.cli.board import Board, Schedule, duration
from infalign.pipeline.tasks import Task

STAGES = ("calibrate", "design", "train", "evaluate", "report")
TASKS = [
    Task("calibrate", "calibrate", responses=100),
    Task("design", "design"),
    Task("train rloo: warm start", "train", "learn", 200),
    Task("train rloo: on policy", "train", "step", 50),
    Task("train rloo: KL targeting", "train", "search", 300),
    Task("evaluate reference", "evaluate", responses=100),
    Task("report", "report"),
]


def schedule(*notes):
    """A schedule after notes of (task, done, total, seconds since the start)."""
    made = Schedule(STAGES, TASKS)
    for note in notes:
        made.note(*note)
    return made


def test_the_stage_is_that_of_the_present_task():
    assert schedule().stage() == ""
    assert schedule(("calibrate", 0, 10, 0)).stage() == "stage 1 of 5"
    assert schedule(("train rloo: warm start", 0, 10, 0)).stage() == "stage 3 of 5"
    assert schedule(("judge rloo", 0, 10, 0)).stage() == ""
    assert Schedule((), ()).stage() == ""


def test_nothing_is_known_of_the_time_before_anything_has_moved():
    assert schedule(("calibrate", 0, 10, 0)).left() is None
    assert schedule(("calibrate", 4, 10, 0), ("calibrate", 4, 10, 9)).left() is None


def test_the_time_left_is_that_of_all_tasks_at_the_pace_so_far():
    # 50 responses took 10 s, .2 s each. To go: 50 of the calibration, 200 that are learned at the
    # same pace, 50 that are drawn and learned, 300 and 100 that are drawn.
    half = schedule(("calibrate", 0, 10, 0), ("calibrate", 5, 10, 10))
    assert half.left() == pytest.approx(0.2 * (50 + 200 + 2 * 50 + 300 + 100))


def test_each_kind_of_work_has_its_own_pace_once_it_was_measured():
    # 100 drawn in 20 s; 100 of 200 learned in 5 s; a step's response takes .2 + .05 s.
    now = schedule(
        ("calibrate", 0, 10, 0),
        ("calibrate", 10, 10, 20),
        ("train rloo: warm start", 0, 4, 20),
        ("train rloo: warm start", 2, 4, 25),
    )
    assert now.left() == pytest.approx(0.05 * 100 + 0.25 * 50 + 0.2 * 400)


def test_a_search_that_may_end_early_says_nothing_of_the_pace():
    searching = [("train rloo: KL targeting", 0, 6, 20), ("train rloo: KL targeting", 1, 6, 520)]
    assert schedule(*searching).left() is None
    known = schedule(("calibrate", 0, 10, 0), ("calibrate", 10, 10, 20), *searching)
    assert known.left() == pytest.approx(0.2 * (300 * 5 / 6 + 100))


def test_what_an_earlier_run_did_does_not_count_as_pace():
    # 8 of 10 prompts were stored before; the 9th took 4 s: 10 responses at .4 s.
    resumed = schedule(("calibrate", 8, 10, 0), ("calibrate", 9, 10, 4))
    assert resumed.left() == pytest.approx(0.4 * (10 + 200 + 100 + 300 + 100))


def shown(width, terminal=True):
    """A board on a terminal of that width, its clock, and a function that returns the screen."""
    stream = io.StringIO()
    screen = Console(
        file=stream, width=width, height=20, force_terminal=terminal, color_system=None
    )
    now = [0.0]
    board = Board(screen, clock=lambda: now[0])

    def lines():
        paper = Console(file=io.StringIO(), width=width, color_system=None)
        for part in board.bars.get_renderables():
            paper.print(part)
        return paper.file.getvalue().splitlines()

    return board, now, lines, stream


@pytest.mark.parametrize("width", [40, 80])
def test_everything_fits_the_terminal(width):
    board, now, lines, _ = shown(width)
    board.plan(STAGES, TASKS)
    try:
        board.report("calibrate", 0, 10)
        now[0] = 10.0
        board.report("calibrate", 5, 10)
        board.report("train rloo: a name that is too long for any line", 1, 6)
        board.metrics("step 3: KL 0.213 nats, quantile 0.610, win rate 58.2%, saturated 3%")
        said = lines()
    finally:
        board.stop()
    assert all(len(line) <= width for line in said)
    text = " ".join(" ".join(said).split())
    assert "5/10" in text and "1/6" in text and "Stage 3 of 5" in text
    assert "KL 0.213 nats" in text and "saturated 3%" in text
    assert ("━" in text) is (width == 80)


@pytest.mark.parametrize("terminal", [False, True])
def test_a_log_says_where_a_task_is_that_reports_nothing(terminal):
    board, now, _, stream = shown(80, terminal=terminal)
    try:
        board.beat()  # nothing has begun
        board.report("checks", 0, 1)
        before = stream.getvalue()
        for seconds, lines in ((29.0, 0), (31.0, 1), (40.0, 1), (62.0, 2)):
            now[0] = seconds
            board.beat()
            said = stream.getvalue().removeprefix(before).count("checks 0/1")
            assert said == (0 if terminal else lines)
    finally:
        board.stop()


def test_a_board_beats_while_a_command_runs(monkeypatch):
    monkeypatch.setattr(progress, "SILENCE", 0.001)
    beaten = threading.Event()
    with progress._beating(SimpleNamespace(beat=beaten.set)):
        assert beaten.wait(60)


def test_a_bar_moves_between_two_reports():
    board, _, lines, _ = shown(80)
    try:
        board.report("calibrate", 0, 10)
        board.within(2.5, 10)
        assert board.bars.tasks[0].completed == 2.5 and "2/10" in lines()[0].replace(" ", "")
        board.within(3.0, 99)  # of something else
        assert board.bars.tasks[0].completed == 2.5
    finally:
        board.stop()


@pytest.mark.parametrize("resumed", [0, 4])
def test_the_time_left_is_at_the_pace_of_the_whole_task_however_often_it_moves(resumed):
    board, now, lines, _ = shown(80)
    try:
        board.report("train rloo: on policy", resumed, 12)
        for step in (1, 2):
            now[0] += 10
            board.report("train rloo: on policy", resumed + step, 12)
        for part in range(2000):  # a step that is long, and moves token by token
            now[0] += 0.01
            board.within(resumed + 2 + (part + 1) / 2000, 12)
        (line,) = (" ".join(line.split()) for line in lines() if "rloo" in line)
        left = (12 - resumed - 3) * 40 / 3
        assert now[0] == pytest.approx(40)
        assert line.endswith(f"4.5/min 0:00:40 0:0{int(left) // 60}:{int(left) % 60:02d}")
        board.report("train rloo: on policy", 12, 12)
        assert " ".join(lines()[0].split()).endswith("0:00:40 0:00:00")
    finally:
        board.stop()


def test_metrics_are_those_of_the_present_task():
    board, _, lines, _ = shown(80)
    try:
        board.report("train rloo: on policy", 0, 10)
        board.metrics("step 1: KL 0.2 nats")
        assert "step 1: KL 0.2 nats" in lines()[-1]
        board.report("train rloo: KL targeting", 0, 6)
        assert "KL 0.2" not in " ".join(lines())
    finally:
        board.stop()


def test_a_log_has_a_plain_line_every_half_minute_with_all_that_is_known():
    board, now, _, stream = shown(80, terminal=False)
    board.plan(STAGES, TASKS)
    for step in range(8):
        board.report("train rloo: on policy", step, 10)
        board.metrics(f"step {step}: KL 0.2 nats")
        now[0] += 10
    said = stream.getvalue().splitlines()
    board.stop()
    assert [line.split(",")[0] for line in said] == [
        "train rloo: on policy 3/10",
        "train rloo: on policy 6/10",
    ]
    assert all("Stage 3 of 5, about " in line and "step" in line for line in said)
    assert all("\x1b" not in line for line in said)


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.2, "< 1 s"), (59, "59 s"), (59.8, "1 min"), (3590, "1 h 0 min"), (90000, "1 d 1 h")],
)
def test_durations_have_the_units_that_matter(seconds, words):
    assert duration(seconds) == words
