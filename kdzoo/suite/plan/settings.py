"""The settings at which a method is tried: the product of the axes, or the first of its search list. Free of torch."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, NamedTuple

from kdzoo.contract.card import DEFAULT_SEARCH_WEIGHTS, LOW_FIRST, Setting, in_doses
from kdzoo.contract.methods import REGISTRY
from kdzoo.errors import raise_if_any
from kdzoo.suite.plan.config import EVERY_METHOD, BenchConfig
from kdzoo.suite.plan.recipe_files import PairValues
from kdzoo.suite.plan.requests import Request, is_dose, why_no_dose


@dataclass(frozen=True)
class Point:
    """One point of the grid of a request: its setting, hyper-parameters by method, and the doses that single terms have."""

    setting: Setting = field(default_factory=Setting)
    hyperparameters: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    doses: Mapping[str, float] = field(default_factory=dict)

    def dose(self, term: str) -> float | None:
        """The dose of a term; None where its weight is given."""
        return self.doses.get(term, self.setting.dose)


def settings(request: Request, config: BenchConfig, published: Mapping[str, PairValues] = MappingProxyType({})) -> list[Point]:
    """The points of a request: the first of its search list with `tune`, else the product of the bench's axes.

    An axis that a method does not have collapses: the temperature of one without, the doses of what has none. Raises
    InputError for an axis of doses of such a method alone.
    """
    if not request.terms:
        return [Point()]
    if config.tune is not None:
        search = _search(request, published)
        candidates = search if config.task is None else _without_labels(request, search, published)
        return [Point(setting, {request.terms[0]: dict(setting.hyperparameters)}) for setting in candidates[: config.tune]]
    alphas: Sequence[float | None] = config.alphas or (None,)
    weights: Sequence[float] = config.weights or (1.0,)
    doses: Sequence[float | None] = config.doses if config.doses and not why_no_dose(request) else (None,)
    points: list[Point] = []
    for alpha, weight, dose, *values in itertools.product(alphas, weights, doses, *_axes(request, config)):
        point = _point(Setting(weight=weight, alpha=alpha, dose=dose), values)
        if point not in points:  # an axis of doses may be covered by those of single terms
            points.append(point)
    return points


class AxisValue(NamedTuple):
    """A value of one field of one method; the field may be `dose`."""

    method: str
    field: str
    value: Any


def _axes(request: Request, config: BenchConfig) -> list[list[AxisValue]]:
    """The axes of the fields of a request's methods; raises InputError for doses of a method that has none."""
    axes: list[list[AxisValue]] = []
    for name in request.terms:
        for key, values in config.field_axes.items():
            method, _, parameter = key.partition(".")
            if method == name and is_dose(name, parameter):
                reason = why_no_dose(request)
                raise_if_any([f"grid.{key}: {reason}" if reason else None, *(_wrong_dose(key, value) for value in values)])
            if method == name or (method == EVERY_METHOD and parameter in REGISTRY.get(name).model_fields):
                axes.append([AxisValue(name, parameter, value) for value in values])
    return axes


def _point(setting: Setting, values: Iterable[AxisValue]) -> Point:
    """The point of the grid at a setting and these values of fields."""
    hyperparameters: dict[str, dict[str, Any]] = {}
    doses: dict[str, float] = {}
    for method, parameter, value in values:
        if is_dose(method, parameter):
            doses[method] = float(value)
        else:
            hyperparameters.setdefault(method, {})[parameter] = value
    return Point(setting, hyperparameters, doses)


def _wrong_dose(key: str, value: Any) -> str | None:
    good = isinstance(value, int | float) and not isinstance(value, bool) and value >= 0
    return None if good else f"grid.{key}: expected numbers >= 0, got {value!r}"


def tidy(value: float) -> float:
    """Without the last digits that binary fractions leave: 1 - 0.9 is 0.1."""
    return round(value, 12)


def _search(request: Request, published: Mapping[str, PairValues]) -> tuple[Setting, ...]:
    """The settings worth trying, the declared one first; where a pair has values of its own, those first and then the declared."""
    if request.exact or (len(request.terms) > 1 and why_no_dose(request)):
        return tuple(Setting(weight=weight) for weight in DEFAULT_SEARCH_WEIGHTS)
    if len(request.terms) > 1:
        return in_doses(*LOW_FIRST)
    (name,) = request.terms
    search = REGISTRY.get(name).card.search
    return search if name not in published else (Setting(), *_other_settings(name, published[name], search))


def _without_labels(request: Request, search: Iterable[Setting], published: Mapping[str, PairValues]) -> list[Setting]:
    """A search list for terms that no loss of labels stands beside: its distinct settings without doses, then factors on the weight.

    The weight there scales the whole gradient: under SGD as the learning rate does, and under a limit on the norm of the
    gradient; under Adam without a limit it changes next to nothing.
    """
    distinct: dict[str, Setting] = {}
    without_doses = [Setting(setting.hyperparameters, setting.weight) for setting in search]
    factors = [Setting(without_doses[0].hyperparameters, weight) for weight in DEFAULT_SEARCH_WEIGHTS]
    for setting in (*without_doses, *factors):
        distinct.setdefault(repr((_values(request, setting, published), setting.weight)), setting)
    return list(distinct.values())


def _values(request: Request, setting: Setting, published: Mapping[str, PairValues]) -> list[dict[str, Any]]:
    """All hyper-parameters of a request's terms at a setting of its first one."""
    own = [published[name].hyperparameters if name in published else {} for name in request.terms]
    first, *others = own
    per_term = [{**first, **setting.hyperparameters}, *others]
    return [REGISTRY.create(name, values).model_dump() for name, values in zip(request.terms, per_term, strict=True)]


def _other_settings(name: str, own: PairValues, search: Sequence[Setting]) -> Iterator[Setting]:
    """The settings of a search list that are not a pair's own, with all their hyper-parameters; weights become factors on the pair's."""
    term = REGISTRY.get(name).card.published.term
    base = own.term or term
    first = REGISTRY.create(name, own.hyperparameters).model_dump()
    defaults = REGISTRY.create(name, search[0].hyperparameters).model_dump()
    for setting in search:
        values = REGISTRY.create(name, setting.hyperparameters).model_dump()
        if setting.dose is not None:  # of the pair's own hyper-parameters, where no others are tried
            yield Setting(first if values == defaults else values, dose=setting.dose)
            continue
        weight = setting.weight if setting.alpha is not None else tidy(setting.weight * term / base)
        if (values, weight, setting.alpha) != (first, 1.0, None):
            yield Setting(values, weight, setting.alpha)
