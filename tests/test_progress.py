"""Progress inside a unit of work: bars move with tokens, not with whole shards."""

import pytest

from infalign import _progress
from infalign.collection import collect
from infalign.collection.answers import answer
from infalign.models.hf import LanguageModel
from infalign.prompts import Prompt

PROMPTS = [Prompt(f"p{n}", ({"role": "user", "content": f"What is {n}?"},)) for n in range(4)]


def length(prompts, completions, **columns):
    return [float(len(str(c))) for c in completions]


@pytest.fixture(scope="module")
def model():
    from infalign.demo import bundled

    return LanguageModel(bundled("bundled:language-model", "model"), max_new_tokens=8, batch_size=4)


def test_nobody_hears_outside_a_part_or_without_a_listener():
    heard = []
    _progress.advance(0.5)
    with _progress.listening(lambda *done: heard.append(done)):
        _progress.advance(0.5)
        with _progress.share(0, 1):
            _progress.advance(0.5)
    assert heard == []


def test_a_share_of_a_part_is_scaled():
    heard = []
    with _progress.listening(lambda *done: heard.append(done)), _progress.part(10, 20, 40):
        with _progress.share(0.5, 1):
            _progress.advance(0.5)
        _progress.advance(2)
    assert heard == [(17.5, 40), (20, 40)]


class Here:
    """An engine that answers in this process."""

    def __init__(self, model):
        self.model = model

    def answers(self, shards, samples, seed):
        for part in shards:
            yield answer(part, self.model, length, samples, seed)


def test_a_collection_moves_with_every_token_and_ends_at_its_total(model, tmp_path):
    heard, reported = [], []
    with _progress.listening(lambda done, total: heard.append((done, total))):
        collect(
            PROMPTS,
            Here(model),
            4,
            tmp_path / "store",
            seed=0,
            responses=8,  # two shards of two prompts, in two batches each
            report=lambda done, total: reported.append(done),
        )
    assert reported == [0, 2, 4]
    done = [d for d, _ in heard]
    assert done == sorted(done) and {total for _, total in heard} == {4}
    assert len(done) >= 4 * 4 and 0 <= done[0] < 0.2 and 3.5 < done[-1] <= 4


def test_samples_are_the_same_with_and_without_a_listener(model):
    conversations, keys = [p.messages for p in PROMPTS], [p.id for p in PROMPTS]
    silent = model.sample(conversations, 3, seed=1, keys=keys)
    with _progress.listening(lambda *done: None), _progress.part(0, 1, 1):
        assert model.sample(conversations, 3, seed=1, keys=keys) == silent


def test_units_of_nested_work_make_up_the_part_that_they_are_nested_in():
    heard = []
    with _progress.listening(lambda done, total: heard.append((done, total))):
        with _progress.part(1, 2, 4), _progress.nested():
            for unit in range(2):
                with _progress.part(unit, unit + 1, 2):
                    _progress.advance(0)
                    with _progress.share(0.5, 1):
                        _progress.advance(1)
        with _progress.part(2, 3, 4):
            _progress.advance(1)
    assert heard == [(1, 4), (1.5, 4), (1.5, 4), (2, 4), (3, 4)]
