"""From a bench in words to the list of planned runs: methods x settings x pairs x seeds, each distinct run once."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from kdzoo.assemble import Modules, images_of
from kdzoo.data.images import Images
from kdzoo.data.report import data_record, without_validation
from kdzoo.data.split import split
from kdzoo.errors import InputError, did_you_mean, noting
from kdzoo.method import REGISTRY
from kdzoo.models.names import ours_or_timm, pretrained_classes
from kdzoo.models.pairs import pair as named_pair
from kdzoo.models.weights import NetworkRequest, classes_of, ensemble_ids, file_sha256, parse_network, read_state
from kdzoo.spec import DataSpec, NetworkSpec, ObjectiveSpec, Recipe, Run
from kdzoo.store import RunFolder, Store, teacher_store
from kdzoo.suite.config import BenchConfig, PairValues, RecipeFile, recipe_file
from kdzoo.suite.request import KD, NONE, Request, card_record, objective, parse_request, refuse, settings


@dataclass(frozen=True)
class Planned:
    """A run and what is recorded beside it."""

    run: Run
    about: Mapping[str, Any]


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
        images = images_of(config.data, config.data_root, _image_size(protocol, changes), config.resident)
    for name in protocol.published if protocol is not None else ():
        with noting(problems):
            REGISTRY.get(name)
    if protocol is None or images is None:
        _name_unknown_networks(pairs, modules, problems)
        _points(requests, config, "deep", 1, {}, problems)
        raise InputError(*dict.fromkeys(problems))
    held_out = protocol.val_fraction if config.val_fraction is None else config.val_fraction
    if config.refit and not held_out:
        problems.append(
            f"refit: nothing is held out on which settings could be chosen, and the sweep trains on all images already; leave it "
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
    found: dict[str, Any] = {}
    with noting(problems):
        found = data_record(images, split(images, data))
    maker = _Maker(config, protocol, changes, images, data, modules, found)
    pairing = changes.get("objective.pairing", protocol.pairing)
    count = 0
    students: dict[str, Planned] = {}
    teachers: dict[str, Planned] = {}
    merged: dict[str, int] = {}
    for teacher_text, student_text in pairs:
        teacher = student = None
        with noting(problems):
            teacher = maker.teacher(teacher_text)
        with noting(problems):
            student = maker.student(student_text)
        if teacher is None or student is None:
            continue
        if teacher.trained is not None:
            teachers[teacher.trained.run.id] = teacher.trained
        published = protocol.published_for(f"{teacher.spec.name}/{student.spec.name}")
        points = _points(requests, config, pairing, maker.recipe(student.spec.name, teacher=False).epochs, published, problems)
        here = [(spec, seed) for spec in points for seed in _seeds_of(spec.label, config)]
        count += len(here)
        for spec, seed in here:
            planned = maker.planned(teacher, student, spec, seed)
            if planned.run.id in students:
                reason = _why_merged(spec)
                merged[reason] = merged.get(reason, 0) + 1
            students.setdefault(planned.run.id, planned)
    if problems:
        _points(requests, config, pairing, 1, {}, problems)  # so that theirs are named too where no pair could be made
        raise InputError(*dict.fromkeys(problems))
    return Plan(config.name, Path(config.results) / config.name, tuple(students.values()), teachers, count, merged, found)


def _points(
    requests: Iterable[Request],
    config: BenchConfig,
    pairing: Literal["deep", "left"],
    epochs: int,
    published: Mapping[str, PairValues],
    problems: list[str],
) -> list[ObjectiveSpec]:
    """The grid: the objective of every method at every setting, for a recipe of so many epochs and what is published for the pair."""
    points: list[ObjectiveSpec] = []
    for request in requests:
        with noting(problems):
            for setting, hyperparameters in settings(request, config, published):
                with noting(problems):
                    points.append(objective(request, setting, hyperparameters, pairing, epochs, published))
    return points


def _name_unknown_networks(pairs: Iterable[tuple[str, str]], modules: Modules, problems: list[str]) -> None:
    """What is wrong with the names of networks alone, where there are no data to build them for."""
    for text in dict.fromkeys(text for pair in pairs for text in pair if text not in modules.by_name):
        with noting(problems):
            ours_or_timm(parse_network(text).name)


def refit(chosen: Iterable[tuple[Run, Mapping[str, Any]]], config: BenchConfig, teachers: Mapping[str, Planned]) -> Plan:
    """The chosen settings on the whole train set, with seeds that the sweep has not used, their teachers too."""
    whole: dict[str, Planned] = {}
    students: dict[str, Planned] = {}
    unused = max(config.seeds_of_controls) + 1 - min(config.seeds)
    for run, planned_about in chosen:
        about = {**planned_about, **({"data": without_validation(planned_about["data"])} if "data" in planned_about else {})}
        teacher, paths = run.teacher, dict(about["paths"])
        teacher_id = str(about.get("teacher_id"))
        if teacher is not None and teacher_id in teachers:
            taught = teachers[teacher_id].run
            again = taught.model_copy(update={"data": _whole(taught.data)})
            whole[again.id] = Planned(
                again, {**teachers[teacher_id].about, "phase": "refit", **{k: v for k, v in about.items() if k == "data"}}
            )
            teacher = teacher.model_copy(update={"start": f"run:{again.id}"})
            paths.pop("teacher", None)
            teacher_id = again.id
        for seed in _seeds_of(run.objective.label, config):
            fresh = run.model_copy(update={"teacher": teacher, "data": _whole(run.data), "seed": seed + unused})
            students[fresh.id] = Planned(fresh, {**about, "phase": "refit", "teacher_id": teacher_id if teacher else None, "paths": paths})
    return Plan(config.name, Path(config.results) / config.name, tuple(students.values()), whole, len(students))


def _seeds_of(method: str, config: BenchConfig) -> tuple[int, ...]:
    """The controls may have more seeds than the rest."""
    return config.seeds_of_controls if method in (NONE, KD) else config.seeds


def _whole(data: DataSpec) -> DataSpec:
    return data.model_copy(update={"val_fraction": 0.0})


@dataclass(frozen=True)
class Chosen:
    """A network of a pair: its specification, the file of its weights, and the run that has to train it first."""

    spec: NetworkSpec
    path: str | None = None
    trained: Planned | None = None

    @property
    def run_id(self) -> str | None:
        """The id of the run that its weights come from."""
        kind, _, name = self.spec.start.partition(":")
        return name if kind == "run" else None


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

    def recipe(self, network: str, *, teacher: bool) -> Recipe:
        changes = _below(self.changes, "recipe") | (_below(self.changes, "teacher_recipe") if teacher else {})
        return self.protocol.resolve(network, changes, self.data.name)

    def teacher(self, text: str) -> Chosen:
        """A teacher, with the run that trains it where no weights are named, or fine-tunes it where it may and must be."""
        request = self._request(text, "teacher")
        spec, made_for = self._network(request)
        if text in self.modules.by_name:
            return Chosen(spec)
        if request.start != "random" and made_for == self.data.classes:
            return Chosen(spec, self._weights(request))
        if request.start != "random" and not self.config.fine_tune:
            raise InputError(
                f"{request.text}: made for {made_for} classes, but {self.data.name} has {self.data.classes}; "
                "give weights made for them, or let it be fine-tuned first (--fine-tune)"
            )
        run = Run(
            student=spec,
            teacher=None,
            data=self.data.model_copy(update={"label_fraction": 1.0}),
            recipe=self.recipe(spec.name, teacher=True),
            objective=ObjectiveSpec(task=1.0),
            seed=int(self.changes.get("teacher.seed", 0)),
        )
        weights = {"student": self._weights(request)}
        planned = Planned(run, self._about(run, pair=request.text, teacher_id=None, paths=weights))
        return Chosen(spec.model_copy(update={"start": f"run:{run.id}"}), None, planned)

    def student(self, text: str) -> Chosen:
        request = self._request(text, "student")
        if ":" not in text and request.start == "random" and self.protocol.student_start == "pretrained":
            request = self._request(f"{text}:pretrained", "student")
        return Chosen(self._network(request)[0], self._weights(request))

    def planned(self, teacher: Chosen, student: Chosen, spec: ObjectiveSpec, seed: int) -> Planned:
        reads = any(REGISTRY.get(term.method).card.needs.teacher for term in spec.all_terms)
        run = Run(
            student=student.spec,
            teacher=teacher.spec if reads else None,
            data=self.data,
            recipe=self.recipe(student.spec.name, teacher=False),
            objective=spec,
            seed=seed,
        )
        paths = {"student": student.path, "teacher": teacher.path if reads else None}
        pair = f"{teacher.spec.name}/{student.spec.name}"
        return Planned(run, self._about(run, pair=pair, teacher_id=teacher.run_id, paths=paths))

    def _request(self, text: str, role: str) -> NetworkRequest:
        if text in self.modules.by_name:
            return NetworkRequest(text=text, name=text, start="random")
        request = parse_network(text)
        changes = _below(self.changes, role)
        return NetworkRequest(
            text=request.text,
            name=request.name,
            start=request.start,
            path=request.path,
            run_id=request.run_id,
            stem=changes.get("stem", request.stem),
            image_size=changes.get("image_size", request.image_size),
        )

    def _weights(self, request: NetworkRequest) -> str | None:
        """Where the file of a network's weights lies; None for a kept teacher, which is found by its run's id."""
        if request.start == "run" and len(ensemble_ids(str(request.run_id))) == 1:
            folder = _run_folder(str(request.run_id), self.config)
            return None if folder.path.parent.parent == teacher_store().folder else str(folder.student)
        return str(request.path.resolve()) if request.path else None

    def _network(self, request: NetworkRequest) -> tuple[NetworkSpec, int]:
        """A network for the classes of the data, and how many classes its weights were made for."""
        name, start, made_for = request.name, str(request.start), self.data.classes
        stem, image_size = request.stem, request.image_size
        if request.start == "file":
            assert request.path is not None
            start = f"file:{file_sha256(request.path)}"
            made_for = classes_of(read_state(request.path)) or made_for
        elif request.start == "run":
            assert request.run_id is not None
            if len(ids := ensemble_ids(request.run_id)) > 1:
                return self._ensemble(ids)
            trained = _run_folder(request.run_id, self.config).read_plan()[0].student
            start, name, made_for = f"run:{request.run_id}", trained.name, trained.classes
            stem, image_size = trained.stem, trained.image_size
        ours_or_timm(name)
        if request.start == "pretrained":
            made_for = pretrained_classes(name) or made_for
        return NetworkSpec(name=name, classes=self.data.classes, start=start, stem=stem, image_size=image_size), made_for

    def _ensemble(self, ids: Sequence[str]) -> tuple[NetworkSpec, int]:
        """The teachers of an ensemble, which are kept ones made for the classes of the data."""
        kept = [teacher_store().run(run_id) for run_id in ids]
        missing = [folder.id for folder in kept if folder.state() != "done"]
        refuse([f"teacher: no kept teacher {run_id!r}; `kdzoo teachers` lists what an ensemble can have as members" for run_id in missing])
        trained = [folder.read_plan()[0].student for folder in kept]
        other = [network for network in trained if network.classes != self.data.classes]
        refuse([f"teacher: {n.name} was made for {n.classes} classes, but {self.data.name} has {self.data.classes}" for n in other])
        name = "+".join(network.name for network in trained)
        return NetworkSpec(name=name, classes=self.data.classes, start=f"run:{'+'.join(ids)}"), self.data.classes

    def _about(self, run: Run, *, pair: str, teacher_id: str | None, paths: Mapping[str, Any]) -> dict[str, Any]:
        where = {"data": self.config.data, "data_root": self.config.data_root, **paths}
        published = self.protocol.published_for(pair)
        return {
            "recipe": Path(self.config.recipe).stem,
            "pair": pair,
            "phase": "sweep",
            "teacher_id": teacher_id if run.teacher is not None else None,
            "methods": {term.method: card_record(term.method, published.get(term.method)) for term in run.objective.all_terms},
            "swept": _swept(self.config),
            "data": self.found,
            "paths": {key: value for key, value in where.items() if value is not None},
        }


def _requests(config: BenchConfig, problems: list[str]) -> list[Request]:
    """The methods asked for and, first, the controls: the student alone and plain KD, tuned like the others."""
    found: dict[str, Request] = {}
    for text in (NONE, KD, *config.methods):
        with noting(problems):
            found.setdefault(text, parse_request(text))
    known = {term for request in found.values() for term in request.terms}
    for key in config.grid:
        method, _, parameter = key.partition(".")
        if method not in known:
            problems.append(f"grid.{key}: no method of this bench is called {method!r}{did_you_mean(method, known)}")
        elif parameter not in REGISTRY.get(method).model_fields:
            fields = list(REGISTRY.get(method).model_fields)
            problems.append(
                f"grid.{key}: {method} has no {parameter!r}{did_you_mean(parameter, fields)}; it has: {', '.join(fields) or 'none'}"
            )
    return list(found.values())


def _pairs(config: BenchConfig, problems: list[str]) -> list[tuple[str, str]]:
    if bool(config.teacher) != bool(config.student):
        problems.append(f"{'student' if config.teacher else 'teacher'}: missing; a teacher and a student go together")
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
    networks = {"student": ["stem", "image_size"], "teacher": ["stem", "image_size", "seed"], "objective": ["pairing"]}
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


def _below(changes: Mapping[str, Any], place: str) -> dict[str, Any]:
    return {key.removeprefix(f"{place}."): value for key, value in changes.items() if key.startswith(f"{place}.")}


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
    axes = {"temperature": config.temperatures, "alpha": config.alphas, "weight": config.weights, **config.grid}
    return [f"search list ({config.tune})"] if config.tune is not None else [name for name, values in axes.items() if len(values) > 1]


def _run_folder(run_id: str, config: BenchConfig) -> RunFolder:
    """The folder of a finished run, among the kept teachers or in any bench below the results folder."""
    places = [teacher_store(), *(Store(path.parent) for path in sorted(Path(config.results).glob("*/runs")))]
    for store in places:
        if store.run(run_id).state() == "done" and store.run(run_id).student.is_file():
            return store.run(run_id)
    raise InputError(f"teacher: no finished run {run_id!r} with its weights among the kept teachers or below {config.results}")
