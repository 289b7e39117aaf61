"""The training step, the cohort and `fit`: read this file first.

A cohort is a group of runs that see the same batches: same data, teacher, recipe and seed. One augmentation and one
teacher forward serve all of them; a single run is a cohort of one. How runs are grouped changes no number: everything
random is a pure function of (seed, epoch, sample) or (seed, step), and a run that fails leaves the others untouched.
"""

from __future__ import annotations

import errno
import io
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, closing, nullcontext
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property, partial
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from kdzoo import memo
from kdzoo.data.images import Pixels, Subset
from kdzoo.data.loader import batches, fetch, order, partners, steps_per_epoch
from kdzoo.data.mixing import Mixes, draw_mixes, mix, soft_targets
from kdzoo.data.split import Parts
from kdzoo.data.views import Views, apply, center, draw, finite, seen_shape, view_code, view_count
from kdzoo.dot import DOT
from kdzoo.environment import environment
from kdzoo.errors import InputError, KdzooError
from kdzoo.evaluate import Metrics, measure
from kdzoo.memo import Memo, Page
from kdzoo.models.network import Network, NetworkCost
from kdzoo.models.weights import save_student
from kdzoo.objective import Deployed, Objective
from kdzoo.optim import learning_rate, moving_average, optimizer
from kdzoo.seeds import global_stream
from kdzoo.signals import PASSES, Batch, Clock, Losses, Need, Outputs
from kdzoo.sinks import Sink
from kdzoo.spec import Augment, Recipe, Run
from kdzoo.store import RunFolder, StoreError, write_bytes

EVALUATION_BATCH = 500
FLUSH_STEPS = 50
"""how often a loss that is no number is looked for; in between nothing is copied from the device"""

UNITS_AN_EPOCH = 1000
"""what an epoch of one run counts in the progress that is reported"""


class Stopped(KdzooError):
    """Training was asked to stop; every run of the cohort has a checkpoint."""


@dataclass(frozen=True)
class Execution:
    """Where and how a run is executed; none of it is part of the run's id.

    keep: which of `predictions`, `student` and `checkpoint` stay in the run's folder when it is done.
    channels_last: None for where it pays. memo: bytes that the teacher's memo may take, 0 for none, None for a share of what
    is free.
    """

    device: torch.device
    threads: int
    checkpoint_seconds: float = 30.0
    keep: frozenset[str] = frozenset({"predictions", "student"})
    oracle: bool = False
    channels_last: bool | None = None
    memo: int | None = 0

    def place(self, network: Network, precision: str) -> Network:
        """The network on the device, in the memory layout asked for or, unless asked, in the one that pays.

        Channels last pays on CPUs (a step of the CIFAR networks takes 0.5 to 0.9 of the time) and, on GPUs, in half
        precision. Modules given from Python keep theirs: they may look at a map with `view`.
        """
        pays = network.is_timm and (self.device.type == "cpu" or precision != "float32")
        wanted = pays if self.channels_last is None else self.channels_last
        network.to(self.device)
        if wanted:
            network.to(memory_format=torch.channels_last)
        return network

    @property
    def arithmetic(self) -> dict[str, Any]:
        """What decides the last bits of a forward besides the network and its input."""
        capability = torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else torch.backends.cpu.get_cpu_capability()
        return {"device": self.device.type, "capability": capability, "threads": self.threads, "channels_last": self.channels_last}


@dataclass(frozen=True)
class Teacher:
    """A frozen network, what it costs, and what it says of the validation and test images.

    identity: a digest of its weights, its code, and all else that decides what it says of an image.
    """

    network: Network
    name: str
    identity: str
    cost: NetworkCost
    val: Tensor | None
    test: Tensor
    val_metrics: Metrics | None
    test_metrics: Metrics

    def record(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "parameters": self.cost.parameters,
            "macs": self.cost.macs,
            "val": self.val_metrics,
            "test": self.test_metrics,
        }


