"""What was asked for under `--methods`, and how it comes down to a weighted sum with its numbers."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Literal, cast

from kdzoo.contract.card import LOW_FIRST, WEIGHTS_WORTH_TRYING, PretrainStage, Setting, in_doses
from kdzoo.contract.method import stages_read
from kdzoo.contract.methods import REGISTRY
from kdzoo.contract.needs import Need
from kdzoo.errors import InputError
from kdzoo.runs.spec import FirstSpec, ObjectiveSpec, TermSpec
from kdzoo.suite.plan.config import NONE, BenchConfig, PairValues
from kdzoo.suite.plan.doses import weight_for

DOSE = "dose"
"""what stands for a method's field in an axis of the grid that gives its term a dose"""

RatioOf = Callable[[ObjectiveSpec], float]
"""the measured ratio of a method's gradient to that of cross-entropy, for its objective with both factors 1"""


@dataclass(frozen=True)
class Request:
    """What was asked for under `--methods`: terms by name, with their coefficients where they were given exactly."""

    text: str
    terms: tuple[str, ...]
    task: float | None = None
    coefficients: tuple[float, ...] = ()

    @property
    def exact(self) -> bool:
        return self.task is not None


def parse_request(text: str) -> Request:
    """`none`, `hinton`, `at+hinton`, or an exact sum `0.1*ce+0.9*hinton`; raises InputError with the nearest names."""
    if "*" not in text:
        terms = tuple(sorted(part.strip() for part in text.split("+")))
        if terms == (NONE,):
            return Request(text, ())
        refuse([_unknown(term) for term in terms], f"methods: {text!r} names a method twice" if len(set(terms)) < len(terms) else None)
        return Request(text, terms)
    factors: dict[str, float] = {}
    problems: list[str | None] = []
    for part in text.split("+"):
        match = re.fullmatch(r"\s*(?:([0-9.eE-]+)\s*\*)?\s*(\w+)\s*", part)
        if match is None:
            problems.append(f"methods: {text!r}: expected a sum such as 0.1*ce+0.9*hinton, got {part!r}")
            continue
        factor, name = match.groups()
        problems.append(None if name == "ce" else _unknown(name))
        problems.append(f"methods: {text!r} names {name!r} twice" if name in factors else None)
        factors[name] = float(factor or 1)
    refuse(problems)
    names = tuple(sorted(name for name in factors if name != "ce"))
    return Request(text, names, factors.get("ce", 0.0), tuple(factors[name] for name in names))


@dataclass(frozen=True)
class Point:
    """One point of the grid of a request: its setting, hyper-parameters by method, and the doses that single terms have."""

    setting: Setting = field(default_factory=Setting)
    hyperparameters: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    doses: Mapping[str, float] = field(default_factory=dict)

    def dose(self, term: str) -> float | None:
        """The dose of a term; None where its weight is given."""
        return self.doses.get(term, self.setting.dose)


def objective(
    request: Request,
    setting: Setting,
    hyperparameters: Mapping[str, Mapping[str, Any]],
    pairing: Literal["deep", "left"],
    epochs: int,
    published: Mapping[str, PairValues] = MappingProxyType({}),
) -> ObjectiveSpec:
    """The resolved sum of a setting without doses (`objective_at`)."""
    return objective_at(request, Point(setting, hyperparameters), pairing, epochs, published)


