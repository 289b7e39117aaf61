"""What can be judged of a bench before torch is loaded: which files are missing, and what is wrong with its options. Free of torch."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from kdzoo.contract.methods import REGISTRY
from kdzoo.contract.plugins import no_such_plugin
from kdzoo.data.known import DATA, FOLDER, TEXT, folder_of, location_of, no_such_folder, no_such_texts, no_such_transfer_folder, path_of
from kdzoo.errors import collect_problems, raise_if_any
from kdzoo.models.known import own_networks
from kdzoo.models.network_words import refuse_missing
from kdzoo.runs.wandb_settings import wandb_settings
from kdzoo.suite.plan.changes import below, read_changes
from kdzoo.suite.plan.config import BenchConfig
from kdzoo.suite.plan.objectives import faults_of_settings
from kdzoo.suite.plan.pairs import read_pairs
from kdzoo.suite.plan.recipe_files import RECIPES, recipe_file
from kdzoo.suite.plan.requests import parse_request, read_requests

JUDGED_HERE = {
    *("name", "methods", "temperatures", "alphas", "weights", "doses", "grid", "tune", "refit", "seeds", "control_seeds", "refit_seeds"),
    *("pairs", "teacher", "student", "data", "data_root", "recipe", "epochs", "lr", "wandb", "results", "jobs", "threads", "keep", "set"),
}
"""the keys of a bench whose values need neither torch nor the data to be judged"""


def refuse_early(config: BenchConfig) -> None:
    """Raise InputError with all that is known to be wrong with a bench before torch is loaded, where its plan would tell no more.

    That is so where a file or folder is missing, without which there is no plan, and where its options are the only thing to judge.
    """
    missing = [*missing_files(config.data, networks_of(config)), *missing_transfer_data(config), *missing_plugins(config.plugin)]
    told_by_options = is_judged_by_options(config) and not config.refit  # whether that leaves anything to choose on, the data tell
    faults = faults_of_options(config) if missing or told_by_options else []
    raise_if_any(dict.fromkeys([*missing, *faults]))


def missing_files(data: str, networks: Iterable[str]) -> list[str]:
    """What is missing of data and weights, in the words of what reads them; what only a closer look can tell is left to that.

    Data by name are looked for, and fetched, where they are read; weights with options after an `@` are told from paths there.
    """
    problems: list[str] = []
    folder, file = folder_of(data), path_of(data)
    if folder is not None and not os.path.isdir(folder):
        problems.append(no_such_folder(folder))
    if data.startswith(TEXT) and file is not None and not os.path.exists(file):
        problems.append(no_such_texts(file))
    for words in dict.fromkeys(networks):
        with collect_problems(problems):
            refuse_missing(words)
    return problems


def missing_transfer_data(config: BenchConfig) -> list[str]:
    """The folder of a bench's images without labels, where it is missing."""
    request = config.transfer_data or ""
    missing = request.startswith(FOLDER) and not os.path.isdir(os.path.expanduser(request.removeprefix(FOLDER)))
    return [no_such_transfer_folder(request)] if missing else []


def missing_plugins(files: Iterable[str]) -> list[str]:
    """Which of a user's files are missing."""
    return [no_such_plugin(file) for file in files if not Path(file).is_file()]


def networks_of(config: BenchConfig) -> list[str]:
    """Every network that a bench names, those of its pairs too; none of a pair that is unknown."""
    return [text for pair in read_pairs(config, []) for text in pair] or [text for text in (config.teacher, config.student) if text]


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
        pairs = read_pairs(config, problems)
        with collect_problems(problems):
            check_recipe(config, changes, [student for _, student in pairs])
        problems += faults_of_settings(requests, config, "deep")
    return list(dict.fromkeys(problems))


def check_recipe(config: BenchConfig, changes: Mapping[str, Any], students: Iterable[str]) -> None:
    """Resolve a bench's recipe for those of its students that start from random weights; raises InputError for what is wrong with it."""
    protocol = recipe_file(config.recipe).variant(trained=False, fine_tuned=False)
    for student in dict.fromkeys(students):
        if student in own_networks():
            protocol.resolve(student, below(changes, "recipe"), config.data)


def has_no_known_fault(config: BenchConfig) -> bool:
    """Whether a bench can be announced before torch is loaded: a shipped recipe, methods for images, and options without a fault."""
    if not is_judged_by_options(config) or config.recipe not in RECIPES or faults_of_options(config):
        return False
    with REGISTRY.declarations():
        return not any(REGISTRY.get(name).card.of_texts_alone for text in config.methods for name in parse_request(text).terms)


def is_judged_by_options(config: BenchConfig) -> bool:
    """Whether a bench has kdzoo's own networks and data that are there, and asks for nothing of which torch or a file has to say more."""
    others = set(BenchConfig.model_fields) - JUDGED_HERE
    if any(getattr(config, name) != BenchConfig.model_fields[name].get_default() for name in others):
        return False
    is_there = config.data in DATA and path_of(config.data) is None and location_of(config.data, _root(config)) is not None
    own = set(networks_of(config)) <= set(own_networks())
    return is_there and own and all(key.startswith("recipe.") for key in config.set)


def _root(config: BenchConfig) -> Path | None:
    return None if config.data_root is None else Path(config.data_root)
