"""One run of a cohort: its student, its objective, its optimiser, and where it stands."""

from __future__ import annotations

import io
import sys
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, cast

import torch
from torch import Tensor, nn

from kdzoo.contract import guard
from kdzoo.contract.batch import Batch, Losses
from kdzoo.contract.needs import Need, NetworkNeeds
from kdzoo.contract.objective import Objective
from kdzoo.contract.outputs import Outputs, with_passes
from kdzoo.data.epoch import Inputs
from kdzoo.errors import InputError
from kdzoo.models.measure import NetworkCost
from kdzoo.models.network import Network
from kdzoo.models.placement import Placement, autocast
from kdzoo.runs.loggers import Logger
from kdzoo.runs.seals import Damaged, read_sealed, write_sealed
from kdzoo.runs.spec import Run
from kdzoo.runs.store import RunFolder, in_loss_of
from kdzoo.seeds import global_stream
from kdzoo.text import first_line
from kdzoo.training.dot import DOT
from kdzoo.training.optim import Skipped, learning_rate, moving_average, optimizer
from kdzoo.training.regularise import learning_networks, limit_norms, limited_weights, set_dropout

TOTAL = "loss"
"""the name of the sum that is minimised, beside those of its parts"""
NEVER = torch.iinfo(torch.int64).max
"""the step at which a number that has always been finite became NaN or infinite"""


@dataclass(frozen=True)
class BadLoss:
    """The first step at which a loss was NaN or infinite, and which of its parts were; none where only their weighted sum was."""

    step: int
    parts: tuple[str, ...]
    whole: bool
    """whether all parts were: then it is no single term's doing"""

    def __str__(self) -> str:
        where = ", ".join(self.parts) or "none of its parts alone, but in their weighted sum"
        return f"the loss became NaN or infinite at step {self.step}, in {'all its parts: ' if self.whole else ''}{where}"


@dataclass
class Tally:
    """Sums over the steps of an epoch, kept on the device.

    bad: for the loss and its parts, in the order of these names, the first step at which each was NaN or infinite.
    """

    sums: dict[str, Tensor] = field(default_factory=dict)
    samples: int = 0
    bad: dict[tuple[str, ...], Tensor] = field(default_factory=dict)

    def add(self, losses: Losses, samples: int, step: int) -> None:
        for name, value in {TOTAL: losses.total, **losses.parts}.items():
            addend = value.detach().double() * samples
            self.sums[name] = self.sums[name] + addend if name in self.sums else addend
        self.samples += samples
        names, values = (TOTAL, *losses.parts), torch.stack([losses.total.detach(), *(part.detach() for part in losses.parts.values())])
        here = torch.where(torch.isfinite(values), NEVER, step)
        self.bad[names] = torch.minimum(self.bad[names], here) if names in self.bad else here

    def first_bad(self) -> BadLoss | None:
        """Where the loss first was NaN or infinite since the epoch began; waits for the device."""
        steps = [dict(zip(names, map(int, bad.tolist()), strict=True)) for names, bad in self.bad.items()]
        first = min(steps, key=lambda one: one[TOTAL], default=None)
        if first is None or first[TOTAL] == NEVER:
            return None
        parts = tuple(name for name, step in first.items() if name != TOTAL and step <= first[TOTAL])
        return BadLoss(first[TOTAL], parts, len(parts) == len(first) - 1 > 1)

    def means(self) -> dict[str, float]:
        return {name: float(total) / max(self.samples, 1) for name, total in self.sums.items()}


