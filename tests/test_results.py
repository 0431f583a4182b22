"""What results say beyond the estimators."""

import numpy as np
import pytest

from infalign import BestOfN, Sampling, WorstOfN
from infalign.comparison.shown import kept


@pytest.mark.parametrize(
    ("procedure", "place"), [(BestOfN(3), 1), (WorstOfN(3), 2), (Sampling(), 0)], ids=repr
)
def test_examples_show_what_the_procedure_keeps(procedure, place):
    rewards = np.array([2.0, 7.0, 1.0])[: procedure.draws]
    assert kept(procedure, rewards) == place
