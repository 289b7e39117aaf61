"""From a bench in words to the list of planned runs: methods x settings x pairs x seeds, each distinct run once."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, NamedTuple

import torch

from kdzoo.contract.methods import REGISTRY
from kdzoo.data.class_names import difference, listed, same_classes
from kdzoo.data.dataset import Images
from kdzoo.data.report import data_record, taught_images, transfer_record, without_validation
from kdzoo.data.split import labelled, split
from kdzoo.data.transfer import class_numbers
from kdzoo.data.unlabelled import Like, Unlabelled, refuse_test_images
from kdzoo.errors import InputError, did_you_mean, noting
from kdzoo.models.names import code_of, ours_or_timm, own_norm, pretrained_classes
from kdzoo.models.network import freeze
from kdzoo.models.normalisation import AUTO, normalisation_of, usual_for
from kdzoo.models.pairs import pair as named_pair
from kdzoo.models.weights import (
    NetworkRequest,
    class_names_of,
    classes_of,
    ensemble_ids,
    file_sha256,
    input_of,
    parse_network,
    pretrained_unless_said,
    read_checkpoint,
)
from kdzoo.runs.spec import DataSpec, NetworkSpec, Normalisation, ObjectiveSpec, Recipe, Run, TransferSpec
from kdzoo.runs.store import RunFolder, Store, is_teacher, teacher_store
from kdzoo.suite.plan.config import CONTROLS, KD, BenchConfig, PairValues, RecipeFile, fresh_seeds, recipe_file, recipes
from kdzoo.suite.plan.doses import Dose, read_doses, recorded_doses, reused_doses
from kdzoo.suite.plan.methods import (
    Point,
    Request,
    asked_as,
    card_record,
    is_dose,
    objective_at,
    parse_request,
    refuse,
    settings,
    unit,
    why_no_dose,
)
from kdzoo.teachers.checks import measure_norms
from kdzoo.teachers.file import read_saved
from kdzoo.training.session import Modules, WeightFiles, images_of, network_of, unlabelled_of


@dataclass(frozen=True)
class Planned:
    """A run and what is recorded beside it.

    open: whether a weight of it hangs on a ratio that is not measured yet. It then has a weight that stands in
    for it, for checks and estimates alone: its id means nothing and it is never written.
    """

    run: Run
    about: Mapping[str, Any]
    open: bool = False


@dataclass(frozen=True)
class Plan:
    """Every distinct run of a bench, the teachers that have to be trained for it, and how the grid came down to them."""

    name: str
    folder: Path
    students: tuple[Planned, ...]
    teachers: Mapping[str, Planned]
    points: int
    merged: Mapping[str, int] = field(default_factory=dict)
    """grid points that are another's run, by the reason"""
    data: Mapping[str, Any] = field(default_factory=dict)
    """what was found in the data set (`report.data_record`)"""
    notes: tuple[str, ...] = ()
    """what is to be said of the networks before any work"""
    unmeasured: tuple[Planned, ...] = ()
    """what has to be measured before the runs that are open have weights (`kdzoo.training.doses`), each once"""

    @property
    def store(self) -> Store:
        return Store(self.folder)


