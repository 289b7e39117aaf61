"""What was asked for under `--methods`, and how it comes down to a weighted sum with its numbers."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal, cast

from kdzoo.errors import InputError
from kdzoo.method import REGISTRY, WEIGHTS_WORTH_TRYING, FirstStage, Setting, stages_read
from kdzoo.signals import Need
from kdzoo.spec import FirstSpec, ObjectiveSpec, TermSpec
from kdzoo.suite.config import NONE, BenchConfig, PairValues


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


def objective(
    request: Request,
    setting: Setting,
    hyperparameters: Mapping[str, Mapping[str, Any]],
    pairing: Literal["deep", "left"],
    epochs: int,
    published: Mapping[str, PairValues] = MappingProxyType({}),
) -> ObjectiveSpec:
    """The resolved sum: L = (1 - alpha) CE + alpha scale D with an alpha, the published coefficients without.

    epochs: the recipe's, of which a first stage has its share, besides. published: by method, what is published for the
    pair of networks in question instead of the method's declared values; hyper-parameters that are given stand above it.

    Terms with coefficient 0 are dropped; without any term it is the student alone. Raises InputError for an alpha that
    is not in [0, 1], and for alpha = 1 where no term trains the classifier.
    """
    alpha = setting.alpha
    problems: list[str] = []
    second, exactly = _second_stage(request), dict(zip(request.terms, request.coefficients, strict=False))
    if alpha is not None and not 0 <= alpha <= 1:
        problems.append(f"alphas: expected numbers in [0, 1], got {alpha:g}")
    if setting.weight < 0:
        problems.append(f"weights: expected numbers >= 0, got {setting.weight:g}")
    terms = []
    for name in second:
        card, own = REGISTRY.get(name).card, published.get(name, PairValues())
        given = (own.term or card.published.term) if alpha is None else alpha * card.scale
        try:
            method = REGISTRY.create(name, {**own.hyperparameters, **hyperparameters.get(name, {})})
        except InputError as error:
            problems.extend(error.problems)
            continue
        coefficient = _tidy((exactly.get(name, given) if request.exact else given) * setting.weight)
        if coefficient > 0:
            values = method.model_dump(mode="json")
            terms.append(TermSpec(method=name, version=card.version, hyperparameters=values, coefficient=coefficient))
    first = _first_stage(request, hyperparameters, epochs, problems) if alpha != 0 and setting.weight else None
    refuse(problems)
    matters = any(_reads_pairs(term) for term in (*terms, *([first.term] if first else [])))
    if not terms:
        return ObjectiveSpec(task=1.0, pairing=pairing if matters else "deep", first=first)
    task = _task(request, second, alpha)
    if task == 0 and not any(REGISTRY.get(term.method).card.trains_classifier for term in terms):
        raise InputError(f"methods: {request.text!r} with alpha = 1 would never train the classifier: none of its terms reads the logits")
    return ObjectiveSpec(task=task, terms=tuple(terms), pairing=pairing if matters else "deep", first=first)


def _second_stage(request: Request) -> tuple[str, ...]:
    """The terms of a request, in order; those that stand for a method of two stages in the place of it."""
    found: set[str] = set()
    for name in request.terms:
        first = REGISTRY.get(name).card.first
        found.update((name,) if first is None or first.then is None else first.then)
    return tuple(sorted(found))


def _first_stage(
    request: Request, hyperparameters: Mapping[str, Mapping[str, Any]], epochs: int, problems: list[str | None] | list[str]
) -> FirstSpec | None:
    """The first stage of the one method of a request that has one, with the hyper-parameters that the two share."""
    owners = [name for name in request.terms if REGISTRY.get(name).card.first is not None]
    if not owners:
        return None
    owner = owners[0]
    stage = cast(FirstStage, REGISTRY.get(owner).card.first)
    if len(owners) > 1:
        problems.append(f"methods: {request.text!r}: {' and '.join(owners)} each train in two stages; a run has one first stage")
    if request.exact and stage.then is not None:
        problems.append(f"methods: {request.text!r}: {owner} is a first stage and has no term in the sum; say {owner}+... instead")
    cls = REGISTRY.get(stage.method)
    given = REGISTRY.create(owner, hyperparameters.get(owner, {})).model_dump(mode="json")
    method = REGISTRY.create(stage.method, {name: value for name, value in given.items() if name in cls.model_fields})
    term = TermSpec(
        method=stage.method, version=cls.card.version, hyperparameters=method.model_dump(mode="json"), coefficient=cls.card.scale
    )
    return FirstSpec(owner=owner, term=term, epochs=stage.epochs(epochs), then=stage.then)


def settings(
    request: Request, config: BenchConfig, published: Mapping[str, PairValues] = MappingProxyType({})
) -> list[tuple[Setting, dict[str, dict[str, Any]]]]:
    """The settings of a request: the first of its search list with `tune`, else the product of the axes that were given.

    An axis that a method does not have collapses: the temperature of one without, alpha and weight of an exact sum.
    """
    if not request.terms:
        return [(Setting(), {})]
    if config.tune is not None:
        return [(setting, {request.terms[0]: dict(setting.hyperparameters)}) for setting in _search(request, published)[: config.tune]]
    alphas: Sequence[float | None] = config.alphas or (None,)
    weights: Sequence[float] = config.weights or (1.0,)
    axes: list[list[tuple[str, str, Any]]] = []
    for name in request.terms:
        fields = REGISTRY.get(name).model_fields
        if "temperature" in fields and config.temperatures:
            axes.append([(name, "temperature", value) for value in config.temperatures])
        for key, values in config.grid.items():
            method, _, parameter = key.partition(".")
            if method == name:
                axes.append([(name, parameter, value) for value in values])
    found = []
    for alpha, weight, *chosen in itertools.product(alphas, weights, *axes):
        hyperparameters: dict[str, dict[str, Any]] = {}
        for name, parameter, value in chosen:
            hyperparameters.setdefault(name, {})[parameter] = value
        found.append((Setting(weight=weight, alpha=alpha), hyperparameters))
    return found


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
    if len(request.terms) > 1 or request.exact:
        return tuple(Setting(weight=weight) for weight in WEIGHTS_WORTH_TRYING)
    (name,) = request.terms
    search = REGISTRY.get(name).card.search
    return search if name not in published else (Setting(), *_but(name, published[name], search))


def _but(name: str, own: PairValues, search: Iterable[Setting]) -> Iterator[Setting]:
    """The settings of a search list that are not a pair's own, with all their hyper-parameters; weights become factors on the pair's."""
    term = REGISTRY.get(name).card.published.term
    base = own.term or term
    first = REGISTRY.create(name, own.hyperparameters).model_dump()
    for setting in search:
        values = REGISTRY.create(name, setting.hyperparameters).model_dump()
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
    return stages_read(method) == "paired" and bool((needs.student | needs.teacher) & (Need.STAGES | Need.PREACT))


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
