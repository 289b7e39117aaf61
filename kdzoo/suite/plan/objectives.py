"""From a request and a setting to a weighted sum with its numbers. Free of torch."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from types import MappingProxyType
from typing import Any, cast

from kdzoo.contract.card import PretrainStage, Setting
from kdzoo.contract.method import Method, stages_read
from kdzoo.contract.methods import REGISTRY
from kdzoo.contract.needs import Need
from kdzoo.errors import InputError, collect_problems, raise_if_any
from kdzoo.runs.spec import FirstSpec, ObjectiveSpec, Pairing, TermSpec
from kdzoo.suite.plan.config import BenchConfig
from kdzoo.suite.plan.doses import weight_for
from kdzoo.suite.plan.recipe_files import PairValues
from kdzoo.suite.plan.requests import Request, name_in_request, second_stage
from kdzoo.suite.plan.settings import Point, settings, tidy

RatioOf = Callable[[ObjectiveSpec], float]
"""the ratio of a method's gradient to that of cross-entropy, of its objective with both factors 1"""

Resolver = Callable[[Request, Point, Pairing, int, Mapping[str, PairValues], RatioOf | None], ObjectiveSpec]


def resolver_for(config: BenchConfig) -> Resolver:
    """What makes a weighted sum out of a request at a point, for the networks of a bench."""
    return objective_at if config.task is None else objective_of_features


def faults_of_settings(requests: Iterable[Request], config: BenchConfig, pairing: Pairing) -> list[str]:
    """What is wrong with the settings of requests by themselves, whatever the networks are."""
    problems: list[str] = []
    for request in requests:
        with collect_problems(problems):
            for point in settings(request, config):
                with collect_problems(problems):
                    resolver_for(config)(request, point, pairing, 1, {}, lambda unit_objective: 1.0)
    return problems


def objective(
    request: Request,
    setting: Setting,
    hyperparameters: Mapping[str, Mapping[str, Any]],
    pairing: Pairing,
    epochs: int,
    published: Mapping[str, PairValues] = MappingProxyType({}),
) -> ObjectiveSpec:
    """The resolved sum of a setting without doses (`objective_at`)."""
    return objective_at(request, Point(setting, hyperparameters), pairing, epochs, published)


def objective_at(
    request: Request,
    point: Point,
    pairing: Pairing,
    epochs: int,
    published: Mapping[str, PairValues] = MappingProxyType({}),
    ratio_of: RatioOf | None = None,
) -> ObjectiveSpec:
    """The resolved sum of networks with a classifier (`sum_at`); raises InputError too where no part of it would train the classifier."""
    objective = sum_at(request, point, pairing, epochs, published, ratio_of)
    if objective.task == 0 and not any(REGISTRY.get(term.method).card.trains_classifier for term in objective.terms):
        raise InputError(f"methods: {request.text!r} with alpha = 1 would never train the classifier: none of its terms reads the logits")
    return objective


def objective_of_features(
    request: Request,
    point: Point,
    pairing: Pairing,
    epochs: int,
    published: Mapping[str, PairValues] = MappingProxyType({}),
    ratio_of: RatioOf | None = None,
) -> ObjectiveSpec:
    """The resolved sum of networks without a classifier: its terms, beside a loss of the task that is zero."""
    return sum_at(request, point, pairing, epochs, published, ratio_of).model_copy(update={"task": 1.0})


def sum_at(
    request: Request,
    point: Point,
    pairing: Pairing,
    epochs: int,
    published: Mapping[str, PairValues] = MappingProxyType({}),
    ratio_of: RatioOf | None = None,
) -> ObjectiveSpec:
    """The resolved sum: L = (1 - alpha) CE + alpha scale D with an alpha, CE + w D with a dose, else the published coefficients.

    epochs: the recipe's; those of a pretrain stage are a share of them and come before. published: by method, what is published for
    the pair of networks in question instead of the method's declared values; a point's hyper-parameters take precedence.
    ratio_of: called for each term that has a dose.

    Terms with coefficient 0 are dropped; without any term it is the student alone. Raises InputError for an alpha that
    is not in [0, 1], and for a dose of what has none.
    """
    names = second_stage(request)
    doses = {name: dose for name in names if (dose := point.dose(name_in_request(request, name))) is not None}
    problems = list(_faults(point.setting, doses.values()))
    methods = _methods(names, point, published, problems)
    first = None
    with collect_problems(problems):
        first = _first_stage(request, point.hyperparameters, epochs, problems) if _trains(names, point.setting, doses) else None
    raise_if_any(problems)

    weights = {name: min(1.0, doses[name]) if name in doses else _weight(name, request, point.setting, published) for name in names}
    terms = [term_spec(methods[name], weight) for name, weight in weights.items() if weight > 0]
    pairing = pairing if _pairs_stages([*(methods[term.method] for term in terms), *_of_first_stage(first)]) else "deep"
    if not terms:
        return ObjectiveSpec(task=1.0, pairing=pairing, first=first)
    if doses:
        assert ratio_of is not None
        terms = [_with_dose(term, doses[term.method], first, pairing, ratio_of) if term.method in doses else term for term in terms]
    task = 1.0 if doses else _task(request, names, point.setting.alpha)
    return ObjectiveSpec(task=task, terms=tuple(terms), pairing=pairing, first=first)


