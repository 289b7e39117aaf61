"""The registries of kdzoo as they were before a test registered something."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def registered_for_a_while() -> Iterator[None]:
    """On leaving, the registries are as they were on entering; timm alone goes on to know the names of networks."""
    from kdzoo.contract.methods import REGISTRY
    from kdzoo.data.known import DATA
    from kdzoo.models.names import NETWORKS
    from kdzoo.models.pairs import PAIRS
    from kdzoo.suite.plan.recipe_files import RECIPES

    REGISTRY.names()  # loads the zoo, so that it is part of what is put back
    registries = (REGISTRY, NETWORKS, DATA, PAIRS, RECIPES)
    contents = [dict(registry._entries) for registry in registries]
    yield
    for registry, content in zip(registries, contents, strict=True):
        registry._entries = content
