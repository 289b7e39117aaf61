"""A plugin and its helpers as modules under private names.

Two plugins may each have a `helpers.py`, and neither hides a module of anybody else's. Their `import` statements look beside
the plugin first, after the standard library and kdzoo.
"""

from __future__ import annotations

import builtins
import hashlib
import importlib.util
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from kdzoo.contract.neighbours import Root

_PREFIX = "_kdzoo_plugin_"


def module_name(file: Path) -> str:
    """The private name under which a plugin's file is loaded."""
    return _PREFIX + hashlib.blake2b(str(file).encode(), digest_size=6).hexdigest()


def plugin_of(module: str) -> str:
    """The plugin file that a module is, or was loaded by; empty where there is none."""
    top = module.partition(".")[0]
    return str(sys.modules[top].__file__) if top.startswith(_PREFIX) and top in sys.modules else ""


class Beside:
    """A plugin with the modules in its folder and below, each loaded once, as submodules of it in `sys.modules`."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.name = module_name(file)
        self.root = Root(file.parent)

    def run(self) -> None:
        """Run the plugin and whatever it imports anew."""
        for name in [n for n in sys.modules if n == self.name or n.startswith(self.name + ".")]:
            del sys.modules[name]
        self._execute(self.name, self.file, is_package=False).__package__ = self.name

    def load(self, name: str) -> ModuleType:
        """The module called `name` as seen from the plugin's folder, after those that it lies in."""
        full = f"{self.name}.{name}"
        if full in sys.modules:
            return sys.modules[full]
        parent, _, last = name.rpartition(".")
        owner = self.load(parent) if parent else None
        file = self.root.file_of(name)
        if file is None and not self.root.is_folder(name):
            raise ModuleNotFoundError(f"No module named {name!r} beside {self.file.name}", name=name)
        module = self._execute(full, file, is_package=file is None or file.name == "__init__.py")
        if owner is not None:
            setattr(owner, last, module)
        return module

    def _execute(self, name: str, file: Path | None, *, is_package: bool) -> ModuleType:
        """A module of a file's code, compiled from what stands there now; an empty one for a folder without `__init__.py`."""
        places = [str(self.root.folder.joinpath(*name.split(".")[1:]))] if is_package else None
        spec = importlib.util.spec_from_file_location(name, file, submodule_search_locations=places) if file is not None else None
        module = ModuleType(name) if spec is None else importlib.util.module_from_spec(spec)
        module.__package__ = name if is_package or name == self.name else name.rpartition(".")[0]
        module.__dict__["__builtins__"] = {**vars(builtins), "__import__": self._import}
        sys.modules[name] = module
        try:
            if file is not None:
                exec(compile(file.read_bytes(), str(file), "exec", dont_inherit=True), module.__dict__)
        except BaseException:
            del sys.modules[name]
            raise
        return module

    def _import(
        self,
        name: str,
        globals: Mapping[str, Any] | None = None,
        locals: Mapping[str, Any] | None = None,
        fromlist: Sequence[str] | None = (),
        level: int = 0,
    ) -> ModuleType:
        """The `__import__` of these modules: what lies beside the plugin is loaded privately, all else as ever."""
        parts = tuple(fromlist or ())
        if level:
            full = importlib.util.resolve_name("." * level + name, (globals or {})["__package__"])
            local_name = full.removeprefix(self.name).removeprefix(".")
        elif self.root.holds(name, parts):
            local_name = name
            if self.root.file_of(name) == self.file and (globals or {}).get("__name__") == self.name:
                raise ImportError(f"import {name} finds this very file, {self.file.name}: give the file another name", name=name)
        else:
            return builtins.__import__(name, globals, locals, parts, level)
        module = self.load(local_name) if local_name else sys.modules[self.name]
        for part in parts:
            inner = f"{local_name}.{part}" if local_name else part
            if part != "*" and not hasattr(module, part) and self.root.file_of(inner) is not None:
                inside = self.load(inner)
                if not local_name:
                    setattr(module, part, inside)
        return module if parts or level else self.load(local_name.partition(".")[0])
