"""A prompt read once for all of its responses gives what reading it each time does."""

import numpy as np
import pytest
import torch
from enumerable import EnumerableModel

from infalign.models.logits import collate, raw_logits
from infalign.models.shared_prompts import repeats, shared_logits
from infalign.training.offline import _bundles

pytestmark = pytest.mark.pins

PROMPTS = [[1, 2, 3, 1, 2], [3], [2, 2]]
OWNERS = [0, 0, 0, 1, 2, 2]
RESPONSES = [[1, 0], [2, 3, 1], [0], [3, 0], [1, 1, 1], [2, 0]]


@pytest.mark.parametrize("family", ["llama", "gpt2", "mistral"])
def test_logits_and_gradients_are_those_of_whole_sequences(tmp_path, family):
    model = EnumerableModel.make(tmp_path, seed=3, family=family).model(torch.float32)
    assert repeats(model)
    found = []
    for shared in (True, False):
        if shared:
            ids, kept, logits = shared_logits(model, PROMPTS, RESPONSES, OWNERS, 0)
        else:
            ids, mask, kept = collate([PROMPTS[i] for i in OWNERS], RESPONSES, 0)
            logits = raw_logits(model, ids, mask, kept.shape[1])
            ids = ids[:, -kept.shape[1] :]
        chosen = logits.log_softmax(-1).gather(2, ids[..., None])[..., 0]
        total = (chosen * kept).sum(1)
        model.zero_grad()
        (total * torch.arange(1.0, 7.0)).sum().backward()
        gradients = {name: p.grad.clone() for name, p in model.named_parameters()}
        found.append((total.detach(), gradients))
    (ours, our_gradients), (theirs, their_gradients) = found
    assert torch.allclose(ours, theirs, atol=1e-5)
    for name, gradient in our_gradients.items():
        assert torch.allclose(gradient, their_gradients[name], atol=1e-4), name


def test_a_model_that_remembers_otherwise_is_known(tmp_path):
    assert not repeats(EnumerableModel.make(tmp_path, seed=3, family="mamba").model(torch.float32))


@pytest.mark.parametrize("width", [1, 2, 16])
def test_every_row_is_in_one_bundle_of_its_prompt(width):
    owners = np.random.default_rng(0).integers(7, size=100)
    bundles = _bundles(owners, width, seed=0)
    assert sorted(row for _, rows in bundles for row in rows) == list(range(100))
    for owner, rows in bundles:
        assert (owners[rows] == owner).all() and len(rows) <= max(1, 8 // width)
    # As few as there can be.
    size = max(1, 8 // width)
    assert len(bundles) == sum(-(-count // size) for count in np.bincount(owners))
