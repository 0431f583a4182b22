"""Work is kept often enough that a kill costs little, in blocks that do not depend on a clock."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from infalign.models.blocks import BATCHES, FEWEST, WORK, block_of, largest_block


@given(st.integers(1, 10**11), st.integers(1, 4096), st.integers(1, 512))
def test_a_block_is_whole_batches_or_less_than_one(parameters, tokens, batch_size):
    block = largest_block(parameters, tokens, batch_size)
    assert 1 <= block <= BATCHES * batch_size
    assert block < batch_size or block % batch_size == 0
    assert block <= FEWEST or 2 * parameters * tokens * block <= WORK


@pytest.mark.parametrize(
    "parameters, tokens, block",
    [(2_000_000, 128, 1024), (134_515_008, 40, 185), (134_515_008, 128, 58), (10**9, 128, 16)],
)
def test_large_models_have_small_blocks(parameters, tokens, block):
    assert largest_block(parameters, tokens, 256) == block


@pytest.mark.parametrize("spec", ["http://host/v1#name", "vllm:some/model"])
def test_servers_and_engines_form_batches_of_their_own(spec):
    assert block_of(spec, tokens=128, batch_size=256) == 1024


def test_the_bundled_model_has_the_blocks_of_a_fast_one(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert block_of("bundled:language-model", tokens=128, batch_size=256) == 1024


@pytest.mark.parametrize("here", [True, False])
@pytest.mark.parametrize("there", [True, False, None])
def test_a_block_is_that_of_the_machine_that_draws(monkeypatch, here, there):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: here)
    large = 300_000  # tokens, so that the bundled model is a slow one
    block = block_of("bundled:language-model", tokens=large, batch_size=256, gpus=there)
    assert block == (1024 if (here if there is None else there) else FEWEST)
