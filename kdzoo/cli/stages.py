"""Which stages of two networks are paired, for `kdzoo explain`."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from kdzoo.errors import InputError

if TYPE_CHECKING:
    from kdzoo.contract.shapes import Shapes
    from kdzoo.runs.spec import ObjectiveSpec, Pairing


def stages(objective: ObjectiveSpec, teacher: str, student: str, image: str, pairing: Pairing) -> str:
    """The stages of two networks, how they meet, and what each term that does not read the pairs is handed."""
    from kdzoo.contract.explain import maps_read, stage_pairs
    from kdzoo.models.build import build_network
    from kdzoo.models.measure import measure_shapes
    from kdzoo.models.request import parse_network
    from kdzoo.models.stages import pair_stages
    from kdzoo.runs.spec import NetworkSpec

    match = re.fullmatch(r"(\d+)x(\d+)x(\d+)", image)
    if match is None:
        raise InputError(f"--image: expected CHANNELSxHEIGHTxWIDTH such as 3x32x32, got {image!r}")
    channels, height, width = map(int, match.groups())

    def shapes_of(text: str) -> Shapes:
        request = parse_network(text)
        spec = NetworkSpec(name=request.name, classes=10, start="random", stem=request.stem, image_size=request.image_size)
        network = build_network(spec, channels=channels, side=width, mean=[0.5] * channels, std=[0.5] * channels, seed=0)
        return measure_shapes(network, (channels, height, width))

    ours, theirs = shapes_of(student), shapes_of(teacher)
    pairs = pair_stages(ours, theirs, pairing)
    return "\n".join([stage_pairs(ours, theirs, pairs), *maps_read(objective, ours, theirs, pairs)])
