"""Every method by name: kdzoo's own, those of installed packages and those of a user's plugins."""

from __future__ import annotations

import importlib
import importlib.metadata
import pkgutil
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from kdzoo.contract.method import Method, instance_of
from kdzoo.contract.plugins import is_its_own, of_nobody
from kdzoo.contract.registry import Definition, Entry, Registry
from kdzoo.errors import InputError

GROUP = "kdzoo.methods"
"""the entry points of installed packages that register methods"""


OTHER_WORDS = {"kd": "hinton", "vanilla": "hinton", "vanilla_kd": "hinton", "soft_targets": "hinton"}
"""what the field calls a method whose name no spelling leads to; messages suggest the name, no such word is one"""
STUDENT_ALONE = ("baseline", "student", "alone", "scratch")
"""words for the control that is no method"""


class Methods(Registry[type[Method]]):
    """The methods. Those of kdzoo and of installed packages are loaded when the first name is asked for."""

    def __init__(self) -> None:
        super().__init__("methods")
        self._loaded = False
        self._by_catalogue = False
        self.broken: dict[str, str] = {}
        """entry points that failed to load, with the reason"""

    def register(self, cls: type[Method]) -> None:
        """Add a method under its card's name; raises InputError for a name that is taken or cannot stand in a sum."""
        name, card = cls.card.name, cls.card
        if not name.isidentifier() or name in ("none", "ce"):
            near = re.sub(r"\W", "_", name)
            instead = f", for example {near!r}" if near.isidentifier() and near != name else ""
            raise InputError(
                f"method name {name!r} at {card.origin}: expected letters, digits and underscores, no digit first, and neither 'none' "
                f"nor 'ce'{instead}"
            )
        self.add(name, cls, Definition(*card.definition, card.origin), installed=_is_installed(cls.__module__))

    @contextmanager
    def declarations(self) -> Iterator[None]:
        """A block in which methods may be read but not run: kdzoo's own then come from the catalogue, without torch.

        Where their code is loaded, a plugin has registered some, or other packages offer some, the code is read as ever.
        """
        before = self._by_catalogue  # one block may stand in another
        # To look for installed packages takes milliseconds: once a block, and not where the code is read in any case.
        self._by_catalogue = before or (not self._loaded and not importlib.metadata.entry_points(group=GROUP))
        try:
            yield
        finally:
            self._by_catalogue = before

    def load_installed(self) -> None:
        """Load the installed packages that offer methods, which may register networks too; nothing where there is none."""
        if importlib.metadata.entry_points(group=GROUP):
            self._load()

    def get(self, name: str) -> type[Method]:
        """The method under a name; raises InputError with the name that a word of the field stands for, or the nearest one."""
        word = name.lower()
        if name in self or word not in (*OTHER_WORDS, *STUDENT_ALONE):
            return super().get(name)
        if word in STUDENT_ALONE:
            raise InputError(f"{self.kind}: unknown {name!r}; the student alone is in every bench without being named")
        raise InputError(f"{self.kind}: unknown {name!r}; did you mean {OTHER_WORDS[word]!r}?")

    def names(self) -> list[str]:
        return sorted(super().names())

    def own_names(self) -> list[str]:
        """The names of kdzoo's own methods, without those of plugins and installed packages."""
        return [name for name in self.names() if self.get(name).__module__.startswith("kdzoo.")]

    def names_for_images(self) -> list[str]:
        """The same without those that read the hidden states of texts."""
        return [name for name in self.own_names() if not self.get(name).card.of_texts_alone]

    def create(self, name: str, hyperparameters: Mapping[str, Any]) -> Method:
        """The method with these hyper-parameters; raises InputError with every fault of theirs."""
        return instance_of(self.get(name), hyperparameters)

    def _all(self) -> Mapping[str, Entry[type[Method]]]:
        if self._by_catalogue and not self._loaded and not self._entries:
            from kdzoo.contract.catalogue import own_methods

            return own_methods()
        self._load()
        return self._entries

    def _load(self) -> None:
        if self._loaded:
            return
        self._loaded = True
        from kdzoo.contract.guard import watch

        package = importlib.import_module("kdzoo.methods")
        for module in pkgutil.iter_modules(package.__path__):
            importlib.import_module(f"kdzoo.methods.{module.name}")
        for entry in importlib.metadata.entry_points(group=GROUP):
            try:
                with of_nobody(), watch(f"the installed plugin {entry.name}"):
                    entry.load()
            except (Exception, KeyboardInterrupt) as error:  # a broken plugin never breaks the zoo; the command line reports it
                if not is_its_own(error):
                    raise
                self.broken[entry.name] = f"{entry.value}: {type(error).__name__}: {error}"


REGISTRY = Methods()


def _is_installed(module: str) -> bool:
    """Whether a module belongs to kdzoo or to a package that registers methods wherever it is installed."""
    package = module.partition(".")[0]
    return package == "kdzoo" or package in {entry.module.partition(".")[0] for entry in importlib.metadata.entry_points(group=GROUP)}


def create_method(name: str, **hyperparameters: Any) -> Method:
    """A method by its registered name: `create_method("hinton", temperature=2.0)`."""
    return REGISTRY.create(name, hyperparameters)
