"""One run of a cohort: its student, its objective, its optimiser, and where it stands."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, cast

import torch
from torch import Tensor, nn

from kdzoo.contract import guard
from kdzoo.contract.batch import Batch, Losses, Progress
from kdzoo.contract.needs import Need
from kdzoo.contract.objective import Objective
from kdzoo.contract.outputs import Outputs
from kdzoo.contract.settings import put_back
from kdzoo.contract.step_values import DeviceNumber
from kdzoo.data.epoch import Inputs
from kdzoo.errors import InputError
from kdzoo.models.forward import outputs
from kdzoo.models.measure import NetworkCost
from kdzoo.models.network import Network
from kdzoo.models.placement import Placement, autocast
from kdzoo.runs.failure import failure_text
from kdzoo.runs.loggers import Logger
from kdzoo.runs.spec import Run
from kdzoo.runs.store import RunFolder
from kdzoo.seeds import global_stream
from kdzoo.text import first_line
from kdzoo.training.dot import DOT
from kdzoo.training.optim import SkippedSteps, learning_rate, moving_average, optimizer
from kdzoo.training.processes import Processes, ProcessesBroken, is_of_group
from kdzoo.training.regularise import learning_networks, limit_norms, limited_weights, set_dropout
from kdzoo.training.tally import Tally


@dataclass(frozen=True)
class StepInputs:
    """What a step is computed from: the images of each pass, the teacher's outputs for them, and the batch.

    size: the samples of the whole batch, of which other processes may have a part.
    """

    inputs: Inputs
    teacher: Outputs | None
    batch: Batch
    size: int


@dataclass(frozen=True)
class StepNumbers:
    """The rate of every group of parameters and the number of the step, on the device."""

    rates: tuple[DeviceNumber, ...]
    step: DeviceNumber


class Member:
    """One run of a cohort: its student, its objective, its optimiser, and where it stands.

    diverged: whether a number made it fail, which is the same in all processes that train it. teacher_weights: the digest of its
    teacher's weights, which a checkpoint is bound to; None where nobody teaches it.
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
        self.skipped = SkippedSteps(self.optimizer) if self.scaler.is_enabled() else None
        self.average = moving_average(run.recipe, self.network)
        self.learners = learning_networks(self.network, self.objective)
        self.limited = [] if run.recipe.max_norm is None else limited_weights(self.learners)
        self.needs = objective.needs.student | Need.LOGITS
        self.tally = Tally()
        self.train_loss: float | None = None
        self.step = 0
        self.rate = 0.0
        """the learning rate of the last step, of the first group of parameters"""
        self.numbers: StepNumbers | None = None
        """where what changes from step to step lies, where steps are recorded (`prepare_recording`)"""
        self.seconds = 0.0
        self.started = now()
        self.best: dict[str, Any] | None = None
        self.oracle: dict[str, Any] | None = None
        self.oracle_epochs = 0  # at the end of how many epochs the test images were looked at
        self.cost: dict[str, Any] | None = None
        self.logger: Logger | None = None
        self.failure: str | None = None
        self.diverged = False
        self.processes: Processes | None = None
        self.sharded: nn.Module | None = None

    @property
    def active(self) -> list[Member]:
        """This member, unless it has failed."""
        return [self] if self.failure is None else []

    def losses(self, inputs: Inputs, teacher: Outputs | None, batch: Batch, size: int) -> Losses:
        """Forward of the student and of the objective for one batch of `size` samples, of which other processes may have a part."""
        self.network.train(self.run.recipe.learns == "all")
        self.objective.train()
        set_dropout(self.run.recipe, batch.clock, self.learners)
        if self.sharded is not None:
            return self.sharded(inputs, teacher, batch, size)  # type: ignore[no-any-return]
        return self.objective(self.forward(inputs, batch), teacher, batch)  # type: ignore[no-any-return]

    def forward(self, inputs: Inputs, batch: Batch, *shard: int) -> Outputs:
        """Forward of the student. shard: the process, where each draws for its own part of the batch."""
        # What is recorded can seed nothing: who replays it does.
        own_stream = self.layer_stream(batch.clock.step, *shard) if self.numbers is None else nullcontext()
        with own_stream, autocast(self.run.recipe, self.device):
            return outputs(self.network, inputs, self.needs)

    def layer_stream(self, step: int, *shard: int) -> AbstractContextManager[None]:
        """A block in which the student's layers draw from their random stream of a step."""
        return global_stream(self.run.seed, "layers", step, *filter(None, shard), device=self.device)

    def share(self, processes: Processes) -> None:
        """Train together with other processes, in which the same member is in the same state."""
        self.processes, self.sharded = processes, processes.wrap(self.network, self.objective, self.forward)

    def learn(self, losses: Losses, samples: int, steps: int) -> None:
        """A step, once its losses are there. steps: of the whole training."""
        self.set_rates(steps)
        self.descend(losses, samples)
        self.end_step(samples)

    def begin_step(self, clock: Progress) -> None:
        """Set all that the host decides of a step: rates, factors, random streams."""
        self.set_rates(clock.steps)
        self.objective.set_step(clock)

    def compute_step(self, step_inputs: StepInputs) -> None:
        """All that the device does in a step; of the host's numbers it reads those alone that `begin_step` sets and the clock's."""
        self.descend(self.losses(step_inputs.inputs, step_inputs.teacher, step_inputs.batch, step_inputs.size), step_inputs.size)

    def set_rates(self, steps: int) -> None:
        """Set the learning rate of the next step."""
        rate = learning_rate(self.run.recipe, self.step, steps)
        rates = [group["lr_factor"] * rate for group in self.optimizer.param_groups]
        self.rate = rates[0]
        if self.numbers is None:
            for group, own in zip(self.optimizer.param_groups, rates, strict=True):
                group["lr"] = own
            return
        self.numbers.step.set(self.step)
        for number, own in zip(self.numbers.rates, rates, strict=True):
            number.set(own)

    def descend(self, losses: Losses, samples: int) -> None:
        """Backward, then `update`."""
        if isinstance(self.optimizer, DOT):
            self.optimizer.backward(losses.task, losses.distillation)
        else:
            self.scaler.scale(losses.total).backward()  # type: ignore[no-untyped-call]
        self.update(losses, samples)

    def update(self, losses: Losses, samples: int) -> None:
        """Optimiser, max-norm and the sums of the epoch, once the gradients are there.

        A step whose gradients overflow in float16 moves no weight and no momentum. It counts for the schedule, the sums and
        the average all the same: they are functions of the step alone, whatever a run's numbers.
        """
        recipe = self.run.recipe
        if recipe.clip is not None:
            self.scaler.unscale_(self.optimizer)
            torch.nn.utils.clip_grad_norm_([p for group in self.optimizer.param_groups for p in group["params"]], recipe.clip)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        if recipe.max_norm is not None:
            limit_norms(self.limited, recipe.max_norm)
        self.optimizer.zero_grad(set_to_none=True)
        joint = losses if self.processes is None else self.processes.mean(losses)
        self.tally.add(joint, samples, self.step if self.numbers is None else self.numbers.step.tensor)

    def compute_unguarded(self, step_inputs: StepInputs) -> None:
        """The same: what a step raises is dealt with by its caller."""
        self.compute_step(step_inputs)

    def clear_gradients(self) -> None:
        """Forget what a backward that was broken off has left."""
        self.optimizer.zero_grad(set_to_none=True)

    def end_step(self, samples: int) -> None:
        """The moving average, and what the host counts."""
        if self.average is not None:
            self.average.update_parameters(self.network)
        self.tally.count(samples)
        self.step += 1

    def prepare_recording(self) -> None:
        """From now on keep what changes from step to step on the device, at places that stay, so that a step can be recorded."""
        groups = self.optimizer.param_groups
        self.numbers = StepNumbers(
            tuple(DeviceNumber(self.device, torch.float32) for _ in groups),  # which fused optimisers take
            DeviceNumber(self.device, torch.int64),
        )
        for group, number in zip(groups, self.numbers.rates, strict=True):
            group["lr"] = number.tensor
            if "capturable" in group:
                group["capturable"] = self.device.type == "cuda"
        self.objective.prepare_recording(self.device)

    def begin_epoch(self) -> None:
        """Begin the next epoch's sums."""
        if self.numbers is None:
            self.tally = Tally()
        else:
            self.tally.clear()

    @contextmanager
    def isolate_failure(self, before: tuple[Any, ...]) -> Iterator[None]:
        """A block, part of a step, in which any exception fails this run alone and is kept with its traceback.

        Global settings that the block leaves other than `before` are put back, and fail the run as well.
        """
        try:
            try:
                yield
            except BaseException:
                put_back(before)
                raise
            guard.refuse(f"the network of {self.run.id}, or the backward of its loss,", put_back(before))
        except (Exception, SystemExit) as error:
            if is_of_group(error):
                raise ProcessesBroken(f"{self.run.id}: another process that trains it is gone ({first_line(error)})") from error
            self.fail()

    def fail(self) -> None:
        """Keep the exception that is being handled, and leave the cohort.

        A run with a NaN or infinite loss is not resumed: its checkpoint may hold what makes it fail, though no weight in it
        is NaN or infinite.
        """
        self.diverged = isinstance(sys.exception(), FloatingPointError)
        self._fail(failure_text(traceback.format_exc(), self.objective.failed_term))
        if self.diverged:
            self.folder.checkpoint.unlink(missing_ok=True)

    def fail_if_nonfinite(self) -> None:
        """Drop out of the cohort where the loss is NaN or infinite; records the step, the part of the loss and where it is defined.

        No traceback has the method: when the number is looked at, its step is long over. The checkpoint goes, since it
        may hold what makes the run fail.
        """
        bad = self.tally.first_nonfinite()
        if bad is None:
            return
        places = [] if bad.whole else [place.rpartition(":") for place in self.objective.places_of(bad.parts)]
        frames = [f'  File "{file}", line {line}\n' for file, _, line in places if line.isdecimal()]
        self.diverged = True
        self._fail(f"{''.join(frames)}FloatingPointError: {bad}\n")
        self.folder.checkpoint.unlink(missing_ok=True)

    def _fail(self, failure: str) -> None:
        self.failure = failure
        if self.processes is None or self.folder.state() != "failed":  # what failed first made the other processes fail
            self.folder.fail(self.failure)
        if self.logger is not None:
            self.logger.fail(self.failure)
            self.logger.close()

    @property
    def eval_network(self) -> Network:
        """The trained network that counts: the moving average where the recipe has one."""
        return self.network if self.average is None else cast(Network, self.average.module)

    @property
    def deployed(self) -> nn.Module:
        """What is measured and kept: the network, or what its method makes of it."""
        return self.objective.deployed(self.eval_network)

    def start_from(self, weights: Mapping[str, Tensor]) -> None:
        """Give a member that has not trained yet other weights to start from."""
        self.network.load_state_dict(weights)
        self.average = moving_average(self.run.recipe, self.network)


def only_head(network: Network) -> None:
    """Let the classifier alone learn; raises InputError for a network whose classifier is not a module of its own."""
    parameters = list(network.classifier.parameters())
    if not parameters:
        raise InputError("recipe.learns: 'head' needs a network whose classifier is a layer of its own; take 'all'")
    network.requires_grad_(False)
    for parameter in parameters:
        parameter.requires_grad_(True)


def now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
