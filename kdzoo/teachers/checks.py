"""Checks of a teacher before it teaches: whether it is above chance, and which normalisation suits it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor

from kdzoo.data.dataset import Subset
from kdzoo.data.split import Splits, labelled_subset
from kdzoo.errors import InputError
from kdzoo.models.ensemble import Ensemble
from kdzoo.models.names import own_norm
from kdzoo.models.network import Network, other_norm
from kdzoo.models.normalisation import HOW_TO_NAME, usual_for
from kdzoo.models.placement import Placement
from kdzoo.models.predict import predict
from kdzoo.runs.recipe import Augment
from kdzoo.runs.spec import Normalisation
from kdzoo.tasks.classification import binomial_tail
from kdzoo.tasks.task import AgainstChance
from kdzoo.teachers.teacher import LiveTeacher, Teacher

COMPARED_IMAGES = 512
"""on which normalisations are compared"""
CLEARLY = 0.05
"""the size of the test that calls one of the usual normalisations better, all of them together"""


def refuse_at_chance(teacher: Teacher, splits: Splits, augment: Augment, execution: Placement) -> list[str]:
    """Notes on a teacher whose validation images are too few to tell it from chance; none where it is above chance on them.

    Where these are too few, and where none are held out, it is measured on the training images, those that it will teach
    on; never on the test images. Raises InputError for a teacher that is not above chance by its task's own test on images that
    are enough to tell: it would teach noise. A pretrained network asked for another number of classes, whose new head is random,
    is the usual cause.
    """
    doubts: list[str] = []
    if teacher.val is not None and splits.val is not None:
        verdict = splits.task.against_chance(teacher.val, splits.val.targets)
        if verdict.above:
            return []
        if verdict.tells:
            raise _at_chance(teacher, verdict, "validation")
        doubts.append(
            f"teacher {teacher.name}: {verdict.samples} validation images are too few to tell {verdict.text} from chance "
            f"({verdict.chance_text})"
        )
    verdict = splits.task.against_chance(*teacher.check_predictions(splits, augment, execution))
    if verdict.above:
        return [
            f"{text}; on {verdict.samples} training images it is above chance, with {verdict.metric.brief(verdict.value)}"
            for text in doubts
        ]
    if verdict.tells:
        raise _at_chance(teacher, verdict, "training")
    few = f"{verdict.samples} training images are too few to tell {verdict.text} from chance ({verdict.chance_text})"
    return [*doubts, f"teacher {teacher.name}: {few}"]


def _at_chance(teacher: Teacher, verdict: AgainstChance, where: str) -> InputError:
    return InputError(
        f"teacher {teacher.name}: {verdict.text} on {verdict.samples} {where} images is not above chance "
        f"({verdict.chance_text}; {verdict.test}): it would teach noise. Train it longer (--epochs), give its weights "
        "(NAME:FILE), say what its images were normalised with (NAME:FILE@norm=auto tries the usual ones), or keep it as a control "
        "(--allow-chance-teacher)"
    )


def notes_on_teacher(teacher: Teacher, splits: Splits, augment: Augment, execution: Placement) -> list[str]:
    """Notes on a teacher before it teaches: that it gives probabilities, or that another normalisation suits it or may do."""
    if not isinstance(teacher, LiveTeacher):
        return []
    network = teacher.network
    members = cast(list[Network], list(network.model)) if isinstance(network, Ensemble) else [network]  # type: ignore[call-overload]
    texts = [text for text in (NOTES_OF_OUTPUTS.get(member.gives) for member in members) if text]
    notes = [f"teacher {teacher.name}: {text}" for text in dict.fromkeys(texts)]
    if isinstance(network, Ensemble) or not network.assumed_norm:
        return notes
    if splits.task.of_features:
        return [
            *notes,
            f"teacher {teacher.name}: the normalisation it was trained with is unknown, so the data's is used; where you know it, say so: "
            f"@norm={HOW_TO_NAME} behind the network, or --set teacher.norm",
        ]
    if not splits.task.of_classes:
        return notes
    part = splits.val or labelled_subset(splits)
    norms = measure_norms(network, own_norm(teacher.name), part, augment, execution.device)
    better = norms.better()
    if better is not None:
        notes.append(
            f"teacher {teacher.name}: the normalisation it was trained with is unknown, so the data's is used; another one "
            f"is clearly better: {norms}. Add @norm={better} to the network or --set teacher.norm={better}; auto takes the best"
        )
    return notes


NOTES_OF_OUTPUTS = {
    "probabilities": "its forward ends in a softmax; the logarithms of its probabilities teach, which equal its class scores up to a "
    "constant per image, so that every softened softmax is the same",
    "log-probabilities": "its forward ends in log_softmax; its log-probabilities teach, which equal its class scores up to a "
    "constant per image, so that every softened softmax is the same",
}


@dataclass(frozen=True)
class Norms:
    """Which of some images a network classifies right (N,), under its present normalisation and under others by their names."""

    own: Tensor
    others: Mapping[str, Tensor]

    def better(self) -> str | None:
        """The best of the other normalisations where it is clearly better: a sign test at level CLEARLY for all of them together."""
        if not self.others:
            return None
        best = max(self.others, key=lambda name: int(self.others[name].sum()))
        gains, losses = (int(side.sum()) for side in (self.others[best] & ~self.own, self.own & ~self.others[best]))
        return best if gains > losses and binomial_tail(gains, gains + losses, 0.5) <= CLEARLY / len(self.others) else None

    def __str__(self) -> str:
        ranked = sorted(self.others, key=lambda name: -int(self.others[name].sum()))
        shares = {"as it is": self.own, **{name: self.others[name] for name in ranked}}
        words = ", ".join(f"{name} {float(right.double().mean()):.1%}" for name, right in shares.items())
        return f"right on {len(self.own)} images: {words}"


def measure_norms(network: Network, architectures: Normalisation | None, part: Subset, augment: Augment, device: torch.device) -> Norms:
    """The usual normalisations, and the architecture's own, tried on the first images of a part of the data.

    None is tried where the network is so good that none could be clearly better.
    """
    part = Subset(part.images[:COMPARED_IMAGES], part.targets[:COMPARED_IMAGES])

    def right() -> Tensor:
        return predict(network, part, augment, device).argmax(1) == part.targets

    own = right()
    usual = {name: norm for name, norm in usual_for(network.channels, architectures).items() if not network.normalises_with(norm)}
    if 0.5 ** int((~own).sum()) > CLEARLY / len(usual):
        return Norms(own, {})
    others = {}
    for name, norm in usual.items():
        with other_norm(network, norm):
            others[name] = right()
    return Norms(own, others)
