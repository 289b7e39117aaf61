"""Under which licence a network's weights stand, as timm or the file of the weights says."""

from __future__ import annotations

from pathlib import Path

from kdzoo.errors import InputError
from kdzoo.models.names import published_config
from kdzoo.models.weights import metadata_of
from kdzoo.runs.licences import licence_in, licence_in_card, of_all, parse_list, spelled


def pretrained_licence(name: str) -> tuple[str, str]:
    """The name of timm's weights for a network, such as `resnet50.a1_in1k`, and their licence as timm's configuration says."""
    config = published_config(name)
    tag = None if config is None else config.tag
    return f"{name}.{tag}" if tag and "." not in name else name, spelled(None if config is None else config.license)


def file_licence(path: Path) -> str:
    """The licence of a file of weights: as `FILE.license` beside it says (https://reuse.software), its own metadata, or its model card.

    Metadata are `license`, or in a file that kdzoo exported `licences`, of all things that the network was made from. The card is the
    README.md of its folder.
    """
    beside = licence_in(path.with_name(f"{path.name}.license"))
    return spelled(beside or _licence_in_metadata(path) or licence_in_card(path.with_name("README.md")))


def _licence_in_metadata(path: Path) -> str | None:
    """The licence in the metadata of a file of weights; None where it has none, or cannot be read."""
    try:
        metadata = metadata_of(path) if path.suffix == ".safetensors" else {}
    except InputError:  # damaged, which whoever reads the weights says
        return None
    if "license" in metadata:
        return spelled(metadata["license"])
    return of_all(parse_list(metadata["licences"])) if "licences" in metadata else None
