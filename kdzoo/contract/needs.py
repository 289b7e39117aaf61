"""What a method reads of the two networks and of a batch: outputs (`Need`) and passes (`Pass`), and what can be done with each."""

from __future__ import annotations

import enum
import functools
import operator
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import overload

from kdzoo.errors import InputError, KdzooError


class Need(enum.Flag):
    """An output that a method reads. Combine with `|`, with a `Pass` too."""

    NOTHING = 0
    LOGITS = enum.auto()
    """class scores before the softmax, (B, K)"""
    EMBEDDING = enum.auto()
    """the pooled vector before the classifier, (B, D)"""
    STAGES = enum.auto()
    """the last feature map of each resolution, shallow to deep, each (B, C, H, W), stem excluded"""
    CLASSIFIER = enum.auto()
    """the module that maps the embedding to the logits"""
    PREACT = enum.auto()
    """the stages before their last activation, one for each stage, of its shape"""
    DISTILLED = enum.auto()
    """the distillation token's class scores, (B, K); the logits are then the class token's"""
    MEMBERS = enum.auto()
    """the class scores of each network of an ensemble, each (B, K); of a single network its own"""
    NETWORK = enum.auto()
    """the network itself and the images, for methods that look at gradients or at other inputs"""
    TARGETS = enum.auto()
    """the hard labels of the batch, (B,) int64"""


class Pass(enum.Flag):
    """The images of which a method reads a network's outputs. `Need.LOGITS | Pass.SECOND_VIEW` reads the logits of both views."""

    FIRST = enum.auto()
    """the batch itself, which every method reads"""
    SECOND_VIEW = enum.auto()
    """a second, independent augmentation of the same images"""
    PARTNER = enum.auto()
    """another training image of each sample's class"""

    @overload  # type: ignore[override]
    def __or__(self, other: Pass) -> Pass: ...
    @overload
    def __or__(self, other: Need | NetworkNeeds) -> NetworkNeeds: ...
    def __or__(self, other: Need | Pass | NetworkNeeds) -> Pass | NetworkNeeds:
        return super().__or__(other) if isinstance(other, Pass) else NetworkNeeds.of(other) | self

    __ror__ = __or__


@dataclass(frozen=True)
class OutputKind:
    """What can be done with an output.

    attribute: how a method reads it of `student` or `teacher`; empty for what is the batch's. per_sample: whether it is a tensor,
    or a list of them, with a row for each sample: such rows are kept by the teacher cache and differentiated by the checks.
    always_cached: whether the cache keeps it even where nobody reads it yet, since the forward that gives the one gives the
    other. batchable: whether one batched forward of many students gives it; a network's own modules are each student's own.
    compilable: whether a compiled student gives it; outputs read inside a network or differentiated twice are not.
    of_teacher: whether a single `Need` declares it of the teacher too. own_width: whether its width is the network's own and
    not the number of classes. aliases: what else people call it.
    """

    attribute: str
    per_sample: bool = False
    always_cached: bool = False
    batchable: bool = False
    compilable: bool = True
    of_teacher: bool = True
    own_width: bool = False
    aliases: tuple[str, ...] = ()


@dataclass(frozen=True)
class PassKind:
    """What a pass shows, and what can be done with its outputs.

    attribute: how a method reads these of `student` or `teacher`, which are the first pass's outputs themselves. stream: the
    random stream of its augmentation. own_images: whether images are loaded for it; else they are the first pass's, augmented
    anew. batchable: whether one batched forward of many students gives its outputs; a further pass changes
    the batch-norm statistics only of the students that read it. of_teacher, aliases: as of an output.
    """

    attribute: str
    stream: str
    own_images: bool
    batchable: bool = False
    of_teacher: bool = True
    aliases: tuple[str, ...] = ()


KINDS: Mapping[Need, OutputKind] = {
    Need.LOGITS: OutputKind(
        "logits",
        per_sample=True,
        always_cached=True,
        batchable=True,
        aliases=("output", "outputs", "out", "scores", "pred", "preds", "predictions", "y_hat"),
    ),
    Need.EMBEDDING: OutputKind(
        "embedding",
        per_sample=True,
        always_cached=True,
        batchable=True,
        own_width=True,
        aliases=("pooled", "representation", "penultimate", "emb", "hidden", "features_pooled"),
    ),
    Need.STAGES: OutputKind(
        "stages",
        per_sample=True,
        batchable=True,
        own_width=True,
        aliases=("features", "feature", "feats", "feat", "feature_maps", "fmaps", "maps", "hints", "hidden_states"),
    ),
    Need.CLASSIFIER: OutputKind("classifier", own_width=True, aliases=("fc", "head")),
    Need.PREACT: OutputKind("preact", per_sample=True, batchable=True, compilable=False, own_width=True),
    Need.DISTILLED: OutputKind("distilled", per_sample=True, of_teacher=False),
    Need.MEMBERS: OutputKind("members", per_sample=True),
    Need.NETWORK: OutputKind("network", compilable=False, aliases=("model", "net")),
    Need.TARGETS: OutputKind("", batchable=True, of_teacher=False),
}
"""every output, in the order in which messages list them"""