def plan(config: BenchConfig, modules: Modules | None = None) -> Plan:
    """Every distinct run of a bench; raises InputError with all problems, before any work."""
    modules = modules or Modules()
    problems: list[str] = []
    requests = _requests(config, problems)
    pairs = _pairs(config, problems)
    changes = _changes(config, problems)
    protocol = images = None
    with noting(problems):
        protocol = recipe_file(config.recipe)
    with noting(problems):
        images = images_of(config.data, config.data_root, _image_size(protocol, changes), config.image_cache, config.skip_unreadable)
    for name in protocol.published if protocol is not None else ():
        with noting(problems):
            REGISTRY.get(name)
    if protocol is None or images is None:
        _name_unknown_networks(pairs, modules, problems)
        _points(requests, config, "deep", 1, {}, problems)
        raise InputError(*dict.fromkeys(problems))
    held_out = config.val_fraction
    if held_out is None:
        held_out = protocol.held_out(config.limit or len(images.train.targets))
    if config.refit and not held_out:
        problems.append(
            f"refit: no validation images are held out to choose settings on, and the sweep already trains on all images; leave it "
            f"out, or hold out a share (--val-fraction 0.1; {Path(config.recipe).stem} has {protocol.val_fraction:g})"
        )
    data = DataSpec(
        name=images.name,
        fingerprint=images.fingerprint,
        classes=len(images.classes),
        val_fraction=held_out,
        split_seed=config.split_seed,
        limit=config.limit,
        label_fraction=config.label_fraction,
    )
    extra: Unlabelled | None = None
    with noting(problems):
        extra = _unlabelled(config, images, _image_size(protocol, changes))
        data = data.model_copy(update={"transfer": _transfer(config, images, extra)})
    found: dict[str, Any] = {}
    learned: dict[str, Any] = {}
    with noting(problems):
        parts = split(images, data, extra)
        found = {**data_record(images, parts), **transfer_record(images, parts, data.transfer, extra)}
        learned = found if data == data.of_teacher else data_record(images, split(images, data.of_teacher))
    maker = _Maker(config, protocol, changes, images, data, modules, found, learned)
    ratios: Mapping[str, float] = {}
    with noting(problems):
        ratios = _known_ratios(config)
    unmeasured: dict[str, Planned] = {}
    pairing = changes.get("objective.pairing", protocol.pairing)
    count = 0
    students: dict[str, Planned] = {}
    teachers: dict[str, Planned] = {}
    merged: dict[str, int] = {}
    notes = [] if "recipe" in config.model_fields_set else [_without_recipe(config)]
    if config.transfer_only:
        notes.append("the transfer set has no labels: the student alone learns nothing from it and is a control at chance")
    for teacher_text, student_text in pairs:
        teacher = student = None
        with noting(problems):
            teacher = maker.teacher(teacher_text)
        with noting(problems):
            student = maker.student(student_text)
        if teacher is None or student is None:
            continue
        notes += [*teacher.notes, *student.notes]
        if teacher.trained is not None:
            teachers[teacher.trained.run.id] = teacher.trained
        published = protocol.published_for(f"{teacher.spec.name}/{student.spec.name}")
        epochs = maker.recipe(student.spec, teacher=False).epochs
        scale = _Scale(maker, teacher, student, ratios, unmeasured)
        points = _points(requests, config, pairing, epochs, published, problems, scale)
        notes += _control_notes([point.objective for point in points], published)
        here = [(point, seed) for point in points for seed in config.seeds_for(point.objective.label)]
        count += len(here)
        for point, seed in here:
            planned = maker.planned(teacher, student, point.objective, seed, point.doses, point.open)
            if planned.run.id in students:
                reason = _why_merged(point.objective)
                merged[reason] = merged.get(reason, 0) + 1
            students.setdefault(planned.run.id, planned)
    if problems:
        _points(requests, config, pairing, 1, {}, problems)  # so that theirs are named too where no pair could be made
        raise InputError(*dict.fromkeys(problems))
    if config.doses:
        notes += [f"no dose for {reason}; its published weight is used" for one in requests if one.terms and (reason := why_no_dose(one))]
    if not teachers and (idle := _below(changes, "teacher_recipe")):
        keys = ", ".join(f"teacher_recipe.{key}" for key in idle)
        notes.append(f"{keys}: no effect, since the teacher has its weights already and is not trained")
    folder, said = Path(config.results) / config.name, tuple(dict.fromkeys(notes))
    return Plan(config.name, folder, tuple(students.values()), teachers, count, merged, found, said, tuple(unmeasured.values()))


def _unlabelled(config: BenchConfig, images: Images, image_size: int | None) -> Unlabelled | None:
    """The images without labels that the student is taught on; raises InputError where some of them are test images."""
    if config.transfer_data is None:
        return None
    extra = unlabelled_of(config.transfer_data, Like.those_of(images), config.data_root, image_size, config.skip_unreadable)
    refuse_test_images(images, extra)
    return extra


def _transfer(config: BenchConfig, images: Images, extra: Unlabelled | None) -> TransferSpec | None:
    """What the student is taught on, where that is not all training images and nothing else."""
    classes = None if config.transfer_classes is None else class_numbers(config.transfer_classes, images.classes)
    if classes is None and extra is None:
        return None
    return TransferSpec(classes=classes, images=None if extra is None else extra.fingerprint, only=config.transfer_only)


STAND_IN = 0.618
"""the ratio of what is not measured yet: with it no dose that is usual comes to a weight that is, which would be one run"""


class _Point(NamedTuple):
    """An objective of the grid with the doses of its terms, as far as they are known."""

    objective: ObjectiveSpec
    doses: Mapping[str, Dose]
    open: bool


