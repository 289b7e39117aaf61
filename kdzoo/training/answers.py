"""Teachers: measured before they teach, refused at chance, and asked, live or from their cache, in blocks of one size."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from kdzoo.contract.needs import ALWAYS_CACHED, PASSES, PER_SAMPLE, Need
from kdzoo.contract.outputs import Outputs
from kdzoo.data.dataset import Subset
from kdzoo.data.epoch import EpochPlan
from kdzoo.data.loader import fetch_once
from kdzoo.data.split import Parts, labelled
from kdzoo.data.views import center, finite, view_count
from kdzoo.errors import InputError
from kdzoo.files import PACKAGE
from kdzoo.models.ensemble import Ensemble
from kdzoo.models.identity import identity
from kdzoo.models.measure import NetworkCost
from kdzoo.models.names import own_norm
from kdzoo.models.network import Network, normalising
from kdzoo.models.normalisation import usual_for
from kdzoo.models.placement import Execution, autocast
from kdzoo.runs.seals import tensors_digest
from kdzoo.runs.spec import Augment, Normalisation
from kdzoo.teachers import cache
from kdzoo.teachers.cache import Page, Predictions, TeacherCache, predictions
from kdzoo.training.cohort import Cohort, Teacher
from kdzoo.training.evaluate import CHANCE_SIZE, AgainstChance, against_chance, binomial_tail, measure, per_class
from kdzoo.training.member import Seen
from kdzoo.training.predict import batch_of, predict

COMPARED_IMAGES = 512
"""on which normalisations are compared"""
CLEARLY = 0.05
"""the size of the test that calls one of the usual normalisations better, all of them together"""

DATA_CODE = ("epoch", "loader", "mixing", "operations", "pixels", "preprocess", "views")
CODE = (
    *("seeds", "training/cohort", "models/placement", "teachers/cache", "training/predict", "training/answers"),
    *(f"data/{name}" for name in DATA_CODE),
)
"""the files of this package that decide what a row of a cache stands for, and how a teacher is asked about it"""


def code_files() -> list[Path]:
    return [PACKAGE / f"{name}.py" for name in CODE]


def code_digest(files: Iterable[Path]) -> str:
    """A digest of source files: another numbering or drawing of views must not read the rows that this one wrote."""
    digest = hashlib.sha256()
    for file in files:
        digest.update(hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()


CODE_DIGEST = code_digest(code_files())
"""of the code that this process runs: read when it is imported, since an update may change the files later"""


def serve(network: Network, name: str, cost: NetworkCost, parts: Parts, augment: Augment, execution: Execution) -> Teacher:
    """A frozen network with its predictions on validation and test, computed once for all its students, in other sessions too."""
    held = {"test": parts.test} | ({} if parts.val is None else {"val": parts.val})

    def say() -> dict[str, Tensor]:
        return {part: predict(network, subset, augment, execution.device) for part, subset in held.items()}

    who = identity(network)
    about = {
        "teacher": who,
        "code": CODE_DIGEST,
        "data": parts.origin,
        "size": augment.size,
        "block": {part: batch_of(network, subset, augment) for part, subset in held.items()},
        **execution.arithmetic,
    }
    told = Predictions(say()) if execution.teacher_cache == 0 else predictions(about, name, say)
    val, test = told.by_part.get("val"), told.by_part["test"]
    return Teacher(
        network=network,
        name=name,
        identity=who,
        weights_digest=tensors_digest(network.model.state_dict()),
        cost=cost,
        val=val,
        test=test,
        val_metrics=None if val is None or parts.val is None else measure(val, parts.val.targets),
        test_metrics=measure(test, parts.test.targets),
        test_per_class=per_class(test, parts.test.targets),
        notes=told.notes,
    )


def check(teacher: Teacher, parts: Parts, augment: Augment, execution: Execution) -> list[str]:
    """What is to be said of how a teacher stands against chance: nothing where it is above it on validation images.

    Where these are too few to tell, and where none are held out, the training images are asked, those that it will teach
    on; never the test images. Raises InputError for a teacher that is not above naming the commonest class on images that
    could have told: it teaches noise. A pretrained network asked for another number of classes, whose new head is random,
    is the usual cause.
    """
    said: list[str] = []
    if teacher.val is not None and parts.val is not None:
        found = against_chance(teacher.val, parts.val.targets)
        if found.above:
            return []
        if found.tells:
            raise _at_chance(teacher, found, "validation")
        said.append(
            f"teacher {teacher.name}: {found.images} validation images are too few to tell top-1 {found.top1:.1%} "
            f"from chance ({found.chance:.1%})"
        )
    part = labelled(parts)
    found = against_chance(predict(teacher.network, part, augment, execution.device), part.targets)
    if found.above:
        return [f"{text}; on {found.images} training images it is above chance, with {found.top1:.1%}" for text in said]
    if found.tells:
        raise _at_chance(teacher, found, "training")
    few = f"{found.images} training images are too few to tell top-1 {found.top1:.1%} from chance ({found.chance:.1%})"
    return [*said, f"teacher {teacher.name}: {few}"]


def _at_chance(teacher: Teacher, found: AgainstChance, where: str) -> InputError:
    return InputError(
        f"teacher {teacher.name}: top-1 {found.top1:.1%} on {found.images} {where} images is not above chance "
        f"({found.chance:.1%}; binomial test of size {CHANCE_SIZE:g}): it would teach noise. Train it longer, give its weights "
        "(NAME:FILE), say what its images were normalised with (NAME:FILE@norm=auto tries the usual ones), or keep it as a control "
        "(kdzoo bench --allow-chance-teacher)"
    )


def remarks(teacher: Teacher, parts: Parts, augment: Augment, execution: Execution) -> list[str]:
    """What else is to be said of a teacher before it teaches: that it gives probabilities, or that another normalisation suits it."""
    network = teacher.network
    members = cast(list[Network], list(network.model)) if isinstance(network, Ensemble) else [network]  # type: ignore[call-overload]
    said = [text for text in (GIVEN.get(member.gives) for member in members) if text]
    found = [f"teacher {teacher.name}: {text}" for text in dict.fromkeys(said)]
    if isinstance(network, Ensemble) or not network.assumed_norm:
        return found
    part = parts.val or labelled(parts)
    norms = measure_norms(network, own_norm(teacher.name), part, augment, execution.device)
    better = norms.better()
    if better is not None:
        found.append(
            f"teacher {teacher.name}: the normalisation it was trained with is unknown, so the data's is used; another one "
            f"is clearly better: {norms}. Add @norm={better} to the network or --set teacher.norm={better}; auto takes the best"
        )
    return found


GIVEN = {
    "probabilities": "its forward ends in a softmax; the logarithms of its probabilities teach, which equal its class scores up to a "
    "constant per image, so that every softened softmax is the same",
    "log-probabilities": "its forward ends in log_softmax; its log-probabilities teach, which equal its class scores up to a "
    "constant per image, so that every softened softmax is the same",
}


@dataclass(frozen=True)
class Norms:
    """Which of some images a network names rightly (N,), under its present normalisation and under others by their names."""

    own: Tensor
    others: Mapping[str, Tensor]

    def better(self) -> str | None:
        """The best of the others where it is clearly better than its own: a sign test of the size CLEARLY for all of them together."""
        if not self.others:
            return None
        best = max(self.others, key=lambda name: int(self.others[name].sum()))
        won, lost = (int(side.sum()) for side in (self.others[best] & ~self.own, self.own & ~self.others[best]))
        return best if won > lost and binomial_tail(won, won + lost, 0.5) <= CLEARLY / len(self.others) else None

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
        with normalising(network, norm):
            others[name] = right()
    return Norms(own, others)


def teach(cohort: Cohort, seen: Seen) -> Outputs | None:
    """The living teacher's outputs for the union of what the members read; None where none reads any."""
    need = cohort.taught
    if cohort.teacher is None or not need:
        return None
    given = ask(cohort, need & ~PASSES, seen[Need.NOTHING])
    for other in PASSES & need:
        given = given.with_pass(other, ask(cohort, need & ~PASSES, seen[other]))
    return given