@dataclass
class Tally:
    """Sums over the steps of an epoch, kept on the device; `bad` is the first step whose loss was no number."""

    sums: dict[str, Tensor] = field(default_factory=dict)
    samples: int = 0
    bad: Tensor | None = None

    def add(self, losses: Losses, samples: int, step: int) -> None:
        for name, value in {"loss": losses.total, **losses.parts}.items():
            addend = value.detach().double() * samples
            self.sums[name] = self.sums[name] + addend if name in self.sums else addend
        self.samples += samples
        here = torch.where(torch.isfinite(losses.total.detach()), torch.iinfo(torch.int64).max, step)
        self.bad = here if self.bad is None else torch.minimum(self.bad, here)

    def raise_if_bad(self) -> None:
        if self.bad is not None and int(self.bad) != torch.iinfo(torch.int64).max:
            raise FloatingPointError(f"the loss became NaN or infinite at step {int(self.bad)}")

    def means(self) -> dict[str, float]:
        return {name: float(total) / max(self.samples, 1) for name, total in self.sums.items()}


class Member:
    """One run of a cohort: its student, its objective, its optimiser, and where it stands."""

    def __init__(
        self, run: Run, folder: RunFolder, network: Network, size: NetworkCost, objective: Objective, execution: Execution
    ) -> None:
        self.run = run
        self.folder = folder
        self.size = size
        self.network = execution.place(network, run.recipe.precision)
        self.objective = objective.to(execution.device)
        self.device = execution.device
        self.optimizer = optimizer(run.recipe, self.network, self.objective.groups())
        self.scaler = torch.amp.GradScaler(execution.device.type, enabled=run.recipe.precision == "float16")
        self.average = moving_average(run.recipe, self.network)
        self.need = objective.needs.student | Need.LOGITS
        self.tally = Tally()
        self.train_loss: float | None = None
        self.step = 0
        self.seconds = 0.0
        self.started = now()
        self.best: dict[str, Any] | None = None
        self.oracle: dict[str, Any] | None = None
        self.cost: dict[str, Any] | None = None
        self.sink: Sink | None = None
        self.failure: str | None = None

    def losses(self, seen: Seen, teacher: Outputs | None, batch: Batch) -> Losses:
        """Forward of the student and of the objective for one batch."""
        self.network.train()
        self.objective.train()
        with global_stream(self.run.seed, "layers", batch.clock.step, device=self.device), autocast(self.run.recipe, self.device):
            student = outputs(self.network, seen, self.need)
        return self.objective(student, teacher, batch)  # type: ignore[no-any-return]

    def learn(self, losses: Losses, samples: int, steps: int) -> None:
        """Backward, optimiser, moving average, and the sums of the epoch."""
        recipe = self.run.recipe
        for group in self.optimizer.param_groups:
            group["lr"] = group["lr_factor"] * learning_rate(recipe, self.step, steps)
        if isinstance(self.optimizer, DOT):
            self.optimizer.backward(losses.task, losses.distilled)
        else:
            self.scaler.scale(losses.total).backward()  # type: ignore[no-untyped-call]
        if recipe.clip is not None:
            self.scaler.unscale_(self.optimizer)
            torch.nn.utils.clip_grad_norm_([p for group in self.optimizer.param_groups for p in group["params"]], recipe.clip)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)
        if self.average is not None:
            self.average.update_parameters(self.network)
        self.tally.add(losses, samples, self.step)
        self.step += 1

    def fail(self) -> None:
        """Keep the exception that is being handled, and leave the cohort."""
        self.failure = traceback.format_exc()
        self.folder.fail(self.failure)
        if self.sink is not None:
            self.sink.fail(self.failure)
            self.sink.close()

    @property
    def evaluated(self) -> Network:
        """The trained network that counts: the moving average where the recipe has one."""
        return self.network if self.average is None else cast(Network, self.average.module)

    @property
    def shipped(self) -> nn.Module:
        """What is measured and kept: the network, or what its method makes of it."""
        return self.objective.shipped(self.evaluated)

    def start_from(self, weights: Mapping[str, Tensor]) -> None:
        """Give a member that has not trained yet other weights to start from."""
        self.network.load_state_dict(weights)
        self.average = moving_average(self.run.recipe, self.network)

    def state(self) -> dict[str, Any]:
        """All that a resume needs, as tensors and plain values."""
        return {
            "id": self.run.id,
            "step": self.step,
            "network": self.network.state_dict(),
            "objective": self.objective.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "average": None if self.average is None else self.average.state_dict(),
            "train_loss": self.train_loss,
            "tally": (self.tally.sums, self.tally.samples, self.tally.bad),
            "best": self.best,
            "oracle": self.oracle,
            "cost": self.cost,
            "seconds": self.seconds,
            "started": self.started,
        }

    def load(self, state: Mapping[str, Any]) -> None:
        """Stand where `state` was taken."""
        self.step = state["step"]
        self.network.load_state_dict(state["network"])
        self.objective.load_state_dict(state["objective"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.scaler.load_state_dict(state["scaler"])
        if self.average is not None:
            self.average.load_state_dict(state["average"])
        self.train_loss = state["train_loss"]
        sums, samples, bad = state["tally"]
        self.tally = Tally(dict(sums), samples, bad)
        self.best, self.oracle, self.cost = state["best"], state["oracle"], state["cost"]
        self.seconds, self.started = state["seconds"], state["started"]

    def checkpoint(self) -> None:
        """Write the state, whole or not at all."""
        buffer = io.BytesIO()
        torch.save(self.state(), buffer)
        write_bytes(self.folder.checkpoint, buffer.getvalue())

    def resume(self) -> None:
        """Take up the checkpoint of the run's folder, if there is one."""
        if self.folder.checkpoint.exists():
            self.load(torch.load(self.folder.checkpoint, map_location=self.device, weights_only=True))


@dataclass
class Cohort:
    """Runs in lockstep: the data and the teacher they share, and the members that have not failed."""

    members: list[Member]
    parts: Parts
    height: int
    width: int
    teacher: Teacher | None
    execution: Execution
    memo: Memo | None = None

    @property
    def alive(self) -> list[Member]:
        return [member for member in self.members if member.failure is None]

    def said(self, member: Member) -> tuple[Tensor | None, Tensor | None]:
        """What the member's teacher says of the validation and the test images; nothing where it has none."""
        if self.teacher is None or member.run.teacher is None:
            return None, None
        return self.teacher.val, self.teacher.test

    @property
    def recipe(self) -> Recipe:
        return self.members[0].run.recipe

    @property
    def seed(self) -> int:
        return self.members[0].run.seed

    @property
    def steps_an_epoch(self) -> int:
        return steps_per_epoch(len(self.parts.train.targets), self.recipe.batch_size)

    @property
    def block(self) -> int:
        """The images that the teacher is asked about at once, whatever a batch or the memo lacks."""
        return min(self.recipe.batch_size, len(self.parts.train.targets))

    @property
    def passes(self) -> list[Need]:
        """The passes for which the teacher is asked: the first, and those that a member, failed or not, reads of it."""
        return [which for which in STREAMS if not which or any(which in member.objective.needs.teacher for member in self.members)]

    @property
    def taught(self) -> Need:
        """The union of what the members read of the teacher."""
        need = Need.NOTHING
        for member in self.alive:
            need |= member.objective.needs.teacher
        return need

    @cached_property
    def targets(self) -> Tensor:
        """The labels of the training images, on the device."""
        return self.parts.train.targets.to(self.execution.device)

    def looks_of(self, epoch: int) -> dict[Need, Look]:
        """How every training sample looks in an epoch; once more, independently, for each other pass that is read."""
        samples = torch.arange(len(self.parts.train.targets))
        height, width = seen_shape(self.recipe.augment, self.height, self.width)
        mixes = draw_mixes(self.recipe, samples=len(samples), height=height, width=width, seed=self.seed, epoch=epoch)
        return {
            need: Look(
                partners(self.parts.train.targets, self.seed, epoch) if need is Need.PARTNER else samples,
                draw(
                    self.recipe.augment,
                    samples=len(samples),
                    height=self.height,
                    width=self.width,
                    seed=self.seed,
                    epoch=epoch,
                    stream=stream,
                ),
                mixes,
            )
            for need, stream in STREAMS.items()
            if not need or any(need in member.need for member in self.alive)
        }

    def batches_of(self, epoch: int, looks: Mapping[Need, Look], start: int) -> Iterator[tuple[Tensor, Seen]]:
        """The index tensors of an epoch's batches from number `start` on, each with the images of `shown_by`."""
        drawn = partial(batches, len(self.parts.train.targets), self.recipe.batch_size, self.seed, epoch, start)
        images = self.parts.train.images
        shown = {need: samples.to(images.device) for need, samples in shown_by(looks).items()}
        asked = (samples[index] for index in drawn(images.device) for samples in shown.values())
        with closing(fetch(images, asked, self.execution.device)) as fetched:
            for index in drawn(self.execution.device):
                yield index, {need: next(fetched) for need in shown}


STREAMS = {Need.NOTHING: "view", Need.SECOND_VIEW: "second view", Need.PARTNER: "partner view"}
"""the passes of a step and the random streams of their augmentation; Need.NOTHING is the first"""

Seen = dict[Need, Tensor]
"""the images of a batch for each pass"""


@dataclass(frozen=True)
class Look:
    """What a pass sees of an epoch: for every training sample the index of the one that is shown, how all look, and how
    they are mixed, which is the same for all passes; None where they are not."""

    samples: Tensor
    views: Views
    mixes: Mixes | None

    def to(self, device: torch.device) -> Look:
        return Look(self.samples.to(device), self.views.to(device), self.mixes and self.mixes.to(device))


def shown_by(looks: Mapping[Need, Look]) -> dict[Need, Tensor]:
    """The samples that each pass shows, without the second view's, which are those of the first pass."""
    return {need: look.samples for need, look in looks.items() if need is not Need.SECOND_VIEW}


def step(cohort: Cohort, index: Tensor, images: Seen, looks: Mapping[Need, Look], clock: Clock, page: Page | None = None) -> None:
    """One step of every member on one batch: the same views, one forward of the teacher or, with a page, what it remembers."""
    seen, batch = gather_batch(cohort, index, images, looks, clock)
    teacher = teach(cohort, seen) if page is None else recite(cohort, page, seen, clock)
    for member in cohort.alive:
        try:
            member.learn(member.losses(seen, teacher, batch), len(index), clock.steps)
        except Exception:  # one run's fault, whatever it is, is kept with its traceback and must not reach its neighbours
            member.fail()


def gather_batch(cohort: Cohort, index: Tensor, images: Seen, looks: Mapping[Need, Look], clock: Clock) -> tuple[Seen, Batch]:
    """The `images` of a batch as each pass augments and mixes them, and the batch itself; all is on the device."""
    seen: Seen = {need: changed(cohort, look, index, images.get(need, images[Need.NOTHING])) for need, look in looks.items()}
    targets, mixes = cohort.targets[index], looks[Need.NOTHING].mixes
    return seen, Batch(
        inputs=seen[Need.NOTHING],
        targets=targets,
        soft_targets=None if mixes is None else soft_targets(targets, mixes, index, cohort.parts.facts.classes),
        index=index,
        clock=clock,
        generator=torch.Generator(cohort.execution.device),
    )


def shown(cohort: Cohort, look: Look, index: Tensor) -> Tensor:
    """What a pass shows at the samples `index` (B,), which are a whole batch where images are mixed: (B, C, H, W) uint8."""
    samples = look.samples[index]
    return changed(cohort, look, index, images_at(cohort.parts.train.images, samples, cohort.execution.device))


def changed(cohort: Cohort, look: Look, index: Tensor, images: Tensor) -> Tensor:
    """The images of the samples `index` as a pass augments and mixes them."""
    seen = apply(images, look.views, look.samples[index], cohort.recipe.augment)
    return seen if look.mixes is None else mix(seen, look.mixes, index)


def images_at(images: Pixels, index: Tensor, device: torch.device) -> Tensor:
    """Images (B, C, H, W) uint8 that nobody has read ahead."""
    return next(fetch(images, [index.to(images.device)], device))


def teach(cohort: Cohort, seen: Seen) -> Outputs | None:
    """The living teacher's outputs for the union of what the members read; None where none reads any."""
    need = cohort.taught
    if cohort.teacher is None or not need:
        return None
    given = ask(cohort, need & ~PASSES, seen[Need.NOTHING])
    for other in PASSES & need:
        given = given.beside(other, ask(cohort, need & ~PASSES, seen[other]))
    return given


def recite(cohort: Cohort, page: Page, seen: Seen, clock: Clock) -> Outputs | None:
    """The same from the teacher's memo."""
    need = cohort.taught
    if cohort.teacher is None or not need:
        return None
    start = clock.step % cohort.steps_an_epoch * cohort.recipe.batch_size
    parts = cohort.teacher.network.parts(need)
    said = {
        which: Outputs(values | parts, owner="network").only(need & ~PASSES)
        for which, values in page.outputs(start, seen).items()
        if not which or which in need
    }
    given = said.pop(Need.NOTHING)
    for other, outputs_of in said.items():
        given = given.beside(other, outputs_of)
    return given


def open_memo(cohort: Cohort) -> Memo | str | None:
    """The memo of what the cohort's members read of their teacher; in words why there is none; None where none is wanted."""
    teacher, execution, recipe = cohort.teacher, cohort.execution, cohort.recipe
    need = cohort.taught
    if teacher is None or execution.memo == 0 or not need & memo.REMEMBERED:
        return None
    samples, views = len(cohort.parts.train.targets), view_count(recipe.augment) if finite(recipe) else None
    about: dict[str, Any] = {
        "teacher": teacher.identity,
        "data": cohort.parts.origin,
        "augment": recipe.augment.model_dump(mode="json"),
        "precision": recipe.precision,
        "block": cohort.block,
        **execution.arithmetic,
    }
    if views is None:
        views = recipe.epochs * len(cohort.passes)
        about |= {"seed": cohort.seed, "epochs": recipe.epochs, "passes": [str(which) for which in cohort.passes]}
        about |= {"mixing": (recipe.mixup, recipe.cutmix, recipe.mix_prob)} if recipe.mixes else {}
    images = images_at(cohort.parts.train.images, torch.arange(cohort.block), execution.device)
    given = ask(cohort, (need | memo.ALWAYS) & ~PASSES, center(images, recipe.augment))
    return memo.open_memo(
        about,
        teacher.name,
        memo.Column.of(given, need | memo.ALWAYS),
        need,
        samples=samples,
        views=views,
        block=cohort.block,
        device=execution.device,
        limit=execution.memo,
    )


def page_of(cohort: Cohort, epoch: int, looks: Mapping[Need, Look], first: int) -> Page | None:
    """What the cohort's memo has to say in an epoch, from step `first` of it on; None where there is none, or no longer."""
    kept = cohort.memo
    if kept is None:
        return None
    kept.refresh()
    drawn = order(len(cohort.parts.train.targets), cohort.seed, epoch)[: cohort.steps_an_epoch * cohort.recipe.batch_size]
    rows = {}
    for number, which in enumerate(cohort.passes):
        if which not in looks:
            continue
        samples = looks[which].samples[drawn]
        code = view_code(looks[which].views, cohort.recipe.augment) if finite(cohort.recipe) else None
        rows[which] = kept.rows(samples, epoch * len(cohort.passes) + number if code is None else code[samples])
    begin = first * cohort.recipe.batch_size
    page = Page(
        kept,
        rows,
        ask=lambda images: ask(cohort, kept.need, images),
        show=None if cohort.recipe.mixes else lambda which, positions: shown(cohort, looks[which], drawn[positions]),
        begin=begin,
    )
    if not kept.checked:
        kept.checked = True
        if page.differs(begin, shown(cohort, looks[Need.NOTHING], drawn[begin : begin + cohort.block])) > memo.TOLERANCE:
            kept.forget()
            cohort.memo = None
            return None
    return page


@torch.no_grad()
def ask(cohort: Cohort, need: Need, images: Tensor) -> Outputs:
    """What the teacher says of at most a block of images, contiguous.

    A short batch is filled up to a block, laid out anew: the last bits of an answer depend on how many images are asked
    about at once and on their strides, and an answer must be the same whether it is remembered or not.
    """
    assert cohort.teacher is not None
    block = images.new_empty((cohort.block, *images.shape[1:]))
    block[: len(images)] = images
    block[len(images) :] = images[-1]
    with autocast(cohort.recipe, cohort.execution.device):
        given: Outputs = cohort.teacher.network(block, need)
    return given.map(lambda tensor: tensor[: len(images)].contiguous())


def outputs(network: Network, seen: Seen, need: Need) -> Outputs:
    """One forward for each pass that is needed; contiguous, since losses may look at a map with `view`."""
    given: Outputs = network(seen[Need.NOTHING], need & ~PASSES)
    for other in PASSES & need:
        given = given.beside(other, network(seen[other], need & ~PASSES))
    return given.map(Tensor.contiguous)


def autocast(recipe: Recipe, device: torch.device) -> AbstractContextManager[object]:
    """The recipe's precision for a forward; losses are computed outside of it."""
    if recipe.precision == "float32":
        return nullcontext()
    return torch.autocast(device.type, dtype=getattr(torch, recipe.precision))


Emit = Callable[[dict[str, Any]], None]


def fit(cohort: Cohort, *, emit: Emit, stop: Callable[[], bool]) -> None:
    """Train the members, all standing at the same step, to the end of the recipe; write what each comes to.

    Raises Stopped, with every member checkpointed, when `stop` says so, and StoreError when results cannot be written.
    """
    steps = cohort.steps_an_epoch * cohort.recipe.epochs
    start = cohort.members[0].step
    told = start
    saved = time.monotonic()
    for epoch in range(start // cohort.steps_an_epoch, cohort.recipe.epochs):
        began = time.monotonic()
        looks = cohort.looks_of(epoch)
        first = max(start - epoch * cohort.steps_an_epoch, 0)
        page = page_of(cohort, epoch, looks, first)
        here = {need: look.to(cohort.execution.device) for need, look in looks.items()}
        ahead = cohort.batches_of(epoch, looks, first)
        for number, (index, images) in enumerate(ahead, start=epoch * cohort.steps_an_epoch + first):
            step(cohort, index, images, here, Clock(epoch, cohort.recipe.epochs, number, steps), page)
            if (number + 1) % FLUSH_STEPS == 0 or (number + 1) % cohort.steps_an_epoch == 0:
                drop_bad(cohort)
                ids = [member.run.id for member in cohort.alive]
                units = len(ids) * UNITS_AN_EPOCH * (number + 1 - told) / cohort.steps_an_epoch
                emit({"event": "step", "ids": ids, "epoch": epoch, "step": number + 1, "steps": steps, "units": units})
                told = number + 1
            if not cohort.alive:
                return
            if (number + 1) % cohort.steps_an_epoch != 0:  # an epoch's end is saved after its line is written
                began = share_time(cohort, began)
                saved = save_if_due(cohort, saved, stop)
        for member in cohort.alive:
            guarded(member, partial(close_epoch, cohort, member, epoch, emit))
        began = share_time(cohort, began)
        if epoch + 1 < cohort.recipe.epochs:
            saved = save_if_due(cohort, saved, stop)
    if cohort.memo is not None:
        cohort.memo.flush()
        emit({"event": "memo", **cohort.memo.report()})
    for member in cohort.alive:
        guarded(member, partial(finish, cohort, member))
    close_sinks(cohort)


def save_if_due(cohort: Cohort, saved: float, stop: Callable[[], bool]) -> float:
    """Checkpoint every member when the last time was long enough ago or training is to stop; when that was."""
    stopping = stop()
    if not stopping and time.monotonic() - saved <= cohort.execution.checkpoint_seconds:
        return saved
    for member in cohort.alive:
        member.checkpoint()
    if cohort.memo is not None:
        cohort.memo.flush()
    if stopping:
        close_sinks(cohort)
        raise Stopped("training was stopped; the same command goes on from here")
    return time.monotonic()


def close_sinks(cohort: Cohort) -> None:
    for member in cohort.alive:
        if member.sink is not None:
            member.sink.close()


def share_time(cohort: Cohort, began: float) -> float:
    """Add the time since `began` to the members, in equal shares; the time now."""
    now = time.monotonic()
    for member in cohort.alive:
        member.seconds += (now - began) / len(cohort.alive)
    return now


def guarded(member: Member, act: Callable[[], None]) -> None:
    """Do something of one member's; a failure is that member's alone, but for a store or data that all of them need."""
    try:
        act()
    except (StoreError, InputError):
        raise
    except Exception as error:  # kept with its traceback, as in `step`
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS):
            raise StoreError(f"cannot write below {member.folder.path}: {error.strerror}") from error
        member.fail()


def drop_bad(cohort: Cohort) -> None:
    """Fail the members whose loss has become no number."""
    for member in cohort.alive:
        guarded(member, member.tally.raise_if_bad)


@torch.no_grad()
def predict(network: nn.Module, subset: Subset, augment: Augment, device: torch.device) -> Tensor:
    """Log-probabilities of a network in evaluation mode, (N, K) float32 on the CPU, in the order of the subset.

    `network` is anything with `logits(images)`.
    """
    training = network.training
    network.eval()
    chunks = []
    indices = torch.split(torch.arange(len(subset.targets), device=subset.images.device), EVALUATION_BATCH)
    for images in fetch(subset.images, indices, device):
        logits: Tensor = network.logits(center(images, augment))  # type: ignore[operator]
        chunks.append(logits.float().log_softmax(1).cpu())
    network.train(training)
    return torch.cat(chunks)


def write_predictions(folder: RunFolder, parts: Parts, val: Tensor | None, test: Tensor) -> None:
    """Keep the last epoch's log-probabilities in float16 with their targets."""
    arrays = {"test": test.half().numpy(), "test_targets": parts.test.targets.numpy()}
    if val is not None and parts.val is not None:
        arrays |= {"val": val.half().numpy(), "val_targets": parts.val.targets.numpy()}
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **cast(Any, arrays))
    write_bytes(folder.predictions, buffer.getvalue())


def better(metrics: Metrics, than: Metrics) -> bool:
    """Higher top-1, then lower NLL; an equal epoch is no better than an earlier one."""
    return (metrics["top1"], -(metrics["nll"] or 0)) > (than["top1"], -(than["nll"] or 0))


def now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def copied(module: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().cpu().clone() for name, value in module.state_dict().items()}


def close_epoch(cohort: Cohort, member: Member, epoch: int, emit: Emit) -> None:
    """Evaluate on validation, keep the best epoch, write the epoch's line."""
    val_said, test_said = cohort.said(member)
    val = None
    if cohort.parts.val is not None:
        val = measure(look(cohort, member, cohort.parts.val), cohort.parts.val.targets, val_said)
        if member.best is None or better(val, member.best["val"]):
            member.best = {"epoch": epoch + 1, "val": val, "state": copied(member.shipped)}
    if cohort.execution.oracle:
        test = measure(look(cohort, member, cohort.parts.test), cohort.parts.test.targets, test_said)
        if member.oracle is None or better(test, member.oracle["test"]):
            member.oracle = {"epoch": epoch + 1, "test": test}
    means = member.tally.means()
    member.train_loss = means.pop("loss")
    member.tally = Tally()
    if member.sink is not None:
        member.sink.epoch(
            {
                "epoch": epoch + 1,
                "step": member.step,
                "loss": member.train_loss,
                "parts": means,
                "lr": member.optimizer.param_groups[0]["lr"],
                "val": val,
                "seconds": round(member.seconds, 3),
            }
        )
    emit({"event": "epoch", "id": member.run.id, "epoch": epoch + 1, "loss": member.train_loss, "val_top1": val and val["top1"]})


def look(cohort: Cohort, member: Member, subset: Subset) -> Tensor:
    """The log-probabilities of a member's student on a part of the data."""
    return predict(member.shipped, subset, cohort.recipe.augment, cohort.execution.device)


def finish(cohort: Cohort, member: Member) -> None:
    """Evaluate the last and the best epoch on the test set, write predictions, weights and, last of all, the result."""
    parts, keep = cohort.parts, cohort.execution.keep
    val_said, test_said = cohort.said(member)
    test = look(cohort, member, parts.test)
    val = None if parts.val is None else look(cohort, member, parts.val)
    last = {
        "epoch": cohort.recipe.epochs,
        "val": None if val is None or parts.val is None else measure(val, parts.val.targets, val_said),
        "test": measure(test, parts.test.targets, test_said),
    }
    if "predictions" in keep:
        write_predictions(member.folder, parts, val, test)
    if member.run.kind == "pretrain":
        member.checkpoint()
    if "student" in keep:
        spec = member.run.student
        about = {"architecture": spec.name, "classes": str(spec.classes), "run": member.run.id}
        shipped = member.shipped
        save_student(member.evaluated, member.folder.student, about, shipped.module if isinstance(shipped, Deployed) else None)
    result = {
        "id": member.run.id,
        "status": "done",
        "last": last,
        "best": best_epoch(cohort, member, last),
        "oracle": member.oracle if cohort.execution.oracle else None,
        "train": {"loss": member.train_loss, "steps": member.step, "samples": len(parts.train.targets)},
        "teacher": cohort.teacher.record() if cohort.teacher and member.run.teacher else None,
        "student": {"name": member.run.student.name, "parameters": member.size.parameters, "macs": member.size.macs},
        "cost": member.cost,
        "memo": cohort.memo.report() if cohort.memo and member.run.teacher else None,
        "environment": environment(cohort.execution.device, cohort.execution.threads),
        "started": member.started,
        "finished": now(),
        "seconds": round(member.seconds, 3),
    }
    member.folder.finish(result)
    if member.sink is not None:
        member.sink.finish(result)
    if "checkpoint" not in keep:
        member.folder.checkpoint.unlink(missing_ok=True)


def best_epoch(cohort: Cohort, member: Member, last: Mapping[str, Any]) -> dict[str, Any] | None:
    """The epoch that was best on validation, measured on the test set; the student's weights become those of that epoch."""
    if member.best is None:
        return None
    test = last["test"]
    if member.best["epoch"] != last["epoch"]:
        member.shipped.load_state_dict(member.best["state"])
        test = measure(look(cohort, member, cohort.parts.test), cohort.parts.test.targets, cohort.said(member)[1])
    return {"epoch": member.best["epoch"], "val": member.best["val"], "test": test}
