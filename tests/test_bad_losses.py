"""A loss that became NaN or infinite: since which step, and in which of its parts."""

import math

import pytest
import torch

from kdzoo.contract.batch import Losses
from kdzoo.training.tally import Tally

STEPS = 3


def tally_of(**parts: tuple[float, ...]) -> Tally:
    """The sums of an epoch whose loss is the sum of parts, each a number a step."""
    tally = Tally()
    for step in range(STEPS):
        here = {name: torch.tensor(values[step]) for name, values in parts.items()}
        total = torch.stack(list(here.values())).sum()
        tally.add(Losses(total, here, None, total), samples=4, step=10 + step)
    return tally


@pytest.mark.parametrize(
    ("ce", "at", "words"),
    [
        ((1.0, 1.0, 1.0), (1.0, math.nan, math.nan), "at step 11, in at"),
        ((1.0, 1.0, math.nan), (1.0, math.inf, math.nan), "at step 11, in at"),
        ((1.0, 1.0, math.nan), (1.0, 1.0, math.nan), "at step 12, in all its parts: ce, at"),
        ((math.inf, 1.0, 1.0), (1.0, 1.0, 1.0), "at step 10, in ce"),
        ((1.0, 1.0, 3e38), (1.0, 1.0, 3e38), "at step 12, in none of its parts alone, but in their weighted sum"),
    ],
)
def test_the_first_step_and_the_part_are_named(ce, at, words):
    assert str(tally_of(ce=ce, at=at).first_nonfinite()) == f"the loss became NaN or infinite {words}"


def test_a_loss_of_finite_numbers_is_not_bad():
    assert tally_of(ce=(1.0, 2.0, 3.0), at=(1e30, 0.0, -1.0)).first_nonfinite() is None
    assert Tally().first_nonfinite() is None
