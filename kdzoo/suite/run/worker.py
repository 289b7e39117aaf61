"""A worker process: takes jobs as JSON lines on one pipe and answers with events on another (see `channel`).

`work` is what a job does, in this process or in another: there is one code path.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from kdzoo.contract.methods import REGISTRY
from kdzoo.contract.outputs import Shapes
from kdzoo.contract.plugins import load_plugins
from kdzoo.data.dataset import Images
from kdzoo.data.loader import fetch_once, on_device
from kdzoo.data.split import Parts
from kdzoo.data.views import center
from kdzoo.errors import InputError, KdzooError, WorkFailed
from kdzoo.files import read_file
from kdzoo.models.placement import Execution
from kdzoo.runs.loggers import JsonLines, Sink, Tee, WandbSettings, WandbSink, read_lines
from kdzoo.runs.seals import Damaged
from kdzoo.runs.spec import FirstSpec, ObjectiveSpec, Run, parse
from kdzoo.runs.store import RunFolder, Store, StoreError, is_teacher, set_aside
from kdzoo.suite.plan.doses import Measured, describe, keep_doses
from kdzoo.suite.plan.jobs import Event, Handle, Job, Options
from kdzoo.suite.report.records import setting_text
from kdzoo.suite.run.channel import Sender
from kdzoo.suite.run.repair import begin_again, forget_damaged, renew
from kdzoo.text import number_of
from kdzoo.training.answers import check, open_teacher_cache, remarks
from kdzoo.training.batched import together
from kdzoo.training.cohort import Cohort, Teacher
from kdzoo.training.compiled import compile_students
from kdzoo.training.cost import probe, with_first_stage
from kdzoo.training.doses import NoRatio, measure
from kdzoo.training.head import start_head
from kdzoo.training.member import Member, read_checkpoint
from kdzoo.training.session import Bound, Modules, cohort_of, data_key, data_of, member_of, teacher_key, teacher_of
from kdzoo.training.train import UNITS_AN_EPOCH, Stopped, fit

LOCK_POLL_SECONDS = 0.5


@dataclass
class Bench:
    """What a worker keeps between jobs: the last data and teacher with its predictions, and networks given as objects."""

    modules: Modules = field(default_factory=Modules)
    read: dict[Any, tuple[Images, Parts]] = field(default_factory=dict)
    served: dict[Any, tuple[Teacher, Shapes]] = field(default_factory=dict)

    def data(self, bound: Bound, options: Options) -> tuple[Images, Parts]:
        """The data of a run, on the device where it fits there; the last one is kept, as the teacher is."""
        key = (*data_key(bound), options.device, options.image_cache)
        if key not in self.read:
            self.read = {}  # before the next one takes its place on the device
            images, parts = data_of(bound, options.image_cache)
            self.read = {key: (images, on_device(parts, torch.device(options.device)))}
        return self.read[key]

    def teacher(
        self, bound: Bound, images: Images, parts: Parts, execution: Execution, emit: Handle
    ) -> tuple[Teacher | None, Shapes | None]:
        """The teacher of a run; the last one is kept, since cohorts that share it follow each other."""
        if bound.run.teacher is None:
            return None, None
        key = teacher_key(bound)
        if key not in self.served:
            made = teacher_of(bound, images, parts, execution, self.modules)
            assert made is not None
            self.served = {key: made}
            for text in made[0].notes:
                emit({"event": "note", "text": text})
        return self.served[key]


def work(job: Job, bench: Bench, emit: Handle, stop: Callable[[], bool]) -> None:
    """Do a job.

    Raises InputError for a teacher that must not teach, WorkFailed for one whose training failed, and StoreError for a
    folder that cannot be written.
    """
    if job.kind == "teacher":
        train_teacher(job, bench, emit, stop)
        check_teacher(job, bench, emit)
    elif job.kind == "doses":
        torch.set_num_threads(job.options.threads)
        measure_doses(job, bench, emit, stop)
    else:
        torch.set_num_threads(job.options.threads)
        train_runs(Store(Path(job.folder)), job.ids, job.options, bench, emit, stop)


def train_teacher(job: Job, bench: Bench, emit: Handle, stop: Callable[[], bool]) -> None:
    """Train a teacher, or wait for the process that does, unless it is kept already; raises WorkFailed where that fails."""
    store, options = Store(Path(job.folder)), replace(job.options, threads=job.teacher_threads)
    torch.set_num_threads(options.threads)
    for run_id in job.ids:
        folder = store.run(run_id)
        forget_damaged(folder, emit)
        while not is_kept(folder, emit):
            locked = train_runs(store, (run_id,), options, bench, emit, stop)
            if not locked and folder.state() != "done":
                raise WorkFailed(f"teacher {run_id}: its training failed: {folder.failure()}; --retry-failed trains it again")
            if locked:
                time.sleep(LOCK_POLL_SECONDS)
            if stop():
                raise Stopped("training was stopped; run the same command to resume")


def is_kept(folder: RunFolder, emit: Handle) -> bool:
    """Whether a teacher is done and its weights are whole; what is not is made new again. False while another process has it."""
    with folder.lock() as free:
        if free:
            renew(folder, emit)
        return free and folder.state() == "done"


def check_teacher(job: Job, bench: Bench, emit: Handle) -> None:
    """Measure a teacher on its first student's data as its students will; raises InputError where it is at chance."""
    if job.example is not None:
        folder, run_id = job.example
        bound = Bound.read(Store(Path(folder)).run(run_id))
    elif job.probes:
        bound = probe_of(job.probes[0], Store(Path(job.folder)))
    else:
        return
    torch.set_num_threads(job.options.threads)
    execution = execution_of(job.options)
    images, parts = bench.data(bound, job.options)
    teacher, _ = bench.teacher(bound, images, parts, execution, emit)
    if teacher is not None:
        asked = (teacher, parts, bound.run.recipe.augment, execution)
        for text in remarks(*asked):  # told first: another normalisation is the usual reason for what is refused next
            emit({"event": "note", "text": text})
        for text in [] if job.options.allow_chance_teacher else check(*asked):
            emit({"event": "note", "text": text})
        top1 = {"val_top1": teacher.val_metrics and teacher.val_metrics["top1"], "test_top1": teacher.test_metrics["top1"]}
        emit({"event": "teacher", "name": teacher.name, "ids": list(job.ids), **top1})


