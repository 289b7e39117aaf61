"""What ends an epoch and a run: evaluation, the epoch's line, predictions, weights and the result."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from kdzoo.contract.objective import Deployed
from kdzoo.data.dataset import Subset
from kdzoo.data.split import Splits, labelled_subset
from kdzoo.models.kernels import kernels_of
from kdzoo.models.predict import predict
from kdzoo.models.weights import save_student
from kdzoo.runs.about import names_of_scores
from kdzoo.runs.environment import environment
from kdzoo.runs.events import Emit, Note
from kdzoo.runs.predictions import Predictions, write_predictions
from kdzoo.runs.seals import OWNER
from kdzoo.runs.store import RunFolder, is_teacher
from kdzoo.tasks.classification import CLASSIFICATION
from kdzoo.tasks.multitask import slices_of
from kdzoo.training.checkpoint import refuse_nonfinite_weights, write_checkpoint
from kdzoo.training.cohort import Cohort
from kdzoo.training.member import Member, now


def close_epoch(cohort: Cohort, member: Member, epoch: int) -> None:
    """Evaluate on validation, keep the best epoch, write the epoch's line."""
    teacher_val, teacher_test = cohort.teacher_predictions(member)
    task, val = cohort.splits.task, None
    if cohort.splits.val is not None:
        val = task.measure(predict_part(cohort, member, cohort.splits.val), cohort.splits.val.targets, teacher_val)
        if member.best is None or task.better(val, member.best["val"]):
            member.best = {"epoch": epoch + 1, "val": val, "state": copy_state(member.deployed)}
    if cohort.execution.options.oracle:
        test = task.measure(predict_part(cohort, member, cohort.splits.test), cohort.splits.test.targets, teacher_test)
        member.oracle_epochs += 1
        if member.oracle is None or task.better(test, member.oracle["test"]):
            member.oracle = {"epoch": epoch + 1, "test": test}
    means = member.tally.means()
    member.train_loss = means.pop("loss")
    member.begin_epoch()
    if member.logger is not None:
        member.folder.check_claim()
        member.logger.epoch(
            {
                "epoch": epoch + 1,
                "step": member.step,
                "loss": member.train_loss,
                "parts": means,
                "lr": member.rate,
                "val": val,
                "seconds": round(member.seconds, 3),
                **skipped_steps(member),
            }
        )


