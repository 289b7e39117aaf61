"""The page of a distillation: its verdict, what the delivered student confuses, and where it and its teacher disagree most."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from kdzoo.data.dataset import Subset
from kdzoo.data.loader import fetch
from kdzoo.data.views import evaluation_view
from kdzoo.runs.recipe import Augment
from kdzoo.suite.distill.verdict import Verdict, conclusion, rows_of
from kdzoo.version import VERSION

MOST_IMAGES = 24
"""of those on which teacher and student disagree most"""
MOST_CONFUSIONS = 12
LARGEST_MATRIX = 30
"""classes up to which the whole confusion matrix is shown"""
THUMBNAIL = 128
"""pixels of the longer side of an image on the page"""


@dataclass(frozen=True)
class HeldOut:
    """One part of the images that trained no network. student, teacher: their log-probabilities (N, K), in the order of the images."""

    subset: Subset
    student: Tensor
    teacher: Tensor


@dataclass(frozen=True)
class Disagreement:
    """An image on which two networks disagree. source: its pixels as a data URI; divergence: KL(teacher || student) in nats."""

    source: str
    truth: str
    teacher: str
    teacher_share: float
    student: str
    student_share: float
    divergence: float


@dataclass(frozen=True)
class Confusion:
    """How many held-out images of one class were named as another."""

    truth: str
    named: str
    count: int
    of: int


def build_page(verdict: Verdict, parts: Sequence[HeldOut], augment: Augment, licences: str) -> str:
    """The page as HTML that needs no network and no script. parts: the held-out images, with what both networks say of them."""
    matrix = confusion_matrix(parts, len(verdict.classes))
    environment = Environment(
        loader=ChoiceLoader([PackageLoader("kdzoo.suite.distill", "template"), PackageLoader("kdzoo.suite.page", "template")]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("distill.html").render(
        verdict=verdict,
        conclusion=conclusion(verdict),
        rows=rows_of(verdict),
        matrix=matrix.tolist() if len(verdict.classes) <= LARGEST_MATRIX else None,
        confusions=confusions(matrix, verdict.classes),
        disagreements=disagreements(parts, verdict.classes, augment),
        licences=licences,
        version=VERSION,
    )


def confusion_matrix(parts: Sequence[HeldOut], classes: int) -> NDArray[np.int64]:
    """How many images of each class (rows) the student named as each class (columns)."""
    matrix = np.zeros((classes, classes), dtype=np.int64)
    for part in parts:
        np.add.at(matrix, (part.subset.targets.numpy(), part.student.argmax(1).numpy()), 1)
    return matrix


def confusions(matrix: NDArray[np.int64], classes: Sequence[str]) -> list[Confusion]:
    """The pairs of classes that are confused most often, the most frequent first."""
    wrong = matrix.copy()
    np.fill_diagonal(wrong, 0)
    order = np.argsort(-wrong, axis=None, kind="stable")[:MOST_CONFUSIONS]
    pairs = [divmod(int(place), len(classes)) for place in order]
    return [
        Confusion(classes[truth], classes[answer], int(wrong[truth, answer]), int(matrix[truth].sum()))
        for truth, answer in pairs
        if wrong[truth, answer]
    ]


def divergences(teacher: Tensor, student: Tensor) -> Tensor:
    """KL(teacher || student) in nats (N,) of log-probabilities (N, K)."""
    return (teacher.exp() * (teacher - student)).nan_to_num(0.0).sum(1)


def disagreements(parts: Sequence[HeldOut], classes: Sequence[str], augment: Augment) -> list[Disagreement]:
    """The images on which student and teacher disagree most, the largest divergence first."""
    values = torch.cat([divergences(part.teacher, part.student) for part in parts])
    places = [(part, number) for part in parts for number in range(len(part.subset.targets))]
    found = []
    for place in values.argsort(descending=True, stable=True)[:MOST_IMAGES].tolist():
        part, number = places[place]
        (student_share, student), (teacher_share, teacher) = (scores[number].exp().max(0) for scores in (part.student, part.teacher))
        found.append(
            Disagreement(
                source=thumbnail(part.subset, number, augment),
                truth=classes[int(part.subset.targets[number])],
                teacher=classes[int(teacher)],
                teacher_share=float(teacher_share),
                student=classes[int(student)],
                student_share=float(student_share),
                divergence=float(values[place]),
            )
        )
    return found


def thumbnail(subset: Subset, number: int, augment: Augment) -> str:
    """An image as evaluation shows it, as a PNG in a data URI, its longer side at most THUMBNAIL pixels."""
    (batch,) = fetch(subset.images, [torch.tensor([number], device=subset.images.device)], torch.device("cpu"))
    pixels = evaluation_view(batch, augment)[0].permute(1, 2, 0).to(torch.uint8).numpy()
    image = Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)
    image.thumbnail((THUMBNAIL, THUMBNAIL))
    buffer = io.BytesIO()
    image.save(buffer, "PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"