def probe_of(entry: Mapping[str, Any], store: Store) -> Bound:
    """What a job carries of a run that has no folder."""
    run = parse(Run, entry["run"], "doses")
    return Bound(run, store.run(run.id), entry["about"].get("paths", {}))


def measure_doses(job: Job, bench: Bench, emit: Handle, stop: Callable[[], bool]) -> None:
    """Measure the ratios of gradients of a job's probes and keep them in the bench's folder; tell what cannot be measured.

    Raises Stopped, with nothing kept, when `stop` says so.
    """
    began, store, execution = time.process_time(), Store(Path(job.folder)), execution_of(replace(job.options, teacher_cache=0))
    bounds = [probe_of(entry, store) for entry in job.probes]
    images, parts = bench.data(bounds[0], job.options)
    teacher, shapes = None, None
    for bound in [bound for bound in bounds if bound.run.teacher is not None][:1]:
        teacher, shapes = bench.teacher(bound, images, parts, execution, emit)
    about = {bound.run.id: entry["about"] for bound, entry in zip(bounds, job.probes, strict=True)}
    waiting = [(bound, first) for bound in bounds if (first := bound.run.first) is not None]
    train_first_stages(store, waiting, job.options, bench, emit, stop, about=lambda bound: about[bound.run.id])

    def take_up_first(member: Member, bound: Bound) -> None:
        if (first := bound.run.first) is not None:
            if store.run(first.id).state() != "done":
                raise KdzooError(failure_of_first(store, first))
            go_on(member, Bound.read(store.run(first.id)))

    def stop_here() -> None:
        if stop():
            raise Stopped("training was stopped; run the same command to resume")

    said = "doses: measuring the gradient of " + ", ".join(dict.fromkeys(bound.run.objective.label for bound in bounds))
    emit({"event": "note", "text": f"{said} for {about[bounds[0].run.id].get('pair')}"})
    found = measure(bounds, images, parts, teacher, shapes, execution, bench.modules, take_up=take_up_first, stop=stop_here)
    kept: dict[str, Measured] = {}
    for bound in bounds:
        ratio, label = found[bound.run.id], bound.run.objective.label
        try:
            if isinstance(ratio, Exception):
                raise ratio
            kept[bound.run.id] = describe(bound.run, about[bound.run.id], {"ratio": ratio.value, **asdict(ratio)})
        except (StoreError, Stopped):
            raise
        except Exception as error:  # it is that method's failure alone
            reason = str(error) if isinstance(error, NoRatio | KdzooError) else f"{type(error).__name__}: {error}"
            emit({"event": "no dose", "id": bound.run.id, "label": label, "error": f"its dose cannot be measured: {reason}"})
    keep_doses(store.folder, kept)
    emit({"event": "note", "text": f"doses: {len(kept)} measured in {time.process_time() - began:.1f} s of processor time"})


