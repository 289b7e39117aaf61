"""The grid of one pair of networks: every request at every setting, with the weights that doses come to."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from kdzoo.contract.methods import REGISTRY
from kdzoo.errors import collect_problems
from kdzoo.runs.spec import ObjectiveSpec, Pairing
from kdzoo.runs.store import Store
from kdzoo.suite.plan.config import KD, BenchConfig
from kdzoo.suite.plan.doses import Dose, read_doses, recorded_doses, reused_doses
from kdzoo.suite.plan.objectives import resolver_for, unit
from kdzoo.suite.plan.planned import PlannedRun
from kdzoo.suite.plan.recipe_files import PairValues
from kdzoo.suite.plan.requests import Request, name_in_request
from kdzoo.suite.plan.run_factory import PairNetwork, RunFactory
from kdzoo.suite.plan.settings import Point, settings

STAND_IN = 0.618
"""the ratio of what is not measured yet: with it no dose that is usual comes to a weight that is, which would be one run"""


@dataclass(frozen=True)
class GridPoint:
    """An objective of the grid with the doses of its terms, as far as they are known.

    unmeasured: the runs whose ratios have to be measured before its weights are known.
    """

    objective: ObjectiveSpec
    doses: Mapping[str, Dose]
    unmeasured: tuple[PlannedRun, ...] = ()


@dataclass(frozen=True)
class PairGrid:
    """What the grid of one pair of networks depends on. published: what is published for it. ratios: those measured before, by id."""

    factory: RunFactory
    teacher: PairNetwork
    student: PairNetwork
    pairing: Pairing
    epochs: int
    published: Mapping[str, PairValues]
    ratios: Mapping[str, float]

    def points(self, requests: Iterable[Request], problems: list[str]) -> list[GridPoint]:
        """The objective of every request at every setting; what is wrong with them is added to `problems`."""
        points: list[GridPoint] = []
        for request in requests:
            with collect_problems(problems):
                for point in settings(request, self.factory.config, self.published):
                    with collect_problems(problems):
                        resolve = resolver_for(self.factory.config)
                        objective = resolve(request, point, self.pairing, self.epochs, self.published, self._ratio)
                        points.append(self._with_doses(request, objective, point))
        return points

    def _probe(self, unit_objective: ObjectiveSpec) -> PlannedRun:
        """The run whose id names a ratio: seed 0 of the term and cross-entropy, each with factor 1."""
        return self.factory.run(self.teacher, self.student, unit_objective, 0)

    def _ratio(self, unit_objective: ObjectiveSpec) -> float:
        """The ratio of a unit objective; a stand-in where it has to be measured first."""
        return self.ratios.get(self._probe(unit_objective).run.id, STAND_IN)

    def _with_doses(self, request: Request, objective: ObjectiveSpec, point: Point) -> GridPoint:
        """The objective with its terms' doses: those of the point, and, where the ratio is known, those that its weights come to."""
        doses: dict[str, Dose] = {}
        unmeasured: list[PlannedRun] = []
        for term in objective.terms:
            dose = point.dose(name_in_request(request, term.method))
            if dose is None and not self.ratios:
                continue
            probe = self._probe(unit(term, objective.first, objective.pairing))
            ratio = self.ratios.get(probe.run.id)
            if ratio is None and dose is not None:
                unmeasured.append(probe)
                doses[term.method] = Dose(dose, STAND_IN, probe.run.id)
            elif ratio is not None and (dose is not None or objective.task):
                value = term.coefficient * ratio / objective.task if dose is None else dose
                doses[term.method] = Dose(float(f"{value:.3g}"), ratio, probe.run.id)
        return GridPoint(objective, doses, tuple(unmeasured))


def control_notes(objectives: Iterable[ObjectiveSpec], published: Mapping[str, PairValues]) -> list[str]:
    """A note where an axis such as --weights takes plain KD, the control, away from its published coefficients."""
    coefficients = REGISTRY.get(KD).card.published
    own = published.get(KD)
    term = (own.term if own else None) or coefficients.term
    controls = [objective for objective in objectives if objective.label == KD]
    if not controls or any(math.isclose(one.task, coefficients.task) and math.isclose(one.terms[0].coefficient, term) for one in controls):
        return []
    return [
        "axes that set weights (--weights, --alphas, --doses) vary the KD control too: its published coefficients "
        f"({coefficients.task:g} CE + {term:g} KD) are not among the settings tried, so differences to KD are to the settings that are"
    ]


def known_ratios(config: BenchConfig) -> dict[str, float]:
    """The ratios measured for this bench before, by id, else for the bench that doses_from names, else as its runs record them."""
    folder = Path(config.results) / config.name
    elsewhere = reused_doses(config.doses_from) if config.doses_from else {}
    here = read_doses(folder)
    from_runs = {} if here or not sets_doses(config) else recorded_doses(Store(folder))
    return {**{key: one.ratio for key, one in elsewhere.items()}, **from_runs, **{key: one.ratio for key, one in here.items()}}


def sets_doses(config: BenchConfig) -> bool:
    """Whether a bench has settings whose weights are set by doses."""
    return bool(config.doses) or config.tune is not None or any(key.endswith(".dose") for key in config.grid)
