"""The configuration of a bench: options of the command line win over a YAML file, which wins over defaults. Free of torch."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, JsonValue, ValidationInfo, field_validator

from kdzoo.data.known import has_labels
from kdzoo.runs.fields import MOST_SEEDS, Count, Integer, Number, SeedCount, Share
from kdzoo.runs.licences import Allowed
from kdzoo.runs.options import ExecutionSpec, as_list

NONE = "none"
"""the student alone"""


KD = "hinton"


EVERY_METHOD = "*"
CONTROLS = (NONE, KD)
"""what every bench of a classification contains"""


DISTILL_METHOD = "hinton"
"""the method of `kdzoo distill`, which works with any two networks"""


UNLABELLED_METHOD = "pseudo_classes"
"""that of `kdzoo distill --unlabelled`, the best of its bench (results/features)"""


DISTILL_RECIPE = "distill"


DISTILL_STUDENT = "mobilenetv3_small_100"


def _class_words(value: object) -> object:
    """Classes by name or number, each perhaps behind a minus, as text. Raises ValueError for a list without any."""
    words = as_list(value)
    assert isinstance(words, tuple)
    if value is not None and not words:
        raise ValueError("expected at least one class")
    if wrong := [item for item in words if isinstance(item, bool) or not isinstance(item, str | int)]:
        raise ValueError(f"expected names or numbers of classes, got {wrong[0]!r}")
    return tuple(map(str, words)) or None


def _numbers(value: object) -> object:
    parts = as_list(value)
    return tuple(_number(part) if isinstance(part, str) else part for part in parts) if isinstance(parts, tuple) else parts


def _number(text: str) -> object:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def _seeds(value: object) -> object:
    """A single number n means the seeds 0 to n - 1; a list, which a comma makes of one number too, means itself."""
    numbers = _numbers(value)
    is_list = isinstance(value, list | tuple) or (isinstance(value, str) and "," in value)
    if is_list or not isinstance(numbers, tuple) or len(numbers) != 1:
        return numbers
    count = numbers[0]
    if not isinstance(count, int) or isinstance(count, bool):
        return numbers
    if count < 1:
        raise ValueError(f"expected a number of seeds >= 1, or a list, got {value}")
    if count > MOST_SEEDS:
        raise ValueError(f"expected at most {MOST_SEEDS} seeds, got {value}")
    return tuple(range(count))


def _with_permissive(value: tuple[Allowed, ...]) -> tuple[Allowed, ...]:
    if value and "permissive" not in value:
        raise ValueError(f"expected permissive, or permissive,unknown, got {','.join(value)}")
    return value


def _folder_name(value: str) -> str:
    if re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", value) is None:
        raise ValueError(f"expected a folder's name of letters, digits, '.', '_' and '-', got {value!r}")
    return value


Names = Annotated[tuple[str, ...], BeforeValidator(as_list)]


Licences = Annotated[tuple[Allowed, ...], BeforeValidator(as_list), AfterValidator(_with_permissive)]
"""the licences that are allowed: permissive ones, and unknown ones too where that is named; all where it is empty"""


ClassWords = Annotated[tuple[str, ...] | None, BeforeValidator(_class_words)]


Numbers = Annotated[tuple[Number, ...], BeforeValidator(_numbers)]


Values = Annotated[tuple[JsonValue, ...], BeforeValidator(_numbers)]
"""values of any field of a method: what they may be is the method's to say"""


Seeds = Annotated[tuple[Integer, ...], BeforeValidator(_seeds), Field(min_length=1)]


