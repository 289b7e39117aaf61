"""What makes a cohort faster, attached before it trains: the teacher cache, batched students, compiled students, recorded steps."""

from __future__ import annotations

import torch
from torch import Tensor

from kdzoo.data.loader import fetch_once
from kdzoo.data.views import evaluation_view
from kdzoo.runs.events import Emit, Note
from kdzoo.runs.metrics_file import read_lines
from kdzoo.text import number_of
from kdzoo.training.batched import batch_members
from kdzoo.training.cohort import Cohort
from kdzoo.training.compiled import compile_students
from kdzoo.training.graphs import StepGraphs
from kdzoo.training.recorder import recorder_of


def note_lost_lines(cohort: Cohort, emit: Emit) -> None:
    """Emit a note where a member's metrics have fewer lines than it has finished epochs; its result does not depend on them."""
    for member in cohort.members:
        behind, lines = member.step // cohort.steps_an_epoch, len(read_lines(member.folder.metrics, member.run.id))
        if lines < behind:
            emit(Note(f"{member.folder.metrics}: damaged; {number_of(behind, 'line')} expected, {lines} readable"))


def attach_accelerators(cohort: Cohort, emit: Emit) -> None:
    """Attach teacher cache, batching, compilation and graphs as the options say; emit a note for each that is unavailable."""
    teacher_cache, batched, why_not_compiled, recorder = cohort.open_teacher_cache(), None, None, None
    if cohort.execution.options.stack_students:
        batched = batch_members(cohort.members, _trial(cohort, 2))
    if cohort.execution.options.compile:
        why_not_compiled = compile_students(cohort.members, _trial(cohort, cohort.block))
    if cohort.execution.options.graphs:
        recorder = recorder_of(cohort.execution.device)
    for text in (teacher_cache, batched, why_not_compiled, recorder):
        if isinstance(text, str):
            emit(Note(text))
    cohort.teacher_cache = None if isinstance(teacher_cache, str) else teacher_cache
    cohort.batched = None if isinstance(batched, str) else batched
    if recorder is not None and not isinstance(recorder, str):
        cohort.graphs = StepGraphs(recorder, cohort.learners, cohort.block)


def _trial(cohort: Cohort, count: int) -> Tensor:
    """The first training images, as they are seen."""
    images = fetch_once(cohort.splits.train.images, torch.arange(count), cohort.execution.device)
    return evaluation_view(images, cohort.recipe.augment)
