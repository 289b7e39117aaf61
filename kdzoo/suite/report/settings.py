"""A run's coefficients and hyper-parameters in the words of the tables."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

from kdzoo.runs.spec import ObjectiveSpec, Run

AXIS_WORDS = MappingProxyType({"temperature": "T"})
"""short words for what a sweep varies; any other axis is called by its own name"""


@dataclass(frozen=True)
class Setting:
    """A run's coefficients in the words of the tables; None where a word does not apply.

    coefficient: the factor on the loss of a single term. dose: of that term, or of every term of a sum; None where it was
    not measured.
    """

    temperature: float | None
    alpha: float | None
    weight: float | None
    others: Mapping[str, Any]
    coefficient: float | None = None
    dose: float | None = None

    def __str__(self) -> str:
        words: dict[str, Any] = {AXIS_WORDS["temperature"]: self.temperature, "alpha": self.alpha}
        parts = [f"{name}={_short(value)}" for name, value in words.items() if value is not None]
        parts += [text for text in [weight_words(self.alpha, self.weight, self.coefficient, self.dose)] if text]
        parts += [f"{name}={_short(value)}" for name, value in self.others.items()]
        return " ".join(parts)


def weight_words(alpha: float | None, weight: float | None, coefficient: float | None, dose: float | None) -> str:
    """`weight 12 (dose 0.3)` where the dose of a term is known, else `weight=0.3`, the factor on what was published.

    Nothing of a weight that alpha says, or that was published and whose dose is not known.
    """
    if dose is not None and coefficient is not None and alpha is None:
        return f"weight {_rounded(coefficient, 3)} (dose {_rounded(dose, 2)})"
    if dose is not None and coefficient is None:
        return f"dose {_rounded(dose, 2)} each"
    return "" if weight is None or weight == 1 else f"weight={_short(weight)}"


def _rounded(value: float, digits: int) -> str:
    """A number to so many significant digits, without an exponent below a million: 1000, not 1e+03."""
    return f"{float(f'{value:.{digits}g}'):g}"


def _short(value: Any) -> str:
    return f"{value:g}" if isinstance(value, int | float) and not isinstance(value, bool) else str(value)


def setting_of(objective: ObjectiveSpec, methods: Mapping[str, Any], doses: Mapping[str, Any] = MappingProxyType({})) -> Setting:
    """The setting of a resolved objective, with the methods' declarations and the doses of terms as run.json records them.

    temperature is there where all terms that have one have the same; alpha where one term stands beside 1 - alpha of
    the task loss; weight, the factor on the published coefficient, where that is not so and the task loss has its
    published one. others are hyper-parameters that are not as declared (of a pretrain stage too), the coefficients of sums, and
    the doses of their terms where these differ.
    """
    alpha = weight = None
    others: dict[str, Any] = {}
    alone = len(objective.terms) == 1
    temperature = _shared_temperature(objective)
    for term in objective.terms:
        card = methods.get(term.method, {})
        for name, value in term.hyperparameters.items():
            if name == "temperature" and temperature is not None:
                continue
            if name == "temperature" or value != card.get("declared", {}).get(name, value):
                others[name if alone else f"{term.method}.{name}"] = value
        if alone and card:
            share = round(term.coefficient / card["scale"], 12)
            published = card["published"]
            if abs(objective.task + share - 1) < 1e-9:
                alpha = share
            elif objective.task == published["task"]:
                weight = round(term.coefficient / published["term"], 12)
        else:
            others[term.method] = term.coefficient
    if objective.first is not None:
        first = objective.first.term
        defaults = methods.get(first.method, {}).get("declared", {})
        others |= {f"{first.method}.{name}": value for name, value in first.hyperparameters.items() if value != defaults.get(name, value)}
    dose_of = {term.method: float(doses[term.method]["dose"]) for term in objective.terms if term.method in doses}
    shared = set(dose_of.values()) if len(dose_of) == len(objective.terms) else set()
    if len(shared) != 1:
        others |= {f"{name}.dose": dose for name, dose in dose_of.items()}
    coefficient = objective.terms[0].coefficient if alone else None
    return Setting(temperature, alpha, weight, others, coefficient, shared.pop() if len(shared) == 1 else None)


def _shared_temperature(objective: ObjectiveSpec) -> float | None:
    """The temperature of all terms that have one; None where none has, or where they differ."""
    temperatures = [term.hyperparameters["temperature"] for term in objective.terms if "temperature" in term.hyperparameters]
    numbers = {float(value) for value in temperatures if isinstance(value, int | float)}
    return numbers.pop() if len(numbers) == 1 and all(isinstance(value, int | float) for value in temperatures) else None


def setting_text(run: Run, about: Mapping[str, Any]) -> str:
    """A run's setting in words. A pretrain stage has no alpha: its loss stands alone, which nobody chose."""
    setting = setting_of(run.objective, about.get("methods", {}), about.get("doses", {}))
    return str(replace(setting, alpha=None) if run.kind == "pretrain" else setting)
