"""What can be said of a bench before torch is loaded: which files are missing, and what is wrong with its options. Free of torch."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from kdzoo.contract.methods import REGISTRY
from kdzoo.data.known import DATA, TEXT, folder_of, location_of, path_of
from kdzoo.errors import collect_problems, raise_if_any
from kdzoo.models.known import own_networks
from kdzoo.models.network_words import HF, SAVED, WEIGHT_FILES
from kdzoo.models.pairs import pair as named_pair
from kdzoo.runs.wandb_settings import wandb_settings
from kdzoo.suite.plan.changes import below, read_changes
from kdzoo.suite.plan.config import BenchConfig
from kdzoo.suite.plan.objectives import faults_of_settings
from kdzoo.suite.plan.recipe_files import recipe_file
from kdzoo.suite.plan.requests import read_requests

JUDGED_HERE = {
    *("name", "methods", "temperatures", "alphas", "weights", "doses", "grid", "tune", "refit", "seeds", "control_seeds", "refit_seeds"),
    *("pairs", "teacher", "student", "data", "data_root", "recipe", "epochs", "lr", "wandb", "results", "jobs", "threads", "keep", "set"),
}
"""the keys of a bench whose values need neither torch nor the data to be judged"""


def refuse_early(config: BenchConfig) -> None:
    """Raise InputError with all that is known to be wrong with a bench before torch is loaded, where its plan would tell no more.

    That is so where a file or folder is missing, without which there is no plan, and where its options are the only thing to judge.
    """
    missing = [*missing_files(config.data, networks_of(config)), *missing_plugins(config.plugin)]
    told_by_options = is_judged_by_options(config) and not config.refit  # whether that leaves anything to choose on, the data tell
    faults = faults_of_options(config) if missing or told_by_options else []
    raise_if_any(dict.fromkeys([*missing, *faults]))


def missing_files(data: str, networks: Iterable[str]) -> Iterator[str]:
    """What is missing of data and weights, in the words of what reads them; what only a closer look can tell is left to that.

    Data by name are looked for, and fetched, where they are read; weights with options after an `@` are told from paths there.
    """
    folder, file = folder_of(data), path_of(data)
    if folder is not None and not folder.is_dir():
        yield f"data: folder:{folder}: no such folder"
    if data.startswith(TEXT) and file is not None and not file.exists():
        yield f"data: {file}: no such file; expected a CSV file with the columns text and label"
    for text in dict.fromkeys(networks):
        path = _file_named(text)
        if path and not Path(os.path.expanduser(path)).exists():
            yield f"network {text!r}: no such {'folder' if text.startswith(HF) else 'file'}: {path}"


def missing_plugins(files: Iterable[str]) -> list[str]:
    """Which of a user's files are missing."""
    return [f"plugin: no such file: {file}" for file in files if not Path(file).is_file()]


def _file_named(network: str) -> str:
    """The path in the words for a network, where they plainly are one; else empty."""
    if "@" in network:
        return ""
    if network.startswith((SAVED, HF)):
        return network.partition(":")[2].removesuffix(":random")
    return (network.partition(":")[2] or network) if network.endswith(WEIGHT_FILES) and not Path(network).exists() else ""


def networks_of(config: BenchConfig) -> list[str]:
    """Every network that a bench names, those of its pairs too; none of a pair that is unknown."""
    names = [name for name in (config.teacher, config.student) if name is not None]
    for text in config.pairs:
        with collect_problems([]):
            names += [named_pair(text).teacher, named_pair(text).student]
    return names


def faults_of_options(config: BenchConfig) -> list[str]:
    """What is wrong with a bench's options by themselves, whatever its networks and data are; what a plugin may know is passed over."""
    problems: list[str] = []
    changes = read_changes(config, problems)
    if config.plugin:
        return problems
    with collect_problems(problems):
        wandb_settings(config.wandb, os.environ)
    with REGISTRY.declarations():
        requests = read_requests(config, problems)
        with collect_problems(problems):
            recipe_file(config.recipe).resolve("", below(changes, "recipe"))
        for text in config.pairs:
            with collect_problems(problems):
                named_pair(text)
        problems += faults_of_settings(requests, config, "deep")
    return list(dict.fromkeys(problems))


def is_known_to_be_sound(config: BenchConfig) -> bool:
    """Whether a bench can be announced before torch is loaded: nothing is left that torch, the data or a user's file may refuse."""
    return is_judged_by_options(config) and not faults_of_options(config)


def is_judged_by_options(config: BenchConfig) -> bool:
    """Whether a bench has kdzoo's own networks and data that are there, and asks for nothing of which torch or a file has to say more."""
    others = set(BenchConfig.model_fields) - JUDGED_HERE
    if any(getattr(config, name) != BenchConfig.model_fields[name].get_default() for name in others):
        return False
    is_there = config.data in DATA and path_of(config.data) is None and location_of(config.data, _root(config)) is not None
    own = set(networks_of(config)) <= set(own_networks()) and (config.teacher is None) == (config.student is None)
    return is_there and own and all(key.startswith("recipe.") for key in config.set)


def _root(config: BenchConfig) -> Path | None:
    return None if config.data_root is None else Path(config.data_root)
