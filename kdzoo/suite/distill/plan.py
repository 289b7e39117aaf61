"""From a wish to the two runs of a distillation and its teacher's: image size, normalisation, the teacher's classifier."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

from kdzoo.contract.methods import REGISTRY
from kdzoo.data.known import FOLDER
from kdzoo.data.split import split
from kdzoo.errors import InputError, collect_problems
from kdzoo.models.network import Network, freeze
from kdzoo.models.request import pretrained_by_default
from kdzoo.runs.spec import Run
from kdzoo.suite.distill.image_size import ImageSize, choose_size, enlarged_note
from kdzoo.suite.distill.time_limit import settle_epochs
from kdzoo.suite.distill.wish import Wish
from kdzoo.suite.export.hf_format import refuse_unconfigurable
from kdzoo.suite.plan.planned import PlannedRun
from kdzoo.suite.plan.recipe_files import recipe_file
from kdzoo.suite.plan.requests import parse_request
from kdzoo.suite.run.prepare import Prepared, configure, prepare
from kdzoo.text import number_of
from kdzoo.training.located import Modules
from kdzoo.training.run_data import load_dataset
from kdzoo.training.run_networks import load_network


def plan_distillation(wish: Wish, modules: Modules) -> tuple[Prepared, tuple[str, ...]]:
    """The two runs of a distillation and the teacher's, ready to be trained, and the notes on image size, normalisation and teacher.

    Raises InputError with everything that is wrong.
    """
    began = time.monotonic()
    if wish.seconds is not None and wish.epochs is not None:
        raise InputError("time: the number of epochs follows from it; leave --epochs or --time out")
    teacher = _teacher(wish, modules)
    size = wish.image_size
    notes: list[str] = []
    if size is None and not wish.data.startswith(FOLDER):
        size = _own_size(wish)
    prepared = prepare_wish(wish, teacher, size, modules)
    if wish.format == "hf":
        refuse_unconfigurable(planned_run(prepared, wish.method).run.student)
    usual = planned_run(prepared, wish.method).run.recipe.augment.size
    chosen = chosen_size(prepared, modules, size) if wish.data.startswith(FOLDER) else None
    if size is None:
        notes.append(str(chosen) if chosen is not None else f"image size {usual}, that of the recipe")
    side = chosen.side if chosen is not None else usual
    if wish.data.startswith(FOLDER) and side is not None:
        notes += filter(None, [enlarged_note(Path(wish.data.removeprefix(FOLDER)), side)])
    if chosen is not None and chosen.norm is not None and wish.teacher not in modules.by_name:
        notes.append(
            f"the file of {wish.teacher} does not say how its images were normalised: @norm={chosen.norm}, timm's for this network"
        )
        teacher = f"{teacher}@norm={chosen.norm}"
        prepared = prepare_wish(wish, teacher, chosen.side, modules)
    elif chosen is not None and chosen.side != usual:
        prepared = prepare_wish(wish, teacher, chosen.side, modules)
    if wish.seconds is not None:
        epochs = settle_epochs(wish, prepared, time.monotonic() - began, modules)
        notes.append(f"time: {number_of(epochs, 'epoch')} of both students {'is' if epochs == 1 else 'are'} expected to fit")
        of_teacher = next((planned.run.recipe.epochs for planned in prepared.plan.teachers.values()), None)
        timed = replace(wish, epochs=epochs, teacher_epochs=of_teacher)
        prepared = prepare_wish(timed, teacher, prepared.config.set.get("recipe.augment.size"), modules)
    return prepared, (*notes, *_notes_on_teacher(prepared, wish.teacher))


def _teacher(wish: Wish, modules: Modules) -> str:
    """The teacher as a bench takes it: a bare name means pretrained weights where there are any.

    Where the teacher or the method cannot be taken, raises InputError with that and with whatever else is wrong with the wish.
    """
    problems: list[str] = []
    teacher = wish.teacher
    with collect_problems(problems):
        refuse_unshippable(wish.method)
    with collect_problems(problems):
        teacher = teacher if teacher in modules.by_name else pretrained_by_default(teacher)
    if problems:
        with collect_problems(problems):
            prepare_wish(wish, wish.teacher, wish.image_size, modules)
        raise InputError(*dict.fromkeys(problems))
    return teacher


def prepare_wish(wish: Wish, teacher: str, size: int | None, modules: Modules) -> Prepared:
    """The bench of a wish, without the controls that a distillation does not show."""
    prepared = prepare(configure(wish.options(teacher, size), modules=modules), modules)
    labels = {"none", _label(wish.method)}
    students = tuple(planned for planned in prepared.plan.students if planned.run.objective.label in labels)
    return replace(prepared, plan=replace(prepared.plan, students=students))


def _own_size(wish: Wish) -> int | None:
    """The side of a data set's own images, where a recipe has a larger one; None to leave the recipe's."""
    own = recipe_file(wish.recipe).augment.get("size")
    if own is None:
        return None
    images = load_dataset(wish.data, None, None)
    return min(images.height, images.width, own) if min(images.height, images.width) < own else None


def chosen_size(prepared: Prepared, modules: Modules, given: int | None) -> ImageSize | None:
    """The image size for a folder, measured with the teacher's weights on its training images; None where that is not possible.

    given: the only size that may be chosen, where a user names one; the teacher's normalisation is measured all the same.
    """
    sides = sorted(recipe_file(prepared.config.recipe).sizes) if given is None else [given]
    planned = next(one for one in prepared.plan.students if one.run.teacher is not None)
    trained = next(iter(prepared.plan.teachers.values()), None)
    spec = planned.run.teacher if trained is None else trained.run.student
    path = planned.about["paths"].get("teacher") if trained is None else trained.about["paths"].get("student")
    if not sides or spec is None or spec.start == "random" or (given is not None and spec.norm is not None):
        return None
    config = prepared.config
    images = load_dataset(config.data, config.data_root, sides[-1], config.image_cache, config.skip_unreadable)

    def network_at(side: int) -> Network:
        return freeze(load_network(spec, images, side=side, seed=0, path=path, modules=modules, head="fresh"))

    return choose_size(network_at, spec.name, split(images, planned.run.data).train, sides)


def _notes_on_teacher(prepared: Prepared, teacher: str) -> tuple[str, ...]:
    """A note for each teacher that has to be trained before it teaches."""
    trained = [planned.run for planned in prepared.plan.teachers.values()]
    return tuple(f"the teacher {teacher} {_training_in_words(run)}; kept as {run.id}" for run in trained)


def _training_in_words(run: Run) -> str:
    epochs = number_of(run.recipe.epochs, "epoch")
    if run.student.start == "random":
        return f"starts at random and is trained on these images first ({epochs})"
    if run.recipe.learns == "head":
        return "was made for other classes and gets a classifier for these first, a regression on its frozen features"
    return f"was made for other classes and is fine-tuned on these images first ({epochs})"


def refuse_unshippable(method: str) -> None:
    """Raise InputError for a method whose student plain timm cannot load."""
    ships = {name: REGISTRY.get(name).card.deploys for name in parse_request(method).terms}
    found = [
        f"method: {name} ships {words}, which plain timm does not load; `kdzoo bench` trains it" for name, words in ships.items() if words
    ]
    if found:
        raise InputError(*found)


def _label(method: str) -> str:
    """The label of the runs of a method or a sum of methods."""
    return "+".join(sorted(parse_request(method).terms)) or "none"


def planned_run(prepared: Prepared, method: str) -> PlannedRun:
    """The planned run of a method."""
    (found,) = [planned for planned in prepared.plan.students if planned.run.objective.label == _label(method)]
    return found