def objective_at(
    request: Request,
    point: Point,
    pairing: Literal["deep", "left"],
    epochs: int,
    published: Mapping[str, PairValues] = MappingProxyType({}),
    ratio_of: RatioOf | None = None,
) -> ObjectiveSpec:
    """The resolved sum: L = (1 - alpha) CE + alpha scale D with an alpha, CE + w D with a dose, else the published coefficients.

    epochs: the recipe's, of which a first stage has its share, besides. published: by method, what is published for the
    pair of networks in question instead of the method's declared values; hyper-parameters that are given stand above it.
    ratio_of: asked for each term that has a dose.

    Terms with coefficient 0 are dropped; without any term it is the student alone. Raises InputError for an alpha that
    is not in [0, 1], for alpha = 1 where no term trains the classifier, and for a dose of what has none.
    """
    setting, hyperparameters = point.setting, point.hyperparameters
    alpha = setting.alpha
    problems: list[str] = []
    second, exactly = _second_stage(request), dict(zip(request.terms, request.coefficients, strict=False))
    if alpha is not None and not 0 <= alpha <= 1:
        problems.append(f"alphas: expected numbers in [0, 1], got {alpha:g}")
    if setting.weight < 0:
        problems.append(f"weights: expected numbers >= 0, got {setting.weight:g}")
    wanted = {name: dose for name in second if (dose := point.dose(asked_as(request, name))) is not None}
    problems += [f"doses: expected numbers >= 0, got {dose:g}" for dose in wanted.values() if dose < 0]
    terms: list[TermSpec] = []
    places: list[int] = []
    for name in second:
        card, own = REGISTRY.get(name).card, published.get(name, PairValues())
        given = (own.term or card.published.term) if alpha is None else alpha * card.scale
        try:
            method = REGISTRY.create(name, {**own.hyperparameters, **hyperparameters.get(name, {})})
        except InputError as error:
            problems.extend(error.problems)
            continue
        coefficient = _tidy((exactly.get(name, given) if request.exact else given) * setting.weight)
        if name in wanted:
            coefficient = min(1.0, wanted[name])  # with factor 1, and dropped at 0, until its ratio is known
        if coefficient > 0:
            places += [len(terms)] if name in wanted else []
            values = method.model_dump(mode="json")
            terms.append(TermSpec(method=name, version=card.version, hyperparameters=values, coefficient=coefficient))
    trains = alpha != 0 and setting.weight and (not second or not wanted or any(wanted.values()) or len(wanted) < len(second))
    first = _first_stage(request, hyperparameters, epochs, problems) if trains else None
    refuse(problems)
    for place in places:
        term = terms[place]
        assert ratio_of is not None
        ratio = ratio_of(unit(term, first, pairing))
        terms[place] = term.model_copy(update={"coefficient": weight_for(wanted[term.method], ratio)})
    matters = any(_reads_pairs(term) for term in (*terms, *([first.term] if first else [])))
    if not terms:
        return ObjectiveSpec(task=1.0, pairing=pairing if matters else "deep", first=first)
    task = 1.0 if wanted else _task(request, second, alpha)
    if task == 0 and not any(REGISTRY.get(term.method).card.trains_classifier for term in terms):
        raise InputError(f"methods: {request.text!r} with alpha = 1 would never train the classifier: none of its terms reads the logits")
    return ObjectiveSpec(task=task, terms=tuple(terms), pairing=pairing if matters else "deep", first=first)


def unit(term: TermSpec, first: FirstSpec | None, pairing: Literal["deep", "left"]) -> ObjectiveSpec:
    """What a term's ratio is measured on: the term with factor 1 beside cross-entropy with factor 1.

    Behind its first stage where that changes the student, or is the term's own.
    """
    alone = term.model_copy(update={"coefficient": 1.0})
    behind = first if first is not None and (first.owner == term.method or REGISTRY.get(first.term.method).card.needs.student) else None
    matters = any(_reads_pairs(one) for one in (alone, *([behind.term] if behind else [])))
    return ObjectiveSpec(task=1.0, terms=(alone,), pairing=pairing if matters else "deep", first=behind)


def asked_as(request: Request, term: str) -> str:
    """The name under which a term of the second stage was asked for: its own, or that of the method it stands for."""
    if term in request.terms:
        return term
    return next(
        name for name in request.terms if (first := REGISTRY.get(name).card.pretrain) is not None and term in (first.followed_by or ())
    )


