"""From frozen Runs to the objects that train: data, teacher, student, objective."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache, partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from kdzoo.contract.methods import REGISTRY
from kdzoo.contract.needs import Need
from kdzoo.contract.objective import Deployed, Objective, Term, build_objective, terms_of
from kdzoo.contract.shapes import Shapes
from kdzoo.data.dataset import Images
from kdzoo.data.sources import load
from kdzoo.data.split import Parts, split
from kdzoo.data.unlabelled import Like, Unlabelled, load_unlabelled
from kdzoo.errors import InputError
from kdzoo.models.build import build_network, draw_weights
from kdzoo.models.ensemble import Ensemble
from kdzoo.models.examine import Head
from kdzoo.models.measure import NetworkCost, count, multiply_accumulates, probe
from kdzoo.models.network import Network, Peer, freeze
from kdzoo.models.placement import Placement
from kdzoo.models.stages import pair_stages
from kdzoo.models.weights import ensemble_ids, file_sha256, load_state, read_shipped
from kdzoo.runs.options import WorkerOptions
from kdzoo.runs.spec import NetworkSpec, Recipe, Run
from kdzoo.runs.store import RunFolder, teacher_store
from kdzoo.teachers.file import SavedFile, read_saved
from kdzoo.teachers.saved import problems_of_saved, saved_teacher, shapes_of_saved
from kdzoo.teachers.teacher import Teacher, serve
from kdzoo.training.cohort import Cohort
from kdzoo.training.member import Member
from kdzoo.training.regularise import refuse_regularisation


@dataclass(frozen=True)
class Bound:
    """A run with what it was planned from: its folder, and where its data and weights lie."""

    run: Run
    folder: RunFolder
    paths: Mapping[str, Any]

    @staticmethod
    def read(folder: RunFolder) -> Bound:
        run, about = folder.read_plan()
        return Bound(run, folder, about.get("paths", {}))

    @cached_property
    def terms(self) -> tuple[Term, ...]:
        """The methods of the run, which all its objectives share; raises InputError for one that is unknown or of another version."""
        return terms_of(self.run.objective)


WeightFiles = str | list[str | None] | None
"""the file of a network's weights; of an ensemble a list, where None is a kept teacher; None where no file is named"""


@dataclass(frozen=True)
class Modules:
    """Networks given from Python as objects, by the name that their specification carries."""

    by_name: Mapping[str, nn.Module] = field(default_factory=dict)

    def get(self, name: str) -> nn.Module | None:
        return self.by_name.get(name)


@lru_cache(maxsize=2)
def images_of(
    request: str, root: str | None, image_size: int | None, image_cache: int | None = None, skip_unreadable: bool = False
) -> Images:
    """A data set, kept for the next run of this process."""
    place = Path(root) if root else None
    return load(request, root=place, image_size=image_size, image_cache=image_cache, skip_unreadable=skip_unreadable)


@lru_cache(maxsize=2)
def unlabelled_of(request: str, like: Like, root: str | None, image_size: int | None, skip_unreadable: bool = False) -> Unlabelled:
    """The images without labels of a transfer set, kept for the next run of this process."""
    place = Path(root) if root else None
    return load_unlabelled(request, like, root=place, image_size=image_size, skip_unreadable=skip_unreadable)


def data_of(bound: Bound, image_cache: int | None = None) -> tuple[Images, Parts]:
    """The images and the parts of a run's data; raises InputError when they are not those it was planned with.

    image_cache: the bytes that a folder's decoded images may take, which changes no pixel (`folder.load_folder`).
    """
    spec = bound.run.data
    paths, size = bound.paths, bound.run.recipe.augment.size
    skip = bool(paths.get("skip_unreadable", False))
    images = images_of(paths.get("data", spec.name), paths.get("data_root"), size, image_cache, skip)
    if images.fingerprint != spec.fingerprint:
        raise InputError(f"data: {spec.name} has changed since {bound.run.id} was planned ({spec.fingerprint} is now {images.fingerprint})")
    extra = None
    if spec.transfer is not None and spec.transfer.images is not None:
        extra = unlabelled_of(str(paths.get("transfer_data")), Like.those_of(images), paths.get("data_root"), size, skip)
        if extra.fingerprint != spec.transfer.images:
            raise InputError(
                f"transfer_data: {extra.source} has changed since {bound.run.id} was planned ({spec.transfer.images} is now "
                f"{extra.fingerprint})"
            )
    return normalised(images, bound.run.recipe), split(images, spec, extra)


