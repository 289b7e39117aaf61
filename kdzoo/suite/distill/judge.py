"""The student with the teacher, the student alone and the teacher beside each other, on images that trained none of them."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from kdzoo.models.measure import network_cost
from kdzoo.models.network import Network
from kdzoo.suite.distill.page import HeldOut
from kdzoo.suite.distill.trained import Trained
from kdzoo.suite.distill.verdict import BATCHES, Measured, Verdict
from kdzoo.suite.report.intervals import mcnemar_p, paired_difference, wilson
from kdzoo.suite.run.prepare import Prepared
from kdzoo.training.latency import machine_load, milliseconds


def judge(trained: Trained, prepared: Prepared, method: str, notes: tuple[str, ...]) -> Verdict:
    """The three networks beside each other, from their predictions and from latencies measured now."""
    device = torch.device(prepared.options.device)
    torch.set_num_threads(prepared.options.threads)
    student_times = {batch: milliseconds(trained.distilled.network, trained.shape, batch, device) for batch in BATCHES}
    teacher_times = {batch: milliseconds(trained.teacher, trained.shape, batch, device) for batch in BATCHES}
    right, right_alone = (_right(trained, one.log_probs) for one in (trained.distilled, trained.alone))
    only_distilled, only_alone = int((right & ~right_alone).sum()), int((right_alone & ~right).sum())
    both = int((right & right_alone).sum())
    low, high = paired_difference(both, only_distilled, only_alone, len(right) - both - only_distilled - only_alone)
    run = trained.distilled.located.run
    assert run.teacher is not None
    return Verdict(
        distilled=_measured(trained, run.student.name, trained.distilled.network, trained.distilled.log_probs, student_times),
        alone=_measured(trained, run.student.name, trained.alone.network, trained.alone.log_probs, student_times),
        teacher=_measured(trained, run.teacher.name, trained.teacher, trained.teacher_log_probs, teacher_times),
        classes=trained.dataset.classes,
        images=len(right),
        validation_images=len(trained.parts["val"].targets) if "val" in trained.parts else 0,
        only_distilled=only_distilled,
        only_alone=only_alone,
        difference_low=low,
        difference_high=high,
        p=mcnemar_p(right.numpy(), right_alone.numpy()),
        method=method,
        threads=prepared.options.threads,
        device=prepared.options.device,
        load=str(machine_load() or "load not known"),
        notes=(*(f"data: {note}" for note in trained.dataset.notes), *notes),
        cut_short=trained.cut_short,
    )


def held_out(trained: Trained, verdict: Verdict) -> list[HeldOut]:
    """The images that judge, with what the delivered student and its teacher say of them."""
    student_run = trained.kept(verdict)
    return [HeldOut(part, student_run.log_probs[name], trained.teacher_log_probs[name]) for name, part in trained.parts.items()]


def _right(trained: Trained, log_probs: Mapping[str, Tensor]) -> Tensor:
    """Which of the images that judge are named right, (N,) bool, those of all parts together."""
    return torch.cat([log_probs[name].argmax(1) == part.targets for name, part in trained.parts.items()])


def _measured(
    trained: Trained, name: str, network: Network, log_probs: Mapping[str, Tensor], milliseconds_by_batch: Mapping[int, float]
) -> Measured:
    """One network on all the images that judge; its balanced accuracy is the mean of the parts', weighted by their images."""
    right = _right(trained, log_probs)
    measures = [trained.splits.task.measure(log_probs[part], subset.targets, None) for part, subset in trained.parts.items()]
    balanced = sum((one["balanced"] or 0.0) * (one["n"] or 0) for one in measures) / len(right)
    count, cost = int(right.sum()), network_cost(network, trained.shape)
    return Measured(name, count / len(right), *wilson(count, len(right)), balanced, cost.parameters, cost.macs, milliseconds_by_batch)
