"""What is known of a teacher and a student before anything is distilled."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from kdzoo.models.measure import NetworkCost, network_cost
from kdzoo.models.placement import Placement
from kdzoo.runs.options import WorkerOptions
from kdzoo.tasks.metrics import calibration_error
from kdzoo.training.located import LocatedRun, Modules
from kdzoo.training.run_data import input_shape, load_run_data
from kdzoo.training.run_student import student_network
from kdzoo.training.run_teacher import load_teacher

TEMPERATURES = (1.0, 2.0, 4.0, 8.0)
BINS = 15
"""of the calibration error, as tables have it"""


@dataclass(frozen=True)
class TeacherFacts:
    """What a teacher says of images that trained nobody.

    images: how many, of which part. entropy: by temperature, the mean entropy of its softened class probabilities in nats;
    most: that of uniform ones, log K. confidence: the mean of its largest probability at T = 1.
    """

    name: str
    images: int
    part: str
    accuracy: float
    calibration: float
    confidence: float
    entropy: Mapping[float, float]
    most: float


@dataclass(frozen=True)
class Capacity:
    """What two networks cost: parameters, and multiply-accumulates of one image."""

    student: NetworkCost
    teacher: NetworkCost | None


def teacher_facts(name: str, log_probs: Tensor, targets: Tensor, part: str) -> TeacherFacts:
    """The facts of a teacher from its log-probabilities (N, K) at T = 1 and the labels (N,) of images.

    Softened by T they are log-probabilities / T, normalised again: a logit's constant falls out.
    """
    probabilities = log_probs.exp()
    return TeacherFacts(
        name=name,
        images=len(targets),
        part=part,
        accuracy=float((log_probs.argmax(1) == targets).double().mean()),
        calibration=calibration_error(probabilities, targets, BINS),
        confidence=float(probabilities.max(1).values.double().mean()),
        entropy={t: mean_entropy(log_probs, t) for t in TEMPERATURES},
        most=float(torch.tensor(log_probs.shape[1], dtype=torch.float64).log()),
    )


def mean_entropy(log_probs: Tensor, temperature: float) -> float:
    """The mean over samples of the entropy, in nats, of class probabilities (N, K) softened by a temperature."""
    softened = (log_probs.double() / temperature).log_softmax(1)
    return float(-(softened.exp() * softened).nan_to_num(0.0).sum(1).mean())


def look_at(located: LocatedRun, options: WorkerOptions, modules: Modules) -> tuple[TeacherFacts | None, Capacity]:
    """The facts of a run's teacher and the sizes of both networks.

    The teacher is measured on the validation images, never on test images, which choose nothing. None where there are none, or
    where it does not score them by itself, as a saved teacher may not.
    """
    torch.set_num_threads(options.threads)
    dataset, splits = load_run_data(located, options.image_cache)
    execution = Placement(options)
    found = load_teacher(located, dataset, splits, execution, modules)
    assert found is not None, "a run with a teacher"
    teacher, _ = found
    student = student_network(located, dataset, modules)
    capacity = Capacity(network_cost(student, input_shape(dataset, located.run.recipe)), teacher.cost)
    if splits.val is None or teacher.val is None:
        return None, capacity
    return teacher_facts(teacher.name, teacher.val, splits.val.targets, "validation"), capacity
