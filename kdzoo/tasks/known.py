"""The tasks by name. Free of torch."""

from __future__ import annotations

from kdzoo.errors import InputError, unknown
from kdzoo.tasks.classification import CLASSIFICATION
from kdzoo.tasks.task import Task

TASKS = {task.name: task for task in (CLASSIFICATION,)}


def task_named(name: str) -> Task:
    """A task by name; raises InputError with the nearest one."""
    if name not in TASKS:
        raise InputError(unknown("task", name, TASKS))
    return TASKS[name]
