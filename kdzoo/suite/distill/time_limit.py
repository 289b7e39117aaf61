"""How many epochs fit into the time that a distillation may take: the schedule is made for it, so that it ends where it should."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable
from dataclasses import replace
from time import monotonic

from kdzoo.errors import InputError
from kdzoo.runs.atomic import ensure_writable, read_json, write_json
from kdzoo.suite.distill.wish import Wish
from kdzoo.suite.plan.planned import Plan
from kdzoo.suite.run.estimate import Probes, estimate
from kdzoo.suite.run.prepare import Prepared
from kdzoo.training.located import Modules

MARGIN = 0.75
"""the share of the time that is planned: an estimate comes within a third of what training takes, and the machine may get busier"""
MOST_EPOCHS = 100_000
FILE = "time.json"
"""in the bench's folder: for which wish how many epochs were settled, so that the same command resumes the same runs"""


def settle_epochs(wish: Wish, prepared: Prepared, spent: float, modules: Modules) -> int:
    """The epochs of every student that fit into a wish's time, settled the first time and kept beside the runs.

    spent: seconds that have gone already. Raises InputError where not even one epoch fits.
    """
    assert wish.seconds is not None
    file = wish.results / wish.name / FILE
    request = repr(replace(wish, execution={}, format="timm", int8=None))  # what changes no run settles nothing anew
    try:
        earlier = read_json(file)
        if earlier.get("wish") == request:
            return int(earlier["epochs"])
    except (InputError, ValueError, KeyError, TypeError):  # none yet; a damaged one is settled anew
        pass
    epochs = epochs_within(prepared, MARGIN * wish.seconds - spent, modules)
    ensure_writable(file.parent)
    write_json(file, {"wish": request, "epochs": epochs})
    return epochs


def epochs_within(prepared: Prepared, seconds: float, modules: Modules) -> int:
    """The largest number of epochs of a plan's students whose training is estimated to take at most so many seconds, teachers included."""
    probes = Probes.of(prepared, modules)

    def seconds_for(epochs: int) -> float:
        return estimate(replace(prepared, plan=with_epochs(prepared.plan, epochs), states={}), probes)

    if (least := seconds_for(1)) > seconds:
        students = "one epoch of both students" if len(prepared.plan.students) > 1 else "one epoch"
        raise InputError(f"time: too short: the teacher and {students} take about {least / MARGIN / 60:.1f} minutes")
    return bisect_right(range(1, MOST_EPOCHS + 1), seconds, key=seconds_for)


def with_epochs(plan: Plan, epochs: int) -> Plan:
    """The same plan with so many epochs of every student."""
    students = tuple(
        replace(planned, run=planned.run.model_copy(update={"recipe": planned.run.recipe.model_copy(update={"epochs": epochs})}))
        for planned in plan.students
    )
    return replace(plan, students=students)


OVER = "time: it is over before every student has ended an epoch, since the machine was slower than estimated; the same command resumes"
FOR_VERDICT = 0.05
"""the share of the time that is left for judging and writing where training has to be stopped"""


def is_over(began: float, seconds: float | None) -> Callable[[], bool]:
    """Whether the time of a distillation that may be used for training is over; never without a limit."""
    return lambda: seconds is not None and monotonic() - began > (1 - FOR_VERDICT) * seconds