@dataclass(frozen=True)
class _Scale:
    """What the ratios of one pair of networks are: those that are known, and a note of what has to be measured."""

    maker: _Maker
    teacher: Chosen
    student: Chosen
    known: Mapping[str, float]
    unmeasured: dict[str, Planned]

    def unit_of(self, objective: ObjectiveSpec) -> Planned:
        """The run that names a ratio: seed 0 of the term and cross-entropy, each with factor 1."""
        return self.maker.planned(self.teacher, self.student, objective, 0)

    def ratio_of(self, objective: ObjectiveSpec) -> float:
        """The ratio of a unit objective; a stand-in where it has to be measured first, which is noted."""
        planned = self.unit_of(objective)
        if planned.run.id not in self.known:
            self.unmeasured[planned.run.id] = planned
        return self.known.get(planned.run.id, STAND_IN)

    def point(self, request: Request, spec: ObjectiveSpec, wanted: Point) -> _Point:
        """The objective with its terms' doses: those asked for, and, where the ratio is known, those that its weights come to."""
        doses, is_open = {}, False
        for term in spec.terms:
            asked = wanted.dose(asked_as(request, term.method))
            measured = self.unit_of(unit(term, spec.first, spec.pairing)).run.id if self.known or asked is not None else ""
            if measured in self.known:
                ratio = self.known[measured]
                dose = asked if asked is not None else term.coefficient * ratio / spec.task if spec.task else None
                if dose is not None:
                    doses[term.method] = Dose(float(f"{dose:.3g}"), ratio, measured)
            elif asked is not None:
                is_open, doses[term.method] = True, Dose(asked, STAND_IN, measured)
        return _Point(spec, doses, is_open)


def _control_notes(points: Iterable[ObjectiveSpec], published: Mapping[str, PairValues]) -> list[str]:
    """A note where an axis such as --weights takes plain KD, the control, away from its published coefficients."""
    coefficients = REGISTRY.get(KD).card.published
    own = published.get(KD)
    term = (own.term if own else None) or coefficients.term
    controls = [spec for spec in points if spec.label == KD]
    at_published = [math.isclose(spec.task, coefficients.task) and math.isclose(spec.terms[0].coefficient, term) for spec in controls]
    if not controls or any(at_published):
        return []
    return [
        "axes that set weights (--weights, --alphas, --doses) vary the KD control too: its published coefficients "
        f"({coefficients.task:g} CE + {term:g} KD) are not among the settings tried, so differences to KD are to the settings that are"
    ]


def _points(
    requests: Iterable[Request],
    config: BenchConfig,
    pairing: Literal["deep", "left"],
    epochs: int,
    published: Mapping[str, PairValues],
    problems: list[str],
    scale: _Scale | None = None,
) -> list[_Point]:
    """The grid: the objective of every method at every setting, for a recipe of `epochs` epochs and what is published for the pair.

    scale: None where there is no pair, and doses are checked alone.
    """
    points: list[_Point] = []
    for request in requests:
        with noting(problems):
            for wanted in settings(request, config, published):
                with noting(problems):
                    spec = objective_at(request, wanted, pairing, epochs, published, scale.ratio_of if scale else lambda unit: 1.0)
                    points.append(scale.point(request, spec, wanted) if scale else _Point(spec, {}, False))
    return points


def _known_ratios(config: BenchConfig) -> dict[str, float]:
    """The ratios measured for this bench before, by id, else for the bench that doses_from names, else as its runs record them."""
    folder = Path(config.results) / config.name
    reused = {key: one.ratio for key, one in (reused_doses(config.doses_from) if config.doses_from else {}).items()}
    kept = {key: one.ratio for key, one in read_doses(folder).items()}
    recorded = {} if kept or not sets_doses(config) else recorded_doses(Store(folder))
    return {**reused, **recorded, **kept}


def sets_doses(config: BenchConfig) -> bool:
    """Whether a bench has settings whose weights are set by doses."""
    return bool(config.doses) or config.tune is not None or any(key.endswith(".dose") for key in config.grid)


def _name_unknown_networks(pairs: Iterable[tuple[str, str]], modules: Modules, problems: list[str]) -> None:
    """What is wrong with the names of networks alone, where there are no data to build them for."""
    for text in dict.fromkeys(text for pair in pairs for text in pair if text not in modules.by_name):
        with noting(problems):
            ours_or_timm(parse_network(text).name)