def train_runs(store: Store, ids: Iterable[str], options: Options, bench: Bench, emit: Handle, stop: Callable[[], bool]) -> list[str]:
    """Train those of a cohort's runs that are not done; the ids of those that another process is training."""
    locked: list[str] = []
    with ExitStack() as locks:
        bounds: list[Bound] = []
        for run_id in ids:
            folder = store.run(run_id)
            if not locks.enter_context(folder.lock()):
                locked.append(run_id)
                continue
            renew(folder, emit)
            if folder.state() == "done":
                report(folder, emit)
            else:
                bounds.append(Bound.read(folder))
        if bounds:
            first_stages(store, bounds, options, bench, emit, stop)
            bounds = [bound for bound in bounds if bound.folder.state() != "failed"]
        if bounds:
            told: set[str] = set()

            def relay(event: Event) -> None:
                """Pass an event on; a failure, which the trainer knows by its id alone, with what a reader wants to know."""
                if event["event"] == "failed":
                    told.add(event["id"])
                    report(store.run(event["id"]), emit)
                else:
                    emit(event)

            try:
                train_cohort(store, bounds, options, bench, relay, stop)
            except (StoreError, Stopped, InputError):
                raise
            except Exception:  # data or a teacher that cannot be had fails every run that needs them, with the reason
                for bound in bounds:
                    if bound.folder.state() != "done":
                        bound.folder.fail(traceback.format_exc())
            for bound in bounds:
                if bound.folder.id not in told:
                    report(bound.folder, emit)
    if locked:
        emit({"event": "locked", "ids": locked})
    return locked


def first_stages(store: Store, bounds: Iterable[Bound], options: Options, bench: Bench, emit: Handle, stop: Callable[[], bool]) -> None:
    """Train the first stages of the runs that have one, unless they are done; where one fails, so do the runs that start from it."""
    waiting = [(bound, first) for bound in bounds if (first := bound.run.first) is not None and not bound.folder.checkpoint.exists()]
    train_first_stages(store, waiting, options, bench, emit, stop)
    for bound, first in waiting:
        if store.run(first.id).state() != "done":
            bound.folder.fail(failure_of_first(store, first))
            report(bound.folder, emit)


def train_first_stages(
    store: Store,
    waiting: Iterable[tuple[Bound, Run]],
    options: Options,
    bench: Bench,
    emit: Handle,
    stop: Callable[[], bool],
    about: Callable[[Bound], Mapping[str, Any]] = lambda bound: bound.folder.read_plan()[1],
) -> None:
    """Train first stages that are not done, each with the record of a run that waits for it.

    Runs of other settings, in this process or another, may start from the same first stage. about: that record.
    """
    by_recipe: dict[str, list[str]] = {}
    for bound, first in waiting:
        folder = store.run(first.id)
        forget_damaged(folder, emit)
        if folder.state() == "failed":
            folder.forget()
        folder.plan(first, about(bound))
        ids = by_recipe.setdefault(str(first.recipe), [])
        ids += [] if first.id in ids else [first.id]
    apart = replace(options, keep=("checkpoint",), oracle=False, wandb=None)

    def relay(event: Event) -> None:
        """Pass an event on; what another process trains is waited for here, and is no job of the driver's."""
        if event["event"] == "locked":
            emit({"event": "note", "text": f"waiting: another process is training the first stage {', '.join(event['ids'])}"})
        else:
            emit(event)

    for left in by_recipe.values():
        while left := train_runs(store, left, apart, bench, relay, stop):
            if stop():
                raise Stopped("training was stopped; run the same command to resume")
            time.sleep(LOCK_POLL_SECONDS)


