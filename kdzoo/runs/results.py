"""result.json, the result of a finished run, declared once. Free of torch.

What is written and what is read is checked against these models (`result_file`), and the JSON Schema in the package and the
page in docs/ are made from them. A field with a default is written by every run from the schema on that its `since` names; it may be
missing from results of earlier schemas.
"""

from __future__ import annotations

from collections.abc import Mapping
from copy import copy
from functools import cache
from types import MappingProxyType
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, create_model
from pydantic.json_schema import GenerateJsonSchema

from kdzoo.files import PACKAGE
from kdzoo.tasks.classification import CLASSIFICATION
from kdzoo.tasks.task import Metric, Task

SCHEMA = 6
"""the schema of results written now; a result that names none is of schema 1"""
SCHEMA_FILE = PACKAGE / "configs" / "result.schema.json"

Share = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=0)]


def since(schema: int, text: str) -> Any:
    """A field that is written from this schema on, and null where a run has none."""
    return Field(default=None, description=text, json_schema_extra={"since": schema})


def always(text: str, **bounds: Any) -> Any:
    """A field of every result."""
    return Field(description=text, **bounds)


class Part(BaseModel):
    """Base of all parts: further keys are welcome when read; NaN, infinities and text for a number are not."""

    model_config = ConfigDict(
        extra="ignore", strict=True, frozen=True, allow_inf_nan=False, json_schema_serialization_defaults_required=True
    )


def _field_of(metric: Metric) -> tuple[Any, Any]:
    """The type and the declaration of a metric's field."""
    kind = Annotated[float, Field(ge=metric.least, le=metric.most)] if (metric.least, metric.most) != (None, None) else float
    text = "; null ".join(filter(None, (metric.meaning, metric.null)))
    if metric.since > 1:
        return kind | None, since(metric.since, text)
    return kind | None if metric.null else kind, always(text)


def _metrics_of(task: Task) -> type[Part]:
    """The metrics that a task has, as fields."""
    newer = [metric.name for metric in task.metrics if metric.since > SCHEMA]
    assert not newer, f"{', '.join(newer)}: raise SCHEMA, so that earlier kdzoos do not take such results for theirs"
    whole: dict[str, Any] = {"n": (int, always("images", gt=0)), **{metric.name: _field_of(metric) for metric in task.metrics}}
    return create_model("Metrics", __base__=Part, __doc__="Of the log-probabilities on one part of the data.", **whole)


def _with_classes(metrics: type[Part], task: Task) -> type[Part]:
    """The same with the lists that the task has of every class."""
    kinds: dict[str, Any] = {"count": list[Count], "share": list[Share], "share or null": list[Share | None]}
    lists: dict[str, Any] = {one.name: (kinds[one.kind] | None, since(one.since, one.meaning)) for one in task.class_lists}
    text = "Of the test images; the lists are in the order of the classes."
    return create_model("MetricsByClass", __base__=metrics, __doc__=text, **lists)


class Epoch(Part):
    """The student at the end of an epoch."""

    epoch: int = always("counted from 1", ge=0)
    val: Part | None = always("on the validation images; null where none are held out")
    test: Part = always("on the test images")


class OracleEpoch(Part):
    """The epoch that is best on the test images, which chooses nothing."""

    epoch: int = always("counted from 1", ge=1)
    test: Part = always("on the test images")


class Training(Part):
    """The last epoch's loss, and how much was trained."""

    loss: float | None = always("the objective, mean over the last epoch")
    steps: Count = always("training steps")
    samples: Count = always("training images")
    skipped_steps: Count | None = since(2, "steps skipped since gradients overflowed; null but for float16")


class NetworkSize(Part):
    """A network and how large it is."""

    name: str = always("its name")
    parameters: Count = always("parameters")
    macs: Count = always("multiply-accumulates of a forward pass of one image")


class SavedAnswers(Part):
    """A teacher whose answers stand in a file."""

    k: Count | None = always("how many classes of each image the file holds; null for all")
    views: Literal["centre", "exact"] = always("whether it answers for the centre of each image, or for the very view that is shown")


class TeacherResult(Part):
    """The teacher, measured before it taught."""

    name: str = always("its name")
    parameters: Count | None = always("parameters; null for saved answers")
    macs: Count | None = always("multiply-accumulates of a forward pass of one image; null for saved answers")
    weights_digest: str | None = since(
        2, "SHA-256 of its weights, or of the file of its answers: two trainings of one teacher differ in it"
    )
    val: Part | None = always("on the validation images; null where none are held out, or saved")
    test: Part | None = always("on the test images; null where they are not saved")
    saved: SavedAnswers | None = since(2, "what is known of a saved teacher; null for a network")


