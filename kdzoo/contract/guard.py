"""A guard around a user's code, which must not change what other runs read, nor how torch computes in this process.

Runs of a cohort read the same batch and the same outputs of the teacher. A user's method gets copies of these, so that
nothing it does to them (in place, through `.data` or through numpy) reaches another run; what it changes in place is found by
the tensors' version counters. Global settings are compared after each call of a user's code, and restored.

Not covered: changes to kdzoo's or torch's own objects (patched functions, frames), environment variables, and torch's number
of inter-operation threads, which cannot be set twice.
"""

from __future__ import annotations

import copy
import os
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, NoReturn

from torch import Tensor, nn

from kdzoo.contract.batch import Batch
from kdzoo.contract.needs import Need
from kdzoo.contract.outputs import Outputs
from kdzoo.contract.settings import current_settings, put_back
from kdzoo.contract.shapes import DataFacts, Shapes
from kdzoo.errors import KdzooError


class Interference(KdzooError):
    """A user's code changed what it shares with others; the message names it and what it changed."""


class watch:
    """`with watch(who):` restores global settings after a block of a user's code, and keeps it from ending the process.

    Raises Interference with what was changed, unless the block has failed already, and where it calls sys.exit or os._exit.
    Warning filters are restored without a message: libraries that are imported late add some of their own.
    """

    def __init__(self, who: str) -> None:
        self._who = who

    def __enter__(self) -> None:
        self._before, self._filters, self._leave = current_settings(), list(warnings.filters), os._exit
        os._exit = _staying(os.getpid(), os._exit)  # type: ignore[assignment]

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        os._exit = self._leave
        if warnings.filters != self._filters:
            warnings.filters[:] = self._filters  # type: ignore[index]
            warnings._filters_mutated()  # type: ignore[attr-defined]
        if isinstance(error, SystemExit):
            put_back(self._before)
            raise Interference(f"{self._who} ends the process, with {how_it_ends(error)}") from error
        refuse(self._who, put_back(self._before), error)


def how_it_ends(error: SystemExit) -> str:
    """The call that would have ended the process."""
    return str(error.code) if "os._exit" in str(error.code) else f"sys.exit({'' if error.code is None else error.code})"


def _staying(process: int, leave: Callable[[int], NoReturn]) -> Callable[[int], NoReturn]:
    """An `os._exit` that ends the children of a process, but not the process itself."""

    def stay(status: int) -> NoReturn:
        if os.getpid() != process:
            leave(status)
        raise SystemExit(f"os._exit({status})")

    return stay


def refuse(who: str, changes: list[str], error: BaseException | None = None) -> None:
    """Raise Interference for settings that had changed, unless something else has been raised already."""
    if changes and error is None:
        names = " and ".join(changes)
        raise Interference(f"{who} changed {names} for the whole process, which a plugin must not do; the former value was restored")


@dataclass(frozen=True)
class Inputs:
    """What a user's method reads in one step. The student's outputs are its own run's; everything else is a copy."""

    student: Outputs
    teacher: Outputs
    batch: Batch
    versions: tuple[tuple[str, Tensor, int], ...]

    def changes(self) -> list[str]:
        """What was changed in place since it was handed over."""
        return list(dict.fromkeys(name for name, tensor, version in self.versions if tensor._version != version))


def lend(student: Outputs, teacher: Outputs, batch: Batch, modules: dict[Need, nn.Module]) -> Inputs:
    """Copies of what is shared, made anew for each step; of the teacher's modules once, kept in `modules`."""
    own_teacher, own_batch = _copy(teacher, modules), batch.copy()
    tensors = [
        *named_tensors("the student's", student, without=Need.NETWORK | Need.CLASSIFIER),
        *named_tensors("the teacher's", own_teacher),
    ]
    tensors += [(f"the batch's {name}", tensor) for name, tensor in own_batch.tensors()]
    return Inputs(student, own_teacher, own_batch, tuple([(name, tensor, tensor._version) for name, tensor in tensors]))


def _copy(outputs: Outputs, modules: dict[Need, nn.Module]) -> Outputs:
    def copy_of(need: Need, value: Any) -> Any:
        if isinstance(value, Tensor):
            return value.clone()
        if isinstance(value, list):
            return [copy_of(need, item) for item in value]
        if isinstance(value, nn.Module):
            return modules.setdefault(need, value) if need in modules else modules.setdefault(need, copy.deepcopy(value))
        if need is Need.NETWORK:
            return replace(value, network=copy_of(need, value.network))
        return value

    own = outputs.with_values({need: copy_of(need, value) for need, value in outputs.items()})
    for other, its in outputs.passes():
        own = own.with_pass(other, _copy(its, modules))
    return own


def named_tensors(whose: str, outputs: Outputs, without: Need = Need.NOTHING) -> Iterator[tuple[str, Tensor]]:
    """Every tensor with the name under which a method reads it; of a module its weights and statistics."""
    for need, value in outputs.items():
        name = f"{whose} {str(need.name).lower()}"
        if need in without:
            continue
        if need in (Need.NETWORK, Need.CLASSIFIER):
            module = value if isinstance(value, nn.Module) else value.network
            yield from ((name, tensor) for part in (module.parameters(), module.buffers()) for tensor in part)
        elif isinstance(value, list):
            yield from ((f"{name}[{number}]", tensor) for number, tensor in enumerate(value))
        elif isinstance(value, Tensor):
            yield name, value
    for other, its in outputs.passes():
        yield from named_tensors(f"{whose} {str(other.name).lower().replace('_', ' ')}'s", its, without)


def call(who: str, act: Callable[[Outputs, Outputs, Batch], Any], inputs: Inputs) -> Any:
    """What a user's method returns for its inputs; raises Interference where it changed that, or a global setting."""
    with watch(who):
        result = act(inputs.student, inputs.teacher, inputs.batch)
    if changes := inputs.changes():
        raise Interference(f"{who} changed {' and '.join(changes)} in place, which other runs read too: clone first, or write a new tensor")
    return result


def build(who: str, act: Callable[[Shapes, Shapes, DataFacts], nn.Module], student: Shapes, teacher: Shapes, facts: DataFacts) -> nn.Module:
    """What a user's method builds from copies of what all runs share; raises Interference as `call` does."""
    own = facts.copy()
    ours, theirs = (replace(shape, classifier=copy.deepcopy(shape.classifier)) for shape in (student, teacher))
    changes = own.changes
    with watch(who):
        module = act(ours, theirs, own)
    if own.changes != changes:
        raise Interference(f"{who} changed the training data's targets in place, which other runs read too: clone them first")
    return module
