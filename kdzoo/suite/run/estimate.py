"""How long the runs that are missing will take, from a probe of a few steps."""

from __future__ import annotations

import torch

from kdzoo.models.measure import count
from kdzoo.models.network import Network
from kdzoo.models.placement import Placement
from kdzoo.runs.metrics_file import read_lines
from kdzoo.runs.spec import Run
from kdzoo.runs.store import RunFolder, teacher_store
from kdzoo.suite.plan.cohorts import pretrain_runs
from kdzoo.suite.plan.planned import Planned
from kdzoo.suite.run.prepare import Prepared
from kdzoo.suite.run.untrained import Untrained, bind, distinct
from kdzoo.teachers.saved import SavedTeacher
from kdzoo.teachers.teacher import Teacher, serve
from kdzoo.training.cost import seconds_an_epoch
from kdzoo.training.session import (
    Modules,
    cohort_of,
    member_of,
    shape_of,
)


def estimate(prepared: Prepared, modules: Modules | None = None) -> float:
    """Seconds that the missing runs will take, from a probe of a few steps of one run of each pair and objective."""
    plan, modules, execution = prepared.plan, modules or Modules(), Placement(prepared.options.model_copy(update={"teacher_cache": 0}))
    torch.set_num_threads(prepared.options.threads)
    students = [(p, plan.store.run(p.run.id)) for p in plan.students]
    left = [(p, f) for p, f in [*students, *((p, teacher_store().run(p.run.id)) for p in plan.teachers.values())] if f.state() != "done"]
    stages = pretrain_runs([planned for planned, _ in left], plan)

    untrained = Untrained(modules, prepared.options.image_cache)

    def kind(planned: Planned) -> tuple[str, ...]:
        return (str(planned.about["pair"]), planned.run.objective.label, str(planned.run.recipe))

    seconds: dict[tuple[str, ...], float] = {}
    for planned in distinct((planned for planned, _ in left), kind):
        bound = bind(planned, plan)
        images, parts = untrained.data(bound)
        shape = shape_of(images, bound.run.recipe)
        source, shapes = untrained.teacher(bound) or (None, None)
        teacher: Teacher | None = source if isinstance(source, SavedTeacher) else None
        if isinstance(source, Network):
            teacher = serve(source, "untrained", count(source, shape), parts.first(1), bound.run.recipe.augment, execution)
        member = member_of(bound, images, parts, shapes, execution, modules)
        seconds[kind(planned)] = seconds_an_epoch(cohort_of([member], parts, teacher, execution))
    epochs = {p.run.id: epochs_left(p.run, f) + sum(stage.recipe.epochs for stage in stages.get(p.run.id, ())) for p, f in left}
    return sum(seconds[kind(planned)] * epochs[planned.run.id] for planned, _ in left) / prepared.jobs


def epochs_left(run: Run, folder: RunFolder) -> int:
    """The epochs of a run that are not behind it, as far as its checkpoint reaches: its metrics may reach a little further."""
    return run.recipe.epochs - (len(read_lines(folder.metrics)) if folder.state() == "started" else 0)
