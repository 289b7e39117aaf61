"""What a cohort is given before it trains: the teacher cache, batched students, compiled students."""

from __future__ import annotations

import torch
from torch import Tensor

from kdzoo.data.loader import fetch_once
from kdzoo.data.views import center
from kdzoo.runs.events import Emit, Note
from kdzoo.runs.metrics_file import read_lines
from kdzoo.text import number_of
from kdzoo.training.batched import together
from kdzoo.training.cohort import Cohort
from kdzoo.training.compiled import compile_students


def note_lost_lines(cohort: Cohort, emit: Emit) -> None:
    """Say where a member's metrics have fewer lines than it has epochs behind it; nothing of its result hangs on them."""
    for member in cohort.members:
        behind, lines = member.step // cohort.steps_an_epoch, len(read_lines(member.folder.metrics))
        if lines < behind:
            emit(Note(f"{member.folder.metrics}: damaged; {number_of(behind, 'line')} expected, {lines} readable"))


def attach_accelerators(cohort: Cohort, emit: Emit) -> None:
    """Give a cohort the cache, the stack and the compiled students that it is to be trained with; say in a note why it has not got one."""
    kept, joined, uncompiled = cohort.open_teacher_cache(), None, None
    if cohort.execution.options.stack_students:
        joined = together(cohort.members, _trial(cohort, 2))
    if cohort.execution.options.compile:
        uncompiled = compile_students(cohort.members, _trial(cohort, cohort.block))
    for text in (kept, joined, uncompiled):
        if isinstance(text, str):
            emit(Note(text))
    cohort.teacher_cache = None if isinstance(kept, str) else kept
    cohort.together = None if isinstance(joined, str) else joined


def _trial(cohort: Cohort, count: int) -> Tensor:
    """The first training images, as they are seen."""
    images = fetch_once(cohort.parts.train.images, torch.arange(count), cohort.execution.device)
    return center(images, cohort.recipe.augment)
