"""Under which licence a network's weights stand, as timm or the file of the weights says."""

from __future__ import annotations

from pathlib import Path

from kdzoo.errors import InputError
from kdzoo.models.names import published_config
from kdzoo.models.weights import metadata_of
from kdzoo.runs.licences import UNKNOWN, licence_in, of_all, parse_list, spelled


def pretrained_licence(name: str) -> tuple[str, str]:
    """The name of timm's weights for a network, such as `resnet50.a1_in1k`, and their licence as timm's configuration says."""
    config = published_config(name)
    tag = None if config is None else config.tag
    return f"{name}.{tag}" if tag and "." not in name else name, spelled(None if config is None else config.license)


def file_licence(path: Path) -> str:
    """The licence of a file of weights: as `FILE.license` beside it says (https://reuse.software), or its own metadata.

    That is `license`, or in a file that kdzoo exported `licences`, of all things that the network was made from.
    """
    beside = licence_in(path.with_name(f"{path.name}.license"))
    if beside is not None or path.suffix != ".safetensors":
        return spelled(beside)
    try:
        metadata = metadata_of(path)
        return spelled(metadata["license"]) if "license" in metadata else of_all(parse_list(metadata.get("licences", UNKNOWN)))
    except InputError:  # damaged, which whoever reads the weights says
        return spelled(None)
