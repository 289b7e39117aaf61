"""The other ways to distil: the loop of the tutorials, the same with kdzoo's kernels, timm's task, torchdistill as it comes."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from speed_clock import LeftOut, Side
from speed_setup import Setup, cohort_for, plain_networks
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, RandomSampler
from torchvision import transforms

from kdzoo.contract.batch import Progress
from kdzoo.contract.needs import Pass
from kdzoo.models.placement import autocast

TEMPERATURE, ALPHA = 4.0, 0.9
LOG_EVERY = 50
PREFETCHED = 2
"""batches that each worker of a torch loader keeps in stock"""


class Pictures(Dataset[tuple[Any, int]]):
    """Training images as torchvision's CIFAR100 serves them: one PIL image at a time, through a transform."""

    def __init__(self, setup: Setup, transform: Callable[[Any], Any] | None) -> None:
        subset = setup.images.train
        self.data: NDArray[np.uint8] = np.ascontiguousarray(subset.images.permute(0, 2, 3, 1).numpy())
        self.targets = subset.targets.tolist()
        self.transform = transform

    def __getitem__(self, index: int) -> tuple[Any, int]:
        image: Any = Image.fromarray(self.data[index])
        return (self.transform(image) if self.transform else image), self.targets[index]

    def __len__(self) -> int:
        return len(self.targets)


def random_views(setup: Setup) -> list[Any]:
    """The augmentation that all sides have: a crop of the image padded by 4, and a flip."""
    return [transforms.RandomCrop(setup.images.height, padding=4), transforms.RandomHorizontalFlip()]


def pictures(setup: Setup) -> Pictures:
    normalised = [transforms.ToTensor(), transforms.Normalize(setup.images.mean, setup.images.std)]
    return Pictures(setup, transforms.Compose(random_views(setup) + normalised))


def workers(usual: int) -> int:
    """As many loader processes as a suite starts by default, but no more than there are cores."""
    return min(usual, len(os.sched_getaffinity(0)))


def kd(student: Tensor, teacher: Tensor, targets: Tensor) -> Tensor:
    """0.1 CE + 0.9 T^2 KL, as a loop writes it."""
    soft = F.kl_div(F.log_softmax(student / TEMPERATURE, dim=1), F.softmax(teacher / TEMPERATURE, dim=1), reduction="batchmean")
    return (1 - ALPHA) * F.cross_entropy(student, targets) + ALPHA * TEMPERATURE**2 * soft


def stepping(steps: Iterator[int], *, loader_workers: int = 0) -> Side:
    """A side out of an endless generator; closing it ends its loader's processes."""
    return Side(partial(next, steps), settle=1 + PREFETCHED * loader_workers, close=steps.close)  # type: ignore[attr-defined]


def plain(setup: Setup) -> Side:
    """The loop as tutorials write it: a DataLoader of torchvision transforms with two workers, Adam, float32, loss.item()."""
    teacher, student = plain_networks(setup)
    count = workers(2)
    loader = DataLoader(pictures(setup), batch_size=setup.batch, shuffle=True, num_workers=count)
    optimizer = torch.optim.Adam(student.parameters(), lr=1e-3)

    def steps() -> Iterator[int]:
        total = 0.0
        while True:
            for images, targets in loader:
                images, targets = images.to(setup.device), targets.to(setup.device)
                optimizer.zero_grad()
                with torch.no_grad():
                    said = teacher(images)
                loss = kd(student(images), said, targets)
                loss.backward()
                optimizer.step()
                total += loss.item()
                yield len(targets)

    return stepping(steps(), loader_workers=count)


def plain_kernels(setup: Setup) -> Side:
    """The plain loop with kdzoo's kernels: its views of uint8 images, networks and optimiser; the teacher in every step."""
    cohort = cohort_for(setup, 1, "off")
    assert cohort.teacher is not None
    (member,), teacher = cohort.members, cohort.teacher.network
    student, optimizer = member.network.train(), member.optimizer

    def steps() -> Iterator[int]:
        epoch = 0
        while True:
            plan = cohort.plan_epoch(epoch)
            for loaded in plan.batches():
                seen, batch = plan.gather(loaded, Progress(0, 1, 0, 1))
                images = seen[Pass.FIRST]
                with autocast(cohort.recipe, setup.device):
                    with torch.no_grad():
                        said = teacher.logits(images)
                    learnt = student.logits(images)
                loss = kd(learnt.float(), said.float(), batch.targets)
                optimizer.zero_grad(set_to_none=True)
                loss.backward()
                optimizer.step()
                yield len(loaded.index)
            epoch += 1

    return stepping(steps())


