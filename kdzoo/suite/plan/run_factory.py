"""Makes the runs of a bench: of its teachers, where they have to be trained, and of its students."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cache, cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch

from kdzoo.contract.methods import REGISTRY
from kdzoo.data.columns import learn, learned_columns, task_for
from kdzoo.data.dataset import Dataset
from kdzoo.data.known import absolute
from kdzoo.data.report import taught_images
from kdzoo.data.split import labelled_subset, split
from kdzoo.errors import InputError, raise_if_any
from kdzoo.models.names import own_norm
from kdzoo.models.network import freeze
from kdzoo.models.normalisation import AUTO, usual_for
from kdzoo.models.request import NetworkRequest, ensemble_ids, pretrained_by_default
from kdzoo.runs.licences import record
from kdzoo.runs.recipe import Recipe
from kdzoo.runs.spec import NetworkSpec, ObjectiveSpec, Pairing, Run
from kdzoo.suite.plan.bench_data import BenchData
from kdzoo.suite.plan.changes import below
from kdzoo.suite.plan.config import BenchConfig
from kdzoo.suite.plan.doses import Dose
from kdzoo.suite.plan.licences import things_of_run
from kdzoo.suite.plan.networks import NetworkResolver, Offer
from kdzoo.suite.plan.objectives import card_record
from kdzoo.suite.plan.planned import PlannedRun
from kdzoo.suite.plan.recipe_files import RecipeFile
from kdzoo.tasks.known import task_named
from kdzoo.teachers.checks import measure_norms
from kdzoo.teachers.file_io import read_saved
from kdzoo.training.located import Modules, WeightFiles
from kdzoo.training.run_networks import load_network


@dataclass(frozen=True)
class PairNetwork:
    """A network of a pair: its specification, the file of its weights, the run that has to train it first, and notes on it.

    path: of an ensemble, a list with that of each network.
    """

    spec: NetworkSpec
    path: WeightFiles = None
    training: PlannedRun | None = None
    notes: tuple[str, ...] = ()

    @property
    def run_id(self) -> str | None:
        """The id of the run that its weights come from; None where that is none, or several."""
        kind, _, name = self.spec.start.partition(":")
        return name if kind == "run" and len(ensemble_ids(name)) == 1 else None


@dataclass(frozen=True)
class RunFactory:
    """Makes the runs of a bench, from what they have in common."""

    config: BenchConfig
    protocol: RecipeFile
    changes: Mapping[str, Any]
    data: BenchData
    modules: Modules

    @cached_property
    def resolver(self) -> NetworkResolver:
        return NetworkResolver(self.config, self.changes, self.data.dataset, self.modules)

    @property
    def pairing(self) -> Pairing:
        """How the stages of the two networks pair."""
        pairing: Pairing = self.changes.get("objective.pairing", self.protocol.pairing)
        return pairing

    @cached_property
    def recipe_of(self) -> Callable[[NetworkSpec, bool], Recipe]:
        """The recipe by which a student, or a teacher, of a specification is trained; the same object for all runs of a pair."""
        return cache(self._recipe)

    def _recipe(self, spec: NetworkSpec, teacher: bool) -> Recipe:
        changes = below(self.changes, "recipe") | (below(self.changes, "teacher_recipe") if teacher else {})
        pretrained = spec.start != "random"
        protocol = self.protocol.variant(trained=pretrained, fine_tuned=teacher and pretrained)
        record = self.data.teacher_record if teacher else self.data.record
        return protocol.resolve(spec.name, changes, self.data.spec.name, taught_images(record) if record else None)

    def teacher(self, text: str) -> PairNetwork:
        """A teacher, with the run that trains it where no weights are named, or fine-tunes it where it may and must be."""
        request = self.resolver.request(text, "teacher")
        if self.data.dataset.task.of_features and text not in self.modules.by_name:
            refuse_for_features(request)
        if request.start == "saved":
            return self._saved_teacher(request)
        offer = self.resolver.offer(request)
        if text in self.modules.by_name or (request.start != "random" and offer.fits):
            notes = (*offer.notes, *offer.doubts(self.data.dataset))
            network = PairNetwork(_of_teacher(offer), self.resolver.weight_files(request), notes=notes)
            return self._with_best_norm(network, request.text) if request.norm == AUTO else network
        if request.norm == AUTO:
            raise InputError(f"{request.text}: norm=auto is measured on weights made for the classes of the data; name a normalisation")
        if request.start != "random" and not self.config.fine_tune:
            raise InputError(f"{request.text}: {offer.misfit}; give weights made for them, or fine-tune it first (--fine-tune)")
        return self._teacher_to_train(request, offer)

    def _teacher_to_train(self, request: NetworkRequest, offer: Offer) -> PairNetwork:
        """A teacher with the run that trains it, on some of the columns of targets where it asks for these."""
        data, spec, columns = self.data.spec.of_teacher, offer.spec, None
        if request.columns:
            learned = self._learned_by_teacher(request)
            columns = tuple(column.name for column in learned_columns(learned))
            data = data.model_copy(update={"task": learned.task.name, "classes": len(learned.classes)})
            spec = spec.model_copy(update={"classes": learned.scores})
        run = Run(
            student=spec,
            teacher=None,
            data=data,
            recipe=self.recipe_of(spec, True),
            objective=ObjectiveSpec(task=1.0),
            seed=int(self.changes.get("teacher.seed", 0)),
        )
        paths = {"student": self.resolver.weight_files(request)}
        planned = PlannedRun(run, self._about(run, pair=request.text, teacher_id=None, paths=paths))
        start = {"start": f"run:{run.id}", "norm": None, "weights": None}  # what it is kept with says how it takes images
        everything = tuple(column.name for column in self.data.dataset.task.several)
        scored = {"columns": None if columns == everything else columns}
        return PairNetwork(spec.model_copy(update={**start, **scored}), None, planned, offer.notes)

    def _learned_by_teacher(self, request: NetworkRequest) -> Dataset:
        """The data with those of the columns that a teacher is asked to learn; raises InputError for others than its students'."""
        dataset = self.data.dataset
        learned = learn(dataset, task_for(dataset, request.columns))
        known = [column.name for column in dataset.task.several]
        if strange := [column.name for column in learned_columns(learned) if column.name not in known]:
            here = ", ".join(known) or "a single one"
            raise InputError(f"{request.text}: @columns={strange[0]}: expected some of the columns that the student learns, {here}")
        return learned

    def _saved_teacher(self, request: NetworkRequest) -> PairNetwork:
        """A teacher that is a file of answers."""
        assert request.path is not None
        file = read_saved(request.path)
        spec = NetworkSpec(name=file.name, classes=self.data.spec.classes, start=f"saved:{file.digest}")
        offer = Offer(request.text, spec).of_classes(file.classes, file.class_names, self.data.dataset)
        offer = offer.of_columns(request.columns, self.data.dataset) if request.columns else offer
        settings = {"norm": request.norm, "weights": request.weights, "image_size": request.image_size}
        raise_if_any(
            (f"teacher.{key}: a saved teacher has no network to set it for; remove it" for key, value in settings.items() if value),
            None if offer.fits else f"{request.text}: {offer.misfit}",
        )
        return PairNetwork(_of_teacher(offer), str(request.path.resolve()), notes=offer.doubts(self.data.dataset))

    def _with_best_norm(self, teacher: PairNetwork, text: str) -> PairNetwork:
        """A teacher under the normalisation that is measured to suit it best, where that is clearly better than its own."""
        images, augment = self.data.dataset, self.recipe_of(teacher.spec, False).augment
        parts = split(images, self.data.spec.of_teacher)
        side = augment.size or images.height
        network = freeze(load_network(teacher.spec, images, side=side, seed=0, path=teacher.path, modules=self.modules))
        architectures = own_norm(teacher.spec.name)
        norms = measure_norms(network, architectures, parts.val or labelled_subset(parts), augment, torch.device("cpu"))
        better = norms.better()
        if better is None:
            return replace(teacher, notes=(*teacher.notes, f"{text}: its own normalisation is kept; {norms}"))
        norm = usual_for(network.channels, architectures)[better]
        note = f"{text}: normalised with {better}, which suits it best; {norms}"
        return replace(teacher, spec=teacher.spec.model_copy(update={"norm": norm}), notes=(*teacher.notes, note))

    def student(self, text: str) -> PairNetwork:
        """A student with the weights that it starts from."""
        request = self.resolver.request(text, "student")
        if text not in self.modules.by_name and self.protocol.student_start == "pretrained":
            request = self.resolver.request(pretrained_by_default(text), "student")
        if request.norm == AUTO:
            raise InputError(f"{text}: norm=auto is measured on a teacher; name a student's normalisation")
        if request.start == "saved":
            raise InputError(f"student: {text} holds a teacher's answers and no network; name a network")
        offer = self.resolver.offer(request)
        return PairNetwork(offer.spec, self.resolver.weight_files(request), notes=offer.notes)

    def run(
        self,
        teacher: PairNetwork,
        student: PairNetwork,
        objective: ObjectiveSpec,
        seed: int,
        doses: Mapping[str, Dose] = MappingProxyType({}),
        provisional: bool = False,
    ) -> PlannedRun:
        """A run of a student, under its teacher where its methods read one. provisional: see `PlannedRun`."""
        reads_teacher = any(REGISTRY.get(term.method).card.needs.teacher for term in objective.all_terms)
        recipe = self.recipe_of(student.spec, False)
        teacher_spec = _with_views(teacher, recipe)
        run = Run(
            student=student.spec,
            teacher=teacher_spec if reads_teacher else None,
            data=self.data.spec,
            recipe=recipe,
            objective=objective,
            seed=seed,
        )
        paths = {"student": student.path, "teacher": teacher.path if reads_teacher else None}
        pair = f"{teacher.spec.name}{f' ({teacher_spec.views} view)' if teacher_spec.views else ''}/{student.spec.name}"
        about = self._about(run, pair=pair, teacher_id=teacher.run_id, paths=paths, trained=teacher.training)
        more = {"doses": {name: dose.record() for name, dose in doses.items()}} if doses else {}
        return PlannedRun(run, {**about, **more}, provisional)

    def _about(
        self, run: Run, *, pair: str, teacher_id: str | None, paths: Mapping[str, Any], trained: PlannedRun | None = None
    ) -> dict[str, Any]:
        """What is recorded beside a run. trained: the run that trains its teacher first."""
        where = {
            "data": absolute(self.config.data),
            "data_root": None if self.config.data_root is None else os.path.abspath(os.path.expanduser(self.config.data_root)),
            "skip_unreadable": self.config.skip_unreadable or None,
            "transfer_data": absolute(self.config.transfer_data) if self.config.transfer_data and run.data.transfer is not None else None,
            **paths,
        }
        places = {key: value for key, value in where.items() if value is not None}
        published = self.protocol.published_for(pair)
        return {
            "recipe": Path(self.config.recipe).stem,
            "pair": pair,
            "phase": "sweep",
            "teacher_id": teacher_id if run.teacher is not None else None,
            "methods": {term.method: card_record(term.method, published.get(term.method)) for term in run.objective.all_terms},
            "swept": _swept(self.config),
            "data": self.data.record_of(run.data),
            **class_names(learn(self.data.dataset, task_named(run.data.task))),
            "licences": record(things_of_run(run, places, trained)),
            "paths": places,
        }