def recite(cohort: Cohort, page: Page, positions: Tensor, seen: Seen) -> Outputs | None:
    """The same from the teacher cache."""
    need = cohort.taught
    if cohort.teacher is None or not need:
        return None
    parts = cohort.teacher.network.parts(need)
    said = {
        which: Outputs.of(values | parts, owner="network").only(need & ~PASSES)
        for which, values in page.outputs(int(positions[0]), seen).items()
        if not which or which in need
    }
    given = said.pop(Need.NOTHING)
    for other, outputs_of in said.items():
        given = given.with_pass(other, outputs_of)
    return given


@torch.no_grad()
def ask(cohort: Cohort, need: Need, images: Tensor) -> Outputs:
    """What the teacher says of at most a block of images, contiguous.

    A short batch is filled up to a block, laid out anew: the last bits of an answer depend on how many images are asked
    about at once and on their strides, and an answer must be the same whether it is remembered or not.
    """
    assert cohort.teacher is not None
    block = images.new_empty((cohort.block, *images.shape[1:]))
    block[: len(images)] = images
    block[len(images) :] = images[-1]
    with autocast(cohort.recipe, cohort.execution.device):
        given: Outputs = cohort.teacher.network(block, need)
    return given.map(lambda tensor: tensor[: len(images)].contiguous())


