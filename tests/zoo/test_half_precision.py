"""Every method computes in float32 what it is given in half precision: a loss of the same numbers is the same."""

import pytest
import torch
from test_properties import ON_OUTPUTS, usual

from kdzoo.contract.methods import REGISTRY
from kdzoo.contract.needs import Need


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", ON_OUTPUTS)
def test_outputs_in_half_precision_give_what_the_same_numbers_give_in_float32(name, dtype):
    """Every output is widened before anything is computed of it; a network's own classifier alone computes in its own precision."""
    tolerance = 1e-3 if Need.CLASSIFIER in REGISTRY.get(name).card.needs.student else 1e-5
    for factor in (1.0, 8.0):
        half, wide = (usual(name, dtype=given, rounded=dtype, factor=factor).losses() for given in (dtype, torch.float32))
        assert [loss.item() for loss in half] == pytest.approx([loss.item() for loss in wide], rel=tolerance)
