"""The layers that make a BenchConfig: options over a YAML file over defaults. Free of torch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from kdzoo.data.known import TEXT
from kdzoo.errors import InputError, did_you_mean
from kdzoo.files import CONFIGS
from kdzoo.runs.fields import parse
from kdzoo.runs.options import as_list
from kdzoo.runs.recipe import Augment, Recipe
from kdzoo.suite.plan.config import BenchConfig
from kdzoo.suite.plan.yaml_files import read_yaml, shipped_files

PUBLISHED = ".published"
"""the file that marks the folder of the published benches"""
AXES = frozenset({"temperatures", "alphas", "weights", "doses", "grid", "tune"})
"""the keys that say which settings are tried: any of them replaces a default's"""


class ConfigError(InputError):
    """A configuration with faults. rest: the same without the faulty keys, where that still names the bench."""

    def __init__(self, problems: Iterable[str], rest: BenchConfig | None) -> None:
        super().__init__(*problems)
        self.rest = rest


def bench_config(options: Mapping[str, Any], file: Path | None) -> BenchConfig:
    """The bench of these options, which win over a YAML file and the defaults; raises ConfigError with every fault."""
    problems: list[str] = []
    options = with_recipe_keys(options, problems)
    file_layer = with_recipe_keys(_under(read_yaml(file) if file else {}, options), problems)
    layers = [default_layers({**file_layer, **options}), file_layer, options]
    sets = [layer.get("set") or {} for layer in layers]
    if not all(isinstance(changes, Mapping) for changes in sets):
        raise InputError(*problems, f"set: expected keys and values, got {next(c for c in sets if not isinstance(c, Mapping))!r}")
    values = {**layers[0], **layers[1], **layers[2], "set": {key: value for changes in sets for key, value in changes.items()}}
    try:
        config = parse(BenchConfig, values, "")
    except InputError as error:
        raise ConfigError([*problems, *error.problems], _without_faults(values)) from error
    if problems:
        raise ConfigError(problems, config)
    return config


def refuse_published(options: Mapping[str, Any], file: Path | None) -> None:
    """Raise InputError where a bench would be added, unasked, to those that a checkout of kdzoo publishes.

    They are marked by a file in the default results folder; whoever names a folder means it.
    """
    default = BenchConfig.model_fields["results"].default
    if "results" in options or (file is not None and "results" in read_yaml(file)) or not (Path(default) / PUBLISHED).is_file():
        return
    raise InputError(
        f"results: {default}/ in this folder holds the benches that kdzoo publishes; give --results my-results for your own runs, or "
        f"--results {default} to add to those"
    )


def default_layers(options: Mapping[str, Any]) -> dict[str, Any]:
    """The layer below the options: the default bench, or what a data set usually goes with."""
    default = read_yaml(shipped_files("benches")["digits"])
    if not {"teacher", "student", "recipe"} & set(options) and all(_same(options.get(key), default[key]) for key in ("data", "pairs")):
        return {k: v for k, v in default.items() if k not in AXES} if set(options) & AXES else default
    data, table = str(options.get("data", default["data"])), read_yaml(CONFIGS / "usual.yaml")
    usual = table.get(TEXT if data.startswith(TEXT) else data, {})
    own_networks = {"pairs", "teacher", "student"} & set(options)
    return {k: v for k, v in usual.items() if not (k == "pairs" and own_networks)}


def _same(value: object, default: object) -> bool:
    """Whether an option was not given, or has the default bench's value."""
    try:
        return value is None or as_list(value) == as_list(default)
    except ValueError:  # reported with all else that is wrong
        return False


def with_recipe_keys(layer: Mapping[str, Any], problems: list[str]) -> dict[str, Any]:
    """A layer whose `recipe` is a mapping, as the name of a recipe and `set` keys; faults of the mapping's keys are added to `problems`.

    `recipe: {name: digits, epochs: 5, augment: {pad: 2}}` is `recipe: digits` with `set: {recipe.epochs: 5,
    recipe.augment.pad: 2}`. Without a name the keys change the recipe that goes with the data.
    """
    recipe = layer.get("recipe")
    if not isinstance(recipe, Mapping):
        return dict(layer)
    rest = {key: value for key, value in layer.items() if key != "recipe"}
    name = {} if recipe.get("name") is None else {"recipe": recipe["name"]}
    changes: dict[str, Any] = {}
    for key, value in recipe.items():
        if key == "name":
            continue
        if key == "augment" and isinstance(value, Mapping):
            problems += [fault for part in value if (fault := _fault_of_key("recipe.augment", part, Augment.model_fields))]
            changes |= {f"recipe.augment.{part}": item for part, item in value.items() if part in Augment.model_fields}
        elif fault := _fault_of_key("recipe", key, Recipe.model_fields):
            problems.append(fault)
        else:
            changes[f"recipe.{key}"] = value
    problems += [f"{key}: given twice, here and in recipe" for key in ("epochs", "lr") if key in rest and key in recipe]
    set_keys = rest.get("set") or {}
    return {**rest, **name, "set": {**changes, **set_keys} if isinstance(set_keys, Mapping) else set_keys}


def _fault_of_key(place: str, key: object, known: Iterable[str]) -> str | None:
    """What is wrong with a key of a recipe's mapping."""
    names = list(known)
    if key in names:
        return None
    if key in BenchConfig.model_fields and place == "recipe":
        return f"{place}.{key}: not a key of a recipe; write {key} beside recipe, not below it"
    beside = ["name", *names] if place == "recipe" else names
    return f"{place}.{key}: unknown{did_you_mean(str(key), beside) or '; known: ' + ', '.join(beside)}"


def _under(file_layer: Mapping[str, Any], options: Mapping[str, Any]) -> Mapping[str, Any]:
    """A file without its mapping of a recipe's keys, where that changes another recipe than the one asked for on the command line."""
    recipe, name = file_layer.get("recipe"), options.get("recipe")
    if name is None or not isinstance(recipe, Mapping) or recipe.get("name") in (None, name):
        return file_layer
    return {key: value for key, value in file_layer.items() if key != "recipe"}


_WHICH_BENCH = {"methods", "grid", "pairs", "teacher", "student", "data", "data_root", "recipe", "set", "plugin"}
"""where one of these is invalid the rest is not validated: with a default in its place it would be another bench"""


def _without_faults(values: Mapping[str, Any]) -> BenchConfig | None:
    try:
        return BenchConfig.model_validate(values)
    except ValidationError as error:
        faulty = {fault["loc"][0] for fault in error.errors()}
        return None if faulty & _WHICH_BENCH else BenchConfig.model_validate({k: v for k, v in values.items() if k not in faulty})


def quick(options: Mapping[str, Any], file: Path | None = None) -> dict[str, Any]:
    """The options that make a bench a demonstration of under a minute; what was given, there or in the file, stays."""
    file_layer = read_yaml(file) if file else {}
    unused = set(file_layer) | (AXES if AXES & {*file_layer, *options} else frozenset())
    return {**{key: value for key, value in read_yaml(CONFIGS / "quick.yaml").items() if key not in unused}, **options}