def timm_task(setup: Setup) -> Side:
    """timm's LogitDistillationTask with its loader and optimiser, as its training script joins them."""
    from timm.data import create_loader
    from timm.data.transforms import ToNumpy
    from timm.optim import create_optimizer_v2

    try:
        from timm.task import DistillationTeacher, LogitDistillationTask
    except ImportError:
        raise LeftOut("this timm has no timm.task") from None
    teacher, student = plain_networks(setup)
    dataset, count = Pictures(setup, None), workers(4)
    loader = create_loader(
        dataset,
        input_size=(setup.images.channels, setup.images.height, setup.images.width),
        batch_size=setup.batch,
        is_training=True,
        mean=setup.images.mean,
        std=setup.images.std,
        num_workers=count,
        device=setup.device,
        pin_memory=setup.device.type == "cuda",
    )
    dataset.transform = transforms.Compose([*random_views(setup), ToNumpy()])  # the views that the others have, not ImageNet's
    task = LogitDistillationTask(
        student,
        DistillationTeacher(teacher, device=setup.device),
        criterion=nn.CrossEntropyLoss(),
        distill_loss_weight=ALPHA,
        task_loss_weight=1 - ALPHA,
        temperature=TEMPERATURE,
        device=setup.device,
        verbose=False,
    )
    task.train()
    optimizer = create_optimizer_v2(student, opt="sgd", lr=0.05, momentum=0.9, weight_decay=5e-4)

    def steps() -> Iterator[int]:
        number = 0
        while True:
            for images, targets in loader:
                with torch.backends.cudnn.flags(benchmark=True, deterministic=False, allow_tf32=True):
                    result = task(images, targets)
                    result["loss"].backward()
                optimizer.step()
                optimizer.zero_grad()
                number += 1
                if number % LOG_EVERY == 0:
                    result["loss"].item()
                yield len(targets)

    return stepping(steps(), loader_workers=count)


def torchdistill(setup: Setup) -> Side:
    """torchdistill's DistillationBox with the loop, the logger and the options of its own example and CIFAR-100 sample."""
    if importlib.util.find_spec("torchdistill") is None:
        raise LeftOut("torchdistill is not installed (pip install 'kdzoo[peers]')")
    from torchdistill.core.distillation import get_distillation_box
    from torchdistill.losses import mid_level  # noqa: F401  # registers its losses
    from torchdistill.misc.log import MetricLogger, SmoothedValue

    teacher, student = plain_networks(setup)
    count = workers(16)
    io = {"student_module_path": ".", "student_module_io": "output", "teacher_module_path": ".", "teacher_module_io": "output"}
    loss = {"key": "KDLoss", "kwargs": {**io, "temperature": TEMPERATURE, "alpha": 1 - ALPHA, "reduction": "batchmean"}}
    config = {
        "num_epochs": 240,
        "train_data_loader": {
            "dataset_id": "train",
            "sampler": {"class_or_func": RandomSampler, "kwargs": {}},
            "kwargs": {"batch_size": setup.batch, "num_workers": count, "pin_memory": setup.device.type == "cuda"},
        },
        "teacher": {"forward_proc": "forward_batch_only", "requires_grad": False},
        "student": {"forward_proc": "forward_batch_only", "requires_grad": True},
        "optimizer": {"key": "SGD", "kwargs": {"lr": 0.05, "momentum": 0.9, "weight_decay": 5e-4}},
        "criterion": {"key": "WeightedSumLoss", "kwargs": {"sub_terms": {"kd": {"criterion": loss, "weight": 1.0}}}},
    }
    box = get_distillation_box(teacher, student, {"train": pictures(setup)}, config, setup.device, [], False, 1)

    def steps() -> Iterator[int]:
        epoch = 0
        while True:
            box.pre_epoch_process(epoch=epoch)
            logger = MetricLogger(delimiter="  ")
            logger.add_meter("lr", SmoothedValue(window_size=1, fmt="{value}"))
            for images, targets, extra in logger.log_every(box.train_data_loader, LOG_EVERY, f"Epoch: [{epoch}]"):
                with torch.backends.cudnn.flags(benchmark=True, deterministic=False, allow_tf32=True):
                    images, targets = images.to(setup.device), targets.to(setup.device)
                    value = box.forward_process(images, targets, extra)
                    box.post_forward_process(loss=value)
                logger.update(loss=value.item(), lr=box.optimizer.param_groups[0]["lr"])
                if not torch.isfinite(value):
                    raise FloatingPointError(f"torchdistill: the loss became {value.item()}")
                yield len(targets)
            epoch += 1

    return stepping(steps(), loader_workers=count)