def pause(cohort: Cohort, member: Member) -> None:
    """Leave a member where it stands, with a checkpoint from which it may go on; nothing is evaluated on the test set."""
    refuse_nonfinite_weights(member)
    if cohort.writes:
        write_checkpoint(member)
        member.folder.pause(member.step // cohort.steps_an_epoch, cohort.recipe.epochs)


def finish(cohort: Cohort, member: Member, emit: Emit) -> None:
    """Evaluate the last and the best epoch on the test set, write predictions, weights and, last of all, the result.

    Raises FloatingPointError where every step was skipped, so that nothing was learnt.
    """
    if skipped_steps(member).get("skipped_steps", -1) == member.step:
        raise FloatingPointError(f"the gradients of all {member.step} steps overflowed in float16: nothing was learned; use bfloat16")
    drop_average_at_chance(cohort, member, emit)
    splits, options = cohort.splits, cohort.execution.options
    teacher_val, teacher_test = cohort.teacher_predictions(member)
    test = predict_part(cohort, member, splits.test)
    val = None if splits.val is None else predict_part(cohort, member, splits.val)
    last = {
        "epoch": cohort.recipe.epochs,
        "val": None if val is None or splits.val is None else splits.task.measure(val, splits.val.targets, teacher_val),
        "test": {**splits.task.measure(test, splits.test.targets, teacher_test), **splits.task.by_class(test, splits.test.targets)},
    }
    best = best_epoch(cohort, member, last)
    oracle = best_on_test(cohort, member, emit) if options.oracle else None
    if not cohort.writes:
        return
    member.folder.check_claim()
    if "predictions" in options.keep:
        write_predictions(member.folder.predictions, predictions_of(splits, val, test), member.run.id)
    if member.run.kind == "pretrain":
        write_checkpoint(member)  # what the second stage starts from
    if "student" in options.keep:
        deployed = member.deployed
        module = deployed.module if isinstance(deployed, Deployed) else None
        save_student(member.eval_network, member.folder.student, student_metadata(member.folder), module)
    result = {
        **({} if splits.task is CLASSIFICATION else {"task": splits.task.name}),
        "id": member.run.id,
        "status": "done",
        "last": last,
        "best": best,
        "oracle": oracle,
        "average": member.average is not None if cohort.recipe.ema is not None else None,
        "train": {"loss": member.train_loss, "steps": member.step, "samples": len(splits.train.targets), "skipped_steps": None}
        | skipped_steps(member),
        "teacher": cohort.teacher.record() if cohort.teacher and member.run.teacher else None,
        "student": {"name": member.run.student.name, "parameters": member.size.parameters, "macs": member.size.macs},
        "cost": member.cost,
        "teacher_cache": cohort.teacher_cache.report() if cohort.teacher_cache and member.run.teacher else None,
        "environment": {
            **environment(cohort.execution.device, options.threads),
            "compile": options.compile,
            "graphs": None if cohort.graphs is None else cohort.graphs.records(member),
            **kernels_of(cohort.execution.device),
            "processes": None if cohort.processes is None else cohort.shard.count,
        },
        "started": member.started,
        "finished": now(),
        "seconds": round(member.seconds, 3),
    }
    record = member.folder.finish(result)
    if member.logger is not None:
        member.logger.finish(record)
    if "checkpoint" not in options.keep:
        member.folder.checkpoint.unlink(missing_ok=True)


def student_metadata(folder: RunFolder) -> dict[str, str]:
    """What the weights of a run's student say of themselves."""
    run, about = folder.read_plan()
    names = names_of_scores(about)
    return {"architecture": run.student.name, "classes": str(run.student.classes), OWNER: run.id} | (
        {"class_names": json.dumps(names)} if names else {}
    )


def skipped_steps(member: Member) -> dict[str, int]:
    """For float16, how many steps were skipped until now since their gradients overflowed."""
    return {} if member.skipped is None else {"skipped_steps": int(member.skipped.steps)}


def drop_average_at_chance(cohort: Cohort, member: Member, emit: Emit) -> None:
    """Drop the moving average of a teacher's weights where that is at chance and the weights themselves are above it.

    Measured on the validation images where these can tell, else on training images. Of teachers alone: students are all
    measured by one rule, their recipe's, or their ranks would mean nothing.
    """
    if member.average is None or not is_teacher(member.folder):
        return
    part, against_chance = cohort.splits.val, cohort.splits.task.against_chance
    verdict = None if part is None else against_chance(predict_part(cohort, member, part), part.targets)
    if verdict is None or part is None or not (verdict.above or verdict.tells):
        part = labelled_subset(cohort.splits)
        verdict = against_chance(predict_part(cohort, member, part), part.targets)
    if verdict.above:
        return
    plain = against_chance(predict_with(cohort, member.network, part), part.targets)
    if not plain.above:
        return
    member.average = None
    # Earlier epochs were measured with the average alone, so that only the last can be the best one now.
    if (val_part := cohort.splits.val) is not None:
        val = cohort.splits.task.measure(predict_part(cohort, member, val_part), val_part.targets, cohort.teacher_predictions(member)[0])
        member.best = {"epoch": cohort.recipe.epochs, "val": val, "state": copy_state(member.deployed)}
    emit(
        Note(
            f"{member.run.id}: the moving average of its weights is at chance ({verdict.text} on {verdict.samples} "
            f"images), the weights themselves are not ({plain.text}): they are evaluated and kept instead; use a lower recipe.ema than "
            f"{cohort.recipe.ema:g} for so few steps",
        )
    )


def best_on_test(cohort: Cohort, member: Member, emit: Emit) -> dict[str, Any] | None:
    """The epoch that was best on the test images; None, and a note, where a part of the run did not look at them."""
    epochs = cohort.recipe.epochs
    if member.oracle_epochs == epochs:
        return member.oracle
    emit(
        Note(
            f"{member.run.id}: no best epoch on the test images (oracle): only {member.oracle_epochs} of {epochs} epochs "
            "were evaluated on them, because part of the run was trained without --oracle",
        )
    )
    return None


def best_epoch(cohort: Cohort, member: Member, last: Mapping[str, Any]) -> dict[str, Any] | None:
    """The epoch that was best on validation, measured on the test set; None without validation."""
    if member.best is None:
        return None
    test = last["test"]
    if member.best["epoch"] != last["epoch"]:
        with weights_of(member.deployed, member.best["state"]):
            log_probs, targets = predict_part(cohort, member, cohort.splits.test), cohort.splits.test.targets
        task = cohort.splits.task
        test = {**task.measure(log_probs, targets, cohort.teacher_predictions(member)[1]), **task.by_class(log_probs, targets)}
    return {"epoch": member.best["epoch"], "val": member.best["val"], "test": test}


@contextmanager
def weights_of(module: nn.Module, state: Mapping[str, Tensor]) -> Iterator[None]:
    """A module with other weights and buffers for a while; it has its own again afterwards."""
    own = copy_state(module)
    module.load_state_dict(state)
    try:
        yield
    finally:
        module.load_state_dict(own)


def predict_part(cohort: Cohort, member: Member, subset: Subset) -> Tensor:
    """The predictions of a member's student on a part of the data."""
    return predict_with(cohort, member.deployed, subset)


def predict_with(cohort: Cohort, network: nn.Module, subset: Subset) -> Tensor:
    """The predictions of a network on a part of the data, of which each process that trains the cohort computes its shard."""
    own = predict(network, subset, cohort.recipe.augment, cohort.execution.device, cohort.splits.task, cohort.shard)
    return own if cohort.processes is None else cohort.processes.collect(own)


def copy_state(module: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().cpu().clone() for name, value in module.state_dict().items()}


def predictions_of(splits: Splits, val: Tensor | None, test: Tensor) -> dict[str, Predictions]:
    """The last epoch's log-probabilities, as they were measured, with the targets and keys of their samples.

    Of several columns of targets the primary one's under the part's name, and those of each other as `PART.COLUMN`.
    """
    by_part = {"test": (splits.test, test)} | ({} if val is None or splits.val is None else {"val": (splits.val, val)})
    predictions = {}
    for name, (subset, log_probs) in by_part.items():
        assert subset.keys is not None
        keys = subset.keys.numpy()
        if not splits.task.several:
            predictions[name] = Predictions(log_probs.numpy(), subset.targets.numpy(), keys)
        for place, (column, part) in enumerate(slices_of(splits.task.several).items()):
            own = Predictions(log_probs[:, part].numpy(), subset.targets[:, place].numpy(), keys)
            predictions[f"{name}.{column}" if place else name] = own
    return predictions
