"""How a network is trained, as a part of its run: the recipe and the views of its images. Free of torch."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from kdzoo.runs.fields import Count, Deviations, Integer, Means, Number, OmitDefault, Positive, Share, Side, SparseSpec, as_tuple
from kdzoo.runs.policy_text import canonical_policy


def _as_policy(value: object) -> object:
    return canonical_policy(value) if isinstance(value, str) else value


class Augment(SparseSpec):
    """Training views. crop: `none`, `pad` (pad, then crop back) or `resized` (a random area and aspect, to `size`).

    size: the side of what the networks see; None keeps the images' own. At evaluation a larger image is centre-cropped.
    brightness, contrast, saturation: a factor from 1 - x to 1 + x, but not below 0, in this order.
    randaugment: number of RandAugment operations for each image, 0 for none, at strength magnitude / 30.
    cutout: the side in pixels of a square that is blackened.
    auto_augment: one of timm's policies by its text, such as `rand-m9-mstd0.5-inc1`; None for none. erase: how likely a rectangle of a
    random size and place is erased (timm's random erasing); erase_fill: with the data's `mean` colour, or with `noise` around it that has
    their deviation. time_shift: by up to so many columns to either side, with 0 from outside.
    time_mask, band_mask: up to so many columns, or rows, on which the mean of the map lies (SpecAugment,
    https://arxiv.org/abs/1904.08779). Whatever is 0 is unused and not part of a run's id.
    """

    crop: Literal["none", "pad", "resized"] = "none"
    pad: Annotated[Integer, Field(ge=0)] = 0
    padding: Literal["zero", "reflect"] = "zero"
    flip: bool = False
    size: Side | None = None
    min_area: Annotated[Number, Field(gt=0, le=1)] = 0.35
    brightness: Annotated[Number, Field(ge=0), OmitDefault()] = 0.0
    contrast: Annotated[Number, Field(ge=0), OmitDefault()] = 0.0
    saturation: Annotated[Number, Field(ge=0), OmitDefault()] = 0.0
    randaugment: Annotated[Integer, Field(ge=0), OmitDefault()] = 0
    magnitude: Annotated[Number, Field(ge=0, le=30)] = 9.0
    cutout: Annotated[Integer, Field(ge=0), OmitDefault()] = 0
    auto_augment: Annotated[str | None, BeforeValidator(_as_policy), OmitDefault()] = None
    erase: Annotated[Number, Field(ge=0, le=1), OmitDefault()] = 0.0
    erase_fill: Literal["mean", "noise"] = "mean"
    time_shift: Annotated[Integer, Field(ge=0), OmitDefault()] = 0
    time_mask: Annotated[Integer, Field(ge=0), OmitDefault()] = 0
    band_mask: Annotated[Integer, Field(ge=0), OmitDefault()] = 0

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if (self.crop == "pad") != (self.pad > 0):
            raise ValueError("augment.pad: expected a number > 0 exactly when augment.crop is 'pad'")
        if self.crop == "resized" and self.size is None:
            raise ValueError("augment.size: expected a side length when augment.crop is 'resized'")
        if "magnitude" in self.model_fields_set and not self.randaugment:
            raise ValueError("augment.magnitude: expected augment.randaugment too, a number of operations > 0, as well")
        if "erase_fill" in self.model_fields_set and not self.erase:
            raise ValueError("augment.erase_fill: expected augment.erase, a share > 0, as well")
        return self

    def unused(self) -> set[str]:
        depend = {"magnitude": self.randaugment, "erase_fill": self.erase}
        return super().unused() | {name for name, used in depend.items() if not used}

    @property
    def has_few_views(self) -> bool:
        """Whether views are few enough to be numbered: those of padded crops and flips alone."""
        colours = (self.brightness, self.contrast, self.saturation, self.randaugment, self.cutout, self.auto_augment, self.erase)
        return self.crop != "resized" and not any((*colours, self.time_shift, self.time_mask, self.band_mask))

    @property
    def of_pixels(self) -> list[str]:
        """The fields in use that are made for pixels, by name: mirrors, colours, squares, other sizes."""
        names = ("flip", "size", "brightness", "contrast", "saturation", "randaugment", "cutout", "auto_augment", "erase")
        return [*(["crop"] if self.crop == "resized" else []), *(name for name in names if getattr(self, name))]

    @property
    def moves(self) -> bool:
        """Whether a sample is not always shown as evaluation shows it."""
        return self.crop != "none" or self.flip or not self.has_few_views


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
    the frozen network's features of the training images. learns: `all` of the network, or its `head` alone, the classifier:
    then everything below stays as it was, its running statistics too.
    mixup, cutmix: alpha of the Beta distribution of a mix's share (https://arxiv.org/abs/1710.09412,
    https://arxiv.org/abs/1905.04899), or None; mix_prob: the share of samples that are mixed, by one of the two.
    mean, std: what images in [0, 1] are normalised with, one number per channel; None for those of the data. A network that
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
