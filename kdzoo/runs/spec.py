"""A Run: everything that decides a result, frozen, complete and hashed to an id. Free of torch, so tables start fast.

Folders, devices, workers, layout and names are not here: they change no number and are recorded beside the run.
"""

from __future__ import annotations

import hashlib
from functools import cached_property
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, JsonValue, model_validator

from kdzoo.runs.canonical import canonical, canonical_json, object_of
from kdzoo.runs.fields import (
    ClassNumbers,
    Count,
    Deviations,
    Integer,
    Means,
    Number,
    OmitDefault,
    Positive,
    Share,
    Side,
    SparseSpec,
    Spec,
    as_tuple,
)
from kdzoo.runs.recipe import Recipe
from kdzoo.tasks.classification import CLASSIFICATION

ENGINE = 4
"""Raised when the trainer's numbers change, so that older runs are not taken for new ones."""


class Normalisation(Spec):
    """What an image in [0, 1] is normalised with before a network sees it: (x - mean) / std, one value per channel or one for all."""

    mean: Means
    std: Deviations

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if len(self.mean) != len(self.std):
            raise ValueError(f"expected as many means as deviations, got {len(self.mean)} and {len(self.std)}")
        return self


class NetworkSpec(SparseSpec):
    """A network by timm name, and the weights it starts from.

    start: `random`, `pretrained` (timm's), `file:<sha256>`, `run:<id>` (the weights that run
    ended with), or `saved:<sha256>`: no network at all, but a file of a teacher's answers.
    stem: `small` swaps a stem made for 224 pixels for one of stride 1.
    image_size: the side its input is resized to; None takes images as they are.
    classes: the classes its weights were made for; 0 for a backbone without a classifier, which gives its embedding.
    norm: what it normalises images with; None for what its weights bring, else the data's own.
    weights: which of several sets of weights in its file it takes; None for the usual one.
    code: the version of a user's own network, a hash of its source; None for kdzoo's and timm's.
    views: of a saved teacher `centre`, where training moves the images and its file knows their centre view alone.
    columns: of a teacher the columns of targets that it scores, in this order, where its students learn more; None for all.
    """

    name: str
    classes: Annotated[Integer, Field(ge=0)]
    start: Annotated[str, Field(pattern=r"^(random|pretrained|file:[0-9a-f]{64}|run:.+|saved:[0-9a-f]{64})$")] = "random"
    stem: Literal["standard", "small"] = "standard"
    image_size: Side | None = None
    norm: Annotated[Normalisation | None, OmitDefault()] = None
    weights: Annotated[str | None, OmitDefault()] = None
    code: Annotated[str | None, OmitDefault()] = None
    views: Annotated[Literal["centre"] | None, OmitDefault()] = None
    columns: Annotated[Annotated[tuple[str, ...], BeforeValidator(as_tuple)] | None, OmitDefault()] = None

    @property
    def is_network(self) -> bool:
        """Whether there is a network to build, run and count."""
        return self.saved is None

    @property
    def saved(self) -> str | None:
        """The sha256 of the file of a saved teacher; None for a network."""
        kind, _, digest = self.start.partition(":")
        return digest if kind == "saved" else None


class TransferSpec(SparseSpec):
    """The transfer set: what the student is taught on, where that is not the whole training set that its teacher learned.

    classes: the numbers of the classes whose training images it has, in ascending order; None for all.
    images: the fingerprint of images without labels that it has besides. only: it has these alone.
    """

    classes: Annotated[ClassNumbers | None, OmitDefault()] = None
    images: Annotated[str | None, OmitDefault()] = None
    only: Annotated[bool, OmitDefault()] = False

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.classes is None and self.images is None:
            raise ValueError("expected classes or images; leave transfer out where the student is taught on all training images")
        if self.only and (self.images is None or self.classes is not None):
            raise ValueError("only: expected images, and no classes of the training images")
        if self.classes is not None and list(self.classes) != sorted(set(self.classes)):
            raise ValueError(f"classes: expected numbers in ascending order, none twice, got {list(self.classes)}")
        return self


