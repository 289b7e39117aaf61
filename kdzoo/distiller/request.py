"""The weighted sum of a method's name and keywords, and the methods that a user's own loop cannot serve."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from kdzoo.contract.card import Card, Setting
from kdzoo.contract.explain import in_words
from kdzoo.contract.methods import REGISTRY
from kdzoo.contract.needs import Need, Pass
from kdzoo.errors import InputError, collect_problems, did_you_mean, unknown
from kdzoo.runs.spec import ObjectiveSpec, Pairing
from kdzoo.suite.plan.objectives import objective_at
from kdzoo.suite.plan.requests import Request, parse_request
from kdzoo.suite.plan.settings import Point


def resolve(
    method: str,
    *,
    alpha: float | None,
    weight: float,
    pairing: Pairing,
    hyperparameters: Mapping[str, Any],
    options: Iterable[str],
) -> ObjectiveSpec:
    """The weighted sum that `method` means, with its numbers, as a bench resolves it.

    options: the keywords beside hyper-parameters, for the nearest name of an unknown one. Raises InputError with all that
    is wrong, and for a method that trains in two stages.
    """
    request = _parse(method)
    problems = [f"{name}: trains in two stages, each a run of its own; {bench(name)}" for name in request.terms if _card(name).pretrain]
    if alpha is not None and not _is_number(alpha, 1.0):
        problems.append(f"alpha: expected a number in [0, 1], got {alpha!r}")
    if alpha is not None and request.exact:
        problems.append(f"alpha: {method!r} gives the weights of its terms already")
    if not _is_number(weight, math.inf):
        problems.append(f"weight: expected a number >= 0, got {weight!r}")
    values: dict[str, dict[str, Any]] = {}
    with collect_problems(problems):
        values = _by_term(request.terms, hyperparameters, options)
        for name in request.terms:
            with collect_problems(problems):
                REGISTRY.create(name, values.get(name, {}))
    if problems:
        raise InputError(*problems)
    return objective_at(request, Point(Setting(weight=weight, alpha=alpha), values), pairing, epochs=1)


def _parse(method: str) -> Request:
    if not isinstance(method, str):
        raise InputError(f"method: expected a name such as 'crd', or a sum such as 'at+hinton', got {method!r}")
    names = [part.rpartition("*")[2].strip() for part in method.split("+")]
    known = [*REGISTRY.names(), "none", "ce"]
    if wrong := [name for name in names if name.isidentifier() and name not in known]:
        raise InputError(*(unknown("method", name, known) for name in dict.fromkeys(wrong)))
    return parse_request(method)


def _card(name: str) -> Card:
    return REGISTRY.get(name).card


def bench(name: str) -> str:
    """Where a method that a loop of one's own cannot serve is trained."""
    return f"`kdzoo bench --methods {name}` trains it"


def _is_number(value: Any, most: float) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= most and not math.isinf(value)


def _by_term(terms: tuple[str, ...], hyperparameters: Mapping[str, Any], options: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Hyper-parameters by method: `temperature=2`, or `hinton={"temperature": 2}` where several terms of a sum have one of that name."""
    fields = {name: REGISTRY.get(name).model_fields for name in terms}
    values: dict[str, dict[str, Any]] = {
        name: dict(hyperparameters[name]) for name in terms if isinstance(hyperparameters.get(name), Mapping)
    }
    problems: list[str] = []
    for key, value in hyperparameters.items():
        if key in values:
            continue
        owners = [name for name in terms if key in fields[name]]
        if len(owners) == 1:
            values.setdefault(owners[0], {})[key] = value
        elif owners:
            problems.append(f"{key}: {' and '.join(owners)} each have it; write {owners[0]}={{{key!r}: {value!r}}}")
        else:
            fields_by_method = {name: ", ".join(fields[name]) or "none" for name in terms}
            near = did_you_mean(key, [*(field for name in terms for field in fields[name]), *options])
            parameters = "; ".join(f"the hyper-parameters of {name}: {listed}" for name, listed in fields_by_method.items())
            problems.append(f"{key}: unknown{near or (f'; {parameters}' if parameters else '')}")
    if problems:
        raise InputError(*problems)
    return values


def refusals(spec: ObjectiveSpec, *, teacher: bool, same_inputs: bool) -> Iterator[str]:
    """What a loop that has two networks and one batch of inputs cannot give the methods of a sum, a sentence each.

    teacher: whether there is one. same_inputs: whether it is called with the student's inputs.
    """
    for name in (term.method for term in spec.terms):
        card = _card(name)
        of_student, of_teacher = card.needs.student, card.needs.teacher
        if Pass.SECOND_VIEW in of_student | of_teacher:
            yield f"{name}: reads a second view of every image, augmented independently; {bench(name)}"
        if Pass.PARTNER in of_student | of_teacher:
            yield f"{name}: reads another image of each sample's class; {bench(name)}"
        if card.pixels:
            yield f"{name}: {card.pixels}, and the inputs of a loop of one's own may be normalised; {bench(name)}"
        if of_teacher and not teacher:
            yield f"{name}: reads the teacher's {in_words(of_teacher)}, but there is no teacher"
        if Need.NETWORK in of_teacher and not same_inputs:
            yield f"{name}: shows the teacher the student's inputs, so that there can be no teacher_inputs"


def missing(spec: ObjectiveSpec, role: str, need: Need, offers: Need) -> Iterator[str]:
    """What is read of a network and not in its outputs, a sentence for each method."""
    for name in (term.method for term in spec.terms):
        needs = _card(name).needs
        lacks = (needs.student if role == "student" else needs.teacher).outputs & need & ~offers
        if Need.NETWORK in lacks:
            yield f"{name}: calls the {role} itself; use kdzoo.Distiller(student, teacher, {name!r})"
        elif lacks:
            yield f"{name}: reads the {role}'s {in_words(lacks)}, which its outputs do not have"


def compared_classes(spec: ObjectiveSpec, student: int, teacher: int) -> Iterator[str]:
    """Why networks of different numbers of classes cannot serve, a sentence for each method that compares class scores."""
    if student == teacher:
        return
    scores = Need.LOGITS | Need.MEMBERS | Need.CLASSIFIER | Need.NETWORK
    for name in (term.method for term in spec.terms):
        if _card(name).needs.teacher.outputs & scores:
            yield f"{name}: compares class scores, but the student gives {student} and the teacher {teacher}"
