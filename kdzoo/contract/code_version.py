"""The parts of a user's code that decide the version of their method: the syntax of its file and of the modules beside it."""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kdzoo.contract.neighbours import Root, helpers_of, installed_folders, normalised_syntax
from kdzoo.contract.plugins import plugin_being_loaded
from kdzoo.contract.private_modules import plugin_of


def version_of(definition: Any) -> str:
    """A hash of the syntax tree of a definition's file and of the modules beside it that it imports, directly or not.

    Comments, docstrings and layout change nothing. Imports are read from the text: what is imported by a computed name, and
    what is read from other files, is not seen.
    """
    try:
        file = Path(inspect.getsourcefile(definition) or "")
        source = file.read_text()
    except OSError:
        return _digest(_own_source(definition))
    return _digest_with_helpers(source, helpers_of(file.resolve(), _root_of(file.resolve())))


def version_of_plugin(plugin: Path) -> str:
    """The same of a plugin's file, read without running it; `not there` and `damaged` are versions too."""
    try:
        return _digest_with_helpers(plugin.read_text(), helpers_of(plugin.resolve(), Root(plugin.resolve().parent)))
    except OSError:
        return "not there"
    except (SyntaxError, ValueError):
        return "damaged"


def modules_beside(cls: type) -> dict[str, str]:
    """The modules that a class's file imports from beside it, and those that they import: syntax by path.

    Nothing for a class of an installed package: what lies beside it is that package.
    """
    file = Path(inspect.getsourcefile(cls) or "").resolve()
    plugin = plugin_of(cls.__module__)
    root = Root(Path(plugin).parent) if plugin else _root_of(file)
    return {} if root.folder in installed_folders() else helpers_of(file, root)


def files_beside(plugin: Path) -> list[Path]:
    """The files beside a plugin that it imports, directly or not."""
    folder = plugin.resolve().parent
    return [folder / name for name in helpers_of(plugin.resolve(), Root(folder))]


def _own_source(definition: Any) -> str:
    try:
        return normalised_syntax(inspect.getsource(definition))
    except OSError:
        code = getattr(definition, "__code__", None)
        return repr((code.co_code, code.co_consts, code.co_names, definition.__kwdefaults__)) if code else str(definition.__qualname__)


def _digest_with_helpers(source: str, helpers: Mapping[str, str]) -> str:
    return _digest("\n".join([normalised_syntax(source), *(f"{name}\n{text}" for name, text in sorted(helpers.items()))]))


def _digest(text: str) -> str:
    return hashlib.blake2b(text.encode(), digest_size=6).hexdigest()


def _root_of(file: Path) -> Root:
    """Where a file's absolute imports may mean its neighbours: a plugin's folder, a script's, or a package's own."""
    if plugin_being_loaded():
        return Root(Path(plugin_being_loaded()).parent)
    top = file.parent
    if not (top / "__init__.py").is_file():
        return Root(top)
    while (top.parent / "__init__.py").is_file():
        top = top.parent
    return Root(top.parent, package=top.name)
