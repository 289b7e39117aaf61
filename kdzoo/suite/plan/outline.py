"""What a bench is going to train, in words, before torch is loaded. The plan that follows counts exactly."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kdzoo.contract.methods import REGISTRY
from kdzoo.data.transfer import request_in_words
from kdzoo.errors import InputError, raise_if_any
from kdzoo.runs.spec import Run
from kdzoo.suite.plan.changes import below, read_changes
from kdzoo.suite.plan.config import NONE, BenchConfig
from kdzoo.suite.plan.pairs import read_pairs
from kdzoo.suite.plan.recipe_files import RecipeFile, recipe_file
from kdzoo.suite.plan.refit import wants_refit
from kdzoo.suite.plan.requests import Request, parse_request
from kdzoo.suite.plan.settings import settings
from kdzoo.text import number_of

LISTED = 6
"""with more methods than this, their number is told, not each with its settings"""


@dataclass(frozen=True)
class Outline:
    """The methods of a bench with their numbers of settings, controls first; None for one that only a plugin knows.

    protocol, changes: the recipe's file, and what the bench changes in its recipe. exact: whether every setting is sure to be a
    run of its own.
    """

    config: BenchConfig
    methods: tuple[tuple[str, int | None], ...]
    pairs: tuple[tuple[str, str], ...]
    protocol: RecipeFile
    changes: Mapping[str, Any]
    exact: bool

    @property
    def runs(self) -> int | None:
        """The number of runs of the sweep, or an upper bound; None where only a plugin knows."""
        total = 0
        students = len({student for _, student in self.pairs})  # the student alone is one run for all of its teachers
        for name, number in self.methods:
            if number is None:
                return None
            total += number * len(self.config.seeds_for(name)) * (students if name == NONE else len(self.pairs))
        return total

    def epochs(self, images: float | None = None) -> int:
        """For how many epochs a student without trained weights trains on so many images; without their number the least."""
        student, count = self.pairs[0][1], None if images is None else round(images)
        return self.protocol.resolve(student, self.changes, self.config.data, count).epochs

    @property
    def planned_epochs(self) -> str:
        """For how many epochs a run trains, as far as that is known before the images are counted."""
        depends = self.protocol.min_steps is not None and "epochs" not in self.changes
        return f"{'at least ' if depends else ''}{number_of(self.epochs(), 'epoch')}"

    def lines(self, epochs: str | None = None) -> list[tuple[str, str]]:
        """Words and what they stand for: the number of runs, where results go, methods, settings, seeds, networks, data, recipe.

        epochs: for how many a run trains, where more is known than `planned_epochs`.
        """
        config = self.config
        if self.runs is None:
            number = f"runs are counted once {' and '.join(Path(file).name for file in config.plugin)} is loaded"
        else:
            number = f"{'' if self.exact else 'at most '}{number_of(self.runs, 'run')}"
        lines = [
            ("bench", f"{config.name}: {number}, results in {Path(config.results) / config.name}"),
            ("methods", f"{methods_in_words(self.methods)}; {seeds_in_words(config)}"),
            ("networks", f"{pairs_in_words(self.pairs)}, on {config.data}"),
            ("recipe", f"{Path(config.recipe).stem}, {epochs or self.planned_epochs} a run"),
        ]
        if config.transfer_classes is not None or config.transfer_data is not None:
            lines.append(("transfer set", f"the student is taught on {_transfer_words(config)}"))
        if config.budget is not None:
            lines.append(("budget", f"the epochs of {number_of(config.budget, 'whole run')}, by successive halving on validation images"))
        if wants_refit(config):
            lines.append(("refit", "then the chosen settings on all training images, with fresh seeds"))
        return lines


def _transfer_words(config: BenchConfig) -> str:
    """What a transfer set is, as far as that is known before the data are read."""
    images = [f"the unlabelled images of {config.transfer_data}"] if config.transfer_data is not None else []
    if config.transfer_only:
        return f"{images[0]} alone"
    classes = "all classes" if config.transfer_classes is None else request_in_words(config.transfer_classes)
    return " and ".join([classes, *images])


def outline(config: BenchConfig) -> Outline | None:
    """The outline of a bench; None where something is wrong with it, which its plan tells with all else that is."""
    with REGISTRY.declarations():
        try:
            protocol = recipe_file(config.recipe)
            changes = below(read_changes(config, []), "recipe")
            pairs = _pairs(config)
            protocol.resolve(pairs[0][1], changes, config.data)  # raises for values of the recipe that are none
            requests = {text: _request(text, config) for text in (*config.controls, *config.methods)}
            published = [protocol.published_for("/".join(_name(network) for network in pair)) for pair in pairs]
            counts = tuple(
                (text, None if request is None else max((len(settings(request, config, values)) for values in published), default=0))
                for text, request in requests.items()
            )
        except InputError:
            return None
    known = [request for request in requests.values() if request is not None]
    distinct = len({request.terms for request in known}) == len(requests) and not any(request.exact for request in known)
    exact = distinct and config.tune is None and not config.grid and 0 not in (*config.alphas, *config.weights, *config.doses)
    return Outline(config, counts, pairs, protocol, changes, exact)


def _pairs(config: BenchConfig) -> tuple[tuple[str, str], ...]:
    """The distinct pairs; raises InputError for one that is none, or where there is none."""
    problems: list[str] = []
    pairs = read_pairs(config, problems)
    raise_if_any(problems)
    return tuple(dict.fromkeys(pairs))


def _request(text: str, config: BenchConfig) -> Request | None:
    """A request by name; None where it names what only a plugin can know."""
    try:
        return parse_request(text)
    except InputError:
        if config.plugin:
            return None
        raise


def _name(network: str) -> str:
    """A network's name, without the options for its weights and its images."""
    return network.partition(":")[0].partition("@")[0]


def methods_in_words(methods: Sequence[tuple[str, int | None]]) -> str:
    """`student alone, 4 settings of hinton, 2 settings of at`, in the plan's order; the range of their settings for many methods."""
    others = [(name, number) for name, number in methods if name != NONE]
    if len(others) > LISTED:
        numbers = sorted(number for _, number in others if number is not None)
        span = f"{numbers[0]} to {numbers[-1]} settings" if numbers[0] != numbers[-1] else number_of(numbers[0], "setting")
        return f"student alone and {len(others)} methods, {span} each"
    texts = [name if number in (None, 1) else f"{number} settings of {name}" for name, number in others]
    return ", ".join(["student alone", *texts])


def seeds_in_words(config: BenchConfig) -> str:
    count, more = len(config.seeds), len(config.seeds_of_controls)
    seeds = f"seed{'' if count == 1 else 's'} {', '.join(map(str, config.seeds))}" if count <= LISTED else f"{count} seeds"
    return seeds if more == count else f"{seeds} ({more} seeds for the student alone and plain KD)"


def pairs_in_words(pairs: Sequence[tuple[str, str]]) -> str:
    if len(pairs) > 1:
        return f"{len(pairs)} pairs: {', '.join('/'.join(pair) for pair in pairs)}"
    teacher, student = pairs[0]
    return f"{student} taught by {teacher}"


def epochs_in_words(runs: Iterable[Run]) -> str:
    """For how many epochs runs train; several numbers where networks are trained for other lengths."""
    return " or ".join(number_of(count, "epoch") for count in sorted({run.recipe.epochs for run in runs}))