def refit(
    chosen: Iterable[tuple[Run, Mapping[str, Any]]], config: BenchConfig, teachers: Mapping[str, Planned], used: Iterable[int] = ()
) -> Plan:
    """The chosen settings on the whole train set, with seeds that no sweep has used, their teachers too.

    used: the seeds of sweeps in the bench's folder, beyond those of this bench.
    """
    whole: dict[str, Planned] = {}
    students: dict[str, Planned] = {}
    taken = tuple(used)
    for run, planned_about in chosen:
        about = {**planned_about, **({"data": without_validation(planned_about["data"])} if "data" in planned_about else {})}
        teacher, paths = run.teacher, dict(about["paths"])
        if teacher is not None:
            about["sweep_teacher"] = teacher.start
        teacher_id = str(about.get("teacher_id"))
        if teacher is not None and teacher_id in teachers:
            taught = teachers[teacher_id].run
            again = taught.model_copy(update={"data": _whole(taught.data)})
            learned = teachers[teacher_id].about.get("data")
            whole[again.id] = Planned(
                again,
                {**teachers[teacher_id].about, "phase": "refit", **({"data": without_validation(learned)} if learned else {})},
            )
            teacher = teacher.model_copy(update={"start": f"run:{again.id}"})
            paths.pop("teacher", None)
            teacher_id = again.id
        for seed in fresh_seeds(run.objective.label, config, taken):
            fresh = run.model_copy(update={"teacher": teacher, "data": _whole(run.data), "seed": seed})
            students[fresh.id] = Planned(fresh, {**about, "phase": "refit", "teacher_id": teacher_id if teacher else None, "paths": paths})
    return Plan(config.name, Path(config.results) / config.name, tuple(students.values()), whole, len(students))


def _whole(data: DataSpec) -> DataSpec:
    return data.model_copy(update={"val_fraction": 0.0})


@dataclass(frozen=True)
class Chosen:
    """A network of a pair: its specification, the file of its weights, the run that has to train it first, and what to say of it.

    path: of an ensemble, a list with that of each network.
    """

    spec: NetworkSpec
    path: WeightFiles = None
    trained: Planned | None = None
    notes: tuple[str, ...] = ()

    @property
    def run_id(self) -> str | None:
        """The id of the run that its weights come from; None where that is none, or several."""
        kind, _, name = self.spec.start.partition(":")
        return name if kind == "run" and len(ensemble_ids(name)) == 1 else None


@dataclass(frozen=True)
class Offer:
    """A network as it was asked for: its specification, and what is known of its weights.

    notes: what is to be said of them. class_names: of what they were trained on, where known. other: in words, why they
    are not for the classes of the data; None where they are, or where nobody knows. brings_norm: whether they say how they take images.
    """

    text: str
    spec: NetworkSpec
    notes: tuple[str, ...] = ()
    class_names: tuple[str, ...] | None = None
    other: str | None = None
    brings_norm: bool = False

    @property
    def suits(self) -> bool:
        return self.other is None

    def of_classes(self, classes: int, names: Sequence[str] | None, images: Images) -> Offer:
        """The same for weights that were made for so many classes, of these names."""
        ours = images.classes
        known = None if names is None else tuple(names)
        if classes != len(ours):
            return replace(self, class_names=known, other=f"made for {classes} classes, but {images.name} has {len(ours)}")
        if known is not None and same_classes(known, ours) is False:
            return replace(self, class_names=known, other=difference(known, ours, images.name))
        return replace(self, class_names=known)

    def doubts(self, images: Images) -> tuple[str, ...]:
        """What has to be said of weights whose classes have no names to compare with those of the data."""
        if self.spec.start == "random" or same_classes(self.class_names, images.classes):
            return ()
        return (f"{self.text}: the names of its classes are unknown; expected, in this order: {listed(images.classes)}",)


