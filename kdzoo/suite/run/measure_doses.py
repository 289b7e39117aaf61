"""A job that measures the gradients of methods beside that of cross-entropy."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict

from kdzoo.errors import KdzooError
from kdzoo.models.placement import Placement
from kdzoo.runs.atomic import StoreError
from kdzoo.runs.events import DoseUnknown, Emit, Note
from kdzoo.suite.plan.doses import MeasuredRatio, describe, keep_doses
from kdzoo.suite.plan.jobs import Job
from kdzoo.suite.run.members import load_pretrain_stage, pretrain_failure
from kdzoo.suite.run.train_runs import train_pretrain_runs
from kdzoo.suite.run.worker_state import WorkerState, probe_of
from kdzoo.training.doses import NoRatio, measure
from kdzoo.training.located import LocatedRun
from kdzoo.training.member import Member
from kdzoo.training.train import Stopped


def measure_doses(job: Job, state: WorkerState, emit: Emit, stop: Callable[[], bool]) -> None:
    """Measure the ratios of gradients of a job's probes and keep them in the bench's folder; tell what cannot be measured.

    Raises Stopped, with nothing kept, when `stop` says so.
    """
    began, store, execution = time.process_time(), job.store, Placement(job.options.model_copy(update={"teacher_cache": 0}))
    located_runs = [probe_of(entry, store) for entry in job.probes]
    dataset, splits = state.data(located_runs[0], job.options)
    teacher, shapes = None, None
    for located in [located for located in located_runs if located.run.teacher is not None][:1]:
        teacher, shapes = state.teacher(located, dataset, splits, execution, emit)
    about = {located.run.id: entry["about"] for located, entry in zip(located_runs, job.probes, strict=True)}
    waiting = [(located, first) for located in located_runs if (first := located.run.pretrain_run) is not None]
    train_pretrain_runs(store, waiting, job.options, state, emit, stop, about=lambda located: about[located.run.id])

    def start_from_pretrain_stage(member: Member, located: LocatedRun) -> None:
        if (first := located.run.pretrain_run) is not None:
            if store.run(first.id).state() != "done":
                raise KdzooError(pretrain_failure(store, first))
            load_pretrain_stage(member, LocatedRun.read(store.run(first.id)))

    def stop_here() -> None:
        if stop():
            raise Stopped("training was stopped; run the same command to resume")

    text = "doses: measuring the gradient of " + ", ".join(dict.fromkeys(located.run.objective.label for located in located_runs))
    emit(Note(f"{text} for {about[located_runs[0].run.id].get('pair')}"))
    ratios = measure(
        located_runs, dataset, splits, teacher, shapes, execution, state.modules, prepare_member=start_from_pretrain_stage, stop=stop_here
    )
    described: dict[str, MeasuredRatio] = {}
    for located in located_runs:
        ratio, label = ratios[located.run.id], located.run.objective.label
        try:
            if isinstance(ratio, Exception):
                raise ratio
            described[located.run.id] = describe(located.run, about[located.run.id], {"ratio": ratio.value, **asdict(ratio)})
        except (StoreError, Stopped):
            raise
        except Exception as error:  # it is that method's failure alone
            reason = str(error) if isinstance(error, NoRatio | KdzooError) else f"{type(error).__name__}: {error}"
            emit(DoseUnknown(located.run.id, label, f"its dose cannot be measured: {reason}"))
    keep_doses(store.folder, described)
    emit(Note(f"doses: {len(described)} measured in {time.process_time() - began:.1f} s of processor time"))
