"""What a run's folder must say for a bench or a table to build on it: run.json's record, result.json. Free of torch."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from kdzoo.errors import problems_of


class _Read(BaseModel):
    """Base of what is needed of a file: further keys are welcome; NaN, infinities and text for a number are not."""

    model_config = ConfigDict(extra="ignore", strict=True, allow_inf_nan=False)


class _Coefficients(_Read):
    task: float
    term: Annotated[float, Field(gt=0)]


class _Card(_Read):
    scale: Annotated[float, Field(gt=0)]
    published: _Coefficients
    declared: dict[str, Any] = {}


class _Dose(_Read):
    dose: Annotated[float, Field(ge=0)]
    ratio: Annotated[float, Field(gt=0)]
    measured: str


class _About(_Read):
    pair: str | None = None
    recipe: str | None = None
    phase: Literal["sweep", "refit"] | None = None
    methods: dict[str, _Card] = {}
    swept: list[str] = []
    sweep_teacher: str | None = None
    doses: dict[str, _Dose] = {}


class _Metrics(_Read):
    top1: Annotated[float, Field(ge=0, le=1)]
    top5: float | None = None
    n: Annotated[int, Field(gt=0)]
    balanced: float
    nll: float
    ece: float
    agreement: float | None = None
    teacher_kl: float | None = None
    images_per_class: list[Annotated[int, Field(ge=0)]] | None = None
    errors_per_class: list[Annotated[int, Field(ge=0)]] | None = None


class _Epoch(_Read):
    epoch: int
    val: _Metrics | None = None
    test: _Metrics


class _Network(_Read):
    name: str
    parameters: int | None = None
    macs: int | None = None


class _Teacher(_Network):
    weights_digest: str | None = None
    val: _Metrics | None = None
    test: _Metrics


class _Cost(_Read):
    step_seconds: float | None = None
    train_seconds: float | None = None
    memory_bytes: float | None = None
    extra_parameters: float | None = None
    views: float | None = None
    student_passes: float | None = None
    teacher_passes: float | None = None
    backward_passes: float | None = None
    step_macs: float | None = None
    train_macs: float | None = None
    time_ratio: float | None = None


class _Result(_Read):
    id: str
    status: Literal["done"]
    last: _Epoch
    best: _Epoch | None = None
    oracle: _Epoch | None = None
    train: dict[str, Any] = {}
    teacher: _Teacher | None = None
    student: _Network
    cost: _Cost
    environment: dict[str, Any]
    finished: str = ""
    seconds: float | None = None


def result_faults(content: object, run_id: str) -> list[str]:
    """What is wrong with the content of a result.json as the result of a run, a line each; empty for a whole one."""
    faults = _faults(_Result, content, "")
    if not faults and isinstance(content, dict) and content["id"] != run_id:
        return [f"id: expected {run_id}, got {content['id']}"]
    return faults


def about_faults(content: object) -> list[str]:
    """What is wrong with what run.json records beside its run, a line each; empty where nothing is."""
    return _faults(_About, content, "about")


def _faults(model: type[BaseModel], content: object, where: str) -> list[str]:
    try:
        model.model_validate(content)
    except ValidationError as error:
        return problems_of(error, where)
    return []
