"""One forward of a network for each pass that is read."""

from __future__ import annotations

from torch import Tensor

from kdzoo.contract.needs import Need, NetworkNeeds
from kdzoo.contract.outputs import Outputs, with_passes
from kdzoo.data.epoch import Inputs
from kdzoo.models.network import Network


def outputs(network: Network, inputs: Inputs, needs: NetworkNeeds) -> Outputs:
    """One forward for each pass that is read; contiguous, since losses may look at a map with `view`.

    Where the network itself is read, maps are those that the class scores were computed from, for gradients between them.
    """
    merged = with_passes({which: network(inputs[which], needs.outputs) for which in needs.passes})
    return merged if Need.NETWORK in needs else merged.map(Tensor.contiguous)
