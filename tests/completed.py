"""Results of runs that a test writes by hand, with null for what the test is not about."""

from collections.abc import Mapping
from typing import Any

from kdzoo.runs.results import result_model
from kdzoo.tasks.classification import CLASSIFICATION
from kdzoo.tasks.task import Task


def completed(result: Mapping[str, Any], task: Task = CLASSIFICATION) -> dict[str, Any]:
    """A result with every field that training knows: those of later schemas are null unless they are given. Its file adds a digest."""
    return result_model(task).model_validate(result).model_dump(mode="json", by_alias=True, exclude={"digest"})