def failure_of_first(store: Store, first: Run) -> str:
    return f"its first stage {first.id} failed: {store.run(first.id).failure()}"


def go_on(member: Member, first: Bound) -> None:
    """Start a fresh member where the first stage ended: its student's weights, and what its method's module shares."""
    state = read_checkpoint(first.folder, member.device)
    (term,) = first.run.objective.terms
    if REGISTRY.get(term.method).card.needs.student:
        member.start_from(state["network"])
    owner = cast(FirstSpec, member.run.objective.first).owner
    if owner in member.objective.parts:
        own, prefix = member.objective.parts[owner].state_dict(), f"parts.{term.method}."
        shared = {name.removeprefix(prefix): value for name, value in state["objective"].items()}
        member.objective.parts[owner].load_state_dict({**own, **{name: value for name, value in shared.items() if name in own}})


def take_up(store: Store, bound: Bound, build: Callable[[], Member], train_first: Callable[[], None], emit: Handle) -> Member:
    """A member where its checkpoint ended, or at its start: behind its first stage, where it has one.

    A checkpoint that cannot be resumed is renamed and told. build: a fresh member. train_first: train its first
    stage, where it has one that is not done. Raises KdzooError where that failed.
    """
    first = bound.run.first
    if bound.folder.checkpoint.exists():
        member = build()
        try:
            member.resume()
            return member
        except Damaged as error:
            begin_again(bound.folder, error, emit)
        train_first()
    member = build()
    if first is not None:
        if store.run(first.id).state() != "done":
            raise KdzooError(failure_of_first(store, first))
        go_on(member, Bound.read(store.run(first.id)))
    return member


def measure_cost(
    bound: Bound, fresh: Member, images: Images, parts: Parts, teacher: Teacher | None, execution: Execution, modules: Modules
) -> dict[str, Any]:
    """The cost of a run by a fresh member of it, which is thrown away, beside its student alone on the same data."""
    run, alone = bound.run, None
    if run.objective.terms:
        recipe = run.recipe.model_copy(update={"dot": None})  # one gradient has one momentum
        update = {"objective": ObjectiveSpec(task=1.0), "teacher": None, "kind": "train", "recipe": recipe}
        member = member_of(replace(bound, run=run.model_copy(update=update)), images, parts, None, execution, modules)
        alone = cohort_of([member], parts, None, execution)
    return probe(cohort_of([fresh], parts, teacher, execution), alone)


def train_cohort(store: Store, bounds: list[Bound], options: Options, bench: Bench, emit: Handle, stop: Callable[[], bool]) -> None:
    """Assemble, resume from checkpoints, probe the cost of what is new, and fit; groups that stand apart follow each other."""
    execution = execution_of(options)
    images, parts = bench.data(bounds[0], options)
    teacher, shapes = None, None
    taught_bounds = [bound for bound in bounds if bound.run.teacher is not None]
    if len({str(bound.run.teacher) for bound in taught_bounds}) > 1:
        raise ValueError("a cohort has one teacher; these runs have several")
    for bound in taught_bounds[:1]:
        teacher, shapes = bench.teacher(bound, images, parts, execution, emit)
    members: list[Member] = []
    costs: dict[str, dict[str, Any]] = {}
    for bound in bounds:
        waiting = [(bound, first)] if (first := bound.run.first) is not None else []
        train_first = partial(train_first_stages, store, waiting, options, bench, emit, stop)
        taught, weights = (shapes, teacher.weights_digest) if bound.run.teacher is not None and teacher is not None else (None, None)
        build = partial(member_of, bound, images, parts, taught, execution, bench.modules, weights)
        try:
            member = take_up(store, bound, build, train_first, emit)
            if member.step == 0 and member.run.recipe.head == "probe" and member.network.fresh_head:
                begin_with_probe(member, parts, emit)
            if member.cost is None:
                setting = str(bound.run.model_copy(update={"seed": 0}))
                if setting not in costs:  # a seed changes no cost
                    costs[setting] = measure_cost(bound, build(), images, parts, teacher, execution, bench.modules)
                member.cost = dict(costs[setting])
                if first is not None:
                    share = first.recipe.epochs / bound.run.recipe.epochs
                    member.cost = with_first_stage(member.cost, store.run(first.id).result()["cost"], share)
            member.sink = sinks_of(member, options, store.folder.name, emit)
        except (StoreError, Stopped):
            raise
        except Exception:  # a method that cannot be built is that run's failure alone
            bound.folder.fail(traceback.format_exc())
            emit({"event": "failed", "id": bound.folder.id})
            continue
        members.append(member)
    for group in in_lockstep(members, options.memory):
        cohort = cohort_of(group, parts, teacher, execution)
        tell_lost_lines(cohort, emit)
        equip(cohort, emit)
        at = cohort.members[0].step
        held = len(cohort.members) * UNITS_AN_EPOCH * at / cohort.steps_an_epoch  # work that the checkpoints hold already
        begin = {"ids": [m.run.id for m in cohort.members], "epochs": cohort.recipe.epochs, "step": at, "units": held}
        emit(
            {
                "event": "begin",
                **what_trains(bounds[0]),
                "steps": cohort.steps_an_epoch * cohort.recipe.epochs,
                **begin,
            }
        )
        fit(cohort, emit=emit, stop=stop)


