"""The targets of a batch in a loop of a user's own: class numbers or shares of the classes, and what is wrong with them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from kdzoo.contract.outputs import Outputs
from kdzoo.errors import InputError

UNLABELLED = -1
ROUNDING = 1e-3
"""by which the shares of a sample may exceed 1 together, as those of half precision do"""


def labels_of(targets: Tensor, refuses_shares: Mapping[str, str]) -> tuple[Tensor, Tensor | None]:
    """Class numbers (B,), and the shares of the classes (B, K) where these were given; a sample without any share has no label.

    refuses_shares: why methods cannot take shares, by name. Raises InputError for targets of another kind or shape.
    """
    if targets.ndim == 2 and targets.is_floating_point():
        if refuses_shares:
            raise InputError(*(f"{name}: takes no shares of classes as targets: {why}" for name, why in refuses_shares.items()))
        numbers = torch.where(targets.sum(1) > 0, targets.argmax(1), UNLABELLED)
        return numbers, targets.float()
    if targets.ndim != 1 or targets.dtype != torch.int64:
        raise InputError(
            f"targets: expected class numbers (B,) int64, or shares of the classes (B, K), got {targets.dtype} of shape "
            f"{tuple(targets.shape)}"
        )
    return targets, None


def check_labels(numbers: Tensor, shares: Tensor | None, classes: int, readers: Sequence[str]) -> None:
    """Raises InputError for labels that are no classes, shares that are none, and samples without a label that methods read.

    readers: the methods that read labels. It looks at values, which makes the host wait for a GPU.
    """
    problems = []
    if shares is not None:
        if not bool(((shares >= 0) & (shares <= 1)).all()):
            problems.append("targets: expected shares of the classes from 0 to 1, got others, or NaN")
        elif float(most := shares.sum(1).max()) > 1 + ROUNDING:
            problems.append(f"targets: expected shares of the classes whose sum is at most 1 for each sample, got {float(most):.3g}")
    elif int(numbers.max()) >= classes or int(numbers.min()) < UNLABELLED:
        problems.append(
            f"targets: expected class numbers from 0 to {classes - 1}, or -1 for a sample without a label, got {int(numbers.min())} to "
            f"{int(numbers.max())}"
        )
    if not problems and readers and (without := int((numbers == UNLABELLED).sum())):
        problems += [f"{name}: reads labels, which {without} of {len(numbers)} samples do not have" for name in readers]
    if problems:
        raise InputError(*problems)


def check_sizes(numbers: Tensor, **outputs: Outputs | None) -> None:
    """Raises InputError for an empty batch, and where outputs are of another number of samples; keywords are the networks' roles."""
    if not len(numbers):
        raise InputError("targets: expected at least one sample, got an empty batch")
    problems = [
        f"{role}: its outputs are of {size} samples, the targets of {len(numbers)}"
        for role, one in outputs.items()
        if one is not None
        for size in sorted(_sizes(one) - {len(numbers)})
    ]
    if problems:
        raise InputError(*problems)


def _sizes(outputs: Outputs) -> set[int]:
    """The numbers of samples of all outputs."""
    found: set[int] = set()

    def look(tensor: Tensor) -> Tensor:
        found.add(len(tensor))
        return tensor

    outputs.map(look)
    return found