@dataclass(frozen=True)
class _Maker:
    """Makes the parts of runs that one bench shares."""

    config: BenchConfig
    protocol: RecipeFile
    changes: Mapping[str, Any]
    images: Images
    data: DataSpec
    modules: Modules
    found: Mapping[str, Any]
    """what there is to tell of the data as a student is taught on them"""
    learned: Mapping[str, Any]
    """the same as its teacher learns them"""

    def recipe(self, spec: NetworkSpec, *, teacher: bool) -> Recipe:
        """The recipe by which a network of a specification is trained."""
        changes = _below(self.changes, "recipe") | (_below(self.changes, "teacher_recipe") if teacher else {})
        trained = spec.start != "random"
        protocol = self.protocol.variant(trained=trained, fine_tuned=teacher and trained)
        record = self.learned if teacher else self.found
        return protocol.resolve(spec.name, changes, self.data.name, taught_images(record) if record else None)

    def teacher(self, text: str) -> Chosen:
        """A teacher, with the run that trains it where no weights are named, or fine-tunes it where it may and must be."""
        request = self._request(text, "teacher")
        if request.start == "saved":
            return self._saved(request)
        offer = self._offer(request)
        own = text in self.modules.by_name or (request.start != "random" and offer.suits)
        if own:
            chosen = Chosen(offer.spec, self._weights(request), notes=(*offer.notes, *offer.doubts(self.images)))
            return self._under_the_best_norm(chosen, request.text) if request.norm == AUTO else chosen
        problems = [f"{request.text}: norm=auto is measured on weights made for the classes of the data; name a normalisation"]
        refuse(problems if request.norm == AUTO else [])
        if request.start != "random" and not self.config.fine_tune:
            raise InputError(f"{request.text}: {offer.other}; give weights made for them, or fine-tune it first (--fine-tune)")
        run = Run(
            student=offer.spec,
            teacher=None,
            data=self.data.of_teacher,
            recipe=self.recipe(offer.spec, teacher=True),
            objective=ObjectiveSpec(task=1.0),
            seed=int(self.changes.get("teacher.seed", 0)),
        )
        weights = {"student": self._weights(request)}
        planned = Planned(run, self._about(run, pair=request.text, teacher_id=None, paths=weights))
        trained = {"start": f"run:{run.id}", "norm": None, "weights": None}  # what it is kept with says how it takes images
        return Chosen(offer.spec.model_copy(update=trained), None, planned, offer.notes)

    def _saved(self, request: NetworkRequest) -> Chosen:
        """A teacher that is a file of answers."""
        assert request.path is not None
        file = read_saved(request.path)
        spec = NetworkSpec(name=file.name, classes=self.data.classes, start=f"saved:{file.digest}")
        offer = Offer(request.text, spec).of_classes(file.classes, file.class_names, self.images)
        asked_for = {"norm": request.norm, "weights": request.weights, "image_size": request.image_size}
        problems = [f"teacher.{key}: a saved teacher has no network to set it for; remove it" for key, value in asked_for.items() if value]
        refuse([*problems, *([] if offer.suits else [f"{request.text}: {offer.other}"])])
        return Chosen(offer.spec, str(request.path.resolve()), notes=offer.doubts(self.images))

    def student(self, text: str) -> Chosen:
        request = self._request(text, "student")
        if text not in self.modules.by_name and self.protocol.student_start == "pretrained":
            request = self._request(pretrained_unless_said(text), "student")
        refuse([f"{text}: norm=auto is measured on a teacher; name a student's normalisation"] if request.norm == AUTO else [])
        if request.start == "saved":
            raise InputError(f"student: {text} holds a teacher's answers and no network; name a network")
        offer = self._offer(request)
        return Chosen(offer.spec, self._weights(request), notes=offer.notes)

    def _under_the_best_norm(self, chosen: Chosen, text: str) -> Chosen:
        """A teacher under the normalisation that is measured to suit it best, where that is clearly better than its own."""
        augment = self.recipe(chosen.spec, teacher=False).augment
        parts = split(self.images, self.data.of_teacher)
        side = augment.size or self.images.height
        network = freeze(network_of(chosen.spec, self.images, side=side, seed=0, path=chosen.path, modules=self.modules))
        architectures = own_norm(chosen.spec.name)
        norms = measure_norms(network, architectures, parts.val or labelled(parts), augment, torch.device("cpu"))
        better = norms.better()
        if better is None:
            return replace(chosen, notes=(*chosen.notes, f"{text}: its own normalisation is kept; {norms}"))
        norm = usual_for(network.channels, architectures)[better]
        note = f"{text}: normalised with {better}, which suits it best; {norms}"
        return replace(chosen, spec=chosen.spec.model_copy(update={"norm": norm}), notes=(*chosen.notes, note))

    def planned(
        self,
        teacher: Chosen,
        student: Chosen,
        spec: ObjectiveSpec,
        seed: int,
        doses: Mapping[str, Dose] = MappingProxyType({}),
        is_open: bool = False,
    ) -> Planned:
        reads = any(REGISTRY.get(term.method).card.needs.teacher for term in spec.all_terms)
        recipe = self.recipe(student.spec, teacher=False)
        taught_by = _with_views(teacher, recipe)
        run = Run(
            student=student.spec,
            teacher=taught_by if reads else None,
            data=self.data,
            recipe=recipe,
            objective=spec,
            seed=seed,
        )
        paths = {"student": student.path, "teacher": teacher.path if reads else None}
        pair = f"{teacher.spec.name}{f' ({taught_by.views} view)' if taught_by.views else ''}/{student.spec.name}"
        about = self._about(run, pair=pair, teacher_id=teacher.run_id, paths=paths)
        recorded = {"doses": {name: dose.record() for name, dose in doses.items()}} if doses else {}
        return Planned(run, {**about, **recorded}, is_open)

    def _request(self, text: str, role: str) -> NetworkRequest:
        changes = _below(self.changes, role)
        if text in self.modules.by_name:
            return NetworkRequest(text=text, name=text, start="random", norm=_text(changes.get("norm")))
        request = parse_network(text)
        return NetworkRequest(
            text=request.text,
            name=request.name,
            start=request.start,
            path=request.path,
            run_id=request.run_id,
            stem=changes.get("stem", request.stem),
            image_size=changes.get("image_size", request.image_size),
            norm=_text(changes.get("norm", request.norm)),
            weights=_text(changes.get("weights", request.weights)),
        )

    def _weights(self, request: NetworkRequest) -> WeightFiles:
        """Where a network's file of weights lies, for an ensemble a list; None for kept teachers, which their runs' ids find."""
        if request.start == "run":
            folders = [_run_folder(run_id, self.config) for run_id in ensemble_ids(str(request.run_id))]
            files = [None if is_teacher(folder) else str(folder.student) for folder in folders]
            return files[0] if len(files) == 1 else files if any(files) else None
        return str(request.path.resolve()) if request.path else None

    def _offer(self, request: NetworkRequest) -> Offer:
        """A network for the classes of the data, and what its weights were made for."""
        spec = NetworkSpec(name=request.name, classes=self.data.classes, start="random", stem=request.stem, image_size=request.image_size)
        if request.weights is not None and request.start != "file":
            raise InputError(f"network {request.text!r}: @weights={request.weights}: expected a file, which may hold several sets")
        if request.start == "file":
            offer = self._in_file(request, spec)
        elif request.start == "run":
            offer = self._of_run(request, spec)
        elif request.start == "pretrained":
            ours_or_timm(request.name)
            made_for = pretrained_classes(request.name) or self.data.classes
            ready = spec.model_copy(update={"start": "pretrained"})
            offer = Offer(request.text, ready, brings_norm=True).of_classes(made_for, None, self.images)
        else:
            ours_or_timm(request.name)
            offer = Offer(request.text, spec)
        changes = {"norm": self._norm(request, offer), "code": code_of(offer.spec.name)}
        return replace(offer, spec=offer.spec.model_copy(update=changes))

    def _norm(self, request: NetworkRequest, offer: Offer) -> Normalisation | None:
        """The normalisation that was asked for; None where it is the one that is used anyway."""
        if request.norm in (None, AUTO):
            return None
        norm, own = normalisation_of(str(request.norm)), Normalisation(mean=self.images.mean, std=self.images.std)
        if not offer.brings_norm:
            return None if norm == own else norm
        return own if norm is None else norm

    def _in_file(self, request: NetworkRequest, spec: NetworkSpec) -> Offer:
        assert request.path is not None
        ours_or_timm(request.name)
        found = read_checkpoint(request.path, key=request.weights)
        usual = None if found.taken == found.sets[0] else found.taken
        spec = spec.model_copy(update={"start": f"file:{file_sha256(request.path)}", "weights": usual})
        offer = Offer(request.text, spec, found.remarks(request.text), brings_norm=input_of(request.path) is not None)
        return offer.of_classes(classes_of(found.state) or self.data.classes, found.class_names, self.images)

    def _of_run(self, request: NetworkRequest, spec: NetworkSpec) -> Offer:
        assert request.run_id is not None
        if len(ids := ensemble_ids(request.run_id)) > 1:
            return self._ensemble(request.text, ids)
        folder = _run_folder(request.run_id, self.config)
        trained, names = self._trained(folder)
        start = {"start": f"run:{request.run_id}", "name": trained.name, "stem": trained.stem, "image_size": trained.image_size}
        ours_or_timm(trained.name)
        return Offer(request.text, spec.model_copy(update=start), brings_norm=True).of_classes(trained.classes, names, self.images)

    def _trained(self, folder: RunFolder) -> tuple[NetworkSpec, Sequence[str] | None]:
        """The network that a run trained, and the names of its classes where they are known; the same data have the same."""
        run, about = folder.read_plan()
        if run.data.fingerprint == self.data.fingerprint:
            return run.student, self.images.classes
        return run.student, about.get("class_names") or class_names_of(folder.student)

    def _ensemble(self, text: str, ids: Sequence[str]) -> Offer:
        """The networks of an ensemble: students of finished runs, or kept teachers, made for the classes of the data."""
        problems: list[str] = []
        kept: list[RunFolder] = []
        for run_id in ids:
            with noting(problems):
                kept.append(_run_folder(run_id, self.config))
        refuse(problems)
        members = [
            Offer(folder.id, trained).of_classes(trained.classes, names, self.images)
            for folder in kept
            for trained, names in [self._trained(folder)]
        ]
        refuse([f"teacher {member.text}: {member.other}" for member in members if not member.suits])
        name = "+".join(member.spec.name for member in members)
        unknown = any(member.class_names is None for member in members)
        spec = NetworkSpec(name=name, classes=self.data.classes, start=f"run:{'+'.join(ids)}")
        return Offer(text, spec, class_names=None if unknown else self.images.classes, brings_norm=True)

    def _about(self, run: Run, *, pair: str, teacher_id: str | None, paths: Mapping[str, Any]) -> dict[str, Any]:
        where = {
            "data": self.config.data,
            "data_root": self.config.data_root,
            "skip_unreadable": self.config.skip_unreadable or None,
            "transfer_data": self.config.transfer_data if run.data.transfer is not None else None,
            **paths,
        }
        published = self.protocol.published_for(pair)
        return {
            "recipe": Path(self.config.recipe).stem,
            "pair": pair,
            "phase": "sweep",
            "teacher_id": teacher_id if run.teacher is not None else None,
            "methods": {term.method: card_record(term.method, published.get(term.method)) for term in run.objective.all_terms},
            "swept": _swept(self.config),
            "data": self.found if run.data == self.data else self.learned,
            "class_names": list(self.images.classes),
            "paths": {key: value for key, value in where.items() if value is not None},
        }


