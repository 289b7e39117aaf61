"""A user's file and the modules that lie beside it: how they are loaded, what of them decides a version, and how they may fail.

A plugin and its helpers live under private names, so that two plugins may each have a `helpers.py`, and neither hides a
module of anybody else's. Their `import` statements look beside the plugin first, after the standard library and kdzoo.
"""

from __future__ import annotations

import ast
import builtins
import hashlib
import importlib.util
import inspect
import os
import signal
import site
import sys
import sysconfig
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from kdzoo.contract.diagnosis import in_words, of_class_body
from kdzoo.errors import InputError, noting

_LOADING: ContextVar[str] = ContextVar("the plugin that is being loaded", default="")

_PREFIX = "_kdzoo_plugin_"

RESERVED = frozenset(sys.stdlib_module_names) | {"kdzoo"}
"""modules that no file of a user's stands for"""


def plugin_being_loaded() -> str:
    """The file of the plugin that is being loaded; empty where what is registered is known to this process alone."""
    return _LOADING.get()


def load_plugin(path: str | Path) -> None:
    """Run a user's file under a private module name, so that what it registers is known.

    Raises InputError with file and line when the file is missing, does not parse, fails, ends the process or leaves a
    global setting of torch's changed.
    """
    file = Path(path).resolve()
    if not file.is_file():
        raise InputError(f"plugin: no such file: {path}")
    if importlib.util.spec_from_file_location("plugin", file) is None:
        raise InputError(f"plugin: {path}: not a Python file; expected a name that ends in .py")
    from kdzoo.contract.guard import Interference, watched  # here, since it brings torch

    token = _LOADING.set(str(file))
    try:
        with watched(f"plugin {path}"):
            Beside(file).run()
    except SyntaxError as error:
        where = path if error.filename in (None, str(file)) else error.filename
        line = f" in `{error.text.strip()}`" if error.text and error.text.strip() else ""
        raise InputError(f"plugin: {where}:{error.lineno}: syntax error{line}: {error.msg}") from error
    except InputError:
        raise
    except Interference as error:
        line = f"plugin: {path}:{_line_in(file, error.__cause__)}: " if error.__cause__ is not None else ""
        raise InputError(f"{line}{error}") from error
    except (Exception, KeyboardInterrupt, GeneratorExit) as error:
        if not is_its_own(error):
            raise
        raise InputError(f"plugin: {path}:{_line_in(file, error)}: {_in_words(error)}") from error
    finally:
        _LOADING.reset(token)


def load_plugins(files: Iterable[str]) -> None:
    """Load every file; raises InputError with what is wrong with any of them: what they would register is unknown to the rest."""
    problems: list[str] = []
    for file in files:
        with noting(problems):
            load_plugin(file)
    if problems:
        raise InputError(*problems)


def is_its_own(error: BaseException) -> bool:
    """Whether the code that was run raised this itself: a KeyboardInterrupt may be the user's Ctrl-C, where Python handles that."""
    return not isinstance(error, KeyboardInterrupt) or signal.getsignal(signal.SIGINT) is not signal.default_int_handler


def _in_words(error: BaseException) -> str:
    """What went wrong while a plugin was loaded, and what to write instead."""
    if advice := of_class_body(error):
        return advice
    usage = '; write @kdzoo.register("NAME") above a function or a class' if str(error).startswith("register()") else ""
    return f"{in_words(error)}{usage}"


def _line_in(file: Path, error: BaseException) -> int:
    """The last line of `file` on the way to the error."""
    line, step = 0, error.__traceback__
    while step is not None:
        if step.tb_frame.f_code.co_filename == str(file):
            line = step.tb_lineno
        step = step.tb_next
    return line


def module_name(file: Path) -> str:
    """The private name under which a plugin's file is loaded."""
    return _PREFIX + hashlib.blake2b(str(file).encode(), digest_size=6).hexdigest()


def plugin_of(module: str) -> str:
    """The file of the plugin that a module is, or was loaded for; empty where it is none."""
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
        wanted = tuple(fromlist or ())
        if level:
            full = importlib.util.resolve_name("." * level + name, (globals or {})["__package__"])
            found = full.removeprefix(self.name).removeprefix(".")
        elif self.root.holds(name, wanted):
            found = name
            if self.root.file_of(name) == self.file and (globals or {}).get("__name__") == self.name:
                raise ImportError(f"import {name} finds this very file, {self.file.name}: give the file another name", name=name)
        else:
            return builtins.__import__(name, globals, locals, wanted, level)
        module = self.load(found) if found else sys.modules[self.name]
        for part in wanted:
            inner = f"{found}.{part}" if found else part
            if part != "*" and not hasattr(module, part) and self.root.file_of(inner) is not None:
                inside = self.load(inner)
                if not found:
                    setattr(module, part, inside)
        return module if wanted or level else self.load(found.partition(".")[0])


@dataclass(frozen=True)
class Root:
    """A folder in which modules are looked for; `only`: the one package in it that counts, or any."""

    folder: Path
    only: str | None = None

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
        if top in RESERVED or (self.only is not None and top != self.only) or (self.only is None and self.folder in _installed()):
            return False
        return self.file_of(top) is not None or any(self.file_of(inner) for inner in (name, *(f"{name}.{part}" for part in parts)))


def _installed() -> set[Path]:
    """The folders of installed packages, which are nobody's helpers."""
    named = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib"), *site.getsitepackages(), site.getusersitepackages()}
    return {Path(path).resolve() for path in named if path}


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
    helpers = helpers_of(file.resolve(), _root_of(file.resolve()))
    return _digest("\n".join([normalised_syntax(source), *(f"{name}\n{text}" for name, text in sorted(helpers.items()))]))


def modules_beside(cls: type) -> dict[str, str]:
    """The modules that a class's file imports from beside it, and those that they import: syntax by path.

    Nothing for a class of an installed package: what lies beside it is that package.
    """
    file = Path(inspect.getsourcefile(cls) or "").resolve()
    plugin = plugin_of(cls.__module__)
    root = Root(Path(plugin).parent) if plugin else _root_of(file)
    return {} if root.folder in _installed() else helpers_of(file, root)


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
    return Root(top.parent, only=top.name)


def helpers_of(file: Path, root: Root) -> dict[str, str]:
    """The modules that a file imports from beside it, and those that they import: syntax by path from the root."""
    found: dict[Path, str] = {}
    waiting = [file]
    while waiting:
        current = waiting.pop()
        if current in found:
            continue
        try:
            text = current.read_text()
            tree = ast.parse(text)
            found[current] = normalised_syntax(text)
        except (OSError, SyntaxError, ValueError) as error:  # to import it will say why; until then any change is one
            found[current] = f"{type(error).__name__} {current.read_bytes().hex() if current.is_file() else ''}"
            continue
        waiting += _imports(current, tree, root)
    return {os.path.relpath(path, root.folder): text for path, text in found.items() if path != file}


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


@contextmanager
def of_nobody() -> Iterator[None]:
    """A block in which what is registered belongs to no plugin, though one may be loading."""
    token = _LOADING.set("")
    try:
        yield
    finally:
        _LOADING.reset(token)
