"""A dry run checks, measures and counts; it writes nothing."""

import itertools

import pytest
from test_checks import BASE, changed

from infalign.comparison.comparison import Comparison
from infalign.config import SamplingSettings, parse_config
from infalign.demo import bundled
from infalign.errors import DataError
from infalign.models.hf import LanguageModel
from infalign.pipeline.dry import dry_run, due
from infalign.pipeline.dry_models import dry_comparison
from infalign.pipeline.estimate import cost
from infalign.pipeline.folder import Run
from infalign.pipeline.measure import Speed, Trial, measure
from infalign.pipeline.plan import Cost as PlannedCost
from infalign.pipeline.plan import StagePlan
from infalign.pipeline.workload import Workload, room, workloads
from infalign.prompts import Prompt

CONFIG = parse_config(
    changed(BASE, {"reward": "bundled:harmless", "train": {"baselines": ["dpo"]}})
)


@pytest.fixture
def generated(monkeypatch):
    """The (responses, length) of every call of a language model."""
    asked = []
    sample = LanguageModel.sample

    def counting(self, conversations, n, **options):
        asked.append((n * len(conversations), self.max_new_tokens))
        return sample(self, conversations, n, **options)

    monkeypatch.setattr(LanguageModel, "sample", counting)
    return asked


def test_a_dry_run_measures_and_writes_nothing(tmp_path, generated):
    dry = dry_run(CONFIG, tmp_path / "run", seconds=20)
    assert [c.work.name for c in dry.costs] == ["calibrate", "train rloo", "train dpo", "evaluate"]
    assert all(c.seconds > 0 and c.disk > 0 for c in dry.costs)
    assert "reward on two responses" in dry.checks and len(generated) > 0
    assert list(tmp_path.iterdir()) == []


def test_without_time_nothing_is_measured(tmp_path, generated):
    dry = dry_run(CONFIG, tmp_path / "run", seconds=0)
    assert dry.costs == [] and dry.speed is None and generated == []
    assert list(tmp_path.iterdir()) == []


def test_a_dry_run_fails_as_the_run_would(tmp_path, generated):
    with pytest.raises(DataError, match=r"none.jsonl does not exist"):
        dry_run(parse_config(changed(BASE, {"prompts": {"file": "none.jsonl"}})), tmp_path / "run")
    assert generated == []


@pytest.mark.parametrize(
    ("until", "names"),
    [
        ("design", ["calibrate"]),
        ("train", ["calibrate", "train rloo", "train dpo"]),
    ],
)
def test_only_the_stages_that_are_asked_for_are_counted(tmp_path, until, names):
    dry = dry_run(CONFIG, tmp_path / "run", until=until, seconds=0)
    assert [work.name for work in dry.works] == names


def test_the_work_of_a_run_is_counted_by_hand(tmp_path):
    # 4 prompts, 1 of them for validation; K = 4; 1 step of 8 responses; 1 pass of warm start. The
    # KL is searched for with 1.25 sets of 1,024 responses and 2.5 measurements of a set.
    calibrate, rloo, dpo, evaluate = workloads(Run(CONFIG, tmp_path))
    assert (calibrate.generated, calibrate.scored) == (16, 16)
    assert (rloo.generated, rloo.scored, rloo.learned) == (8 + 1280, 8, 12 + 8)
    assert (rloo.read, rloo.models) == (8 + 2 * 2560, 3)  # warm start, on policy, at the KL
    assert (dpo.generated, dpo.scored, dpo.learned, dpo.models) == (1280, 0, 4 * 12, 2)
    assert (evaluate.generated, evaluate.scored, evaluate.read) == (3 * 16, 3 * 16, 2 * 2 * 16)


def test_the_room_is_that_of_models_and_one_training_s_checkpoints():
    works = [Workload("a", models=3, checkpoints=3), Workload("b", models=2, checkpoints=3)]
    needed = room(works, parameters=1000, adapters=False)
    assert (needed.results, needed.passing) == (5 * 4000, 3 * 12000)
    assert room(works, parameters=1000, adapters=True).passing == 0


SPEED = Speed("a GPU", 4, 8, 16, 16, 10.0, 40.0, 3.0, 1.0, 0.5, 0.25, 2.0, 10**9, 100)


def test_a_cost_is_the_work_at_the_measured_speed():
    work = Workload("x", generated=10, scored=20, read=8, learned=4, loaded=2, stored=10)
    found = cost(work, SPEED, 1000, CONFIG.train)
    assert found.seconds == 2 * 3 + 10 * 1 + 20 * 0.5 + 8 * 0.25 + 4 * 2
    assert found.tokens == 100 and found.disk == 10 * (16 + 4 * 10 + 40)
    # The policy, its gradients, two numbers of the optimizer and the reference; 64 responses.
    assert found.memory == 4 * 5000 + 64 * 100