def _with_views(teacher: Chosen, recipe: Recipe) -> NetworkSpec:
    """A teacher's specification for students of a recipe: a saved one says where it answers for the centre view alone."""
    if teacher.spec.saved is None or not recipe.augment.moves or read_saved(Path(str(teacher.path))).has_views_of(recipe.augment):
        return teacher.spec
    return teacher.spec.model_copy(update={"views": "centre"})


def _requests(config: BenchConfig, problems: list[str]) -> list[Request]:
    """The methods asked for and, first, the controls: the student alone and plain KD, tuned like the others."""
    found: dict[str, Request] = {}
    for text in (*CONTROLS, *config.methods):
        with noting(problems):
            found.setdefault(text, parse_request(text))
    problems += [*_other_ways_to_set_weights(config), *_axes_beside_tune(config)]
    known = {term for request in found.values() for term in request.terms}
    for key in config.grid:
        method, _, parameter = key.partition(".")
        if method not in known:
            problems.append(f"grid.{key}: no method of this bench is called {method!r}{did_you_mean(method, known)}")
        elif parameter not in REGISTRY.get(method).model_fields and not is_dose(method, parameter):
            fields = list(REGISTRY.get(method).model_fields)
            problems.append(
                f"grid.{key}: {method} has no {parameter!r}{did_you_mean(parameter, fields)}; it has: {', '.join(fields) or 'none'}"
            )
    return list(found.values())


