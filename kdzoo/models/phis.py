"""PHI-S: a teacher's features rotated and scaled so that every channel has variance 1 (Ranzinger et al., 2024, arXiv 2410.01680).

One rotation and one scale, so that distances are those of the features but for a factor, and the features of teachers of any size weigh
alike in a squared distance.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from kdzoo.errors import InputError


@dataclass(frozen=True)
class Standardisation:
    """What PHI-S does to features (..., C): (x - mean) @ matrix.T; scale: phi, by which distances are divided."""

    mean: Tensor
    matrix: Tensor
    scale: float

    def apply(self, features: Tensor) -> Tensor:
        return (features - self.mean.to(features)) @ self.matrix.to(features).T


def standardise(features: Tensor, rotation: Tensor | None = None) -> Standardisation:
    """The standardisation of features (N, C), measured on these; raises InputError for a width without a Hadamard matrix.

    rotation: the eigenvectors of their covariance as columns, where they are known; their signs are free.
    """
    x = features.detach().double()
    mean = x.mean(0)
    covariance = (x - mean).T @ (x - mean) / (len(x) - 1)
    values, vectors = torch.linalg.eigh(covariance)
    scale = math.sqrt(float(values.clamp(min=0).mean()))
    if not scale > 0:
        raise InputError("features: all alike, so that they have no scale")
    return Standardisation(mean, hadamard(x.shape[1]) @ (vectors if rotation is None else rotation).T / scale, scale)


def hadamard(width: int) -> Tensor:
    """A Hadamard matrix (width, width) in float64 with rows of length 1.

    Sylvester's for powers of 2, else the Kronecker product of such a one with Paley's first or second for a prime. Raises InputError
    for a width that has none of these.
    """
    if width.bit_count() == 1:
        return _sylvester(width) / math.sqrt(width)
    for halvings in range(width.bit_length()):
        part, rest = divmod(width, 2**halvings)
        if rest:
            break
        paley = _paley(part)
        if paley is not None:
            return torch.kron(_sylvester(2**halvings), paley) / math.sqrt(width)
    raise InputError(f"features: no Hadamard matrix is known here for a width of {width}; add zeros to it, or leave the width out")


def _sylvester(width: int) -> Tensor:
    matrix = torch.ones(1, 1, dtype=torch.float64)
    while len(matrix) < width:
        matrix = torch.kron(torch.tensor([[1.0, 1.0], [1.0, -1.0]], dtype=torch.float64), matrix)
    return matrix


def _paley(width: int) -> Tensor | None:
    """Paley's matrix of +1 and -1 for a width; None where there is none for it."""
    if _is_prime(width - 1) and width % 4 == 0:
        return torch.eye(width, dtype=torch.float64) + _bordered(width - 1, -1)
    if width % 4 == 0 and _is_prime(width // 2 - 1) and (width // 2 - 1) % 4 == 1:
        conference = _bordered(width // 2 - 1, 1)
        blocks = torch.tensor([[1.0, 1.0], [1.0, -1.0]], dtype=torch.float64)
        zero = torch.tensor([[1.0, -1.0], [-1.0, -1.0]], dtype=torch.float64)
        return torch.kron(conference, blocks) + torch.kron(torch.eye(width // 2, dtype=torch.float64), zero)
    return None


def _bordered(prime: int, left: int) -> Tensor:
    """Quadratic characters of i - j modulo a prime below a row of ones and beside a column of `left`, zero on the diagonal."""
    squares = {number * number % prime for number in range(1, prime)}
    character = torch.tensor([0.0, *(1.0 if number in squares else -1.0 for number in range(1, prime))], dtype=torch.float64)
    index = torch.arange(prime)
    matrix = torch.zeros(prime + 1, prime + 1, dtype=torch.float64)
    matrix[0, 1:], matrix[1:, 0] = 1, left
    matrix[1:, 1:] = character[(index[:, None] - index) % prime]
    return matrix


def _is_prime(number: int) -> bool:
    return number > 1 and all(number % divisor for divisor in range(2, math.isqrt(number) + 1))
