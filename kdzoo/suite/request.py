"""What was asked for under `--methods`, and how it comes down to a weighted sum with its numbers."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from kdzoo.errors import InputError
from kdzoo.method import REGISTRY, WEIGHTS_WORTH_TRYING, Setting
from kdzoo.signals import Need
from kdzoo.spec import ObjectiveSpec, TermSpec
from kdzoo.suite.config import BenchConfig

NONE = "none"
KD = "hinton"


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
    request: Request, setting: Setting, hyperparameters: Mapping[str, Mapping[str, Any]], pairing: Literal["deep", "left"]
) -> ObjectiveSpec:
    """The resolved sum: L = (1 - alpha) CE + alpha scale D with an alpha, the published coefficients without.

    Terms with coefficient 0 are dropped; without any term it is the student alone. Raises InputError for an alpha that
    is not in [0, 1], and for alpha = 1 where no term trains the classifier.
    """
    alpha = setting.alpha
    problems: list[str] = []
    if alpha is not None and not 0 <= alpha <= 1:
        problems.append(f"alphas: expected numbers in [0, 1], got {alpha:g}")
    if setting.weight < 0:
        problems.append(f"weights: expected numbers >= 0, got {setting.weight:g}")
    terms = []
    for number, name in enumerate(request.terms):
        card = REGISTRY.get(name).card
        given = card.published.term if alpha is None else alpha * card.scale
        try:
            method = REGISTRY.create(name, hyperparameters.get(name, {}))
        except InputError as error:
            problems.extend(error.problems)
            continue
        coefficient = _tidy((request.coefficients[number] if request.exact else given) * setting.weight)
        if coefficient > 0:
            values = method.model_dump(mode="json")
            terms.append(TermSpec(method=name, version=card.version, hyperparameters=values, coefficient=coefficient))
    refuse(problems)
    if not terms:
        return ObjectiveSpec(task=1.0, pairing="deep")
    task = _task(request, alpha)
    if task == 0 and not any(REGISTRY.get(term.method).card.trains_classifier for term in terms):
        raise InputError(f"methods: {request.text!r} with alpha = 1 would never train the classifier: none of its terms reads the logits")
    matters = any(_reads_stages(term.method) for term in terms)
    return ObjectiveSpec(task=task, terms=tuple(terms), pairing=pairing if matters else "deep")


def settings(request: Request, config: BenchConfig) -> list[tuple[Setting, dict[str, dict[str, Any]]]]:
    """The settings of a request: the first of its search list with `tune`, else the product of the axes that were given.

    An axis that a method does not have collapses: the temperature of one without, alpha and weight of an exact sum.
    """
    if not request.terms:
        return [(Setting(), {})]
    if config.tune is not None:
        return [(setting, {request.terms[0]: dict(setting.hyperparameters)}) for setting in _search(request)[: config.tune]]
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


def card_record(name: str) -> dict[str, Any]:
    """What tables and readers need of a method's declaration when its code is not there."""
    cls = REGISTRY.get(name)
    card = cls.card
    return {
        "scale": card.scale,
        "published": {"task": card.published.task, "term": card.published.term},
        "declared": REGISTRY.create(name, {}).model_dump(mode="json"),
        "title": card.source.title if card.source else None,
        "year": card.source.year if card.source else None,
        "url": card.source.url if card.source else None,
    }


def _search(request: Request) -> tuple[Setting, ...]:
    if len(request.terms) == 1 and not request.exact:
        return REGISTRY.get(request.terms[0]).card.search
    return tuple(Setting(weight=weight) for weight in WEIGHTS_WORTH_TRYING)


def _task(request: Request, alpha: float | None) -> float:
    if request.task is not None:
        return request.task
    if alpha is not None:
        return _tidy(1 - alpha)
    return REGISTRY.get(request.terms[0]).card.published.task if len(request.terms) == 1 else 1.0


def _tidy(value: float) -> float:
    """Without the last digits that binary fractions leave: 1 - 0.9 is 0.1."""
    return round(value, 12)


def _reads_stages(name: str) -> bool:
    needs = REGISTRY.get(name).card.needs
    return bool((needs.student | needs.teacher) & Need.STAGES)


def _unknown(name: str) -> str | None:
    try:
        REGISTRY.get(name)
    except InputError as error:
        return error.problems[0]
    return None


def refuse(problems: Iterable[str | None], *more: str | None) -> None:
    found = [problem for problem in [*problems, *more] if problem]
    if found:
        raise InputError(*dict.fromkeys(found))
