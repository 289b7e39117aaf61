"""What `--methods` asks for, each entry read by itself. Free of torch."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from kdzoo.contract.methods import REGISTRY
from kdzoo.errors import InputError, add_clause, collect_problems, did_you_mean, raise_if_any
from kdzoo.suite.plan.config import NONE, BenchConfig


@dataclass(frozen=True)
class Request:
    """An entry of `--methods`: terms by name, and for an exact sum the coefficients too."""

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
        twice = f"methods: {text!r} names a method twice" if len(set(terms)) < len(terms) else None
        raise_if_any(map(_unknown, terms), twice)
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
    raise_if_any(problems)
    names = tuple(sorted(name for name in factors if name != "ce"))
    return Request(text, names, factors.get("ce", 0.0), tuple(factors[name] for name in names))


def _unknown(name: str) -> str | None:
    try:
        REGISTRY.get(name)
    except InputError as error:
        return add_clause(error.problems[0], "a method of your own: --plugin FILE")
    return None


def second_stage(request: Request) -> tuple[str, ...]:
    """The terms of a request in order, a method of two stages replaced by the terms of its second stage."""
    names: set[str] = set()
    for name in request.terms:
        first = REGISTRY.get(name).card.pretrain
        names.update((name,) if first is None or first.followed_by is None else first.followed_by)
    return tuple(sorted(names))


def name_in_request(request: Request, term: str) -> str:
    """The name of a term of the second stage in the request: its own, or that of the method of two stages that it belongs to."""
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


DOSE = "dose"
"""what stands for a method's field in an axis of the grid that gives its term a dose"""


def is_dose(method: str, parameter: str) -> bool:
    """Whether an axis `METHOD.PARAMETER` gives the method's term a dose, and is no field of the method's own."""
    return parameter == DOSE and DOSE not in REGISTRY.get(method).model_fields


def read_requests(config: BenchConfig, problems: list[str]) -> list[Request]:
    """The requests of a bench: first the controls, which are tuned like the others, then its methods."""
    requests: dict[str, Request] = {}
    for text in (*config.controls, *config.methods):
        with collect_problems(problems):
            requests.setdefault(text, parse_request(text))
    problems += [*_other_ways_to_set_weights(config), *_axes_beside_tune(config), *_beside_labels(config, requests.values())]
    names = {term for request in requests.values() for term in request.terms}
    for key in config.grid:
        method = key.partition(".")[0]  # a field that it lacks is reported where the method is made
        if method not in names:
            problems.append(f"grid.{key}: no method of this bench is called {method!r}{did_you_mean(method, names)}")
    return list(requests.values())


def _beside_labels(config: BenchConfig, requests: Iterable[Request]) -> Iterator[str]:
    """What is wrong with weights beside a loss of labels where nothing is learned of labels."""
    if config.task is None:
        return
    axes = [name for name in ("alphas", "doses", "temperatures", "columns") if getattr(config, name)]
    axes += [f"grid.{key}" for key in config.grid if key.endswith(f".{DOSE}")]
    if axes:
        yield f"{' and '.join(axes)}: nothing is learned of labels or class scores by task={config.task}; leave them out"
    yield from (f"methods: {one.text!r}: task={config.task} has no labels to learn of; leave ce out" for one in requests if one.task)


def _other_ways_to_set_weights(config: BenchConfig) -> list[str]:
    """What is wrong with an axis of doses beside other axes that set the weights."""
    doses = ["doses"] * bool(config.doses) + [f"grid.{key}" for key in config.grid if key.endswith(".dose")]
    others = [name for name in ("alphas", "weights") if getattr(config, name)]
    return [f"{doses[0]}: a dose sets the weight, and so do {' and '.join(others)}; give one of them"] if doses and others else []


def _axes_beside_tune(config: BenchConfig) -> list[str]:
    """What is wrong with axes that `tune` would ignore."""
    axes = [name for name in ("temperatures", "alphas", "weights", "doses") if getattr(config, name)]
    axes += [f"grid.{key}" for key in config.grid]
    if config.tune is None or not axes:
        return []
    return [f"tune: tries the settings of each method's own search list and would ignore {', '.join(axes)}; give one or the other"]
