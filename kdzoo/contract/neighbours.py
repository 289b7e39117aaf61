"""The modules that lie beside a user's file: which an import there means, and which the file needs."""

from __future__ import annotations

import ast
import inspect
import os
import site
import sys
import sysconfig
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

RESERVED = frozenset(sys.stdlib_module_names) | {"kdzoo"}
"""modules that no file of a user's stands for"""


@dataclass(frozen=True)
class Root:
    """A folder in which modules are looked for; `package`: the one package in it that counts, or any."""

    folder: Path
    package: str | None = None

    def file_of(self, name: str) -> Path | None:
        """The file of a module by its dotted name, or None."""
        place = self.folder.joinpath(*name.split("."))
        return next((file for file in (place.with_name(place.name + ".py"), place / "__init__.py") if file.is_file()), None)

    def is_folder(self, name: str) -> bool:
        return self.folder.joinpath(*name.split(".")).is_dir()

    def holds(self, name: str, parts: Iterable[str] = ()) -> bool:
        """Whether an absolute import of `name`, or of its `parts`, means a file here.

        A folder without `__init__.py` counts for the files in it alone: many a folder is called as a package is.
        """
        top = name.partition(".")[0]
        if (
            top in RESERVED
            or (self.package is not None and top != self.package)
            or (self.package is None and self.folder in installed_folders())
        ):
            return False
        return self.file_of(top) is not None or any(self.file_of(inner) for inner in (name, *(f"{name}.{part}" for part in parts)))


def installed_folders() -> set[Path]:
    """The folders of installed packages, which are nobody's helpers."""
    folders = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib"), *site.getsitepackages(), site.getusersitepackages()}
    return {Path(path).resolve() for path in folders if path}


def helpers_of(file: Path, root: Root) -> dict[str, str]:
    """The modules that a file imports from beside it, and those that they import: syntax by path from the root."""
    syntax: dict[Path, str] = {}
    waiting = [file]
    while waiting:
        current = waiting.pop()
        if current in syntax:
            continue
        try:
            text = current.read_text()
            tree = ast.parse(text)
            syntax[current] = normalised_syntax(text)
        except (OSError, SyntaxError, ValueError) as error:  # to import it will say why; until then any change is one
            syntax[current] = f"{type(error).__name__} {current.read_bytes().hex() if current.is_file() else ''}"
            continue
        waiting += _imports(current, tree, root)
    return {os.path.relpath(path, root.folder): text for path, text in syntax.items() if path != file}


def _imports(file: Path, tree: ast.AST, root: Root) -> Iterator[Path]:
    """The files beside that a module's import statements mean, wherever in it they stand."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield from _chain(root, alias.name, ()) if root.holds(alias.name) else ()
        elif isinstance(node, ast.ImportFrom):
            parts = [alias.name for alias in node.names]
            if node.level:
                base = file.parents[node.level - 1]
                yield from _chain(Root(base), node.module or "", parts) if base.is_relative_to(root.folder) else ()
            elif root.holds(node.module or "", parts):
                yield from _chain(root, node.module or "", parts)


def _chain(root: Root, name: str, parts: Iterable[str]) -> Iterator[Path]:
    """The files of a dotted name: those of the packages on the way, its own, and those of its parts that are modules."""
    steps = name.split(".") if name else []
    names = [".".join(steps[: length + 1]) for length in range(len(steps))] + [".".join([*steps, part]) for part in parts]
    yield from filter(None, map(root.file_of, names))


def normalised_syntax(source: str) -> str:
    """The syntax tree of `source` as text, without positions, comments and docstrings."""
    tree = ast.parse(inspect.cleandoc(source) if source[:1].isspace() else source)
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and ast.get_docstring(node) is not None:
            node.body = node.body[1:] or [ast.Pass()]
    return ast.dump(tree, include_attributes=False)
