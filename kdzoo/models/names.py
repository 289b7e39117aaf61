"""Which networks there are: kdzoo's own, those of a user, and all of timm's.

To import timm takes two seconds and 200 MB, so this is done where an answer needs it, and kdzoo's own are registered with it then.
"""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pkgutil import iter_modules
from typing import TYPE_CHECKING, Any

from torch import nn

from kdzoo.contract.code_version import version_of
from kdzoo.contract.methods import REGISTRY
from kdzoo.contract.private_modules import plugin_of
from kdzoo.contract.registry import Registry, definition_of
from kdzoo.errors import InputError, add_clause, did_you_mean
from kdzoo.models import zoo
from kdzoo.models.agglomerate import AGGLOMERATE, register_agglomerate
from kdzoo.models.committee import members_of_name, register_committee
from kdzoo.models.known import own_networks
from kdzoo.models.text import register_text_network
from kdzoo.models.text_names import text_architecture
from kdzoo.runs.spec import Normalisation

if TYPE_CHECKING:
    from timm.models import PretrainedCfg


@dataclass(frozen=True)
class OwnNetwork:
    """A network of a user's: `build(num_classes=..., in_chans=...)` makes it, and the version of its code."""

    build: Callable[..., nn.Module]
    code: str


NETWORKS: Registry[OwnNetwork] = Registry("network")
"""networks of a user's, which timm knows too"""
SHIPPED = ("timm", "kdzoo")
"""the packages whose networks are told apart by the packages' versions"""


@functools.cache
def load_zoo() -> tuple[str, ...]:
    """Import every file of the zoo, which registers its networks with timm; their names."""
    modules = [import_module(f"{zoo.__name__}.{file.name}") for file in iter_modules(zoo.__path__)]
    return tuple(name for module in modules for name in getattr(module, "default_cfgs", ()))


@functools.cache
def load_installed() -> None:
    """Load the installed packages that offer methods, once: their networks are known wherever they are installed."""
    REGISTRY.load_installed()


def make_known(name: str) -> None:
    """Register kdzoo's own networks with timm, and that of this name where it is one of a family.

    Families are `mlp_300_30`, committees of specialists, joined teachers and networks of texts. Any other name registers nothing more.
    """
    load_installed()
    load_zoo()
    import timm

    from kdzoo.models.zoo.mlp import register_mlp, widths_of

    if timm.is_model(name):
        return
    if widths := widths_of(name):
        register_mlp(name, widths)
    elif (members := members_of_name(name)) and is_known(members[2]):
        make_known(members[2])
        register_committee(name, members)
    elif name == AGGLOMERATE:
        register_agglomerate()
    elif architecture := text_architecture(name):
        register_text_network(architecture)


def is_known(name: str) -> bool:
    """Whether there is a network of this name."""
    return _is_listed(name) or _entrypoint_of(name) is not None


def _is_listed(name: str) -> bool:
    """Whether kdzoo's table lists a network, and timm, where a plugin could have registered another by its name, is not imported."""
    load_installed()
    return "timm" not in sys.modules and name in own_networks()


def _entrypoint_of(name: str) -> Callable[..., nn.Module] | None:
    """The function by which timm makes a network; None where there is none of this name."""
    make_known(name)
    import timm

    return timm.model_entrypoint(name) if timm.is_model(name) else None


def _package_of(name: str) -> str:
    """The package that a network's code is in, such as `timm`; empty for a name that is no network."""
    if _is_listed(name):
        return "kdzoo"
    entrypoint = _entrypoint_of(name)
    return "" if entrypoint is None else entrypoint.__module__.partition(".")[0]


def register_network(name: str, build: Callable[..., nn.Module]) -> None:
    """Make a network of your own known by its name, to timm too.

    build(num_classes=..., in_chans=...) makes it with random weights; the same function again, as when a notebook's cell is
    run again, replaces it. Raises InputError for a name that another network has.
    """
    from timm.models import register_model

    existing = _entrypoint_of(name)
    if existing is not None and existing.__module__ != __name__:
        raise InputError(f"network: {name!r} is one of kdzoo's or timm's own; choose another name")
    NETWORKS.add(name, OwnNetwork(build, _version(build)), definition_of(_code_of(build)))
    if existing is None:
        register_model(_make_entrypoint(name))


def code_of(name: str) -> str | None:
    """The version of a network's code: None for kdzoo's and timm's own, else a hash of its source and of the modules beside it."""
    if (own := NETWORKS.find(name)) is not None:
        return own.code
    if _package_of(name) in SHIPPED:
        return None
    build = _entrypoint_of(name)
    return None if build is None else _version(build)


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
    if _package_of(name) in SHIPPED:
        return None
    build = _entrypoint_of(name)
    return plugin_of("" if build is None else build.__module__)


def _make_entrypoint(name: str) -> Callable[..., nn.Module]:
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
    return _package_of(name) == "kdzoo"


def published_config(name: str) -> PretrainedCfg | None:
    """timm's configuration of a network and its published weights; None for a network that has none, and for a name that is none."""
    make_known(name)
    import timm

    return timm.get_pretrained_cfg(name)


def has_published_weights(name: str) -> bool:
    """Whether timm offers weights for a network."""
    make_known(name)
    import timm

    return timm.is_model_pretrained(name)


def pretrained_classes(name: str) -> int | None:
    """How many classes timm's weights for a network were made for; None where it has none."""
    config = published_config(name)
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
    load_zoo()
    import timm

    return timm.list_models()


def list_networks() -> list[str]:
    """The networks that kdzoo and the user add to timm."""
    return sorted([*load_zoo(), *NETWORKS])


def own_norm(name: str) -> Normalisation | None:
    """What timm's weights for an architecture were trained under; None where there is none."""
    config = published_config(name)
    if config is None or not config.mean or not config.std:
        return None
    return Normalisation(mean=tuple(map(float, config.mean)), std=tuple(map(float, config.std)))