class DataSpec(SparseSpec):
    """A data set by the fingerprint of its content, its split, and what of it is used.

    val_fraction: the share of the training images held out, stratified, drawn with split_seed; 0 for reproductions.
    limit: how many training images are used (before the split).
    transfer: which of them the student is taught on; None, and then not part of a run's id, for all.
    label_fraction: the share of the images it is taught on that have a label.
    task: what is learned; not part of a run's id where it is classification. Of a set with several columns of targets it names
    those that are learned (`kdzoo.tasks.multitask`), unless that is the first alone; classes: of the first of them.
    """

    name: str
    fingerprint: str
    classes: Count
    val_fraction: Share = 0.1
    split_seed: Integer = 0
    limit: Count | None = None
    label_fraction: Annotated[Number, Field(gt=0, le=1)] = 1.0
    transfer: Annotated[TransferSpec | None, OmitDefault()] = None
    task: Annotated[str, OmitDefault()] = CLASSIFICATION.name

    @property
    def of_teacher(self) -> DataSpec:
        """The teacher's data: all training images of the same data, with all labels."""
        return self.model_copy(update={"label_fraction": 1.0, "transfer": None})


class TermSpec(Spec):
    """A method with all its hyper-parameters, its version, and the factor on its loss.

    Hyper-parameters stand as they will be read from a file: 4.0 is 4.
    """

    method: str
    version: str
    hyperparameters: Annotated[dict[str, JsonValue], AfterValidator(canonical)]
    coefficient: Positive


class FirstSpec(Spec):
    """The pretrain stage of a method that trains in two: its loss alone, for `epochs` epochs.

    owner: the method that has the stage. then: the methods that stand for it among the terms of the second stage;
    None where it stands there itself.
    """

    owner: str
    term: TermSpec
    epochs: Count
    then: Annotated[tuple[str, ...], BeforeValidator(as_tuple)] | None = None


Pairing = Literal["deep", "left"]
"""how two networks' stages meet: nearest reduction from the deep end, or by position from the left"""


class ObjectiveSpec(SparseSpec):
    """The weighted sum: `task` times cross-entropy plus the terms, sorted by name, none twice, none with factor 0.

    pairing: how the two networks' stages meet. first: what the student or the method's module learns before; where there is
    none it is not part of a run's id.
    """

    task: Annotated[Number, Field(ge=0)]
    terms: Annotated[tuple[TermSpec, ...], BeforeValidator(as_tuple)] = ()
    pairing: Pairing = "deep"
    first: Annotated[FirstSpec | None, OmitDefault()] = None

    @model_validator(mode="after")
    def _sorted(self) -> Self:
        names = [term.method for term in self.terms]
        if names != sorted(set(names)):
            raise ValueError(f"terms: expected methods in order and none twice, got {names}")
        if not self.terms and self.task != 1:
            raise ValueError("task: expected 1 where there is no other term")
        return self

    @property
    def label(self) -> str:
        """`none` for the student alone, else the methods joined with `+`; a method of two stages under its own name."""
        names = {term.method for term in self.terms}
        if self.first is not None:
            names = names - set(self.first.then or ()) | {self.first.owner}
        return "+".join(sorted(names)) or "none"

    @property
    def all_terms(self) -> tuple[TermSpec, ...]:
        """The terms of both stages."""
        return self.terms if self.first is None else (*self.terms, self.first.term)


class Run(Spec):
    """One student trained once. Equal runs have equal ids, whatever words they were asked for with."""

    student: NetworkSpec
    teacher: NetworkSpec | None
    data: DataSpec
    recipe: Recipe
    objective: ObjectiveSpec
    seed: Integer
    kind: Literal["train", "pretrain"] = "train"
    engine: int = ENGINE

    @cached_property
    def id(self) -> str:
        """`<method>-<12 hex digits>` of the canonical JSON."""
        return self.id_of(object_of(self.parts))

    @property
    def parts(self) -> dict[str, str]:
        """Every field as canonical JSON, in the order of their names; a specification that runs share is put in that form once."""
        values = {name: getattr(self, name) for name in sorted(type(self).model_fields)}
        return {name: value.canonical_text if isinstance(value, Spec) else canonical_json(value) for name, value in values.items()}

    def id_of(self, text: str) -> str:
        """Its id, from its canonical JSON."""
        return f"{self.objective.label}-{hashlib.sha256(text.encode()).hexdigest()[:12]}"

    @property
    def pretrain_run(self) -> Run | None:
        """The run of the pretrain stage, from which this one starts; None where there is one stage.

        Milestones count from the beginning, and a pretrain stage ends before them: its rate is constant.
        """
        stage = self.objective.first
        if stage is None:
            return None
        alone = ObjectiveSpec(task=0.0, terms=(stage.term,), pairing=self.objective.pairing)
        alike = {"schedule": "constant", "milestones": ()} if self.recipe.schedule == "step" else {}
        recipe = self.recipe.model_copy(update={"epochs": stage.epochs, **alike})
        return self.model_copy(update={"kind": "pretrain", "objective": alone, "recipe": recipe})
