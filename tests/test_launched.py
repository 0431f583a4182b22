"""A process that a launcher started with others neither runs nor writes anything."""

import pytest
from quick_studies import make_files, study

from infalign.config import parse_config
from infalign.errors import ConfigError
from infalign.pipeline.run import run
from infalign.study.run import run_study


def started_run(tmp_path):
    prompts = {"file": "bundled:harmless", "limit": 4}
    named = {"model": "bundled:language-model", "reward": "bundled:harmless", "prompts": prompts}
    run(parse_config({**named, "kl": 0.5}), tmp_path / "out")


def started_study(tmp_path):
    run_study(study(make_files(tmp_path)), tmp_path / "out")


@pytest.mark.parametrize("start", [started_run, started_study])
def test_a_run_from_python_is_refused_before_it_writes(start, tmp_path, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("LOCAL_RANK", "1")
    with pytest.raises(ConfigError, match=r"is one of 2 \(WORLD_SIZE\). Start it without torchrun"):
        start(tmp_path)
    assert not (tmp_path / "out").exists()