def why_no_dose(request: Request) -> str:
    """Why the weights of a request cannot be set by doses, in words; empty where they can."""
    if request.exact:
        return f"{request.text}: an exact sum has its own weights"
    reasons = [f"{name}: {REGISTRY.get(name).card.no_dose}" for name in request.terms if REGISTRY.get(name).card.no_dose]
    return "; ".join(reasons)


def _second_stage(request: Request) -> tuple[str, ...]:
    """The terms of a request, in order; those that stand for a method of two stages in the place of it."""
    found: set[str] = set()
    for name in request.terms:
        first = REGISTRY.get(name).card.pretrain
        found.update((name,) if first is None or first.followed_by is None else first.followed_by)
    return tuple(sorted(found))


def _first_stage(
    request: Request, hyperparameters: Mapping[str, Mapping[str, Any]], epochs: int, problems: list[str | None] | list[str]
) -> FirstSpec | None:
    """The first stage of the one method of a request that has one, with the hyper-parameters that the two share."""
    owners = [name for name in request.terms if REGISTRY.get(name).card.pretrain is not None]
    if not owners:
        return None
    owner = owners[0]
    stage = cast(PretrainStage, REGISTRY.get(owner).card.pretrain)
    if len(owners) > 1:
        problems.append(f"methods: {request.text!r}: {' and '.join(owners)} each train in two stages; a run has one first stage")
    if request.exact and stage.followed_by is not None:
        factor = dict(zip(request.terms, request.coefficients, strict=True))[owner]
        if factor != 1 or not set(stage.followed_by) <= set(request.terms):
            second = "".join(f"0.9*{name}+" for name in stage.followed_by)
            problems.append(
                f"methods: {request.text!r}: {owner} is a first stage and has no factor in the sum, which names the terms of the "
                f"second: expected a sum such as 0.1*ce+{second}{owner}"
            )
    cls = REGISTRY.get(stage.method)
    given = REGISTRY.create(owner, hyperparameters.get(owner, {})).model_dump(mode="json")
    method = REGISTRY.create(stage.method, {name: value for name, value in given.items() if name in cls.model_fields})
    term = TermSpec(
        method=stage.method, version=cls.card.version, hyperparameters=method.model_dump(mode="json"), coefficient=cls.card.scale
    )
    return FirstSpec(owner=owner, term=term, epochs=stage.epochs(epochs), then=stage.followed_by)


def settings(request: Request, config: BenchConfig, published: Mapping[str, PairValues] = MappingProxyType({})) -> list[Point]:
    """The points of a request: the first of its search list with `tune`, else the product of the axes that were given.

    An axis that a method does not have collapses: the temperature of one without, the doses of what has none. Raises
    InputError for an axis of doses of such a method alone.
    """
    if not request.terms:
        return [Point()]
    if config.tune is not None:
        return [Point(setting, {request.terms[0]: dict(setting.hyperparameters)}) for setting in _search(request, published)[: config.tune]]
    reason = why_no_dose(request)
    alphas: Sequence[float | None] = config.alphas or (None,)
    weights: Sequence[float] = config.weights or (1.0,)
    doses: Sequence[float | None] = config.doses if config.doses and not reason else (None,)
    axes: list[list[tuple[str, str, Any]]] = []
    for name in request.terms:
        fields = REGISTRY.get(name).model_fields
        if "temperature" in fields and config.temperatures:
            axes.append([(name, "temperature", value) for value in config.temperatures])
        for key, values in config.grid.items():
            method, _, parameter = key.partition(".")
            if method == name and is_dose(name, parameter):
                refuse([f"grid.{key}: {reason}" if reason else None, *(_wrong_dose(key, value) for value in values)])
            if method == name:
                axes.append([(name, parameter, value) for value in values])
    found = []
    for alpha, weight, dose, *chosen in itertools.product(alphas, weights, doses, *axes):
        hyperparameters: dict[str, dict[str, Any]] = {}
        own: dict[str, float] = {}
        for name, parameter, value in chosen:
            if is_dose(name, parameter):
                own[name] = float(value)
            else:
                hyperparameters.setdefault(name, {})[parameter] = value
        point = Point(Setting(weight=weight, alpha=alpha, dose=dose), hyperparameters, own)
        if point not in found:  # an axis of doses may be covered by those of single terms
            found.append(point)
    return found


