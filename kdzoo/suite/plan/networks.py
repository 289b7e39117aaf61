"""From a network as a user names it to its specification, the file of its weights, and what there is to know of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from kdzoo.data.class_names import difference, first_names, same_classes
from kdzoo.data.columns import columns_scored, learn, learned_columns
from kdzoo.data.dataset import Dataset
from kdzoo.errors import InputError, collect_problems, raise_if_any
from kdzoo.models.agglomerate import AGGLOMERATE, NO_FILE
from kdzoo.models.checkpoints import class_names_of, read_checkpoint
from kdzoo.models.names import code_of, pretrained_classes, require_network_name
from kdzoo.models.normalisation import AUTO, normalisation_of
from kdzoo.models.request import NetworkRequest, ensemble_ids, parse_network
from kdzoo.models.text import scored_classes
from kdzoo.models.text_names import is_text_network, with_layers
from kdzoo.models.weights import classes_of, file_sha256, read_input_transform
from kdzoo.runs.about import names_of_scores
from kdzoo.runs.spec import NetworkSpec, Normalisation
from kdzoo.runs.store import RunFolder, Store, is_teacher, teacher_store
from kdzoo.suite.plan.changes import as_text, below
from kdzoo.suite.plan.config import BenchConfig
from kdzoo.tasks.known import task_named
from kdzoo.training.located import Modules, WeightFiles


@dataclass(frozen=True)
class Offer:
    """A network as it was asked for: its specification, and what is known of its weights.

    notes: for the reader of the plan. class_names: of what they were trained on, where known. misfit: why they are not for the
    classes of the data; None where they are, or where nobody knows. brings_norm: whether they say how they take images.
    columns: which of several columns of targets they score; None for all. made_for: how many classes; None where nobody knows.
    """

    text: str
    spec: NetworkSpec
    notes: tuple[str, ...] = ()
    class_names: tuple[str, ...] | None = None
    misfit: str | None = None
    brings_norm: bool = False
    columns: tuple[str, ...] | None = None
    made_for: int | None = None

    @property
    def fits(self) -> bool:
        return self.misfit is None

    def of_classes(self, classes: int, names: Sequence[str] | None, dataset: Dataset) -> Offer:
        """The same for weights that were made for so many classes, of these names."""
        ours = dataset.classes
        if dataset.task.of_features:
            return self
        known = None if names is None else tuple(names)
        if dataset.task.several:
            return replace(self, class_names=known, made_for=classes).of_columns(columns_scored(dataset, classes, known), dataset)
        if classes != len(ours):
            return replace(self, class_names=known, misfit=f"made for {classes} classes, but {dataset.name} has {len(ours)}")
        if known is not None and same_classes(known, ours) is False:
            return replace(self, class_names=known, misfit=difference(known, ours, dataset.name))
        return replace(self, class_names=known)

    def of_columns(self, names: tuple[str, ...] | None, dataset: Dataset) -> Offer:
        """The same for weights that score these of several columns; None where it is not known which."""
        classes = self.made_for
        sizes = {column.name: column.classes for column in dataset.task.several}
        text = ", ".join(f"{name} ({size})" for name, size in sizes.items())
        if names is None:
            hint = "say which it scores with @columns=NAME"
            return replace(self, misfit=f"made for {classes} classes, which are not plainly one column of {dataset.name}: {text}; {hint}")
        if strange := [name for name in names if name not in sizes]:
            return replace(self, misfit=f"made for the column {strange[0]}; the columns that are learned: {text}")
        if sum(sizes[name] for name in names) != classes:
            return replace(self, misfit=f"made for {classes} classes, but {'+'.join(names)} has {sum(sizes[name] for name in names)}")
        return replace(self, misfit=None, columns=None if names == tuple(sizes) else names)

    def doubts(self, dataset: Dataset) -> tuple[str, ...]:
        """A note where the classes of the weights have no names to compare with those of the data."""
        if (
            self.spec.start == "random"
            or dataset.task.several
            or dataset.task.of_features
            or same_classes(self.class_names, dataset.classes)
        ):
            return ()
        return (f"{self.text}: the names of its classes are unknown; expected, in this order: {first_names(dataset.classes)}",)


@dataclass(frozen=True)
class NetworkResolver:
    """Resolves what a bench names as its networks: names of timm, files of weights, runs, objects of this process."""

    config: BenchConfig
    changes: Mapping[str, Any]
    dataset: Dataset
    modules: Modules

    @property
    def classes(self) -> int:
        return self.dataset.scores

    def request(self, text: str, role: str) -> NetworkRequest:
        """A network as it is asked for, with what --set changes of networks of its role, `teacher` or `student`."""
        changes = below(self.changes, role)
        if text in self.modules.by_name:
            return NetworkRequest(text=text, name=text, start="random", norm=as_text(changes.get("norm")))
        request = parse_network(text)
        if request.name == AGGLOMERATE and request.start != "file":
            raise InputError(NO_FILE)
        return replace(
            request,
            stem=changes.get("stem", request.stem),
            image_size=changes.get("image_size", request.image_size),
            norm=as_text(changes.get("norm", request.norm)),
            weights=as_text(changes.get("weights", request.weights)),
        )

    def weight_files(self, request: NetworkRequest) -> WeightFiles:
        """Where a network's file of weights lies, for an ensemble a list; None for kept teachers, which their runs' ids find."""
        if request.start == "run":
            folders = [run_folder(run_id, self.config) for run_id in ensemble_ids(str(request.run_id))]
            files = [None if is_teacher(folder) else str(folder.student) for folder in folders]
            return files[0] if len(files) == 1 else files if any(files) else None
        return str(request.path.resolve()) if request.path else None

    def offer(self, request: NetworkRequest) -> Offer:
        """A network for the classes of the data, and what its weights were made for."""
        spec = NetworkSpec(name=request.name, classes=self.classes, start="random", stem=request.stem, image_size=request.image_size)
        if request.weights is not None and request.start != "file":
            raise InputError(f"network {request.text!r}: @weights={request.weights}: expected a file, which may hold several sets")
        if request.start == "file":
            offer = self._from_file(request, spec)
        elif request.start == "run":
            offer = self._from_run(request, spec)
        elif request.start == "pretrained":
            require_network_name(request.name)
            classes = pretrained_classes(request.name) or self.classes
            pretrained = spec.model_copy(update={"start": "pretrained"})
            offer = Offer(request.text, pretrained, brings_norm=True).of_classes(classes, None, self.dataset)
        else:
            require_network_name(request.name)
            offer = Offer(request.text, spec)
        if request.columns and request.start != "random":
            offer = offer.of_columns(request.columns, self.dataset)
        changes = {"norm": self._norm(request, offer), "code": code_of(offer.spec.name)}
        return replace(offer, spec=offer.spec.model_copy(update=changes))

    def _norm(self, request: NetworkRequest, offer: Offer) -> Normalisation | None:
        """The normalisation that was asked for; None where it is the one that is used anyway."""
        if request.norm in (None, AUTO):
            return None
        norm, own = normalisation_of(str(request.norm)), Normalisation(mean=self.dataset.mean, std=self.dataset.std)
        if not offer.brings_norm:
            return None if norm == own else norm
        return own if norm is None else norm

    def _from_file(self, request: NetworkRequest, spec: NetworkSpec) -> Offer:
        assert request.path is not None
        require_network_name(request.name)
        checkpoint = read_checkpoint(request.path, key=request.weights)
        spec = spec.model_copy(update={"start": f"file:{file_sha256(request.path)}", "weights": checkpoint.named_set})
        offer = Offer(request.text, spec, checkpoint.remarks(request.text), brings_norm=read_input_transform(request.path) is not None)
        if request.name == AGGLOMERATE:
            if request.norm is not None or request.stem != "standard":
                raise InputError(f"network {request.text!r}: joined teachers take images as they are; leave the normalisation and stem out")
            return offer if self.dataset.task.of_features else replace(offer, misfit="gives embeddings alone; expected --task features")
        if is_text_network(request.name):
            if (classes := scored_classes(checkpoint.state)) is None:
                return replace(offer, misfit="its weights have no classifier")
            return offer.of_classes(classes, checkpoint.class_names, self.dataset)
        return offer.of_classes(classes_of(checkpoint.state) or self.classes, checkpoint.class_names, self.dataset)

    def _from_run(self, request: NetworkRequest, spec: NetworkSpec) -> Offer:
        assert request.run_id is not None
        if len(ids := ensemble_ids(request.run_id)) > 1:
            return self._ensemble(request.text, ids)
        network, names = self._network_of_run(run_folder(request.run_id, self.config))
        name = with_layers(network.name, request.layers)
        start = {"start": f"run:{request.run_id}", "name": name, "stem": network.stem, "image_size": network.image_size}
        require_network_name(network.name)
        return Offer(request.text, spec.model_copy(update=start), brings_norm=True).of_classes(network.classes, names, self.dataset)

    def _network_of_run(self, folder: RunFolder) -> tuple[NetworkSpec, Sequence[str] | None]:
        """The network that a run trained, and the names of its classes where they are known; the same data have the same."""
        run, about = folder.read_plan()
        if run.data.fingerprint == self.dataset.fingerprint:
            columns = learned_columns(learn(self.dataset, task_named(run.data.task)))
            return run.student, [name for column in columns for name in column.classes]
        return run.student, names_of_scores(about) or class_names_of(folder.student)

    def _ensemble(self, text: str, ids: Sequence[str]) -> Offer:
        """The networks of an ensemble: students of finished runs, or kept teachers, made for the classes of the data."""
        problems: list[str] = []
        folders: list[RunFolder] = []
        for run_id in ids:
            with collect_problems(problems):
                folders.append(run_folder(run_id, self.config))
        raise_if_any(problems)
        members = [
            Offer(folder.id, network).of_classes(network.classes, names, self.dataset)
            for folder in folders
            for network, names in [self._network_of_run(folder)]
        ]
        raise_if_any(f"teacher {member.text}: {member.misfit}" for member in members if not member.fits)
        raise_if_any(
            f"teacher {one.text}: scores {'+'.join(one.columns)} alone; an ensemble's score all columns" for one in members if one.columns
        )
        if self.dataset.task.of_features:
            raise InputError(f"teacher {text}: several networks teach by the mean of their class scores, and features have none; name one")
        name = "+".join(member.spec.name for member in members)
        unknown = any(member.class_names is None for member in members)
        spec = NetworkSpec(name=name, classes=self.classes, start=f"run:{'+'.join(ids)}")
        return Offer(text, spec, class_names=None if unknown else self.dataset.classes, brings_norm=True)


def run_folder(run_id: str, config: BenchConfig) -> RunFolder:
    """The folder of a finished run, among the kept teachers or in any bench below the results folder."""
    places = [teacher_store(), *(Store(path.parent) for path in sorted(Path(config.results).glob("*/runs")))]
    for store in places:
        if store.run(run_id).state() == "done" and store.run(run_id).student.is_file():
            return store.run(run_id)
    raise InputError(f"teacher: no finished run {run_id!r} with its weights among the kept teachers or below {config.results}")


def unknown_networks(pairs: Sequence[tuple[str, str]], modules: Modules) -> list[str]:
    """What is wrong with the names of networks alone, for want of data to build them for."""
    problems: list[str] = []
    for text in dict.fromkeys(text for pair in pairs for text in pair if text not in modules.by_name):
        with collect_problems(problems):
            require_network_name(parse_network(text).name)
    return problems
