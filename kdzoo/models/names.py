"""Which networks there are: kdzoo's own, registered with timm by importing this, and all of timm's."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pkgutil import iter_modules
from typing import Any

import timm
from timm.models import register_model
from torch import nn

from kdzoo.contract.code_version import version_of
from kdzoo.contract.private_modules import plugin_of
from kdzoo.contract.registry import Registry, definition_of
from kdzoo.errors import InputError, add_clause, did_you_mean
from kdzoo.models import zoo
from kdzoo.models.agglomerate import AGGLOMERATE, register_agglomerate
from kdzoo.models.committee import members_of_name, register_committee
from kdzoo.models.text import register_text_network
from kdzoo.models.text_names import text_architecture
from kdzoo.models.zoo.mlp import register_mlp, widths_of
from kdzoo.runs.spec import Normalisation


def _load_zoo() -> tuple[str, ...]:
    """Import every file of the zoo, which makes its networks known to timm; their names."""
    modules = [import_module(f"{zoo.__name__}.{file.name}") for file in iter_modules(zoo.__path__)]
    return tuple(name for module in modules for name in getattr(module, "default_cfgs", ()))


ZOO = _load_zoo()


@dataclass(frozen=True)
class OwnNetwork:
    """A network of a user's: `build(num_classes=..., in_chans=...)` makes it, and the version of its code."""

    build: Callable[..., nn.Module]
    code: str


NETWORKS: Registry[OwnNetwork] = Registry("network")
"""networks of a user's, which timm knows too"""


def is_known(name: str) -> bool:
    """Whether timm can make a network; one of a family (`mlp_300_30`, a network of texts, joined teachers) is first made known."""
    if not timm.is_model(name) and (widths := widths_of(name)):
        register_mlp(name, widths)
    if not timm.is_model(name) and (members := members_of_name(name)) and is_known(members[2]):
        register_committee(name, members)
    if not timm.is_model(name) and name == AGGLOMERATE:
        register_agglomerate()
    if not timm.is_model(name) and (architecture := text_architecture(name)):
        register_text_network(architecture)
    return timm.is_model(name)


def register_network(name: str, build: Callable[..., nn.Module]) -> None:
    """Make a network of your own known by its name, to timm too.

    build(num_classes=..., in_chans=...) makes it with random weights; the same function again, as when a notebook's cell is
    run again, replaces it. Raises InputError for a name that another network has.
    """
    there = is_known(name)
    if there and timm.model_entrypoint(name).__module__ != __name__:
        raise InputError(f"network: {name!r} is one of kdzoo's or timm's own; choose another name")
    NETWORKS.add(name, OwnNetwork(build, _version(build)), definition_of(_code_of(build)))
    if not there:
        register_model(_entrypoint(name))


def code_of(name: str) -> str | None:
    """The version of a network's code: None for kdzoo's and timm's own, else a hash of its source and of the modules beside it."""
    if (own := NETWORKS.find(name)) is not None:
        return own.code
    if not is_known(name):
        return None
    build = timm.model_entrypoint(name)
    return None if build.__module__.partition(".")[0] in ("timm", "kdzoo") else _version(build)


def _version(build: Any) -> str:
    """The version of a function, a partial one, a class or an object that can be called."""
    build = _code_of(build)
    return version_of(build if inspect.isroutine(build) or inspect.isclass(build) else type(build))


def _code_of(build: Any) -> Any:
    """What a partial function calls; anything else itself."""
    while isinstance(build, functools.partial):
        build = build.func
    return build


def plugin_with(name: str) -> str | None:
    """Where other processes find a network: None for kdzoo's and timm's own, else a plugin's file, or empty for nowhere."""
    if name in NETWORKS:
        return NETWORKS.plugin_of(name)
    home = timm.model_entrypoint(name).__module__ if is_known(name) else ""
    return None if home.partition(".")[0] in ("timm", "kdzoo") else plugin_of(home)


def _entrypoint(name: str) -> Callable[..., nn.Module]:
    """A user's network as an entry point of timm, which needs a __name__ and a __module__; keywords it does not take are dropped."""

    def entrypoint(pretrained: bool = False, **options: Any) -> nn.Module:
        if pretrained:
            raise InputError(f"{name}: no published weights exist; use {name}:random for a random start, or {name}:FILE")
        return NETWORKS.get(name).build(**{key: options[key] for key in ("num_classes", "in_chans") if key in options})

    entrypoint.__name__ = entrypoint.__qualname__ = name
    entrypoint.__module__ = __name__
    return entrypoint


def is_own(name: str) -> bool:
    """Whether a network is one that kdzoo adds to timm."""
    return is_known(name) and timm.model_entrypoint(name).__module__.partition(".")[0] == "kdzoo"


def pretrained_classes(name: str) -> int | None:
    """How many classes timm's weights for a network were made for; None where it has none."""
    config = timm.get_pretrained_cfg(name)
    return None if config is None else config.num_classes


def require_network_name(name: str) -> None:
    """Refuse a name that is no network, with the nearest."""
    if name.startswith("module:") or is_known(name):
        return
    names = network_names()
    widths = "a fully connected network is mlp_WIDTH_WIDTH, with a width from 1 to 99999 for each hidden layer"
    fault = add_clause(f"network: unknown {name!r}{did_you_mean(name, names)}", widths if name.startswith("mlp") else "")
    raise InputError(f"{fault} (`kdzoo networks` lists kdzoo's own, `kdzoo networks PART` all {len(names)} with timm's)")


def network_names() -> list[str]:
    """All of timm's, kdzoo's own and those that plugins have registered."""
    return timm.list_models()


def list_networks() -> list[str]:
    """The networks that kdzoo and the user add to timm."""
    return sorted([*ZOO, *NETWORKS])


def own_norm(name: str) -> Normalisation | None:
    """What timm's weights for an architecture were trained under; None where there is none."""
    config = timm.get_pretrained_cfg(name) if is_known(name) else None
    if config is None or not config.mean or not config.std:
        return None
    return Normalisation(mean=tuple(map(float, config.mean)), std=tuple(map(float, config.std)))
