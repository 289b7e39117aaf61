"""What a teacher cache holds, column by column, and the seals that tell whether a row is what was written."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kdzoo.contract.needs import PER_SAMPLE, Need
from kdzoo.contract.outputs import Outputs
from kdzoo.contract.shapes import Shapes

EXACT = (torch.float32, torch.bfloat16, torch.float16)
"""what a float32 holds to the last bit"""

SEAL_BYTES = 8


@dataclass(frozen=True)
class Column:
    """One tensor of what the teacher gives: which, its number where there are several, one sample's shape, its dtype."""

    need: Need
    number: int | None
    shape: tuple[int, ...]
    dtype: torch.dtype

    @property
    def name(self) -> str:
        return str(self.need.name).lower() + ("" if self.number is None else f"-{self.number}")

    @property
    def row_bytes(self) -> int:
        """What a row takes on disk, with its seal."""
        return 4 * math.prod(self.shape) + SEAL_BYTES

    @staticmethod
    def of(outputs: Outputs, need: Need) -> tuple[Column, ...]:
        """The columns of a forward that gave `need`; none for what the network has not got."""
        columns: list[Column] = []
        for kind in PER_SAMPLE:
            value = outputs.get(kind) if kind in need else None
            numbered = [(None, value)] if isinstance(value, Tensor) else list(enumerate(value or ()))
            columns += [Column(kind, number, tuple(tensor.shape[1:]), tensor.dtype) for number, tensor in numbered]
        return tuple(columns)

    @staticmethod
    def expected(shapes: Shapes, need: Need) -> tuple[Column, ...]:
        """The same for a network of these shapes that computes in float32, before any forward; as an ensemble it is one network."""
        maps = [(stage.channels, stage.height, stage.width) for stage in shapes.stages]
        widths: dict[Need, list[tuple[int, ...]]] = {
            Need.LOGITS: [(shapes.classes,)],
            Need.EMBEDDING: [(shapes.embedding,)] if shapes.embedding else [],
            Need.STAGES: list(maps),
            Need.PREACT: list(maps) if shapes.preact else [],
            Need.DISTILLED: [(shapes.classes,)] if shapes.distilled else [],
            Need.MEMBERS: [(shapes.classes,)],
        }
        lists = Need.STAGES | Need.PREACT | Need.MEMBERS
        return tuple(
            Column(kind, number if kind in lists else None, shape, torch.float32)
            for kind in PER_SAMPLE & need
            for number, shape in enumerate(widths[kind])
        )

    def value(self, outputs: Outputs) -> Tensor:
        """This column's tensor (B, ...) of some outputs."""
        value = outputs.get(self.need)
        tensor: Tensor = value if self.number is None else value[self.number]
        return tensor


@dataclass(frozen=True)
class Seal:
    """Tells what was written to a row of a column, by one number: multilinear hashing (Carter and Wegman 1979).

    seal(row, x) = salt + place * row + sum_i weights_i x_i modulo 2^64, over the row's 32-bit words x. Weights are odd, so
    one flipped bit always changes it; any other change goes unseen once in 2^32. All constants are drawn from the column
    and its owner, so that a row of another column, cache or place does not fit. 0 is the seal of a row that nobody wrote.
    """

    salt: np.int64
    place: np.int64
    weights: NDArray[np.int64]

    @staticmethod
    def of(column: Column, owner: str) -> Seal:
        words = math.prod(column.shape)
        stream = hashlib.shake_128(f"{owner} {column.name} {column.shape} {column.dtype}".encode())
        numbers = np.frombuffer(stream.digest(8 * (words + 2)), dtype=np.int64) | 1
        return Seal(numbers[0], numbers[1], numbers[2:])

    def take(self, rows: Tensor, values: Tensor) -> Tensor:
        """The seals (B,) int64 of rows (B,) with these values, (B, ...) float32 on the CPU."""
        words = values.reshape(len(rows), -1).view(torch.int32).numpy()
        return torch.from_numpy(np.einsum("ij,j->i", words, self.weights) + self.place * rows.numpy() + self.salt)