def normalised(images: Images, recipe: Recipe) -> Images:
    """The data set with the constants that a recipe normalises with, where it has its own."""
    if recipe.mean is None or recipe.std is None:
        return images
    if len(recipe.mean) != images.channels:
        raise InputError(f"recipe.mean: expected as many numbers as {images.name} has channels, {images.channels}, got {list(recipe.mean)}")
    return replace(images, mean=recipe.mean, std=recipe.std)


def shape_of(images: Images, recipe: Recipe) -> tuple[int, int, int]:
    """Channels, height and width of what the networks see."""
    side = recipe.augment.size
    return (images.channels, side or images.height, side or images.width)


def network_of(
    spec: NetworkSpec, images: Images, *, side: int, seed: int, path: WeightFiles, modules: Modules, head: Head = "kept"
) -> Network:
    """A network with the weights its specification names; `path` says where files or runs' weights were found."""
    if members := members_of(spec, path):
        made = [network_of(one, images, side=side, seed=seed, path=file, modules=modules) for one, file in members]
        return Ensemble(made)
    assert not isinstance(path, list), "one network has one file"
    weights = weights_path(spec, path)
    return build_network(
        spec,
        channels=images.channels,
        side=side,
        mean=images.mean,
        std=images.std,
        seed=seed,
        head=head,
        weights=weights,
        module=modules.get(spec.name),
    )


def members_of(spec: NetworkSpec, path: WeightFiles) -> list[tuple[NetworkSpec, str | None]]:
    """The networks of an ensemble, whose specification names several runs, each with the file of its weights; none for one network.

    A member whose file is not there is looked for among the kept teachers. Raises InputError where it is not there either.
    """
    kind, _, ids = spec.start.partition(":")
    found = ensemble_ids(ids) if kind == "run" else []
    if len(found) < 2:
        return []
    files = path if isinstance(path, list) else [None] * len(found)
    return [_member(run_id, file) for run_id, file in zip(found, files, strict=True)]


def _member(run_id: str, file: str | None) -> tuple[NetworkSpec, str | None]:
    """One network of an ensemble as its run made it, and the file of its weights."""
    beside = RunFolder(Path(file).parent) if file is not None and Path(file).is_file() else None
    folder = beside if beside is not None and beside.id == run_id else teacher_store().run(run_id)
    return folder.read_plan()[0].student.model_copy(update={"start": f"run:{run_id}"}), file


def weights_path(spec: NetworkSpec, path: str | None) -> Path | None:
    """The file that holds a network's weights: as planned, else among the kept teachers; None where none is read.

    Raises InputError for a file that is gone, or whose content is no longer what its name in the run's id says.
    """
    kind, _, name = spec.start.partition(":")
    if kind not in ("file", "run"):
        return None
    for candidate in [Path(path)] if path else []:
        if candidate.is_file():
            if kind == "file" and (found := file_sha256(candidate)) != name:
                raise InputError(f"{spec.name}: {candidate} is not the file that was planned (sha256 {name[:12]}..., now {found[:12]}...)")
            return candidate
    kept = teacher_store().run(name).student
    if kind == "run" and kept.is_file():
        return kept
    where = path or "the kept teachers"
    raise InputError(f"{spec.name}: its weights ({spec.start}) have moved: looked in {where}")


