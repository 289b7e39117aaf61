"""What `@register` declares of a method: its card, free of torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from kdzoo.contract.needs import MAPS, Need, Needs, Pass


@dataclass(frozen=True)
class Source:
    """Where a method comes from, and whose weights it declares."""

    title: str
    year: int
    url: str
    equation: str = ""
    weights: str = ""


@dataclass(frozen=True)
class Coefficients:
    """The factors on the task loss and on the method's own loss, as published."""

    task: float
    term: float


@dataclass(frozen=True)
class Setting:
    """One point of a method's search list: hyper-parameters, a factor on its weight, an alpha, or a dose.

    dose: the size of the term's gradient beside that of cross-entropy, which sets the weight (`kdzoo.training.doses`): the sum is
    then CE + weight * D, whatever coefficients were published.
    """

    hyperparameters: Mapping[str, Any] = field(default_factory=dict)
    weight: float = 1.0
    alpha: float | None = None
    dose: float | None = None


def in_doses(*order: float, **hyperparameters: Any) -> tuple[Setting, ...]:
    """A search list: the published coefficients first, then these doses in their order."""
    return (Setting(hyperparameters), *(Setting(hyperparameters, dose=dose) for dose in order))


@dataclass(frozen=True)
class PretrainStage:
    """A stage of training before the student's own, as a run of its own: a method's loss alone, without cross-entropy.

    method: whose loss it is. share: its epochs as a share of the recipe's, which the second stage has besides.
    followed_by: the methods whose published terms the second stage adds to cross-entropy, where they are not the one that
    declares this. The second stage starts from the first's student, where `method` reads the student, and takes over
    what its own module has under the same name.
    """

    method: str
    share: float
    followed_by: tuple[str, ...] | None = None

    def epochs(self, of_recipe: int) -> int:
        return max(1, round(self.share * of_recipe))


Family = Literal["logits", "features", "relations", "gradients", "online", "self", "own"]
"""what a method looks at: class scores, maps, relations of samples, gradients, other learners, itself; `own` is a user's"""
FAMILIES: tuple[Family, ...] = get_args(Family)

StagesRead = Literal["paired", "last", "own"]
"""which maps a method is handed: the two networks' stages one to one; each network's own last one; all of each network's own"""

DEFAULT_SEARCH_WEIGHTS = (1.0, 0.3, 3.0, 0.1, 10.0)
"""factors on the published weight, for what has no dose"""

LOW_FIRST = (0.1, 0.3, 0.03, 1.0, 3.0)
HIGH_FIRST = (1.0, 0.3, 3.0, 0.1, 0.03)
DEFAULT_SEARCH_DOSES: Mapping[Family, tuple[float, ...]] = {
    **dict.fromkeys(FAMILIES, HIGH_FIRST),
    "features": LOW_FIRST,
    "gradients": LOW_FIRST,
    "relations": LOW_FIRST,
}
"""in which order a method that declares none tries doses: what matches maps or relations is best small beside cross-entropy"""


MapsRead = Literal["grids", "sequences", "any"]
"""over what the maps lie that a method can read: the height and width of images, the tokens of texts, or whatever they lie over"""


@dataclass(frozen=True)
class Card:
    """All that `@register` declares of a method."""

    name: str
    needs: Needs
    scale: float
    published: Coefficients
    source: Source | None
    formula: str
    search: tuple[Setting, ...]
    version: str
    zero_at_match: bool
    origin: str
    summary: str
    family: Family
    disagreements: tuple[str, ...]
    """how implementations differ from the paper and from each other, one sentence each"""
    deploys: str
    """what is shipped where that is not the student that was trained, in words"""
    pretrain: PretrainStage | None
    refuses_mixing: str
    """why it cannot learn from mixed images (mixup, CutMix), in words; empty where it can"""
    pixels: str
    """why it works on images in 0..255 alone, in words; empty where the scale of a network's inputs does not matter"""
    detaches: str
    """what of the student it detaches on purpose, in words; empty where its gradient is that of its value"""
    per_sample: bool
    """whether its loss is the mean over samples of what each gives alone; several processes compute any other of their joint batch"""
    outside: bool
    """whether it is a user's or another package's: what it shares with others is then lent to it in copies"""
    plugin: str
    """the plugin file that was being loaded when it was registered; empty for none"""
    definition: tuple[str, str]
    """(file, qualified name): two registrations with the same definition are the same method, defined again"""
    stages: StagesRead | Callable[[Any], StagesRead] = "paired"
    """which maps it is handed, or a function of the method that says so, where that hangs on a hyper-parameter"""
    maps: MapsRead = "grids"
    """over what the maps lie that it can read"""

    @property
    def trains_classifier(self) -> bool:
        """Whether the loss reaches the classifier that is shipped, so that alpha = 1 makes sense.

        A method that declares the student's network and nothing else of it reads class scores there; beside maps or an embedding
        the network gives it more of these.
        """
        outputs = self.needs.student.outputs
        return bool(self.deploys) or Need.LOGITS in outputs or outputs & ~Need.TARGETS == Need.NETWORK

    @property
    def of_texts_alone(self) -> bool:
        """Whether it can learn from networks of texts alone."""
        return self.maps == "sequences" and self.reads_maps

    @property
    def reads_maps(self) -> bool:
        """Whether it reads maps of either network."""
        return bool((self.needs.student.outputs | self.needs.teacher.outputs) & MAPS)

    @property
    def no_dose(self) -> str:
        """Why no dose can set its weight, in words; empty where one can."""
        if self.pretrain is not None and self.pretrain.followed_by == ():
            return "its second stage is cross-entropy alone, so there is no weight to set"
        if self.published.task == 0:
            return "it is published without cross-entropy beside it, so there is nothing to compare its gradient with"
        if not self.needs.student:
            return "it reads nothing of the student, so its gradient there is zero"
        return ""


SCORES = Need.LOGITS | Need.CLASSIFIER | Need.DISTILLED | Need.MEMBERS
"""what only a network with a classifier gives"""


def why_not_features(card: Card) -> str:
    """Why a method cannot serve networks that give embeddings, and data without labels, in words; empty where it can."""
    needs = card.needs.student | card.needs.teacher
    if scores := needs.outputs & SCORES:
        return f"reads {' and '.join(str(one.name).lower() for one in scores)}, which no network without a classifier has"
    if Need.TARGETS in needs:
        return "reads the labels of every sample"
    if Pass.PARTNER in needs:
        return "pairs each sample with another of its label"
    if card.pretrain is not None and card.pretrain.followed_by is not None:
        return "its second stage learns of labels or class scores"
    return f"ships {card.deploys}" if card.deploys else ""


def default_search(card: Card) -> tuple[Setting, ...]:
    """The search list of a method that declares none."""
    if card.pretrain is not None and card.pretrain.followed_by == ():
        return (Setting(),)
    if card.no_dose:
        return tuple(Setting(weight=weight) for weight in DEFAULT_SEARCH_WEIGHTS)
    return in_doses(*DEFAULT_SEARCH_DOSES[card.family])