def what_trains(bound: Bound) -> Event:
    """Whether a cohort's runs are a teacher, with its name, first stages, or students."""
    if is_teacher(bound.folder):
        return {"what": "teacher", "name": bound.run.student.name}
    return {"what": "first stage" if bound.run.kind == "pretrain" else "students"}


def begin_with_probe(member: Member, parts: Parts, emit: Handle) -> None:
    """Start a member that has not trained yet with a classifier fitted to what its frozen network says of the training images."""
    if start_head(member.network, parts.train, member.run.recipe.augment, member.device):
        member.start_from({name: value.clone() for name, value in member.network.state_dict().items()})
        return
    why = f"{member.run.student.name} has no single linear classifier, or fewer than two classes have labelled images"
    emit({"event": "note", "text": f"{member.run.id}: its classifier starts at random, not by a logistic regression: {why}"})


def tell_lost_lines(cohort: Cohort, emit: Handle) -> None:
    """Say where a member's metrics have fewer lines than it has epochs behind it; nothing of its result hangs on them."""
    for member in cohort.members:
        behind, lines = member.step // cohort.steps_an_epoch, len(read_lines(member.folder.metrics))
        if lines < behind:
            emit({"event": "note", "text": f"{member.folder.metrics}: damaged; {number_of(behind, 'line')} expected, {lines} readable"})


def equip(cohort: Cohort, emit: Handle) -> None:
    """Give a cohort the cache, the stack and the compiled students that it is to be trained with; say in a note why it has not got one."""
    kept, joined, uncompiled = open_teacher_cache(cohort), None, None
    if cohort.execution.stack:
        joined = together(cohort.members, _trial(cohort, 2))
    if cohort.execution.compile:
        uncompiled = compile_students(cohort.members, _trial(cohort, cohort.block))
    for text in (kept, joined, uncompiled):
        if isinstance(text, str):
            emit({"event": "note", "text": text})
    cohort.teacher_cache = None if isinstance(kept, str) else kept
    cohort.together = None if isinstance(joined, str) else joined


def _trial(cohort: Cohort, count: int) -> Tensor:
    """The first training images, as they are seen."""
    images = fetch_once(cohort.parts.train.images, torch.arange(count), cohort.execution.device)
    return center(images, cohort.recipe.augment)


def in_lockstep(members: Iterable[Member], memory: int) -> list[list[Member]]:
    """Members that stand at the same step, in groups that hold at most `memory` bytes together, or one member."""
    groups: list[list[Member]] = []
    held = 0
    for member in sorted(members, key=lambda member: (member.step, member.run.id)):
        takes = int(member.cost["memory_bytes"]) if member.cost else 0
        if groups and groups[-1][0].step == member.step and held + takes <= memory:
            groups[-1].append(member)
            held += takes
        else:
            groups.append([member])
            held = takes
    return groups