class Cost(Part):
    """Of a run alone (live teacher, nothing shared), from a probe of a few steps; of two stages, both."""

    step_seconds: float = always("a step, by the clock; depends on what else the machine does")
    train_seconds: float | None = always("all steps, by the clock")
    time_ratio: float | None = since(2, "processor time of a step (on a GPU, the device's) as a multiple of the student alone's")
    memory_bytes: Count = always("parameters, gradients, optimiser state and saved activations; counted")
    extra_parameters: Count = always("parameters that the method learns besides the student")
    views: Count = always("views of an image in a step")
    student_passes: Count = always("forward passes of the student in a step")
    teacher_passes: Count = always("forward passes of the teacher in a step")
    backward_passes: Count | None = since(2, "backward passes in a step")
    step_macs: Count | None = since(2, "multiply-accumulates of a step: networks, losses, backward; counted")
    train_macs: Count | None = since(2, "multiply-accumulates of all steps")
    student_milliseconds: Annotated[float, Field(ge=0)] | None = since(
        3, "a forward of one image through what ships, the shortest of many, by the clock of this machine"
    )


class CacheUse(Part):
    """What the cohort asked of the teacher, and what of it was remembered."""

    lookups: Count = always("answers asked for")
    hits: Count = always("answers that were remembered")
    bytes: Count = always("bytes reserved")


class Environment(Part):
    """What the run was trained with. On a CPU the same numbers need the same capability, build of torch and threads."""

    kdzoo: str = always("version of kdzoo")
    git: str | None = always("commit of kdzoo where it runs from a checkout")
    python: str = always("version of Python")
    torch: str = always("version of torch")
    torch_build: str | None = since(2, "commit, compiler and numerical libraries that torch was built with")
    timm: str = always("version of timm")
    device: str = always("`cpu`, or the GPU's model")
    cpu: str | None = since(2, "the CPU's model; null where the system does not tell")
    cpu_capability: str | None = since(2, "the instructions that torch uses on it, such as AVX2")
    threads: int = always("CPU threads of the process", ge=1)
    compile: bool | None = since(2, "whether the student's body ran through torch.compile")
    graphs: bool | None = since(5, "whether the student's steps were replayed as CUDA graphs; null where that was not asked for")
    float32: str | None = since(5, "how a GPU multiplied float32; null on a CPU")
    deterministic: bool | None = since(5, "whether a GPU took deterministic kernels alone; null on a CPU")
    processes: int | None = since(4, "how many processes trained the run, each on a part of every batch; null for one")


class Result(Part):
    """A finished run. Accuracies are shares, from 0 to 1."""

    schema_number: int = Field(default=1, ge=1, alias="schema", description=f"the schema of this file; {SCHEMA} now, missing in those of 1")
    id: str = always("the run's id, also its folder's name")
    status: Literal["done"] = always("`done`")
    last: Epoch = always("the last epoch, from which tables are made")
    best: Epoch | None = always("the epoch with the best validation top-1, then NLL, then the earliest; null without validation images")
    oracle: OracleEpoch | None = always("the epoch that is best on the test images, only under --oracle in every epoch")
    average: bool | None = since(2, "whether the moving average of the weights was measured and kept; null where the recipe has none")
    train: Training = always("the training")
    student: NetworkSize = always("the student")
    teacher: TeacherResult | None = always("the teacher; null where no term reads one")
    cost: Cost | None = always("what training costs; null where it was not measured")
    teacher_cache: CacheUse | None = always("use of the teacher cache; null without; `memo` in schema 1")
    environment: Environment = always("what the run was trained with")
    started: str = always("UTC time")
    finished: str = always("UTC time")
    seconds: float = always("seconds by the clock, of all tries together", ge=0)
    digest: str | None = since(6, "SHA-256 of the bytes of this file up to the comma before it, its last member: an edited file is told")


@cache
def result_model(task: Task) -> type[Result]:
    """The model of the results of a task. Those of classification do not name it: it was the only one for long."""
    metrics = _metrics_of(task)
    test_metrics = _with_classes(metrics, task)
    epoch = _with_types(Epoch, val=metrics | None, test=test_metrics)
    oracle = _with_types(OracleEpoch, test=metrics)
    teacher = _with_types(TeacherResult, val=metrics | None, test=test_metrics | None)
    task_field = {} if task is CLASSIFICATION else {"task": (Literal[task.name], always("the task"))}
    return _with_types(Result, task_field, last=epoch, best=epoch | None, oracle=oracle | None, teacher=teacher | None)


P = TypeVar("P", bound=Part)


def _with_types(part: type[P], more: Mapping[str, Any] = MappingProxyType({}), **types: Any) -> type[P]:
    """The same part with other types of some fields, and more fields."""
    fields: dict[str, Any] = {name: (kind, copy(part.model_fields[name])) for name, kind in types.items()}
    return create_model(part.__name__, __base__=part, __doc__=part.__doc__, **fields, **more)


def json_schema() -> dict[str, Any]:
    """The JSON Schema of what is written now of a classification."""
    return result_model(CLASSIFICATION).model_json_schema(mode="serialization", schema_generator=_WithoutTitles)


class _WithoutTitles(GenerateJsonSchema):
    """A schema that names its dialect and does not repeat the fields' names as titles."""

    def generate(self, schema: Any, mode: Any = "validation") -> dict[str, Any]:
        return {"$schema": self.schema_dialect, **super().generate(schema, mode)}

    def field_title_should_be_set(self, schema: Any) -> bool:
        return False