class Member:
    """One run of a cohort: its student, its objective, its optimiser, and where it stands.

    teacher_weights: the digest of its teacher's weights, which a checkpoint is bound to; None where nobody teaches it.
    """

    def __init__(
        self,
        run: Run,
        folder: RunFolder,
        network: Network,
        size: NetworkCost,
        objective: Objective,
        execution: Placement,
        teacher_weights: str | None = None,
    ) -> None:
        self.run = run
        self.folder = folder
        self.teacher_weights = teacher_weights
        self.size = size
        self.network = execution.place(network, run.recipe.precision)
        self.objective = objective.to(execution.device)
        for peer in (part for part in self.objective.modules() if isinstance(part, Network)):
            execution.place(peer, run.recipe.precision)
        if run.recipe.learns == "head":
            only_head(self.network)
        self.device = execution.device
        self.optimizer = optimizer(run.recipe, self.network, self.objective.groups())
        self.scaler = torch.amp.GradScaler(execution.device.type, enabled=run.recipe.precision == "float16")
        self.skipped = Skipped(self.optimizer) if self.scaler.is_enabled() else None
        self.average = moving_average(run.recipe, self.network)
        self.learners = learning_networks(self.network, self.objective)
        self.limited = [] if run.recipe.max_norm is None else limited_weights(self.learners)
        self.needs = objective.needs.student | Need.LOGITS
        self.tally = Tally()
        self.train_loss: float | None = None
        self.step = 0
        self.seconds = 0.0
        self.started = now()
        self.best: dict[str, Any] | None = None
        self.oracle: dict[str, Any] | None = None
        self.oracle_epochs = 0  # at the end of how many epochs the test images were looked at
        self.cost: dict[str, Any] | None = None
        self.logger: Logger | None = None
        self.failure: str | None = None

    def losses(self, inputs: Inputs, teacher: Outputs | None, batch: Batch) -> Losses:
        """Forward of the student and of the objective for one batch."""
        self.network.train(self.run.recipe.learns == "all")
        self.objective.train()
        set_dropout(self.run.recipe, batch.clock.epoch, self.learners)
        with global_stream(self.run.seed, "layers", batch.clock.step, device=self.device), autocast(self.run.recipe, self.device):
            student = outputs(self.network, inputs, self.needs)
        return self.objective(student, teacher, batch)  # type: ignore[no-any-return]

    def learn(self, losses: Losses, samples: int, steps: int) -> None:
        """Backward, and what follows it."""
        if isinstance(self.optimizer, DOT):
            self.optimizer.backward(losses.task, losses.distilled)
        else:
            self.scaler.scale(losses.total).backward()  # type: ignore[no-untyped-call]
        self.update(losses, samples, steps)

    def update(self, losses: Losses, samples: int, steps: int) -> None:
        """Optimiser, max-norm, moving average, and the sums of the epoch, once the gradients are there.

        A step whose gradients overflow in float16 moves no weight and no momentum. It counts for the schedule, the sums and
        the average all the same: they are functions of the step alone, whatever a run's numbers.
        """
        recipe = self.run.recipe
        for group in self.optimizer.param_groups:
            group["lr"] = group["lr_factor"] * learning_rate(recipe, self.step, steps)
        if recipe.clip is not None:
            self.scaler.unscale_(self.optimizer)
            torch.nn.utils.clip_grad_norm_([p for group in self.optimizer.param_groups for p in group["params"]], recipe.clip)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        if recipe.max_norm is not None:
            limit_norms(self.limited, recipe.max_norm)
        self.optimizer.zero_grad(set_to_none=True)
        if self.average is not None:
            self.average.update_parameters(self.network)
        self.tally.add(losses, samples, self.step)
        self.step += 1

    @contextmanager
    def apart(self, before: tuple[Any, ...]) -> Iterator[None]:
        """A part of a step whose fault, whatever it is, is kept with its traceback and does not reach the run's neighbours.

        Global settings that the block leaves other than `before` are such a fault, and are put back.
        """
        try:
            try:
                yield
            except BaseException:
                guard.put_back(before)
                raise
            guard.refuse(f"the network of {self.run.id}, or the backward of its loss,", guard.put_back(before))
        except (Exception, SystemExit):
            self.fail()

    def fail(self) -> None:
        """Keep the exception that is being handled, and leave the cohort.

        A run whose numbers are none is not gone on with: a checkpoint of it may hold what makes it fail, which nothing
        shows before the loss does.
        """
        term = self.objective.failed_term
        self._fail(("" if term is None else in_loss_of(term)) + traceback.format_exc())
        if isinstance(sys.exception(), FloatingPointError):
            self.folder.checkpoint.unlink(missing_ok=True)

    def fail_if_bad(self) -> None:
        """Leave the cohort where the loss is NaN or infinite, and keep at which step, in which part, and where that is defined.

        No traceback has the method: when the number is looked at, its step is long over. The checkpoint goes, since it
        may hold what makes the run fail.
        """
        bad = self.tally.first_bad()
        if bad is None:
            return
        places = [] if bad.whole else [place.rpartition(":") for place in self.objective.places_of(bad.parts)]
        frames = [f'  File "{file}", line {line}\n' for file, _, line in places if line.isdecimal()]
        self._fail(f"{''.join(frames)}FloatingPointError: {bad}\n")
        self.folder.checkpoint.unlink(missing_ok=True)

    def _fail(self, failure: str) -> None:
        self.failure = failure
        self.folder.fail(self.failure)
        if self.logger is not None:
            self.logger.fail(self.failure)
            self.logger.close()

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
            "teacher_weights": self.teacher_weights,
            "step": self.step,
            "network": {name: value.clone() for name, value in self.network.state_dict().items()},  # of a stack its part alone
            "objective": self.objective.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "skipped": 0 if self.skipped is None else self.skipped.steps,
            "average": None if self.average is None else self.average.state_dict(),
            "train_loss": self.train_loss,
            "tally": (self.tally.sums, self.tally.samples, None),  # a run whose loss is NaN or infinite gets no checkpoint
            "best": self.best,
            "oracle": self.oracle,
            "oracle_epochs": self.oracle_epochs,
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
        if self.skipped is not None:
            self.skipped.steps = state.get("skipped", 0)  # checkpoints of earlier versions do not count them
        if self.average is not None:
            self.average.load_state_dict(state["average"])
        self.train_loss = state["train_loss"]
        sums, samples, _ = state["tally"]
        self.tally = Tally(dict(sums), samples)
        self.best, self.oracle, self.cost = state["best"], state["oracle"], state["cost"]
        self.oracle_epochs = state.get("oracle_epochs", 0)  # checkpoints of earlier versions do not count them
        self.seconds, self.started = state["seconds"], state["started"]

    def refuse_bad_weights(self) -> None:
        """Raises FloatingPointError where a parameter of the student or of the objective is NaN or infinite."""
        named = [*self.network.named_parameters(prefix="student"), *self.objective.named_parameters(prefix="objective")]
        bad = [name for name, value in named if value.requires_grad and not bool(torch.isfinite(value).all())]
        if bad:
            raise FloatingPointError(f"after step {self.step}: {len(bad)} weights are NaN or infinite, the first is {bad[0]}")

    def checkpoint(self) -> None:
        """Write the state, whole or not at all; raises FloatingPointError for one that nothing can come of."""
        self.refuse_bad_weights()
        buffer = io.BytesIO()
        torch.save(self.state(), buffer)
        write_sealed(self.folder.checkpoint, buffer.getvalue(), self.run.id)

    def resume(self) -> None:
        """Take up the checkpoint of the run's folder.

        Raises Damaged for one that cannot be resumed, or whose teacher has been trained again since; the member is
        then no longer fresh, and worth nothing.
        """
        state = read_checkpoint(self.folder, self.device)
        before = state.get("teacher_weights")  # checkpoints of earlier versions do not say
        if before is not None and self.teacher_weights is not None and before != self.teacher_weights:
            raise Damaged(f"{self.folder.checkpoint}: its teacher has been trained again and has other weights now")
        try:
            self.load(state)
            self.refuse_bad_weights()
        except Exception as error:  # a whole file that does not fit: what a method's module is made of has changed, or torch
            raise Damaged(f"{self.folder.checkpoint}: cannot be resumed ({_first_line(error)})") from error


