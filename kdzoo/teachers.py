"""Teachers: measured before they teach, and refused at chance."""

from __future__ import annotations

from torch import Tensor

from kdzoo.data.images import Subset
from kdzoo.data.split import Parts
from kdzoo.errors import InputError
from kdzoo.evaluate import above_chance, chance, measure
from kdzoo.memo import predictions
from kdzoo.models.network import Network, NetworkCost, identity
from kdzoo.spec import Augment
from kdzoo.train import EVALUATION_BATCH, Execution, Teacher, predict

CHECKED_IMAGES = 2000


def serve(network: Network, name: str, cost: NetworkCost, parts: Parts, augment: Augment, execution: Execution) -> Teacher:
    """A frozen network with its predictions on validation and test, computed once for all its students, in other sessions too."""
    held = {"test": parts.test} | ({} if parts.val is None else {"val": parts.val})

    def say() -> dict[str, Tensor]:
        return {part: predict(network, subset, augment, execution.device) for part, subset in held.items()}

    who = identity(network)
    about = {"teacher": who, "data": parts.origin, "size": augment.size, "block": EVALUATION_BATCH, **execution.arithmetic}
    said = say() if execution.memo == 0 else predictions(about, name, say)
    val, test = said.get("val"), said["test"]
    return Teacher(
        network=network,
        name=name,
        identity=who,
        cost=cost,
        val=val,
        test=test,
        val_metrics=None if val is None or parts.val is None else measure(val, parts.val.targets),
        test_metrics=measure(test, parts.test.targets),
    )


def check(teacher: Teacher, parts: Parts, augment: Augment, execution: Execution) -> float:
    """The top-1 of a teacher on validation images (training images where none are held out).

    Raises InputError when it is not above naming the commonest class: such a teacher teaches noise. A pretrained
    network asked for another number of classes, whose new head is random, is the usual cause.
    """
    if teacher.val is not None and parts.val is not None:
        part, log_probs, where = parts.val, teacher.val, "validation"
    else:
        labelled = (parts.train.targets >= 0).nonzero().flatten()[:CHECKED_IMAGES]
        part, where = Subset(parts.train.images[labelled], parts.train.targets[labelled]), "training"
        log_probs = predict(teacher.network, part, augment, execution.device)
    top1 = float((log_probs.argmax(1) == part.targets).double().mean())
    classes = log_probs.shape[1]
    if not above_chance(top1, part.targets, classes):
        raise InputError(
            f"teacher {teacher.name}: top-1 {top1:.1%} on {len(part.targets)} {where} images is not above chance "
            f"({chance(part.targets, classes):.1%}): it would teach noise. Train it longer, give its weights (NAME:FILE), "
            "or keep it as a control with --allow-chance-teacher"
        )
    return top1
