"""What a function reads where it does not say so: found by a trial call on small random outputs."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from kdzoo.contract.advice import advice_for
from kdzoo.contract.batch import Batch, Progress
from kdzoo.contract.diagnosis import diagnose, short_path
from kdzoo.contract.method import Method
from kdzoo.contract.needs import Need, Needs, NetworkNeeds, Pass
from kdzoo.contract.outputs import Outputs
from kdzoo.contract.registry import definition_of
from kdzoo.contract.shapes import DataFacts, Shapes, StageShape
from kdzoo.errors import InputError, problems_of

if TYPE_CHECKING:
    from torch import Tensor


def infer_needs(name: str, cls: type[Method], definition: Any) -> Needs:
    """What a function reads, found by calling it on small random outputs that record every reading."""
    import torch
    from torch import nn

    reads = {owner: NetworkNeeds(Need.NOTHING) for owner in ("student", "teacher", "batch")}

    def recorder(owner: str) -> Callable[[Need | Pass], None]:
        def record(what: Need | Pass) -> None:
            reads[owner] |= what

        return record

    random = torch.Generator().manual_seed(0)

    def outputs(owner: str) -> Outputs:
        def draw(*shape: int) -> Tensor:
            return torch.randn(*shape, generator=random)

        values = {
            Need.LOGITS: draw(4, 5),
            Need.EMBEDDING: draw(4, 6),
            Need.STAGES: [draw(4, 3, 8, 8), draw(4, 4, 4, 4), draw(4, 6, 2, 2)],
            Need.PREACT: [draw(4, 3, 8, 8), draw(4, 4, 4, 4), draw(4, 6, 2, 2)],
            Need.CLASSIFIER: nn.Linear(6, 5),
        }
        return Outputs.of(values, owner=owner, on_read=recorder(owner))

    maps = (StageShape(3, 8, 8, 1), StageShape(4, 4, 4, 2), StageShape(6, 2, 2, 4))
    shapes = Shapes(5, 6, maps, classifier=nn.Linear(6, 5).requires_grad_(False))
    file = inspect.getsourcefile(definition) or ""
    batch = Batch(
        inputs=torch.zeros(4, 3, 8, 8, dtype=torch.uint8),
        targets=torch.tensor([0, 1, 2, 3]),
        index=torch.arange(4),
        clock=Progress(0, 1, 0, 1),
        generator=random,
        on_read=recorder("batch"),
    )
    place = f"method {name!r} at {short_path(definition_of(definition).place)}"
    needs = f"@kdzoo.register({name!r}, needs=kdzoo.Need.LOGITS | ...)"
    if required := [key for key, field in cls.model_fields.items() if field.is_required()]:
        raise InputError(f"{place}: give {' and '.join(required)} a default, or declare what it reads: {needs}")
    try:
        method = cls()
    except ValidationError as error:
        if any(fault["type"] == "frozen_instance" for fault in error.errors()):
            return Needs(Need.NOTHING, Need.NOTHING)  # an __init__ that sets something: `instance_of` says so when it is used
        raise InputError(*(f"{place}: the default of {problem}" for problem in problems_of(error, "", cls.model_fields))) from error
    try:
        method.loss(outputs("student"), outputs("teacher"), batch, method.build(shapes, shapes, DataFacts(4, 5, torch.arange(4))))
    except Exception as error:
        if isinstance(error, AttributeError | NameError) or advice_for(error):  # to declare needs would not help
            raise InputError(f"method {name!r}: {diagnose(error, file)}") from error
        words = f"the trial call that finds what it reads fails: {diagnose(error, file)}"
        raise InputError(f"{place}: {words}; or declare what it reads: {needs}") from error
    return Needs(reads["student"] | reads["batch"], reads["teacher"])