def saved_file(bound: Bound) -> SavedFile:
    """The file of a run's saved teacher; raises InputError where it is gone or is not the one that was planned."""
    spec, path = bound.run.teacher, bound.paths.get("teacher")
    assert spec is not None
    assert spec.saved is not None
    if path is None or not Path(path).is_file():
        raise InputError(f"teacher {spec.name}: its file of saved answers has moved: looked in {path}")
    return _saved_file(Path(path), spec.name, spec.saved)


@lru_cache(maxsize=1)
def _saved_file(path: Path, name: str, digest: str) -> SavedFile:
    file = read_saved(path)
    if file.digest != digest:
        raise InputError(f"teacher {name}: {path} is not the file that was planned (sha256 {digest[:12]}..., now {file.digest[:12]}...)")
    return file


def refuse_what_is_not_saved(bound: Bound, parts: Parts) -> None:
    """Raises InputError for what a run reads of its saved teacher that the file does not hold."""
    needs = {term.method: REGISTRY.get(term.method).card.needs.settled(preact=False).teacher for term in bound.run.objective.all_terms}
    if problems := problems_of_saved(saved_file(bound), parts, bound.run.recipe, needs):
        raise InputError(*problems)


def teacher_of(bound: Bound, images: Images, parts: Parts, execution: Placement, modules: Modules) -> tuple[Teacher, Shapes] | None:
    """The frozen teacher of a run with its predictions, or None."""
    if bound.run.teacher is None:
        return None
    if bound.run.teacher.saved is not None:
        file = saved_file(bound)
        return saved_teacher(file, parts, bound.run.recipe), shapes_of_saved(file)
    side = shape_of(images, bound.run.recipe)[1]
    made = network_of(bound.run.teacher, images, side=side, seed=0, path=bound.paths.get("teacher"), modules=modules)
    network = freeze(execution.place(made, bound.run.recipe.precision))
    shape = shape_of(images, bound.run.recipe)
    cost = count(network, shape)
    return serve(network, bound.run.teacher.name, cost, parts, bound.run.recipe.augment, execution), probe(network, shape)


def student_of(bound: Bound, images: Images, parts: Parts, teacher: Shapes | None, modules: Modules) -> tuple[Network, Objective]:
    """A fresh student and objective; raises InputError when the method cannot serve the two networks."""
    network = student_network(bound, images, modules)
    return network, objective_of(bound, network, student_shapes(bound.run, network, images, modules), images, parts, teacher)


def student_network(bound: Bound, images: Images, modules: Modules) -> Network:
    """A fresh student with the weights that it starts from."""
    run, side = bound.run, shape_of(images, bound.run.recipe)[1]
    return network_of(run.student, images, side=side, seed=run.seed, path=bound.paths.get("student"), modules=modules, head="fresh")


def student_shapes(run: Run, network: Network, images: Images, modules: Modules) -> Shapes:
    """What a student's outputs measure, and how a peer of its architecture is made."""
    shape = shape_of(images, run.recipe)
    return replace(probe(network, shape), fresh=partial(learner, run.student, images, shape[1], modules.get(run.student.name)))


def objective_of(bound: Bound, network: Network, shapes: Shapes, images: Images, parts: Parts, teacher: Shapes | None) -> Objective:
    """A fresh objective for a student of these shapes; raises InputError when the method cannot serve the two networks."""
    run = bound.run
    _refuse_recipe(run, shape_of(images, run.recipe))
    refuse_regularisation(run.recipe, run.student.name, network)
    stages = pair_stages(shapes, teacher or shapes, run.objective.pairing)  # without a teacher, all of the student's own
    objective = build_objective(
        run.objective, shapes, teacher, stages, parts.facts, label_smoothing=run.recipe.label_smoothing, seed=run.seed, terms=bound.terms
    )
    if run.recipe.ema is not None and objective.shipped(network) is not network:
        raise InputError(f"recipe.ema: {run.objective.label} keeps parts of its method at inference, which no average covers; remove it")
    return objective


