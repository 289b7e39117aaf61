"""A Run: everything that decides a result, frozen, complete and hashed to an id. Free of torch, so tables start fast.

Folders, devices, workers, layout and names are not here: they change no number and are recorded beside the run.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, JsonValue, model_validator

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
    SparseSpec,
    Spec,
    as_tuple,
)
from kdzoo.tasks.classification import CLASSIFICATION

ENGINE = 3
"""Raised when the trainer's numbers change, so that older runs are not taken for new ones."""


class Normalisation(Spec):
    """What an image in [0, 1] is normalised with before a network sees it: (x - mean) / std, a value a channel or one for all."""

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
    classes: the classes its weights were made for.
    norm: what it normalises images with; None for what its weights bring, else the data's own.
    weights: which of several sets of weights in its file it takes; None for the usual one.
    code: the version of a user's own network, a hash of its source; None for kdzoo's and timm's.
    views: of a saved teacher `centre`, where training moves the images and its file knows their centre view alone.
    """

    name: str
    classes: Count
    start: Annotated[str, Field(pattern=r"^(random|pretrained|file:[0-9a-f]{64}|run:.+|saved:[0-9a-f]{64})$")] = "random"
    stem: Literal["standard", "small"] = "standard"
    image_size: Count | None = None
    norm: Annotated[Normalisation | None, OmitDefault()] = None
    weights: Annotated[str | None, OmitDefault()] = None
    code: Annotated[str | None, OmitDefault()] = None
    views: Annotated[Literal["centre"] | None, OmitDefault()] = None

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
    task: what is learned; not part of a run's id where it is classification.
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
        """What the teacher learns of the same data: all training images, all with their labels."""
        return self.model_copy(update={"label_fraction": 1.0, "transfer": None})


class Augment(SparseSpec):
    """Training views. crop: `none`, `pad` (pad, then crop back) or `resized` (a random area and aspect, to `size`).

    size: the side of what the networks see; None keeps the images' own. At evaluation a larger image is centre-cropped.
    brightness, contrast, saturation: a factor from 1 - x to 1 + x, but not below 0, in this order.
    randaugment: number of RandAugment operations for each image, 0 for none, at strength magnitude / 30.
    cutout: the side in pixels of a square that is blackened. Whatever is 0 is unused and not part of a run's id.
    """

    crop: Literal["none", "pad", "resized"] = "none"
    pad: Annotated[Integer, Field(ge=0)] = 0
    padding: Literal["zero", "reflect"] = "zero"
    flip: bool = False
    size: Count | None = None
    min_area: Annotated[Number, Field(gt=0, le=1)] = 0.35
    brightness: Annotated[Number, Field(ge=0), OmitDefault()] = 0.0
    contrast: Annotated[Number, Field(ge=0), OmitDefault()] = 0.0
    saturation: Annotated[Number, Field(ge=0), OmitDefault()] = 0.0
    randaugment: Annotated[Integer, Field(ge=0), OmitDefault()] = 0
    magnitude: Annotated[Number, Field(ge=0, le=30)] = 9.0
    cutout: Annotated[Integer, Field(ge=0), OmitDefault()] = 0

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if (self.crop == "pad") != (self.pad > 0):
            raise ValueError("augment.pad: expected a number > 0 exactly when augment.crop is 'pad'")
        if self.crop == "resized" and self.size is None:
            raise ValueError("augment.size: expected a side length when augment.crop is 'resized'")
        if "magnitude" in self.model_fields_set and not self.randaugment:
            raise ValueError("augment.magnitude: expected augment.randaugment too, a number of operations > 0, as well")
        return self

    def unused(self) -> set[str]:
        return super().unused() | (set() if self.randaugment else {"magnitude"})

    @property
    def countable(self) -> bool:
        """Whether views are few enough to be numbered: those of padded crops and flips alone."""
        return self.crop != "resized" and not any((self.brightness, self.contrast, self.saturation, self.randaugment, self.cutout))

    @property
    def moves(self) -> bool:
        """Whether a sample is not always shown as evaluation shows it."""
        return self.crop != "none" or self.flip or not self.countable


def steps_per_epoch(samples: int, batch_size: int, *, drop_last: bool = False) -> int:
    """Batches in an epoch: the last one may be short, but one of a single sample is dropped (batch norm cannot take it).

    drop_last: drops a short one of several samples too, unless it is the only batch.
    """
    whole, rest = divmod(samples, batch_size)
    if drop_last and whole:
        return whole
    return whole + (rest > 1 or samples == 1)


class Recipe(SparseSpec):
    """How a network is trained. `milestones` are shares of the training at which the rate is multiplied by `gamma`.

    drop_last: whether the last batch of an epoch is left out where it is short, so that no step and no running statistics of
    batch norm come from a handful of images. Orders differ from epoch to epoch, so that other images are left out each time; with
    view_epochs orders come again, and with them the images that are left out.
    optimizer: `sgd`, `adam` (weight decay is part of the gradient) or `adamw` (weight decay acts on the weights). momentum:
    of SGD, and the first of Adam's two decay rates; the second is 0.999.
    schedule: of the rate after the warm-up: `constant`, `step` (milestones), or a fall to 0 at the end of training, `linear`
    or as half a `cosine`.
    decay: what weight decay acts on, `all` parameters or `weights` (not biases and norms).
    ema: decay of the exponential moving average that is evaluated and kept, or None. ema_warmup: whether the decay rises
    to it over the first steps (`optim.decay_at`), so that the average of a short training is not that of its beginning;
    recipe files say yes unless they say no.
    dot: the gap of distillation-oriented training, which gives the terms' gradient the momentum `momentum + dot` and the
    task's `momentum - dot` (with `sgd`); None for one momentum.
    view_epochs: in how many epochs new views, mixes and orders are drawn, after which those of the first come again: so
    a teacher's answers are remembered however long the training is; None for new ones in every epoch.
    head: how a classifier starts that replaces one of other classes, at `random` or as a `probe`: a logistic regression on
    what the network, frozen, says of the training images. learns: `all` of the network, or its `head` alone, the classifier:
    then everything below stays as it was, its running statistics too.
    mixup, cutmix: alpha of the Beta distribution of a mix's share (https://arxiv.org/abs/1710.09412,
    https://arxiv.org/abs/1905.04899), or None; mix_prob: the share of samples that are mixed, by one of the two.
    mean, std: what images in [0, 1] are normalised with, one number a channel; None for those of the data. A network that
    brings its own (pretrained, or trained here) keeps them.
    dropout, input_dropout: the share of hidden units and of inputs that are dropped in training, of networks that let a
    recipe say so (`mlp_...`). dropout_schedule: whether both stay (`constant`) or fall in equal steps from epoch to epoch,
    to 1/epochs of themselves in the last one (`linear`).
    max_norm: the largest norm of the incoming weights of a hidden unit (of linear and convolutional layers but for the
    classifier), to which larger ones are scaled down after every step; None for no limit.
    Fields marked OmitDefault are not part of a run's id where they have their default.
    """

    epochs: Count
    batch_size: Count
    drop_last: Annotated[bool, OmitDefault()] = False
    lr: Positive
    optimizer: Literal["sgd", "adam", "adamw"] = "sgd"
    momentum: Share = 0.9
    nesterov: bool = False
    weight_decay: Annotated[Number, Field(ge=0)] = 0.0
    decay: Literal["all", "weights"] = "all"
    schedule: Literal["constant", "step", "linear", "cosine"] = "constant"
    milestones: Annotated[tuple[Annotated[Number, Field(gt=0, lt=1)], ...], BeforeValidator(as_tuple)] = ()
    gamma: Annotated[Number, Field(gt=0, le=1)] = 0.1
    warmup: Share = 0.0
    label_smoothing: Share = 0.0
    clip: Positive | None = None
    precision: Literal["float32", "bfloat16", "float16"] = "float32"
    ema: Share | None = None
    ema_warmup: bool = False
    dot: Annotated[Annotated[Number, Field(gt=0, lt=1)] | None, OmitDefault()] = None
    mixup: Annotated[Positive | None, OmitDefault()] = None
    cutmix: Annotated[Positive | None, OmitDefault()] = None
    mix_prob: Annotated[Number, Field(gt=0, le=1)] = 1.0
    view_epochs: Annotated[Count | None, OmitDefault()] = None
    head: Annotated[Literal["random", "probe"], OmitDefault()] = "random"
    learns: Annotated[Literal["all", "head"], OmitDefault()] = "all"
    dropout: Annotated[Share, OmitDefault()] = 0.0
    input_dropout: Annotated[Share, OmitDefault()] = 0.0
    dropout_schedule: Annotated[Literal["constant", "linear"], OmitDefault()] = "constant"
    max_norm: Annotated[Positive | None, OmitDefault()] = None
    mean: Annotated[Means | None, OmitDefault()] = None
    std: Annotated[Deviations | None, OmitDefault()] = None
    augment: Augment = Augment()

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if (self.schedule == "step") != bool(self.milestones):
            raise ValueError("milestones: expected shares of the training exactly when schedule is 'step'")
        if self.dot is not None and (self.optimizer != "sgd" or self.nesterov):
            raise ValueError("dot: expected optimizer 'sgd' without nesterov, which are what its two momenta replace")
        if self.dot is not None and not self.dot <= self.momentum < 1 - self.dot:
            raise ValueError(f"dot: expected momentum - dot and momentum + dot in [0, 1), got {self.momentum} and {self.dot}")
        if self.dot is not None and self.precision == "float16":
            raise ValueError("dot: expected precision 'float32' or 'bfloat16': its two gradients are not scaled")
        if "mix_prob" in self.model_fields_set and not self.mixes:
            raise ValueError("mix_prob: expected mixup or cutmix (an alpha > 0) as well")
        if self.dropout_schedule != "constant" and not self.drops:
            raise ValueError("dropout_schedule: expected dropout or input_dropout (a share > 0) as well")
        if self.drops and self.learns == "head":
            raise ValueError("dropout: expected learns 'all': with 'head' everything below the classifier is in evaluation mode")
        if self.max_norm is not None and self.learns == "head":
            raise ValueError("max_norm: expected learns 'all': with 'head' no hidden unit learns, and there is nothing to limit")
        if len(self.mean or ()) != len(self.std or ()):
            raise ValueError(f"mean: expected as many numbers as std has, one per channel, got {self.mean} and {self.std}")
        return self

    def unused(self) -> set[str]:
        no_mixing = set() if self.mixes else {"mix_prob"}
        no_warmup = set() if self.ema is not None and self.ema_warmup else {"ema_warmup"}
        return super().unused() | no_mixing | no_warmup

    def drawn_as(self, epoch: int) -> int:
        """The epoch whose views, mixes and order an epoch has."""
        return epoch if self.view_epochs is None else epoch % self.view_epochs

    @property
    def drawn_epochs(self) -> int:
        """In how many epochs new views are drawn."""
        return min(self.epochs, self.view_epochs or self.epochs)

    @property
    def drops(self) -> bool:
        """Whether dropout is part of the training."""
        return self.dropout > 0 or self.input_dropout > 0

    @property
    def mixes(self) -> bool:
        """Whether images are mixed with each other."""
        return self.mixup is not None or self.cutmix is not None


class TermSpec(Spec):
    """A method with all its hyper-parameters, its version, and the factor on its loss."""

    method: str
    version: str
    hyperparameters: dict[str, JsonValue]
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


class ObjectiveSpec(SparseSpec):
    """The weighted sum: `task` times cross-entropy plus the terms, sorted by name, none twice, none with factor 0.

    pairing: how the two networks' stages meet, `deep` (nearest reduction from the deep end) or `left` (by position).
    first: the stage of training that comes before; where there is none it is not part of a run's id.
    """

    task: Annotated[Number, Field(ge=0)]
    terms: Annotated[tuple[TermSpec, ...], BeforeValidator(as_tuple)] = ()
    pairing: Literal["deep", "left"] = "deep"
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

    @property
    def id(self) -> str:
        """`<method>-<12 hex digits>` of the canonical JSON."""
        return self._id_of(canonical_json(self.model_dump(mode="json")))

    def _id_of(self, text: str) -> str:
        return f"{self.objective.label}-{hashlib.sha256(text.encode()).hexdigest()[:12]}"

    def parts(self, content: Mapping[str, Any], run_id: str) -> dict[str, str]:
        """Every part as canonical JSON, by name, of a run that was parsed from `content`; raises ValueError unless it has this id.

        Content that is canonical already, as a file is that kdzoo wrote, is not put in that form again: its digest is the id.
        """
        parts = {name: _as_json(content[name]) for name in sorted(content)}
        if self._id_of(object_of(parts)) == run_id:
            return parts
        if self.id != run_id:
            raise ValueError(f"describes {self.id}")
        return {name: canonical_json(part) for name, part in self.model_dump(mode="json").items()}

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


def canonical(value: Any) -> Any:
    """The same JSON value in one form: whole floats as integers, mappings in key order, tuples as lists."""
    if value is None or isinstance(value, str | int):  # first, since most values are, and a table asks this of every run
        return value
    if isinstance(value, float):
        return int(value) if value.is_integer() else value
    if isinstance(value, Mapping):
        return {key: canonical(value[key]) for key in sorted(value)}
    if isinstance(value, list | tuple):
        return [canonical(item) for item in value]
    return value


def canonical_json(value: Any) -> str:
    """One line of JSON that is the same for equal values; NaN and infinities are refused."""
    return _as_json(canonical(value))


_as_json = json.JSONEncoder(sort_keys=True, separators=(",", ":"), allow_nan=False, ensure_ascii=False).encode


def object_of(parts: Mapping[str, str]) -> str:
    """The canonical JSON of an object from that of its values."""
    return "{" + ",".join(f'"{name}":{parts[name]}' for name in sorted(parts)) + "}"