def _other_ways_to_set_weights(config: BenchConfig) -> list[str]:
    """What is wrong with an axis of doses beside other axes that set the weights."""
    doses = ["doses"] * bool(config.doses) + [f"grid.{key}" for key in config.grid if key.endswith(".dose")]
    others = [name for name in ("alphas", "weights") if getattr(config, name)]
    return [f"{doses[0]}: a dose sets the weight, and so do {' and '.join(others)}; give one of them"] if doses and others else []


def _axes_beside_tune(config: BenchConfig) -> list[str]:
    """What is wrong with axes that `tune` would ignore."""
    axes = [name for name in ("temperatures", "alphas", "weights", "doses") if getattr(config, name)]
    axes += [f"grid.{key}" for key in config.grid]
    if config.tune is None or not axes:
        return []
    return [f"tune: tries the settings of each method's own search list and would ignore {', '.join(axes)}; give one or the other"]


def _pairs(config: BenchConfig, problems: list[str]) -> list[tuple[str, str]]:
    if bool(config.teacher) != bool(config.student):
        missing = "student" if config.teacher else "teacher"
        problems.append(f"{missing}: missing; give --{missing} too, or --pairs TEACHER/STUDENT instead of both")
    found = [(config.teacher, config.student)] if config.teacher and config.student else []
    for text in config.pairs:
        with noting(problems):
            made = named_pair(text)
            found.append((made.teacher, made.student))
    if not found and not problems:
        problems.append("pairs: missing; give --pairs TEACHER/STUDENT, or --teacher and --student")
    return found


