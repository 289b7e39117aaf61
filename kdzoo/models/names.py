"""Which networks there are: kdzoo's own, registered with timm by importing this, and all of timm's."""

from __future__ import annotations

import difflib
from functools import cache

import timm

import kdzoo.models.cifar_mobile
import kdzoo.models.cifar_resnet
import kdzoo.models.cifar_vgg
import kdzoo.models.small
from kdzoo.errors import InputError


def pretrained_classes(name: str) -> int | None:
    """How many classes timm's weights for a network were made for; None where it has none."""
    config = timm.get_pretrained_cfg(name)
    return None if config is None else config.num_classes


def ours_or_timm(name: str) -> None:
    """Refuse a name that is no network, with the nearest."""
    if name.startswith("module:") or timm.is_model(name):
        return
    names = network_names()
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.6)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    raise InputError(
        f"network: unknown {name!r}{hint} (`kdzoo networks` lists kdzoo's own, `kdzoo networks PART` all {len(names)} with timm's)"
    )


@cache
def network_names() -> tuple[str, ...]:
    return tuple(timm.list_models())


def list_networks() -> list[str]:
    """The networks that kdzoo adds to timm."""
    return sorted(
        [
            *kdzoo.models.cifar_resnet.CIFAR_RESNETS,
            *kdzoo.models.cifar_vgg.CIFAR_VGGS,
            *kdzoo.models.cifar_mobile.CIFAR_MOBILES,
            *kdzoo.models.small.TUTORIAL_NETWORKS,
            *kdzoo.models.small.DIGITS_NETWORKS,
        ]
    )