def sinks_of(member: Member, options: Options, bench: str, emit: Handle) -> Sink:
    """JSON lines first, always; W&B where it was asked for."""
    metrics = member.folder.metrics
    if metrics.exists() and not metrics.is_file():
        emit({"event": "note", "text": f"{metrics}: expected a file; what was there is kept as {set_aside(metrics).name}"})
    lines = JsonLines(member.folder.metrics, keep_through_step=member.step)
    if options.wandb is None:
        return lines
    config = json.loads(read_file(member.folder.path / "run.json"))
    settings = WandbSettings(**options.wandb)
    cursor = member.folder.path / "wandb-step.txt"
    return Tee([lines, WandbSink(settings, bench, member.run.id, config, cursor, lambda text: emit({"event": "note", "text": text}))])


def report(folder: RunFolder, emit: Handle) -> None:
    """Say how a run came out."""
    run, about = folder.read_plan()
    kind = {"kind": "teacher"} if is_teacher(folder) else {"kind": "first stage"} if run.kind == "pretrain" else {}
    said: Event = {"id": folder.id, "label": run.objective.label, "setting": setting_text(run, about), "seed": run.seed, **kind}
    if folder.state() == "done":
        result = folder.result()
        val = result["last"]["val"]
        emit(
            {
                "event": "done",
                **said,
                "val_top1": val and val["top1"],
                "test_top1": result["last"]["test"]["top1"],
                "seconds": result["seconds"],
            }
        )
    else:
        emit({"event": "failed", **said, "error": folder.failure(), "where": folder.failure_place()})


def execution_of(options: Options) -> Execution:
    return Execution(
        device=torch.device(options.device),
        threads=options.threads,
        checkpoint_seconds=options.checkpoint_seconds,
        keep=frozenset(options.keep),
        oracle=options.oracle,
        channels_last=options.channels_last,
        teacher_cache=options.teacher_cache,
        stack=options.stack,
        compile=options.compile,
    )


def main() -> None:
    """Serve jobs until their pipe ends, or until SIGTERM; when either comes in the middle of one, checkpoint and leave.

    Arguments: the descriptors of the two pipes, then the plugins.
    """
    jobs_in, events_out = int(sys.argv[1]), int(sys.argv[2])
    sender = Sender(events_out)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides, and says so on the pipe of jobs
    stopping = threading.Event()
    terminated = threading.Event()

    jobs: queue.SimpleQueue[Job | None] = queue.SimpleQueue()

    def terminate(*_: object) -> None:
        terminated.set()
        stopping.set()
        jobs.put(None)

    signal.signal(signal.SIGTERM, terminate)
    threading.Thread(target=_listen, args=(jobs_in, jobs, stopping), daemon=True).start()
    load_plugins(sys.argv[3:])
    bench = Bench()
    sender.send({"event": "ready"})

    def stop() -> bool:
        sender.check()
        return stopping.is_set()

    while (job := jobs.get()) is not None:
        _serve(job, bench, sender, stop)
        if terminated.is_set():
            break
        sender.send({"event": "idle"})
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # threads and exit hooks of a plugin may keep this process from ending
    if terminated.is_set():
        signal.raise_signal(signal.SIGTERM)  # the driver learns from the exit status what ended it


def _serve(job: Job, bench: Bench, sender: Sender, stop: Callable[[], bool]) -> None:
    try:
        work(job, bench, sender.send, stop)
    except InputError as error:
        sender.send({"event": "refused", "problems": list(error.problems)})
    except StoreError as error:
        sender.send({"event": "refused", "problems": [str(error)]})
    except WorkFailed as error:
        sender.send({"event": "gave up", "text": str(error)})
    except Stopped:
        sender.send({"event": "stopped"})


def _listen(descriptor: int, jobs: queue.SimpleQueue[Job | None], stopping: threading.Event) -> None:
    with contextlib.suppress(OSError), os.fdopen(descriptor) as lines:
        for line in lines:
            if line.strip() == "stop":
                stopping.set()
            else:
                jobs.put(Job.from_json(line))
    stopping.set()  # the parent is gone, or has closed the pipe because there is no more to do
    jobs.put(None)


if __name__ == "__main__":
    main()
