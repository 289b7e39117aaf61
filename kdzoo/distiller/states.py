"""Hidden states of texts, which loops hold as (B, L, D), laid out as methods read them, (B, D, 1, L)."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from kdzoo.contract.needs import Need
from kdzoo.contract.outputs import Outputs
from kdzoo.errors import InputError


def has_states(outputs: Outputs) -> bool:
    """Whether the stages are hidden states over tokens, (B, L, D).

    Raises InputError for stages that are neither all states nor all maps (B, C, H, W).
    """
    shapes = [tuple(stage.shape) for stage in _stages(outputs)]
    dimensions = {len(shape) for shape in shapes}
    if not dimensions <= {3} and not dimensions <= {4}:
        raise InputError(f"stages: expected maps (B, C, H, W), or hidden states of texts (B, tokens, D), got {', '.join(map(str, shapes))}")
    return dimensions == {3}


def lay_out_states(outputs: Outputs) -> Outputs:
    """The same outputs with hidden states (B, L, D) as maps (B, D, 1, L), and maps as they are."""
    if not has_states(outputs):
        return outputs
    return outputs.with_values({Need.STAGES: [states.transpose(1, 2).unsqueeze(2) for states in _stages(outputs)]})


def _stages(outputs: Outputs) -> Sequence[Tensor]:
    return outputs.get(Need.STAGES) or ()
