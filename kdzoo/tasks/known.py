"""The tasks by name. Free of torch."""

from __future__ import annotations

from kdzoo.errors import InputError, unknown
from kdzoo.tasks.classification import CLASSIFICATION
from kdzoo.tasks.features import FEATURES, UNLABELLED
from kdzoo.tasks.multitask import columns_of_name, learn_columns
from kdzoo.tasks.task import Task

TASKS = {task.name: task for task in (CLASSIFICATION, FEATURES, UNLABELLED)}


def task_named(name: str) -> Task:
    """A task by name, which may be that of columns (`multitask`); raises InputError with the nearest one."""
    if name in TASKS:
        return TASKS[name]
    columns = columns_of_name(name)
    if columns is None:
        raise InputError(unknown("task", name, TASKS))
    return learn_columns(columns)