def refuse_for_features(request: NetworkRequest) -> None:
    """Raises InputError for a teacher that cannot be had without class scores."""
    name = request.name
    if request.start == "saved":
        raise InputError(f"{request.text}: a saved teacher's file answers with class scores, and features have none; name its network")
    if request.start == "random":
        raise InputError(
            f"{request.text}: a teacher of features is not trained here; give {name}:pretrained, {name}:FILE, the id of the run that "
            "trained it, or a module"
        )
    if request.norm == AUTO:
        raise InputError(f"{request.text}: norm=auto is measured by class scores, and features have none; name a normalisation")


def _of_teacher(offer: Offer) -> NetworkSpec:
    """The specification of a teacher whose weights may score some of the columns of targets alone."""
    if offer.columns is None:
        return offer.spec
    return offer.spec.model_copy(update={"columns": offer.columns, "classes": offer.made_for})


def class_names(dataset: Dataset) -> dict[str, Any]:
    """What is recorded of the classes that a run learns, none of features; of several columns the first's stand for the run's."""
    if dataset.task.of_features:
        return {}
    columns = {column.name: list(column.classes) for column in learned_columns(dataset)} if dataset.task.several else {}
    return {"class_names": list(dataset.classes), **({"columns": columns} if columns else {})}


def _with_views(teacher: PairNetwork, recipe: Recipe) -> NetworkSpec:
    """A teacher's specification for students of a recipe: a saved one says where it answers for the centre view alone."""
    if teacher.spec.saved is None or not recipe.augment.moves or read_saved(Path(str(teacher.path))).has_views_of(recipe.augment):
        return teacher.spec
    return teacher.spec.model_copy(update={"views": "centre"})


def _swept(config: BenchConfig) -> list[str]:
    """The axes that a bench varies, in words."""
    axes = {"temperature": config.temperatures, "alpha": config.alphas, "weight": config.weights, "dose": config.doses, **config.grid}
    return [f"search list ({config.tune})"] if config.tune is not None else [name for name, values in axes.items() if len(values) > 1]
