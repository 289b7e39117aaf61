"""Starts a member of a cohort: at random, from its pretrain stage or from its checkpoint; with its cost and its loggers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, cast

from kdzoo.contract.methods import REGISTRY
from kdzoo.data.dataset import Dataset
from kdzoo.data.split import Splits
from kdzoo.errors import KdzooError
from kdzoo.models.placement import Placement
from kdzoo.runs.atomic import set_aside
from kdzoo.runs.events import Emit, Note
from kdzoo.runs.loggers import Logger, LoggerGroup
from kdzoo.runs.metrics_file import JsonLines
from kdzoo.runs.options import WorkerOptions
from kdzoo.runs.sealed_json import read_sealed_json
from kdzoo.runs.seals import DamagedFile
from kdzoo.runs.spec import FirstSpec, ObjectiveSpec, Run
from kdzoo.runs.store import Store
from kdzoo.runs.wandb import WandbLogger
from kdzoo.runs.wandb_settings import WandbSettings
from kdzoo.suite.run.repair import begin_again
from kdzoo.teachers.teacher import Teacher
from kdzoo.training.checkpoint import read_checkpoint, resume
from kdzoo.training.cohort import Cohort
from kdzoo.training.cost import step_cost
from kdzoo.training.head import start_head
from kdzoo.training.located import LocatedRun, Modules
from kdzoo.training.member import Member
from kdzoo.training.run_student import build_member


def load_pretrain_stage(member: Member, first: LocatedRun) -> None:
    """Start a fresh member where the pretrain stage ended: its student's weights, and what its method's module shares."""
    state = read_checkpoint(first.folder, member.device)
    (term,) = first.run.objective.terms
    if REGISTRY.get(term.method).card.needs.student:
        member.start_from(state["network"])
    owner = cast(FirstSpec, member.run.objective.first).owner
    if owner in member.objective.parts:
        own, prefix = member.objective.parts[owner].state_dict(), f"parts.{term.method}."
        shared = {name.removeprefix(prefix): value for name, value in state["objective"].items()}
        member.objective.parts[owner].load_state_dict({**own, **{name: value for name, value in shared.items() if name in own}})


def start_or_resume(store: Store, located: LocatedRun, build: Callable[[], Member], train_first: Callable[[], None], emit: Emit) -> Member:
    """A member where its checkpoint ended, or at its start: after its pretrain stage, where it has one.

    A checkpoint that cannot be resumed is renamed, and a note says so. build: a fresh member. train_first: train its pretrain
    stage, where it has one that is not done. Raises KdzooError where that failed.
    """
    first = located.run.pretrain_run
    if located.folder.checkpoint.exists():
        member = build()
        try:
            resume(member)
            return member
        except DamagedFile as error:
            begin_again(located.folder, error, emit)
        train_first()
    member = build()
    if first is not None:
        if store.run(first.id).state() != "done":
            raise KdzooError(pretrain_failure(store, first))
        load_pretrain_stage(member, LocatedRun.read(store.run(first.id)))
    return member


def pretrain_failure(store: Store, first: Run) -> str:
    """Why a run cannot start from its pretrain stage."""
    return f"its pretrain stage {first.id} failed: {store.run(first.id).failure().error}"


def measure_cost(
    located: LocatedRun, fresh: Member, dataset: Dataset, splits: Splits, teacher: Teacher | None, execution: Placement, modules: Modules
) -> dict[str, Any]:
    """The cost of a run by a fresh member of it, which is thrown away, beside its student alone on the same data."""
    run, alone = located.run, None
    if run.objective.terms:
        recipe = run.recipe.model_copy(update={"dot": None})  # one gradient has one momentum
        update = {"objective": ObjectiveSpec(task=1.0), "teacher": None, "kind": "train", "recipe": recipe}
        member = build_member(replace(located, run=run.model_copy(update=update)), dataset, splits, None, execution, modules)
        alone = Cohort([member], splits, None, execution)
    return step_cost(Cohort([fresh], splits, teacher, execution), alone)


def begin_with_probe(member: Member, splits: Splits, emit: Emit) -> None:
    """Start a member that has not trained yet with a classifier fitted to what its frozen network says of the training images."""
    if start_head(member.network, splits.train, member.run.recipe.augment, member.device):
        member.start_from({name: value.clone() for name, value in member.network.state_dict().items()})
        return
    why = f"{member.run.student.name} has no single linear classifier, or fewer than two classes have labelled images"
    emit(Note(f"{member.run.id}: its classifier starts at random, not by a logistic regression: {why}"))


def open_loggers(member: Member, options: WorkerOptions, bench: str, emit: Emit) -> Logger:
    """JSON lines first, always; W&B where it was asked for."""
    metrics = member.folder.metrics
    member.folder.check_claim()
    if metrics.exists() and not metrics.is_file():
        emit(Note(f"{metrics}: expected a file; what was there is kept as {set_aside(metrics).name}"))
    lines = JsonLines(member.folder.metrics, member.run.id, keep_through_step=member.step)
    if options.wandb is None:
        return lines
    config = read_sealed_json(member.folder.path / "run.json")
    settings = WandbSettings(**options.wandb)
    cursor = member.folder.path / "wandb-step.txt"
    return LoggerGroup([lines, WandbLogger(settings, bench, member.run.id, config, cursor, lambda text: emit(Note(text)))])