def _refuse_recipe(run: Run, shape: tuple[int, int, int]) -> None:
    """Raises InputError for what a recipe cannot mean for these images and these methods."""
    problems = []
    if run.recipe.augment.cutout > max(shape[1:]):
        problems.append(
            f"recipe.augment.cutout: expected at most {max(shape[1:])}, the side of the images, got {run.recipe.augment.cutout}"
        )
    if run.recipe.dot is not None and run.recipe.clip is not None:
        problems.append("recipe.clip: cannot be combined with recipe.dot, which clips neither of its two gradients")
    if run.recipe.mixes:
        reasons = {term.method: REGISTRY.get(term.method).card.unmixed for term in run.objective.all_terms}
        problems += [f"{name}: cannot be trained with recipe.mixup or recipe.cutmix: {why}" for name, why in reasons.items() if why]
    if problems:
        raise InputError(*problems)


def learner(spec: NetworkSpec, images: Images, side: int, module: nn.Module | None) -> Peer:
    """A new network of an architecture with a random start drawn from torch's present stream."""
    seed = int(torch.randint(2**31, ()))
    start = spec.model_copy(update={"start": "random", "weights": None})
    made = build_network(start, channels=images.channels, side=side, mean=images.mean, std=images.std, seed=seed, module=module)
    if module is not None:
        draw_weights(made.model, seed)
    return Peer(made)


def kept_student(bound: Bound, images: Images, parts: Parts, modules: Modules) -> nn.Module:
    """The trained student of a finished run as it ships, with `logits(images)`; raises InputError where its weights do not fit."""
    state, shipped_with = read_shipped(bound.folder.student, bound.run.id)
    if not shipped_with:
        spec = bound.run.student.model_copy(update={"start": f"run:{bound.run.id}"})
        side = shape_of(images, bound.run.recipe)[1]
        return network_of(spec, images, side=side, seed=bound.run.seed, path=str(bound.folder.student), modules=modules)
    taught = teacher_of(bound, images, parts.first(1), Placement(WorkerOptions(teacher_cache=0)), modules)
    network, objective = student_of(bound, images, parts, taught[1] if taught else None, modules)
    shipped = objective.shipped(network)
    assert isinstance(shipped, Deployed)
    load_state(network.model, state, str(bound.folder.student))
    load_state(shipped.module, shipped_with, str(bound.folder.student))
    return shipped


def size_of(network: Network, objective: Objective, shape: tuple[int, int, int]) -> NetworkCost:
    """Parameters and multiply-accumulates of what is shipped: of the network alone, or with what a method adds and drops."""
    size, shipped = count(network, shape), objective.shipped(network)
    if not isinstance(shipped, Deployed):
        return size
    unread = not {Need.LOGITS, Need.CLASSIFIER} & set(shipped.method.card.needs.student)
    dropped = sum(p.numel() for p in network.classifier.parameters()) if unread else 0
    added = sum(p.numel() for p in shipped.module.parameters())
    return NetworkCost(size.parameters - dropped + added, multiply_accumulates(shipped, network, shape))


def member_of(
    bound: Bound,
    images: Images,
    parts: Parts,
    teacher: Shapes | None,
    execution: Placement,
    modules: Modules,
    teacher_weights: str | None = None,
) -> Member:
    network, objective = student_of(bound, images, parts, teacher, modules)
    size = size_of(network, objective, shape_of(images, bound.run.recipe))
    return Member(bound.run, bound.folder, network, size, objective, execution, teacher_weights)


def cohort_of(members: list[Member], parts: Parts, teacher: Teacher | None, execution: Placement) -> Cohort:
    return Cohort(members, parts, teacher, execution)


def teacher_key(bound: Bound) -> tuple[Any, ...]:
    """What decides a teacher and its predictions: equal keys may share them."""
    return (str(bound.run.teacher), *data_key(bound))


def data_key(bound: Bound) -> tuple[Any, ...]:
    """What decides the data as a run's networks take them: equal keys may share them."""
    recipe = bound.run.recipe
    return (bound.run.data, recipe.augment.size, recipe.mean, recipe.std)