def open_teacher_cache(cohort: Cohort) -> TeacherCache | str | None:
    """The cache of what the cohort's members read of their teacher; in words why there is none; None where none is wanted."""
    teacher, execution, recipe = cohort.teacher, cohort.execution, cohort.recipe
    need = cohort.taught
    if teacher is None or execution.teacher_cache == 0 or not need & PER_SAMPLE:
        return None
    samples, views = len(cohort.parts.train.targets), view_count(recipe.augment) if finite(recipe) else None
    about: dict[str, Any] = {
        "teacher": teacher.identity,
        "code": CODE_DIGEST,
        "data": cohort.parts.origin,
        "augment": recipe.augment.model_dump(mode="json"),
        "precision": recipe.precision,
        "block": cohort.block,
        **execution.arithmetic,
    }
    if views is None:
        views = recipe.drawn_epochs * len(cohort.passes)
        about |= {"seed": cohort.seed, "epochs": recipe.drawn_epochs, "passes": [str(which) for which in cohort.passes]}
    if recipe.mixes:
        about |= {"mixing": [recipe.mixup, recipe.cutmix, recipe.mix_prob], "numpy": np.__version__}  # which draws the shares
        if Need.PARTNER in cohort.passes:  # what is mixed with what then depends on the labels
            about["labels"] = hashlib.sha256(cohort.parts.train.targets.numpy().tobytes()).hexdigest()
    images = fetch_once(cohort.parts.train.images, torch.arange(cohort.block), execution.device)
    given = ask(cohort, (need | ALWAYS_CACHED) & ~PASSES, center(images, recipe.augment))
    return cache.open_cache(
        about,
        teacher.name,
        cache.Column.of(given, need | ALWAYS_CACHED),
        need,
        samples=samples,
        views=views,
        block=cohort.block,
        device=execution.device,
        limit=execution.teacher_cache,
    )


def page_of(cohort: Cohort, plan: EpochPlan, first: int) -> Page | None:
    """What the cohort's cache has to say in an epoch, from step `first` of it on; None where there is none, or no longer."""
    kept = cohort.teacher_cache
    if kept is None:
        return None
    rows = {}
    for number, which in enumerate(cohort.passes):
        if which in plan.passes:
            views = plan.view_indices(which)
            rows[which] = kept.rows(plan.samples_at(which), plan.epoch * len(cohort.passes) + number if views is None else views)
    page = Page(
        kept,
        rows,
        ask=lambda images: ask(cohort, kept.need, images),
        show=None if cohort.recipe.mixes else plan.inputs_at,
        begin=first * cohort.recipe.batch_size,
    )
    if not kept.checked and (compared := page.first_known()) is not None:
        kept.checked = True
        if page.differs(compared, plan.inputs_at(Need.NOTHING, compared)) > cache.TOLERANCE:
            kept.forget()
            cohort.teacher_cache = None
            return None
    return page