class BenchConfig(ExecutionSpec):
    """A bench in words, with how it is executed. Every field is an option of `kdzoo bench` and a key of a YAML file.

    methods: `hinton`, sums such as `at+hinton`, or exactly `0.1*ce+0.9*hinton`. temperatures, alphas, weights, doses and
    grid (`method.field: values`, `method.dose: values`) are the swept axes. doses: sizes of each term's gradient beside that
    of cross-entropy, measured for the networks at hand; they set the weights, as alphas and weights do otherwise.
    doses_from: the folder of a bench whose measurements are used where they are of the same thing.
    fine_tune: a teacher made for other classes is trained on these first.
    tune: how many settings of each method's search list are tried.
    refit_seeds: how many seeds a refit has, of the controls too; as many as the sweep unless given.
    control_seeds: how many seeds the student alone and plain KD get, at least as many as the rest; theirs go on after `seeds`.
    transfer_classes: the classes whose images the student is taught on, by name or number, or behind a minus those whose
    images it is not; the teacher learns all of them. label_fraction: the share of these images that keep their labels.
    transfer_data: images without labels that the student is taught on besides, `folder:PATH` or the training images of
    another data set by name. transfer_only: on these alone.
    task: `features` for a teacher without classes and a student that is a backbone (`kdzoo.tasks.features`); None for the data's own.
    columns: which columns of targets are learned, each perhaps with the weight of its loss (`0.7*digit`); the first is the primary one.
    skip_unreadable: files of a folder that cannot be read are skipped, counted and listed, instead of refused.
    pairs: `teacher/student`, or give teacher and student. set: further keys, such as `recipe.batch_size`.
    edition: the frozen edition that every run has to be of. searches: how often choosing and refitting is repeated, each time with
    seeds of its own. budget: as many whole runs' epochs as the sweep may cost, by successive halving (`kdzoo.suite.plan.budget`).
    licence: which licences what a run is made from may have: `permissive`, or `permissive,unknown`; none for any.
    recipe: a recipe's name or file; or, in a YAML file and from Python, a mapping of its keys, with `name` for the recipe that
    they change: `{name: digits, epochs: 5}`.
    """

    name: Annotated[str, AfterValidator(_folder_name)] = "bench"
    methods: Annotated[Names, Field(min_length=1)] = ("hinton", "at")
    temperatures: Numbers = ()
    alphas: Numbers = ()
    weights: Numbers = ()
    doses: Numbers = ()
    doses_from: str | None = None
    grid: dict[str, Values] = {}
    tune: Count | None = None
    refit: bool | None = None
    seeds: Seeds = (0, 1, 2)
    control_seeds: SeedCount | None = None
    refit_seeds: SeedCount | None = None
    pairs: Names = ()
    teacher: str | None = None
    student: str | None = None
    data: str = "digits"
    data_root: str | None = None
    columns: Names = ()
    task: Literal["features"] | None = None
    limit: Count | None = None
    label_fraction: Annotated[Number, Field(gt=0, le=1)] = 1.0
    transfer_classes: ClassWords = None
    transfer_data: str | None = None
    transfer_only: bool = False
    val_fraction: Share | None = None
    split_seed: Integer = 0
    recipe: str = "smoke"
    epochs: Count | None = None
    lr: Annotated[Number, Field(gt=0)] | None = None
    set: dict[str, Any] = {}
    results: str = "results"
    skip_unreadable: bool = False
    fine_tune: bool = False
    wandb: Literal["online", "offline", "disabled"] | None = None
    plugin: Names = ()
    licence: Licences = ()
    edition: str | None = None
    searches: Count | None = None
    budget: Count | None = None

    @field_validator("control_seeds")
    @classmethod
    def _no_fewer_than_the_rest(cls, value: int | None, info: ValidationInfo) -> int | None:
        seeds = info.data.get("seeds", ())
        if value is not None and value < len(seeds):
            raise ValueError(f"expected at least as many as the other methods have ({len(seeds)}), got {value}")
        return value

    @field_validator("transfer_only")
    @classmethod
    def _only_with_images(cls, value: bool, info: ValidationInfo) -> bool:
        if value and info.data.get("transfer_data") is None:
            raise ValueError("expected transfer_data as well, the images that the student is taught on")
        beside = [name for name, usual in (("transfer_classes", None), ("label_fraction", 1.0)) if info.data.get(name, usual) != usual]
        if value and beside:
            raise ValueError(f"the student is taught on no training images, which {' and '.join(beside)} would choose among")
        return value

    @field_validator("doses")
    @classmethod
    def _no_negative_dose(cls, value: tuple[float, ...]) -> tuple[float, ...]:
        if negative := [dose for dose in value if dose < 0]:
            raise ValueError(f"expected numbers >= 0, got {', '.join(f'{dose:g}' for dose in negative)}")
        return value

    @property
    def controls(self) -> tuple[str, ...]:
        """The methods that the bench contains whatever it asks for: of features there are no class scores for plain KD to read."""
        return CONTROLS if self.task is None else (NONE,) if has_labels(self.data) else ()

    @property
    def files_kept(self) -> tuple[str, ...]:
        """What is kept of its runs: a search within a budget keeps the checkpoints of those that it pauses."""
        return self.keep if self.budget is None else tuple(dict.fromkeys((*self.keep, "checkpoint")))

    @property
    def field_axes(self) -> dict[str, tuple[JsonValue, ...]]:
        """The axes that vary fields of methods, as METHOD.FIELD; the method `*` stands for every one that has the field."""
        temperatures = {f"{EVERY_METHOD}.temperature": self.temperatures} if self.temperatures else {}
        return {**temperatures, **self.grid}

    @property
    def seeds_of_controls(self) -> tuple[int, ...]:
        """The seeds of all, and as many after the highest of them as the controls have more."""
        more = max(0, (self.control_seeds or 0) - len(self.seeds))
        return (*self.seeds, *range(max(self.seeds) + 1, max(self.seeds) + 1 + more))

    def seeds_for(self, method: str) -> tuple[int, ...]:
        """The seeds of a method: the controls, `none` and `hinton`, may have more than the rest."""
        return self.seeds_of_controls if method in CONTROLS else self.seeds
