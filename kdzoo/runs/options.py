"""How runs are executed, declared once: device, processes, threads, memory layout, caches, what is kept. Free of torch.

Nothing here changes a run's id. From the one declaration come the keys of a bench's YAML file (`BenchConfig` inherits it),
the options of the commands (`kdzoo.cli.bench_options.takes_options` reads each field's `Option`), what a worker gets
(`WorkerOptions`) and the argument `execution=` of the functions in Python (`Execution`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, ValidationError

from kdzoo.errors import InputError, did_you_mean, problems_of
from kdzoo.runs.fields import Count, Number, Spec
from kdzoo.sizes import size_of

ELSEWHERE = ("print", "slurm", "ray")
"""the launchers whose workers may have other devices than the machine that plans"""

PAIR = "Networks and data"
RUNNING = "Where it runs"
SPEED = "Speed and memory"
RESULTS = "What is kept"
"""headings under which `--help` groups these options"""


@dataclass(frozen=True)
class Option:
    """How the command line offers a field.

    default: in words; None for the declared one as one types it. typed: what a value is on the command line: a switch, a
    number, text that the field's own rules read, or a list where the option may be repeated. metavar: what stands for a
    value. flags: where they are not the field's name. choices: what the shell completes. many_runs: whether it says nothing
    of a single run.
    """

    text: str
    panel: str
    default: str | None = None
    typed: type[bool] | type[int] | type[float] | type[str] | type[list[str]] = bool
    metavar: str = ""
    flags: tuple[str, ...] = ()
    choices: tuple[str, ...] = ()
    many_runs: bool = False


def as_list(value: object) -> object:
    """`"a,b"` and `[a, b]` and `a` are the same list. A comma may end it; raises ValueError for an empty item."""
    if isinstance(value, str):
        parts = [part.strip() for part in value.split(",")]
        items = parts[:-1] if not parts[-1] else parts
        if not all(items):
            raise ValueError(f"expected values between commas, got {value!r}")
        return tuple(items)
    if isinstance(value, list | tuple):
        return tuple(value)
    return (value,) if value is not None else ()


def _size(value: object) -> object:
    size = size_of(str(value))
    if size is None:
        raise ValueError(f"expected a size such as 500MB or 64GB, got {value!r}")
    return size


def _cache_budget(value: object) -> object:
    """Bytes: 0 for `off`, which YAML reads as false, None for `auto`."""
    if value in (None, "auto"):
        return None
    size = 0 if value == "off" or value is False else size_of(str(value))
    if size is None:
        raise ValueError(f"expected off, auto or a size such as 500MB or 4GB, got {value!r}")
    return size


def _device(value: str) -> str:
    if re.fullmatch(r"auto|cpu|cuda(:\d+)?", value) is None:
        raise ValueError(f"expected auto, cpu, cuda or cuda:NUMBER, got {value!r}{did_you_mean(value, ['auto', 'cpu', 'cuda'])}")
    return value


def _assignments(values: tuple[str, ...]) -> tuple[str, ...]:
    for value in values:
        if not value.partition("=")[1] or not value.partition("=")[0].strip():
            raise ValueError(f"expected KEY=VALUE, got {value!r}")
    return values


Size = Annotated[int, BeforeValidator(_size)]
CacheBudget = Annotated[int | None, BeforeValidator(_cache_budget)]
Keep = Annotated[
    tuple[Literal["predictions", "student", "checkpoint"], ...], BeforeValidator(lambda v: () if v == "nothing" else as_list(v))
]


class ExecutionSpec(Spec):
    """The options of execution. Sizes may be given in words, such as `4GB`; they are kept in bytes."""

    device: Annotated[
        str,
        AfterValidator(_device),
        Option("auto, cpu, cuda or cuda:NUMBER.", RUNNING, typed=str, metavar="NAME", choices=("auto", "cpu", "cuda")),
    ] = "auto"
    launcher: Annotated[
        Literal["local", "here", "torchrun", "print", "slurm", "ray"] | None,
        Option(
            "Where runs are trained: local (processes of this machine), here (this process), torchrun (processes that it started), "
            "print (commands to run on machines that see the results folder), slurm or ray.",
            RUNNING,
            default="local",
            typed=str,
            metavar="NAME",
            choices=("local", "here", "torchrun", *ELSEWHERE),
            many_runs=True,
        ),
    ] = None
    launcher_option: Annotated[
        tuple[str, ...],
        BeforeValidator(as_list),
        AfterValidator(_assignments),
        Option(
            "What the launcher asks its engine for: keys of submitit's executor such as timeout_min=60, or of Ray such as address=auto.",
            RUNNING,
            default="none",
            typed=list[str],
            metavar="KEY=VALUE",
            many_runs=True,
        ),
    ] = ()
    run_timeout: Annotated[
        Number,
        Field(gt=0),
        Option(
            "A process whose runs make no progress for so many seconds is taken for hung and killed; the run that hangs again fails.",
            RUNNING,
            typed=float,
            metavar="SECONDS",
        ),
    ] = 1800.0
    lease_seconds: Annotated[
        Number,
        Field(ge=1),
        Option(
            "After so many seconds without a sign of life a worker on another machine is taken for dead, and its runs are taken over.",
            RUNNING,
            typed=float,
            metavar="SECONDS",
            many_runs=True,
        ),
    ] = 300.0
    jobs: Annotated[
        Count | None,
        Option(
            "Number of processes that train at the same time.",
            RUNNING,
            default="one for each core of a CPU, or for each GPU",
            typed=int,
            metavar="N",
            flags=("--jobs", "-j"),
            many_runs=True,
        ),
    ] = None
    processes_per_run: Annotated[
        Count,
        Option(
            "Number of processes that train each run together, on a GPU each or on this CPU: they divide every batch among them. "
            "Results are equal up to rounding.",
            RUNNING,
            typed=int,
            metavar="N",
        ),
    ] = 1
    threads: Annotated[
        Count | None,
        Option(
            "CPU threads of each process. Runs repeat bit for bit with the same number only.",
            RUNNING,
            default="OMP_NUM_THREADS, else the cores divided among the processes",
            typed=int,
            metavar="N",
        ),
    ] = None
    tf32: Annotated[
        bool | None,
        Option(
            "Use TF32 for float32 convolutions and matrix products on a GPU: faster, with 10 bits of mantissa instead of 23.",
            SPEED,
            default="TF32 in convolutions only, as in torch",
            flags=("--tf32/--no-tf32",),
        ),
    ] = None
    deterministic: Annotated[
        bool,
        Option(
            "Use only deterministic kernels on a GPU, so that a run that is repeated gives the same bits; slower. A run that needs an "
            "operation without such a kernel fails.",
            SPEED,
        ),
    ] = False
    image_cache: Annotated[
        Size | None,
        Option(
            "Space for a folder's decoded images, in memory or in a file of the cache folder, such as 64GB. A larger folder is decoded "
            "again in every epoch, to the same pixels.",
            SPEED,
            default="16GB",
            typed=str,
            metavar="SIZE",
        ),
    ] = None
    channels_last: Annotated[
        bool | None,
        Option("Memory layout of feature maps.", SPEED, default="the faster one", flags=("--channels-last/--channels-first",)),
    ] = None
    fill_gpu: Annotated[
        bool,
        Option(
            "Measure first how fast runs train on a GPU in one process, in several, and with students computed as one batch, and take the "
            "fastest. A bench measures once and keeps that in its folder.",
            SPEED,
            many_runs=True,
        ),
    ] = False
    stack_students: Annotated[
        bool,
        Option(
            "Compute students of one architecture that train together as one batch, for GPUs that a single one does not fill. "
            "Results are equal up to rounding.",
            SPEED,
            many_runs=True,
        ),
    ] = False
    compile: Annotated[bool, Option("Run students through torch.compile. Results are equal up to rounding; no gain on a CPU.", SPEED)] = (
        False
    )
    graphs: Annotated[
        bool,
        Option(
            "Record students' steps as CUDA graphs and replay them, for GPUs that wait for the host. Results are equal up to rounding.",
            SPEED,
        ),
    ] = False
    teacher_cache: Annotated[
        CacheBudget,
        Option(
            "Disk space for the teacher's outputs, which all runs share: off, auto (at most a quarter of the free disk and of the memory) "
            "or a size such as 4GB.",
            SPEED,
            default="auto",
            typed=str,
            metavar="SIZE",
            choices=("off", "auto"),
        ),
    ] = None
    checkpoint_seconds: Annotated[
        Number,
        Field(gt=0),
        Option("Seconds between the checkpoints from which an interrupted run resumes.", RESULTS, typed=float, metavar="SECONDS"),
    ] = 30.0
    keep: Annotated[
        Keep,
        Option(
            "What to keep of a finished run: predictions,student,checkpoint or nothing.",
            RESULTS,
            typed=str,
            metavar="LIST",
            choices=("predictions", "student", "checkpoint"),
            many_runs=True,
        ),
    ] = ("predictions", "student")
    oracle: Annotated[bool, Option("Also record the best epoch on the test set.", RESULTS, many_runs=True)] = False
    check: Annotated[
        int,
        Field(ge=0),
        Option(
            "Number of rows of a saved teacher's file to compare with the live teacher, if that is available; 0 to skip.",
            PAIR,
            typed=int,
            metavar="N",
            many_runs=True,
        ),
    ] = 64
    allow_chance_teacher: Annotated[bool, Option("Accept a teacher that is no better than chance, as a control.", PAIR)] = False

    def __repr_args__(self) -> Iterable[tuple[str | None, Any]]:
        """What was given, as one would write it again."""
        return [(name, getattr(self, name)) for name in type(self).model_fields if name in self.model_fields_set]

    def explicit(self) -> dict[str, Any]:
        """The options that were given, by name."""
        return {name: getattr(self, name) for name in ExecutionSpec.model_fields if name in self.model_fields_set}

    @property
    def asked_of_launcher(self) -> dict[str, str]:
        """The options of the launcher's engine, by name."""
        return {key.strip(): value for key, _, value in (text.partition("=") for text in self.launcher_option)}


class Execution(ExecutionSpec):
    """How to execute, from Python: `kdzoo.Execution(threads=1, compile=True)`. Raises InputError with everything that is wrong."""

    def __init__(self, **options: Any) -> None:
        try:
            super().__init__(**options)
        except ValidationError as error:
            raise InputError(*problems_of(error, "execution", type(self).model_fields)) from error


class WorkerOptions(ExecutionSpec):
    """What a worker gets: device and threads as they come out on this machine.

    memory: bytes that a cohort may hold; None where the worker's machine, which may be another than the driver's, says how many.
    wandb: settings of the logger, or None. until: the epoch, counted from 1, after which runs are paused; None for whole runs.
    """

    device: str = "cpu"
    threads: int = 1
    memory: int | None = 8 * 1024**3
    wandb: dict[str, Any] | None = None
    until: int | None = None


def option_of(name: str) -> Option:
    """How the command line offers a field of ExecutionSpec."""
    (option,) = [part for part in ExecutionSpec.model_fields[name].metadata if isinstance(part, Option)]
    return option


ALL = tuple(ExecutionSpec.model_fields)
ONE_RUN = tuple(name for name in ALL if not option_of(name).many_runs)
"""the names of all options, and of those that say something of a single run"""
