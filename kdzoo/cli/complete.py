"""Names for the shell's completion. They come from file names and small tables, so that a Tab needs no torch.

What a name is read from is imported when the shell asks for it: every verb imports this file to declare its options.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from kdzoo.files import PACKAGE

Names = Callable[[Path, str], Iterable[str]]
"""the candidates for a word that has been begun, given the folder of all benches"""

METHODS = PACKAGE / "methods"


def completion(names_of: Names) -> Callable[[Any, str], list[str]]:
    """The function that typer asks with a context and the word so far."""

    def candidates(ctx: Any, incomplete: str) -> list[str]:
        results = Path(str(ctx.params.get("results") or "results"))
        return [name for name in names_of(results, incomplete) if name.startswith(incomplete)]

    return candidates


def of(*names: str) -> Names:
    """A fixed choice."""
    return lambda results, word: names


def methods(results: Path, word: str) -> list[str]:
    """Methods; also after a comma, and after the + or * of a sum."""
    done, names_before = _done(word, r"[,+*]")
    names = {"none", *(file.stem for file in METHODS.glob("[!_]*.py"))}
    return [done + name for name in sorted(names - names_before)]


def pairs(results: Path, word: str) -> list[str]:
    """Named pairs, and TEACHER/STUDENT of any two networks; also after a comma."""
    from kdzoo.models.pairs import PAIRS

    done, names_before = _done(word, ",")
    names = sorted(set(PAIRS) - names_before)
    teacher, slash, student = word.removeprefix(done).partition("/")
    if slash:
        others = [f"{teacher}/{name}" for name in _networks(student)]
        return [done + name for name in dict.fromkeys([*names, *others])]
    begun = [name for name in names if name.startswith(teacher)]
    return [done + name for name in begun] or [f"{done}{name}/" for name in _networks(teacher)]


def networks(results: Path, word: str) -> list[str]:
    """kdzoo's networks; timm's too once a name has been begun."""
    return _networks(word)


def teachers(results: Path, word: str) -> list[str]:
    """The teachers that are kept, by id, and all networks."""
    from kdzoo.runs.store import teacher_store

    return [*teacher_store().ids(), *_networks(word)]


def recipes(results: Path, word: str) -> list[str]:
    from kdzoo.suite.plan.recipe_files import recipes as recipe_names

    return recipe_names()


def studies(results: Path, word: str) -> list[str]:
    from kdzoo.suite.study.study_files import shipped_studies

    return list(shipped_studies())


def editions(results: Path, word: str) -> list[str]:
    from kdzoo.suite.plan.yaml_files import shipped_files

    return list(shipped_files("editions"))


def recipe_keys(results: Path, word: str) -> list[str]:
    """`recipe.KEY=`"""
    from kdzoo.runs.recipe import Augment, Recipe

    return [
        *(f"recipe.{key}=" for key in Recipe.model_fields if key != "augment"),
        *(f"recipe.augment.{key}=" for key in Augment.model_fields),
    ]


def data(results: Path, word: str) -> list[str]:
    """Data sets, and the beginning of folder:PATH."""
    from kdzoo.data.known import DATA

    return [name.removesuffix("PATH") for name in DATA]


def downloads(results: Path, word: str) -> list[str]:
    """Data sets that have to be downloaded."""
    from kdzoo.data.known import DATA

    return [name for name, known in DATA.items() if known.files and not known.get]


def bench_names(results: Path, word: str) -> list[str]:
    from kdzoo.cli.lookup import benches

    return [folder.name for folder in benches(results)]


def runs(results: Path, word: str) -> list[str]:
    """The ids of the runs of all benches."""
    from kdzoo.cli.lookup import benches
    from kdzoo.runs.store import Store

    return [run_id for folder in benches(results) for run_id in Store(folder).ids()]


def benches_or_runs(results: Path, word: str) -> list[str]:
    return [*bench_names(results, word), *runs(results, word)]


def kept(results: Path, word: str) -> list[str]:
    """What may stay of a finished run; also after a comma."""
    done, names_before = _done(word, ",")
    return [done + name for name in ("predictions", "student", "checkpoint") if name not in names_before]


def _done(word: str, separator: str) -> tuple[str, set[str]]:
    """What of a list stands before its last separator, and the names in it."""
    end = max((match.end() for match in re.finditer(separator, word)), default=0)
    return word[:end], set(re.split(separator, word[:end]))


def _networks(begun: str) -> list[str]:
    from kdzoo.models.known import own_networks

    return sorted([*own_networks(), *(timm_names() if begun else ())])


@cache
def timm_names() -> tuple[str, ...]:
    """The names under which timm's files register networks, read off them: to import timm takes seconds."""
    spec = find_spec("timm")
    folders = [Path(place) / "models" for place in (spec and spec.submodule_search_locations) or ()]
    return tuple(
        name
        for folder in folders
        for file in sorted(folder.glob("*.py"))
        for name in re.findall(r"^@register_model\s*\ndef (\w+)\(", file.read_text(), re.MULTILINE)
    )