def test_only_what_is_missing_is_counted():
    works = [
        Workload("calibrate", generated=10, scored=10, stored=10),
        Workload("train rloo", generated=10),
        Workload("evaluate", generated=10, scored=20, stored=10),
    ]
    plans = [
        StagePlan("calibrate", "calibrate", "extended", "", cost=PlannedCost(4, scored=3)),
        StagePlan("train", "train rloo", "reused", ""),
        StagePlan("evaluate", "evaluate reference", "reused", ""),
        StagePlan("evaluate", "evaluate rloo", "to run", "", cost=PlannedCost(5)),
    ]
    calibrate, train, evaluate = due(works, plans)
    assert (calibrate.generated, calibrate.scored, calibrate.stored) == (4, 7, 4)
    assert train.reused and not evaluate.reused
    assert (evaluate.generated, evaluate.scored, evaluate.stored) == (5, 10, 5)


def test_a_reused_stage_costs_nothing():
    found = cost(Workload("x", generated=10, loaded=1, reused=True), SPEED)
    assert (found.seconds, found.tokens, found.disk) == (0, 0, 0)


def trial(**sampling):
    prompts = [Prompt(f"p{n}", ({"role": "user", "content": f"What is {n}?"},)) for n in range(4)]
    settings = SamplingSettings(**{"max_new_tokens": 32, "batch_size": 16, **sampling})
    return Trial("bundled:language-model", "bundled:harmless", settings, prompts, 8, 0, False)


def test_batches_grow_to_those_of_the_run_while_there_is_time(generated):
    clock = itertools.count()  # each look at the clock is a second
    speed = measure(trial(), 1000, lambda: float(next(clock)))
    lengths = [(2, 8), (2, 8), (2, 16), (4, 16), (8, 16), (16, 16), (16, 32)]
    assert generated == lengths
    assert (speed.responses, speed.batch, speed.length, speed.longest) == (16, 16, 32, 32)
    assert speed.tokens is not None and speed.generating == 1 / 16


def test_a_slow_model_is_not_measured_and_its_cost_is_not_stated(generated, caplog):
    clock = itertools.count(step=20)
    assert measure(trial(), 30, lambda: float(next(clock))) is None
    assert generated == [(2, 8)]
    assert "Nothing was measured" in caplog.text and "--measure SECONDS" in caplog.text


class Clock:
    """The time that a machine needs: for each response 5 seconds for its prompt and 1 for each
    token, and 100 for the first batch of all."""

    def __init__(self, patched):
        self.now, self.first = 0.0, 100.0
        sample = LanguageModel.sample

        def timed(model, conversations, n, **options):
            drawn = sample(model, conversations, n, **options)
            self.now += self.first + n * len(conversations) * (5 + model.max_new_tokens)
            self.first = 0.0
            return drawn

        patched.setattr(LanguageModel, "sample", timed)

    def __call__(self):
        return self.now


@pytest.mark.parametrize(("seconds", "length"), [(430, 16), (700, 16), (4000, 32)])
def test_short_batches_tell_what_long_ones_take(monkeypatch, seconds, length):
    speed = measure(trial(), seconds, Clock(monkeypatch))
    assert speed.length == length and speed.generating == pytest.approx(5 + 32)


def test_a_comparison_is_checked_and_measured(tmp_path, generated):
    comparison = Comparison(
        reference="bundled:language-model",
        policies={"a": str(bundled("bundled:language-model", "model"))},
        reward="bundled:harmless",
        prompts=trial().prompts,
        procedures=("best-of-n:2",),
        samples=4,
        sampling=SamplingSettings(max_new_tokens=4),
    )
    dry = dry_comparison(comparison, tmp_path / "out", seconds=20)
    assert [(c.work.name, c.work.generated) for c in dry.costs] == [("evaluate", 32)]
    assert generated and "reward on two responses" in dry.checks
    assert list(tmp_path.iterdir()) == []


def test_a_dry_run_prints_every_stage_and_what_cannot_be_known(cli, tmp_path):
    import yaml

    (tmp_path / "config.yaml").write_text(yaml.safe_dump(CONFIG.model_dump(exclude_none=True)))
    out = tmp_path / "run"
    code, printed, _ = cli(
        "run", tmp_path / "config.yaml", "--out", out, "--dry-run", "--measure", 20
    )
    assert code == 0 and not out.exists()
    for words in ("checks passed", "calibrate", "train dpo", "evaluate", "GPU hour", "Nothing was"):
        assert words in printed
