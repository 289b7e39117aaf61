"""Runs students' training passes through torch.compile: fewer passes over memory, after a minute of compiling in each process."""

from __future__ import annotations

import copy
from collections.abc import Sequence

from torch import Tensor

from kdzoo.contract.needs import COMPILABLE, Need, NetworkNeeds, Pass
from kdzoo.models.forward import outputs
from kdzoo.models.placement import autocast
from kdzoo.text import first_line
from kdzoo.training.member import Member


def compile_students(members: Sequence[Member], images: Tensor) -> str | None:
    """Enable torch.compile for members' students, all of one architecture, on batches as large as `images`.

    Returns None, or a reason (str) why it is not possible, found by a trial on a copy of the first.
    """
    fit = [member for member in members if member.network.is_timm and not member.needs.outputs & ~COMPILABLE]
    if fit and fit[0].run.recipe.dropout_schedule != "constant":
        return "students are not compiled: their dropout changes from epoch to epoch, and each rate would be compiled anew"
    why = _refusal(fit[0], images) if fit else None
    for member in [] if why else fit:
        member.network.compiled_batch_size = len(images)
    return f"students are not compiled: {why}" if why else None


def _refusal(member: Member, images: Tensor) -> str | None:
    """Why a member's network cannot be trained compiled; its own weights and statistics stay as they are."""
    trial = copy.deepcopy(member.network).train()
    trial.compiled_batch_size = len(images)
    try:
        with autocast(member.run.recipe, member.device):
            answer = outputs(trial, {Pass.FIRST: images}, NetworkNeeds(Need.LOGITS))
        answer.logits.float().sum().backward()  # type: ignore[no-untyped-call]
    except (RuntimeError, NotImplementedError) as error:  # which all that torch.compile raises is
        return first_line(error)
    return None