def _faults(setting: Setting, doses: Iterable[float]) -> Iterator[str]:
    """What is wrong with the numbers of a setting."""
    if setting.alpha is not None and not 0 <= setting.alpha <= 1:
        yield f"alphas: expected numbers in [0, 1], got {setting.alpha:g}"
    if setting.weight < 0:
        yield f"weights: expected numbers >= 0, got {setting.weight:g}"
    yield from (f"doses: expected numbers >= 0, got {dose:g}" for dose in doses if dose < 0)


def _methods(names: Iterable[str], point: Point, published: Mapping[str, PairValues], problems: list[str]) -> dict[str, Method]:
    """The methods of a sum with their hyper-parameters; what is wrong with these is added to `problems`."""
    methods: dict[str, Method] = {}
    for name in names:
        own = published.get(name, PairValues())
        with collect_problems(problems):
            methods[name] = REGISTRY.create(name, {**own.hyperparameters, **point.hyperparameters.get(name, {})})
    return methods


def _weight(name: str, request: Request, setting: Setting, published: Mapping[str, PairValues]) -> float:
    """The factor on a method's loss where no dose sets it."""
    card, own = REGISTRY.get(name).card, published.get(name, PairValues())
    exact = dict(zip(request.terms, request.coefficients, strict=False))
    weight = (own.term or card.published.term) if setting.alpha is None else setting.alpha * card.scale
    return tidy((exact.get(name, weight) if request.exact else weight) * setting.weight)


def _trains(names: Iterable[str], setting: Setting, doses: Mapping[str, float]) -> bool:
    """Whether any term of a sum is left, so that its pretrain stage is trained."""
    every_term_has_dose = bool(doses) and set(doses) >= set(names)
    return setting.alpha != 0 and setting.weight != 0 and (not every_term_has_dose or any(doses.values()))


def _with_dose(term: TermSpec, dose: float, first: FirstSpec | None, pairing: Pairing, ratio_of: RatioOf) -> TermSpec:
    """A term with the weight that gives it a dose."""
    return term.model_copy(update={"coefficient": weight_for(dose, ratio_of(unit(term, first, pairing)))})


def term_spec(method: Method, coefficient: float) -> TermSpec:
    """A method with the factor on its loss, as a run has it."""
    card = method.card
    return TermSpec(method=card.name, version=card.version, hyperparameters=method.model_dump(mode="json"), coefficient=coefficient)


def unit(term: TermSpec, first: FirstSpec | None, pairing: Pairing) -> ObjectiveSpec:
    """What a term's ratio is measured on: the term with factor 1 beside cross-entropy with factor 1.

    Behind its pretrain stage where that changes the student, or is the term's own.
    """
    alone = term.model_copy(update={"coefficient": 1.0})
    behind = first if first is not None and (first.owner == term.method or REGISTRY.get(first.term.method).card.needs.student) else None
    method = REGISTRY.create(term.method, term.hyperparameters)
    pairing = pairing if _pairs_stages([method, *_of_first_stage(behind)]) else "deep"
    return ObjectiveSpec(task=1.0, terms=(alone,), pairing=pairing, first=behind)


def _first_stage(request: Request, hyperparameters: Mapping[str, Mapping[str, Any]], epochs: int, problems: list[str]) -> FirstSpec | None:
    """The pretrain stage of the one method of a request that has one, with the hyper-parameters that the two share."""
    owners = [name for name in request.terms if REGISTRY.get(name).card.pretrain is not None]
    if not owners:
        return None
    owner = owners[0]
    stage = cast(PretrainStage, REGISTRY.get(owner).card.pretrain)
    if len(owners) > 1:
        problems.append(f"methods: {request.text!r}: {' and '.join(owners)} each train in two stages; a run has one pretrain stage")
    if request.exact and stage.followed_by is not None:
        factor = dict(zip(request.terms, request.coefficients, strict=True))[owner]
        if factor != 1 or not set(stage.followed_by) <= set(request.terms):
            second = "".join(f"0.9*{name}+" for name in stage.followed_by)
            problems.append(
                f"methods: {request.text!r}: {owner} is a pretrain stage and has no factor in the sum, which names the terms of the "
                f"second: expected a sum such as 0.1*ce+{second}{owner}"
            )
    cls = REGISTRY.get(stage.method)
    values = REGISTRY.create(owner, hyperparameters.get(owner, {})).model_dump(mode="json")
    method = REGISTRY.create(stage.method, {name: value for name, value in values.items() if name in cls.model_fields})
    return FirstSpec(owner=owner, term=term_spec(method, cls.card.scale), epochs=stage.epochs(epochs), then=stage.followed_by)


def _of_first_stage(first: FirstSpec | None) -> list[Method]:
    """The method of a pretrain stage; none where there is no such stage."""
    return [] if first is None else [REGISTRY.create(first.term.method, first.term.hyperparameters)]


def _task(request: Request, names: tuple[str, ...], alpha: float | None) -> float:
    """The factor on cross-entropy."""
    if request.task is not None:
        return request.task
    if alpha is not None:
        return tidy(1 - alpha)
    return REGISTRY.get(names[0]).card.published.task if len(names) == 1 else 1.0


def _pairs_stages(methods: Iterable[Method]) -> bool:
    """Whether it matters to any of these methods how the two networks' stages pair."""
    needs = ((method, method.card.needs) for method in methods)
    maps = Need.STAGES | Need.PREACT
    return any(stages_read(method) == "paired" and bool((need.student | need.teacher).outputs & maps) for method, need in needs)


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