def only_head(network: Network) -> None:
    """Let the classifier alone learn; raises InputError for a network whose classifier is not a module of its own."""
    parameters = list(network.classifier.parameters())
    if not parameters:
        raise InputError("recipe.learns: 'head' needs a network whose classifier is a layer of its own; take 'all'")
    network.requires_grad_(False)
    for parameter in parameters:
        parameter.requires_grad_(True)


def read_checkpoint(folder: RunFolder, device: torch.device) -> dict[str, Any]:
    """The state that a run's checkpoint holds; raises Damaged where it is not what this very run wrote."""
    content = read_sealed(folder.checkpoint, folder.id)
    try:
        return cast(dict[str, Any], torch.load(io.BytesIO(content), map_location=device, weights_only=True))
    except Exception as error:  # torch.load raises almost anything
        raise Damaged(f"{folder.checkpoint}: not the checkpoint of a run ({_first_line(error)})") from error


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {first_line(error)}"


def outputs(network: Network, inputs: Inputs, needs: NetworkNeeds) -> Outputs:
    """One forward for each pass that is read; contiguous, since losses may look at a map with `view`.

    Where the network itself is read, maps are those that the class scores were computed from, for gradients between them.
    """
    merged = with_passes({which: network(inputs[which], needs.outputs) for which in needs.passes})
    return merged if Need.NETWORK in needs else merged.map(Tensor.contiguous)


def now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
