"""The checkpoint of a run in training: what is in it, how it is written, and how a run goes on from it."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any, cast

import torch

from kdzoo.runs.seals import DamagedFile, read_sealed, write_sealed
from kdzoo.runs.store import RunFolder
from kdzoo.text import first_line
from kdzoo.training.member import Member
from kdzoo.training.tally import Tally


def state_of(member: Member) -> dict[str, Any]:
    """All of a member that a resume needs, as tensors and plain values."""
    return {
        "id": member.run.id,
        "teacher_weights": member.teacher_weights,
        "step": member.step,
        "network": {name: value.clone() for name, value in member.network.state_dict().items()},  # of a stack its part alone
        "objective": member.objective.state_dict(),
        "optimizer": member.optimizer.state_dict(),
        "scaler": member.scaler.state_dict(),
        "skipped": 0 if member.skipped is None else member.skipped.steps,
        "average": None if member.average is None else member.average.state_dict(),
        "train_loss": member.train_loss,
        "tally": (member.tally.sums, member.tally.samples),  # without a bad step: a run with one gets no checkpoint
        "best": member.best,
        "oracle": member.oracle,
        "oracle_epochs": member.oracle_epochs,
        "cost": member.cost,
        "seconds": member.seconds,
        "started": member.started,
    }


def restore(member: Member, state: Mapping[str, Any]) -> None:
    """Restore a member to `state`."""
    member.step = state["step"]
    member.network.load_state_dict(state["network"])
    member.objective.load_state_dict(state["objective"])
    member.optimizer.load_state_dict(state["optimizer"])
    for group in member.optimizer.param_groups:
        if "capturable" in group:  # as it was where steps were recorded
            group["capturable"] = False
    member.scaler.load_state_dict(state["scaler"])
    if member.skipped is not None:
        member.skipped.steps = state.get("skipped", 0)  # checkpoints of earlier versions do not count them
    if member.average is not None:
        member.average.load_state_dict(state["average"])
    member.train_loss = state["train_loss"]
    sums, samples, *_ = state["tally"]  # checkpoints of earlier versions have a third value, which is None
    member.tally = Tally(dict(sums), samples)
    member.best, member.oracle, member.cost = state["best"], state["oracle"], state["cost"]
    member.oracle_epochs = state.get("oracle_epochs", 0)  # checkpoints of earlier versions do not count them
    member.seconds, member.started = state["seconds"], state["started"]


def refuse_nonfinite_weights(member: Member) -> None:
    """Raises FloatingPointError where a parameter of the student or of the objective is NaN or infinite."""
    parameters = [*member.network.named_parameters(prefix="student"), *member.objective.named_parameters(prefix="objective")]
    bad = [name for name, value in parameters if value.requires_grad and not bool(torch.isfinite(value).all())]
    if bad:
        raise FloatingPointError(f"after step {member.step}: {len(bad)} weights are NaN or infinite, the first is {bad[0]}")


def write_checkpoint(member: Member) -> None:
    """Write a member's state, whole or not at all; raises FloatingPointError where a weight is NaN or infinite."""
    refuse_nonfinite_weights(member)
    buffer = io.BytesIO()
    torch.save(state_of(member), buffer)
    member.folder.check_claim()
    write_sealed(member.folder.checkpoint, buffer.getvalue(), member.run.id)


def resume(member: Member) -> None:
    """Restore a member from the checkpoint in its run's folder.

    Raises DamagedFile for one that cannot be resumed, or whose teacher has been trained again since; the member is
    then no longer fresh, and worth nothing.
    """
    state = read_checkpoint(member.folder, member.device)
    before = state.get("teacher_weights")  # checkpoints of earlier versions do not say
    if before is not None and member.teacher_weights is not None and before != member.teacher_weights:
        raise DamagedFile(f"{member.folder.checkpoint}: its teacher has been trained again and has other weights now")
    try:
        restore(member, state)
        refuse_nonfinite_weights(member)
    except Exception as error:  # a whole file that does not fit: what a method's module is made of has changed, or torch
        raise DamagedFile(f"{member.folder.checkpoint}: cannot be resumed ({_first_line(error)})") from error


def read_checkpoint(folder: RunFolder, device: torch.device) -> dict[str, Any]:
    """The state that a run's checkpoint holds; raises DamagedFile where it is not what this very run wrote."""
    content = read_sealed(folder.checkpoint, folder.id)
    try:
        return cast(dict[str, Any], torch.load(io.BytesIO(content), map_location=device, weights_only=True))
    except Exception as error:  # torch.load raises almost anything
        raise DamagedFile(f"{folder.checkpoint}: not the checkpoint of a run ({_first_line(error)})") from error


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {first_line(error)}"
