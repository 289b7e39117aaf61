"""What specifications are made of: strict numbers, the base of the models, and reading them from plain data. Free of torch."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache, cached_property
from typing import Annotated, Any, Self, TypeVar, get_args

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, SerializerFunctionWrapHandler, ValidationError, model_serializer

from kdzoo.errors import InputError, problems_of
from kdzoo.runs.canonical import canonical_json


def _not_bool(value: object) -> object:
    if isinstance(value, bool):
        raise ValueError(f"expected a number, got {value}")
    return value


def as_tuple(value: object) -> object:
    return tuple(value) if isinstance(value, list) else value


Number = Annotated[float, BeforeValidator(_not_bool)]
Integer = Annotated[int, BeforeValidator(_not_bool)]
Positive = Annotated[Number, Field(gt=0)]
Share = Annotated[Number, Field(ge=0, lt=1)]
"""a fraction from 0 up to, but without, 1"""
MOST_COUNT = 1_000_000_000
"""the largest number of epochs, steps, samples and the like; more would be a slip"""
Count = Annotated[Integer, Field(gt=0, le=MOST_COUNT)]
MOST_SEEDS = 100_000
"""more would be a mistake: nobody trains a setting so often"""
SeedCount = Annotated[Integer, Field(gt=0, le=MOST_SEEDS)]
MOST_SIDE = 4096
"""the largest side of images in pixels: a batch of larger ones fits into no memory"""
Side = Annotated[Count, Field(le=MOST_SIDE)]
Means = Annotated[tuple[Number, ...], BeforeValidator(as_tuple), Field(min_length=1)]
Deviations = Annotated[tuple[Positive, ...], BeforeValidator(as_tuple), Field(min_length=1)]
ClassNumbers = Annotated[tuple[Annotated[Integer, Field(ge=0)], ...], BeforeValidator(as_tuple), Field(min_length=1)]


class OmitDefault:
    """Marks a field that is not written, and so not part of an id, where it has its default: one that was added later."""


class Spec(BaseModel):
    """Base of all frozen specifications: unknown keys, infinities, NaN and booleans as numbers are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    @cached_property
    def canonical_text(self) -> str:
        """Its canonical JSON, the same for equal specifications."""
        return canonical_json(self.model_dump(mode="json"))

    def __copy__(self) -> Self:
        """A copy without what was derived from this one, since `model_copy` changes what it is made of."""
        return _without_derived(super().__copy__())

    def __deepcopy__(self, memo: dict[int, Any] | None = None) -> Self:
        return _without_derived(super().__deepcopy__(memo))


CopiedSpec = TypeVar("CopiedSpec", bound=Spec)


def _without_derived(copied: CopiedSpec) -> CopiedSpec:
    """A copy without the values of its cached properties, in place."""
    for name in copied.__dict__.keys() - type(copied).model_fields.keys():
        del copied.__dict__[name]
    return copied


class SparseSpec(Spec):
    """A specification that leaves out, where it is written, the fields that mean nothing (`unused`)."""

    def unused(self) -> set[str]:
        """The fields that are left out."""
        return {name for name, default in _omitted_defaults(type(self)).items() if getattr(self, name) == default}

    @model_serializer(mode="wrap")
    def _without_unused(self, whole: SerializerFunctionWrapHandler) -> dict[str, Any]:
        unused = self.unused()
        return {name: value for name, value in whole(self).items() if name not in unused}


@cache
def _omitted_defaults(spec: type[SparseSpec]) -> dict[str, Any]:
    """The fields of a specification marked with OmitDefault, and their defaults."""
    return {name: field.default for name, field in spec.model_fields.items() if any(isinstance(m, OmitDefault) for m in field.metadata)}


AnySpec = TypeVar("AnySpec", bound=BaseModel)


def parse(model: type[AnySpec], value: object, where: str) -> AnySpec:
    """A specification from plain JSON or YAML data; raises InputError that names every fault below `where`."""
    try:
        return model.model_validate(value)
    except ValidationError as error:
        raise InputError(*problems_of(error, where, model.model_fields, lambda place: _keys_at(model, place))) from None


def _keys_at(model: type[BaseModel], place: tuple[int | str, ...]) -> list[str] | None:
    """The keys that a specification takes at a place within it; None where that is not clear."""
    for key in (key for key in place if isinstance(key, str)):
        field = model.model_fields.get(key)
        models = [] if field is None else list(_models_in(field.annotation))
        if len(models) != 1:
            return None
        (model,) = models
    return list(model.model_fields)


def _models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for part in get_args(annotation):
        yield from _models_in(part)