KNOWN_PLACES = ("recipe", "teacher_recipe", "student", "teacher", "objective")


def _changes(config: BenchConfig, problems: list[str]) -> dict[str, Any]:
    """Everything that --set, --epochs and --lr change, by dotted key, without the keys that mean nothing."""
    changes = dict(config.set)
    own = ["stem", "image_size", "norm", "weights"]
    networks = {"student": own, "teacher": [*own, "seed"], "objective": ["pairing"]}
    recipe = [*Recipe.model_fields, *(f"augment.{name}" for name in type(Recipe.model_fields["augment"].default).model_fields)]
    known = [f"{place}.{key}" for place in KNOWN_PLACES for key in networks.get(place, recipe)]
    for key in [key for key in changes if key not in known]:
        problems.append(f"set: unknown {key!r}{did_you_mean(key, known) or '; known: recipe.*, teacher_recipe.*, student.stem, ...'}")
        del changes[key]
    if config.epochs is not None:
        changes["recipe.epochs"] = config.epochs
    if config.lr is not None:
        changes["recipe.lr"] = config.lr
    return changes


def _text(value: object) -> str | None:
    """A key's value as it would be typed: YAML reads `0.5` as a number."""
    return None if value is None else str(value)


def _below(changes: Mapping[str, Any], place: str) -> dict[str, Any]:
    return {key.removeprefix(f"{place}."): value for key, value in changes.items() if key.startswith(f"{place}.")}


def _without_recipe(config: BenchConfig) -> str:
    """What is to be said where no recipe was named and the data have no usual one."""
    others = ", ".join(name for name in recipes() if name != config.recipe)
    return (
        f"recipe: none was given, and {config.data} has no default one: {config.recipe} is used, a trial of a few epochs whose numbers "
        f"mean little; for real numbers give one: --recipe {others}, or a file"
    )


def _image_size(protocol: RecipeFile | None, changes: Mapping[str, Any]) -> int | None:
    """The side that folders are decoded for; a size that is none is the recipe's fault, and said as that."""
    own = protocol.recipe.get("augment", {}).get("size") if protocol else None
    size = changes.get("recipe.augment.size", own)
    return size if isinstance(size, int) and not isinstance(size, bool) and size > 0 else None


def _why_merged(spec: ObjectiveSpec) -> str:
    if not spec.all_terms:
        return "alpha = 0 or weight 0 is the student alone"
    return f"another setting of {spec.label} comes to the same coefficients"


def _swept(config: BenchConfig) -> list[str]:
    axes = {"temperature": config.temperatures, "alpha": config.alphas, "weight": config.weights, "dose": config.doses, **config.grid}
    return [f"search list ({config.tune})"] if config.tune is not None else [name for name, values in axes.items() if len(values) > 1]


def _run_folder(run_id: str, config: BenchConfig) -> RunFolder:
    """The folder of a finished run, among the kept teachers or in any bench below the results folder."""
    places = [teacher_store(), *(Store(path.parent) for path in sorted(Path(config.results).glob("*/runs")))]
    for store in places:
        if store.run(run_id).state() == "done" and store.run(run_id).student.is_file():
            return store.run(run_id)
    raise InputError(f"teacher: no finished run {run_id!r} with its weights among the kept teachers or below {config.results}")
