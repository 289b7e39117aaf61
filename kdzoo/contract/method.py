"""Method: what the author of a distillation loss subclasses.

A method is a pure loss with a declaration. The class is a frozen pydantic model, so its fields are at once the
constructor, the schema, the sweep axes and part of a run's id; what `@register` declares lives in `Method.card`.
Free of torch until a method's code is loaded.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

from pydantic import BaseModel, ConfigDict, ValidationError

from kdzoo.contract.batch import Batch, Progress
from kdzoo.contract.card import Card, StagesRead
from kdzoo.contract.diagnosis import diagnose
from kdzoo.contract.faults import BUILD
from kdzoo.contract.outputs import Outputs
from kdzoo.contract.shapes import DataFacts, Shapes
from kdzoo.errors import InputError, problems_of

if TYPE_CHECKING:
    from torch import Tensor, nn


class LossWithAux(NamedTuple):
    """A method's loss, which alpha and weights multiply, and what is added as it is (a peer's own cross-entropy)."""

    loss: Tensor
    auxiliary: Tensor


@dataclass(frozen=True)
class ParamGroup:
    """Parameters of a method's module that are optimised in their own way.

    lr: a factor on the recipe's rate. weight_decay: None for the recipe's.
    """

    parameters: Sequence[nn.Parameter]
    lr: float = 1.0
    weight_decay: float | None = None


class Method(BaseModel):
    """A distillation loss with its hyper-parameters. Subclass it, declare fields, write `loss`, and `@register` it."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False, validate_default=True)
    card: ClassVar[Card]

    def build(self, student: Shapes, teacher: Shapes, data: DataFacts) -> nn.Module:
        """Make what learns or remembers (regressors, memory banks); nothing unless overridden.

        `student.stages` and `teacher.stages` are those that `loss` is handed: paired one to one unless the method is
        registered with other `stages`. The module is moved, optimised and checkpointed with the run and never enters the
        student's weights.
        Raises InputError when the two networks cannot be adapted to each other.
        """
        from torch import nn

        return nn.Module()

    def loss(self, student: Outputs, teacher: Outputs, batch: Batch, module: nn.Module) -> Tensor | LossWithAux:
        """The loss before its weight: a scalar, float32 or wider, reduced over the batch."""
        raise NotImplementedError(f"{type(self).__name__} has no loss")

    def groups(self, module: nn.Module) -> list[ParamGroup]:
        """How the module's parameters are optimised: with the student's, unless overridden."""
        return [ParamGroup([parameter for parameter in module.parameters() if parameter.requires_grad])]

    def deploy(self, student: Outputs, module: nn.Module) -> Tensor:
        """The logits (B, K) of what is shipped, for a method registered with `deploys`; `student` holds what it needs."""
        raise NotImplementedError(f"{type(self).__name__} ships the student as it was trained")

    def ramp(self, clock: Progress) -> float:
        """A factor on the weight in the course of training; 1 unless overridden."""
        return 1.0


def stages_read(method: Method) -> StagesRead:
    """Which maps a method is handed."""
    stages = method.card.stages
    return stages if isinstance(stages, str) else stages(method)


def stage_indices(method: Method, pairs: Sequence[tuple[int, int]]) -> tuple[Sequence[int] | None, Sequence[int] | None]:
    """The stages of student and teacher, by index, that a method is given where these `pairs` of stages meet; None for all."""
    match stages_read(method):
        case "last":
            return [-1], [-1]
        case "own":
            return None, None
        case "paired":
            return [student for student, _ in pairs], [teacher for _, teacher in pairs]


def instance_of(cls: type[Method], hyperparameters: Mapping[str, Any]) -> Method:
    """A method of a registered class; raises InputError with every fault of the hyper-parameters, or of an `__init__` of its own."""
    try:
        return cls(**hyperparameters)
    except ValidationError as error:
        frozen = [fault for fault in error.errors() if fault["type"] == "frozen_instance"]
        if frozen:
            raise InputError(_init_of_its_own(cls, str(frozen[0]["loc"][0]), frozen[0]["input"])) from None
        raise InputError(*problems_of(error, cls.card.name, cls.model_fields)) from None
    except Exception as error:
        if "__init__" not in vars(cls):
            raise
        raise InputError(
            f"method {cls.card.name!r} at {cls.card.origin}: its __init__ fails: {diagnose(error, cls.card.definition[0])}"
        ) from error


def _init_of_its_own(cls: type[Method], attribute: str, value: Any) -> str:
    """What to write instead of an `__init__` that sets an attribute."""
    where = f"method {cls.card.name!r} at {cls.card.origin}: its __init__ sets self.{attribute}, which a Method does not keep"
    from torch import Tensor, nn

    if isinstance(value, nn.Module | Tensor):
        return f"{where}. Layers: {BUILD}"
    return f"{where}. Hyper-parameters are fields of the class, without an __init__: {attribute}: {type(value).__name__} = {value!r}"
