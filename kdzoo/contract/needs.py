"""Need: what a method reads of the two networks and of a batch; and the one table of what can be done with each output."""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from kdzoo.errors import InputError, KdzooError


class Need(enum.Flag):
    """What a method reads. Combine with `|`."""

    NOTHING = 0
    LOGITS = enum.auto()
    """class scores before the softmax, (B, K)"""
    EMBEDDING = enum.auto()
    """the pooled vector before the classifier, (B, D)"""
    STAGES = enum.auto()
    """the last feature map of each resolution, shallow to deep, each (B, C, H, W), stem excluded"""
    CLASSIFIER = enum.auto()
    """the module that maps the embedding to the logits"""
    SECOND_VIEW = enum.auto()
    """the outputs for a second, independent augmentation of the same images"""
    PARTNER = enum.auto()
    """the student's outputs for another training image of each sample's class"""
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


@dataclass(frozen=True)
class OutputKind:
    """What can be done with what a `Need` stands for.

    attribute: how a method reads it of `student` or `teacher`; empty for what is the batch's. per_sample: whether it is a tensor,
    or a list of them, with a row for each sample: such rows are kept by the teacher cache and differentiated by the checks.
    always_cached: whether the cache keeps it even where nobody reads it yet, since the forward that gives the one gives the
    other. batchable: whether one batched forward of many students gives it; a network's own modules, and passes that move the
    batch-norm statistics of those alone who read them, are each student's own. compilable: whether a compiled student gives
    it; what is read inside of a network or differentiated twice, it does not. of_teacher: whether a single `Need` declares it of
    the teacher too. own_width: whether its width is the network's own and not the number of classes. another_pass: whether it
    takes a forward on other images. aliases: what else people call it.
    """

    attribute: str
    per_sample: bool = False
    always_cached: bool = False
    batchable: bool = False
    compilable: bool = True
    of_teacher: bool = True
    own_width: bool = False
    another_pass: bool = False
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
    Need.SECOND_VIEW: OutputKind("second", another_pass=True, aliases=("second_view", "view2")),
    Need.PARTNER: OutputKind("partner", another_pass=True, of_teacher=False),
    Need.NETWORK: OutputKind("network", compilable=False, aliases=("model", "net")),
    Need.TARGETS: OutputKind("", batchable=True, of_teacher=False),
}
"""every need, in the order in which messages list them"""


def _where(holds: Callable[[OutputKind], bool]) -> Need:
    found = Need.NOTHING
    for need, kind in KINDS.items():
        found |= need if holds(kind) else Need.NOTHING
    return found


PER_SAMPLE = _where(lambda kind: kind.per_sample)
ALWAYS_CACHED = _where(lambda kind: kind.always_cached)
BATCHABLE = _where(lambda kind: kind.batchable)
COMPILABLE = _where(lambda kind: kind.compilable)
OF_TEACHER = _where(lambda kind: kind.of_teacher)
OWN_WIDTH = _where(lambda kind: kind.own_width)
PASSES = _where(lambda kind: kind.another_pass)


@dataclass(frozen=True)
class Needs:
    """What a method reads of each network, and of the batch; one `Need` means the same of both.

    preact_if_given: whether the teacher's stages are read before their last activation where it gives them so.
    """

    student: Need
    teacher: Need
    preact_if_given: bool = False

    @staticmethod
    def of(needs: Need | Needs) -> Needs:
        return needs if isinstance(needs, Needs) else Needs(needs, needs & OF_TEACHER)

    def __or__(self, other: Needs) -> Needs:
        return Needs(self.student | other.student, self.teacher | other.teacher, self.preact_if_given or other.preact_if_given)

    def settled(self, preact: bool) -> Needs:
        """What is read of a teacher that gives pre-activation maps, or of one that does not."""
        before = preact and self.preact_if_given
        return Needs(self.student, self.teacher & ~Need.STAGES | Need.PREACT if before else self.teacher)

    @property
    def targets(self) -> bool:
        return Need.TARGETS in self.student


NO_NEEDS = Needs(Need.NOTHING, Need.NOTHING)


class UndeclaredNeed(KdzooError):
    """A method read what it had not asked for."""


class NotProvided(InputError):
    """A method read what a training loop of a user's own has not provided; the message says how to provide it."""


def describe(need: Need) -> str:
    """`Need.LOGITS | Need.STAGES`, as one writes it in a declaration."""
    return " | ".join(f"Need.{member.name}" for member in Need if member in need and member.value) or "Need.NOTHING"
