"""Checks of how a method behaves: what it reads, changes, draws, keeps and refuses."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from annotated_types import Ge, Gt, Le, Lt
from pydantic import ValidationError
from torch import Tensor
from torch.nn.modules.module import register_module_parameter_registration_hook

from kdzoo.conformance.case import Case, Fault, case
from kdzoo.contract import guard
from kdzoo.contract.batch import Progress
from kdzoo.contract.faults import BUILD, layers_outside_build
from kdzoo.contract.method import Method
from kdzoo.contract.needs import Need
from kdzoo.contract.settings import current_settings, put_back


def builds_its_layers(method: Method) -> None:
    """Neither on the class, nor at module level, nor in each call of the loss."""
    problems = layers_outside_build(type(method), method)
    new_layers: list[str] = []
    if Need.NETWORK not in method.card.needs.student:
        trial = _case_or_none(method)
        hook = register_module_parameter_registration_hook(lambda module, name, value: new_layers.append(type(module).__name__))
        try:
            if trial is not None:
                trial.method.loss(*trial.inputs(), trial.module)
        except Exception:  # another check tells; here it only matters what was made until then
            new_layers = list(new_layers)
        finally:
            hook.remove()
    if new_layers:
        problems.append(f"a new {new_layers[0]} in every call of loss(), with new random weights")
    if problems:
        raise Fault(f"it has layers that are never trained: {'; '.join(problems)}. Layers: {BUILD}")


def _case_or_none(method: Method) -> Case | None:
    try:
        return case(method)
    except Exception:  # its build fails, of which the next check tells
        return None


def reads_only_what_it_declares(method: Method) -> None:
    trial = case(method)
    trial.loss()
    needs = method.card.needs
    of_teacher = needs.teacher | needs.resolve(preact=True).teacher
    declared = {"student": needs.student, "teacher": of_teacher, "batch": needs.student}
    for owner, needs_read in trial.read.items():
        if extra := [what for what in needs_read if what not in declared[owner]]:
            names = " | ".join(f"{type(what).__name__}.{what.name}" for what in extra)
            raise Fault(f"it reads {names} of the {owner}, which needs= does not declare: add it there")


def leaves_the_outputs_alone(method: Method) -> None:
    trial = case(method)
    student, teacher, batch = trial.inputs()

    def named_inputs() -> dict[str, Tensor]:
        tensors = [*guard.named_tensors("the student's", student), *guard.named_tensors("the teacher's", teacher)]
        tensors += [(f"the batch's {name}", tensor) for name, tensor in batch.tensors()]
        once = {id(tensor): (name, tensor) for name, tensor in reversed(tensors)}  # the first of several names
        return dict(reversed(once.values()))

    before = {name: tensor.detach().clone() for name, tensor in named_inputs().items()}
    with torch.no_grad():
        method.loss(student, teacher, batch, trial.module)
    after = named_inputs()
    changed = [name for name, old in before.items() if name not in after or not torch.equal(old, after[name])]
    if changed:
        raise Fault(
            f"it changes {' and '.join(changed)} in place, which other runs read too: write a new tensor instead, for example t = t / 4"
        )


def leaves_global_settings_alone(method: Method) -> None:
    before = current_settings()
    trial = case(method)
    loss = trial.loss()
    if loss.requires_grad:
        loss.backward()  # type: ignore[no-untyped-call]
    method.ramp(Progress(0, 2, 3, 10))
    if changed := put_back(before):
        raise Fault(f"it changes {' and '.join(changed)} for the whole process, which a method must not do")


def is_reproducible(method: Method) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        first = case(method).loss()
        torch.manual_seed(1)
        second = case(method).loss()
    if not torch.equal(first, second):
        raise Fault("the same batch gives another loss the second time: draw random numbers with generator=batch.generator")


def state_round_trip_changes_nothing(method: Method) -> None:
    trial, other = case(method), case(method, seed=1)
    trial.loss()
    other.module.load_state_dict(trial.module.state_dict())
    other.student, other.teacher = trial.student, trial.teacher
    other.student_passes, other.teacher_passes = trial.student_passes, trial.teacher_passes
    if not torch.equal(trial.loss(), other.loss()):
        raise Fault("the module saved and loaded (state_dict) gives another loss: keep everything that matters in parameters or buffers")


def refuses_hyperparameters_out_of_bounds(method: Method) -> None:
    for name, field in type(method).model_fields.items():
        for bound in field.metadata:
            for wrong in values_outside(bound):
                try:
                    type(method)(**{**method.model_dump(), name: wrong})
                except ValidationError as error:
                    if name not in str(error):
                        raise Fault(f"{name} = {wrong} is refused without naming {name}") from error
                else:
                    raise Fault(f"{name} = {wrong} is accepted, though it is declared with {bound}")


def values_outside(bound: object) -> Iterator[float]:
    match bound:
        case Gt():
            yield float(bound.gt)  # type: ignore[arg-type]
        case Lt():
            yield float(bound.lt)  # type: ignore[arg-type]
        case Ge():
            yield float(bound.ge) - 1  # type: ignore[arg-type]
        case Le():
            yield float(bound.le) + 1  # type: ignore[arg-type]