PASS_KINDS: Mapping[Pass, PassKind] = {
    Pass.FIRST: PassKind("", stream="view", own_images=True, batchable=True),
    Pass.SECOND_VIEW: PassKind("second", stream="second view", own_images=False, aliases=("second_view", "view2")),
    Pass.PARTNER: PassKind("partner", stream="partner view", own_images=True, of_teacher=False),
}
"""every pass, in the order in which a network runs them"""

_DECLARED: tuple[Need | Pass, ...] = (*KINDS, Pass.SECOND_VIEW, Pass.PARTNER)
BY_WORD: Mapping[str, Need | Pass] = {str(what.name).lower(): what for what in _DECLARED}
"""what can be declared, by the word for it on the command line and in messages"""


def kind_of(what: Need | Pass) -> OutputKind | PassKind:
    """The row of one output, or of one pass, in the tables above."""
    return KINDS[what] if isinstance(what, Need) else PASS_KINDS[what]


def _outputs_that(can: Callable[[OutputKind], bool]) -> Need:
    return functools.reduce(operator.or_, (need for need, kind in KINDS.items() if can(kind)), Need.NOTHING)


MAPS = Need.STAGES | Need.PREACT
"""the large outputs: feature maps"""
PER_SAMPLE = _outputs_that(lambda kind: kind.per_sample)
ALWAYS_CACHED = _outputs_that(lambda kind: kind.always_cached)
COMPILABLE = _outputs_that(lambda kind: kind.compilable)
OWN_WIDTH = _outputs_that(lambda kind: kind.own_width)


@dataclass(frozen=True)
class NetworkNeeds:
    """What a method reads of one network: which outputs, and of which passes; the first is always one of them."""

    outputs: Need
    passes: Pass = Pass.FIRST

    @staticmethod
    def of(what: Need | Pass | NetworkNeeds) -> NetworkNeeds:
        if isinstance(what, NetworkNeeds):
            return what
        return NetworkNeeds(what) if isinstance(what, Need) else NetworkNeeds(Need.NOTHING, Pass.FIRST | what)

    @staticmethod
    def from_words(words: Iterable[str]) -> NetworkNeeds:
        return functools.reduce(NetworkNeeds.__or__, (BY_WORD[word] for word in words), NetworkNeeds(Need.NOTHING))

    def __or__(self, other: Need | Pass | NetworkNeeds) -> NetworkNeeds:
        other = NetworkNeeds.of(other)
        return NetworkNeeds(self.outputs | other.outputs, self.passes | other.passes)

    __ror__ = __or__

    def __contains__(self, what: Need | Pass) -> bool:
        return what in self.outputs if isinstance(what, Need) else what in self.passes

    def __bool__(self) -> bool:
        """Whether anything is read."""
        return bool(self.outputs) or self.passes != Pass.FIRST

    def __iter__(self) -> Iterator[Need | Pass]:
        """The outputs, then the passes besides the first."""
        return (what for what in BY_WORD.values() if what in self)

    @property
    def words(self) -> list[str]:
        """`["logits", "second_view"]`, as on the command line and in messages."""
        return [word for word, what in BY_WORD.items() if what in self]

    @property
    def batchable(self) -> bool:
        """Whether one batched forward of many students gives all of it."""
        return all(kind_of(what).batchable for what in self)


@dataclass(frozen=True, init=False)
class Needs:
    """What a method reads of each network, and of the batch; one `Need` means the same of both.

    preact_if_given: whether the teacher's stages are read before their last activation where it gives them so.
    """

    student: NetworkNeeds
    teacher: NetworkNeeds
    preact_if_given: bool

    def __init__(self, student: Need | Pass | NetworkNeeds, teacher: Need | Pass | NetworkNeeds, preact_if_given: bool = False) -> None:
        object.__setattr__(self, "student", NetworkNeeds.of(student))
        object.__setattr__(self, "teacher", NetworkNeeds.of(teacher))
        object.__setattr__(self, "preact_if_given", preact_if_given)

    @staticmethod
    def of(needs: Need | Pass | NetworkNeeds | Needs) -> Needs:
        if isinstance(needs, Needs):
            return needs
        student = NetworkNeeds.of(needs)
        return Needs(student, NetworkNeeds.from_words(what for what in student.words if kind_of(BY_WORD[what]).of_teacher))

    def __or__(self, other: Needs) -> Needs:
        return Needs(self.student | other.student, self.teacher | other.teacher, self.preact_if_given or other.preact_if_given)

    def resolve(self, preact: bool) -> Needs:
        """What is read of a teacher that gives pre-activation maps, or of one that does not."""
        if not (preact and self.preact_if_given):
            return Needs(self.student, self.teacher)
        return Needs(self.student, NetworkNeeds(self.teacher.outputs & ~Need.STAGES | Need.PREACT, self.teacher.passes))

    @property
    def targets(self) -> bool:
        return Need.TARGETS in self.student


NO_NEEDS = Needs(Need.NOTHING, Need.NOTHING)


class UndeclaredNeed(KdzooError):
    """A method read what it had not asked for."""


class NotProvided(InputError):
    """A method read what a training loop of a user's own has not provided; the message says how to provide it."""


def describe(needs: Need | NetworkNeeds) -> str:
    """`Need.LOGITS | Pass.SECOND_VIEW`, as one writes it in a declaration."""
    return " | ".join(f"{type(what).__name__}.{what.name}" for what in NetworkNeeds.of(needs)) or "Need.NOTHING"