def is_dose(method: str, parameter: str) -> bool:
    """Whether an axis `METHOD.PARAMETER` gives the method's term a dose, and is no field of the method's own."""
    return parameter == DOSE and DOSE not in REGISTRY.get(method).model_fields


def _wrong_dose(key: str, value: Any) -> str | None:
    good = isinstance(value, int | float) and not isinstance(value, bool) and value >= 0
    return None if good else f"grid.{key}: expected numbers >= 0, got {value!r}"


def card_record(name: str, own: PairValues | None = None) -> dict[str, Any]:
    """What tables and readers need of a method's declaration when its code is not there; `own` is what the pair has instead."""
    cls, own = REGISTRY.get(name), own or PairValues()
    card = cls.card
    return {
        "scale": card.scale,
        "published": {"task": card.published.task, "term": own.term or card.published.term},
        "declared": REGISTRY.create(name, own.hyperparameters).model_dump(mode="json"),
        "title": card.source.title if card.source else None,
        "year": card.source.year if card.source else None,
        "url": card.source.url if card.source else None,
    }


def _search(request: Request, published: Mapping[str, PairValues]) -> tuple[Setting, ...]:
    """The settings worth trying, the declared one first; where a pair has values of its own, those first and then the declared."""
    if request.exact or (len(request.terms) > 1 and why_no_dose(request)):
        return tuple(Setting(weight=weight) for weight in WEIGHTS_WORTH_TRYING)
    if len(request.terms) > 1:
        return in_doses(*LOW_FIRST)
    (name,) = request.terms
    search = REGISTRY.get(name).card.search
    return search if name not in published else (Setting(), *_but(name, published[name], search))


def _but(name: str, own: PairValues, search: Sequence[Setting]) -> Iterator[Setting]:
    """The settings of a search list that are not a pair's own, with all their hyper-parameters; weights become factors on the pair's."""
    term = REGISTRY.get(name).card.published.term
    base = own.term or term
    first = REGISTRY.create(name, own.hyperparameters).model_dump()
    declared = REGISTRY.create(name, search[0].hyperparameters).model_dump()
    for setting in search:
        values = REGISTRY.create(name, setting.hyperparameters).model_dump()
        if setting.dose is not None:  # of the pair's own hyper-parameters, where no others are tried
            yield Setting(first if values == declared else values, dose=setting.dose)
            continue
        weight = setting.weight if setting.alpha is not None else _tidy(setting.weight * term / base)
        if (values, weight, setting.alpha) != (first, 1.0, None):
            yield Setting(values, weight, setting.alpha)


def _task(request: Request, second: Sequence[str], alpha: float | None) -> float:
    if request.task is not None:
        return request.task
    if alpha is not None:
        return _tidy(1 - alpha)
    return REGISTRY.get(second[0]).card.published.task if len(second) == 1 else 1.0


def _tidy(value: float) -> float:
    """Without the last digits that binary fractions leave: 1 - 0.9 is 0.1."""
    return round(value, 12)


def _reads_pairs(term: TermSpec) -> bool:
    """Whether it matters to a term how the two networks' stages pair."""
    method = REGISTRY.create(term.method, term.hyperparameters)
    needs = method.card.needs
    return stages_read(method) == "paired" and bool((needs.student | needs.teacher).outputs & (Need.STAGES | Need.PREACT))


def _unknown(name: str) -> str | None:
    try:
        REGISTRY.get(name)
    except InputError as error:
        return f"{error.problems[0]}; a method of your own: --plugin FILE"
    return None


def refuse(problems: Iterable[str | None], *more: str | None) -> None:
    found = [problem for problem in [*problems, *more] if problem]
    if found:
        raise InputError(*dict.fromkeys(found))
