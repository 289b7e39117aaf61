"""Tensor operations that methods share."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdzoo.contract.batch import Batch, Progress
from kdzoo.contract.shapes import Shapes
from kdzoo.errors import InputError
from kdzoo.seeds import global_stream


def wide(tensor: Tensor) -> Tensor:
    """The tensor in float32 at least: half precision is widened, float64 stays."""
    return tensor if tensor.dtype == torch.float64 else tensor.float()


def taught(tensor: Tensor) -> Tensor:
    """The teacher's output: detached, in float32 at least."""
    return wide(tensor.detach())


def full_precision(tensor: Tensor) -> torch.autocast:
    """A block in which autocast does not lower matrix products and convolutions on the tensor's device."""
    return torch.autocast(tensor.device.type, enabled=False)


def same_size(student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
    """Two maps (B, C, H, W) at one size: the larger is average-pooled to the smaller, each side by itself."""
    size = (min(student.shape[2], teacher.shape[2]), min(student.shape[3], teacher.shape[3]))
    return _pooled(student, size), _pooled(teacher, size)


def _pooled(features: Tensor, size: tuple[int, int]) -> Tensor:
    return features if tuple(features.shape[-2:]) == size else F.adaptive_avg_pool2d(features, size)


Size = tuple[int, int]
"""height and width"""


def several(student: Sequence[Size], teacher: Sequence[Size]) -> list[int]:
    """Which maps, one to one, have more than one cell at the size to which both are pooled."""
    pairs = zip(student, teacher, strict=False)
    return [position for position, (s, t) in enumerate(pairs) if min(s[0], t[0]) * min(s[1], t[1]) > 1]


def last_of_several(student: Sequence[Size], teacher: Sequence[Size]) -> tuple[int, int] | None:
    """Each network's own last map of more than one cell, where they have more than one in common; None where not."""
    positions_by_network = [[position for position, size in enumerate(sizes) if size[0] * size[1] > 1] for sizes in (student, teacher)]
    if not all(positions_by_network):
        return None
    ours, theirs = (positions[-1] for positions in positions_by_network)
    return (ours, theirs) if several([student[ours]], [teacher[theirs]]) else None


def mean_square(difference: Tensor) -> Tensor:
    """The mean of squares over all entries, by their sum, whose gradient keeps the memory layout of maps.

    That of a mean is contiguous whatever the maps are, and batch norms and convolutions take ten times as long for a gradient
    in another layout than their map's.
    """
    return difference.square().sum() / difference.numel()


def normalise(vectors: Tensor, eps: float = 1e-12) -> Tensor:
    """Rows of (..., D) divided by their L2 norm, or by `eps` where that is larger."""
    return F.normalize(vectors, dim=-1, eps=eps)


def squared_distances(rows: Tensor) -> Tensor:
    """||x_i - x_j||^2 between the rows of (B, D): (B, B), zero on the diagonal.

    By products of rows instead of differences, which would be B x B x D; its error is a few roundings of the largest.
    The first row is taken from all: distances and gradients do not see it, and what all rows share cannot drown them.
    """
    centred = rows - rows[:1].detach()
    with full_precision(rows):
        products = centred @ centred.T
    lengths = products.diagonal()
    return (lengths[:, None] + lengths - 2 * products).clamp(min=0)


def standardise_rows(rows: Tensor) -> Tensor:
    """Rows of (C, N) without their mean and of norm 1, so that products are correlations; 0 where the deviation is rounding alone."""
    mean = rows.mean(1, keepdim=True)
    centred = rows - mean
    least = 1e-6 * rows.shape[1] ** 0.5 * (1 + mean.detach().abs())
    return centred / torch.maximum(torch.linalg.vector_norm(centred, dim=1, keepdim=True), least)


class BatchNorm(nn.BatchNorm2d):
    """Batch norm of (B, C, H, W); of a batch with one value per channel, which has no variance, by its running statistics."""

    def forward(self, input: Tensor) -> Tensor:
        if self.training and input.numel() == input.shape[1]:
            return F.batch_norm(input, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps)
        return super().forward(input)


class Rectifier(nn.Module):
    """ReLU for what must reach a teacher of any sign: max(x, least), least being the smallest value it gave, 0 at most.

    Of a teacher that ends in a ReLU it is the ReLU; it leaves signed maps and embeddings (ViTs, WRNs) in reach.
    """

    least: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("least", torch.zeros(1))

    @torch.no_grad()
    def observe(self, target: Tensor) -> None:
        """Lower `least` to the smallest value of a batch of the teacher's, in training mode."""
        if self.training:
            self.least.copy_(torch.minimum(self.least, target.amin()))

    def forward(self, input: Tensor) -> Tensor:
        return torch.maximum(input, self.least.clone())


def channel_adapter(student: int, teacher: int) -> nn.Module:
    """From the student's channels to the teacher's: a 1x1 convolution, or nothing where they are equal."""
    return nn.Identity() if student == teacher else nn.Conv2d(student, teacher, kernel_size=1)


def adapt_channels(
    adapters: nn.Module, student_stages: Sequence[Tensor], teacher_stages: Sequence[Tensor]
) -> tuple[list[Tensor], list[Tensor]]:
    """The student's maps, each through its channel adapter, and the teacher's, each pair at one size; the larger is pooled first."""
    pairs = [same_size(wide(s), taught(t)) for s, t in zip(student_stages, teacher_stages, strict=True)]
    with full_precision(pairs[0][0]):
        return [adapter(s) for adapter, (s, _) in zip(cast(nn.ModuleList, adapters), pairs, strict=True)], [t for _, t in pairs]


def connector(student: int, teacher: int) -> nn.Sequential:
    """From the student's channels to the teacher's: a 1x1 convolution and batch norm."""
    return nn.Sequential(nn.Conv2d(student, teacher, kernel_size=1, bias=False), BatchNorm(teacher))


def require_pooled_classifier(**networks: Shapes) -> None:
    """Raises InputError for networks whose classifier does not work on the cells of their last map; keywords are their roles."""
    problems = [
        f"applies the {role}'s classifier to its last map, whose {shapes.stages[-1].channels} channels are not the embedding's width of "
        f"{shapes.embedding}; its stages are {', '.join(map(str, shapes.stages))}"
        for role, shapes in networks.items()
        if shapes.stages[-1].channels != shapes.embedding
    ]
    if problems:
        raise InputError(*problems)


def classifier_of(teacher: Shapes, *, use: str) -> nn.Module:
    """The layer that maps the teacher's embedding to its logits; raises InputError, with what is done with it, where there is none."""
    if teacher.classifier is None:
        raise InputError(f"{use} the teacher's classifier, but that network has no single layer that maps its embedding to its logits")
    return teacher.classifier


def embeddings_of(teacher: Shapes, positions: Tensor, *, advice: str) -> Tensor:
    """The teacher's embeddings (N, D) of the training samples at positions (N,); raises InputError, with advice, where it has none."""
    if not teacher.embedding:
        raise InputError(f"reads the teacher's embedding, but that network's classifier cannot be found; {advice}")
    if teacher.embed is None:
        raise InputError(f"reads the teacher's embeddings of training samples, which only a bench with the teacher's network has; {advice}")
    return teacher.embed(positions)


def divergence(student_log: Tensor, teacher_log: Tensor) -> Tensor:
    """KL(teacher || student) of each row, from logarithms of probabilities (B, K): (B,)."""
    return (teacher_log.exp() * (teacher_log - student_log)).sum(1)


def without_target(logits: Tensor, targets: Tensor) -> Tensor:
    """The classes of (B, K) that are not the target, in their order: (B, K - 1)."""
    others = torch.arange(logits.shape[1] - 1, device=logits.device).expand(len(logits), -1)
    return logits.gather(1, others + (others >= targets[:, None]))


def target_or_not(logits: Tensor, targets: Tensor) -> Tensor:
    """Logarithms of the probabilities of the target and of all other classes together, by logsumexp: (B, 2)."""
    target = logits.gather(1, targets[:, None])
    rest = without_target(logits, targets).logsumexp(1, keepdim=True)
    return torch.cat([target, rest], 1).log_softmax(1)


def linear_warmup(clock: Progress, epochs: int) -> float:
    """A linear warm-up by epochs: 1 / epochs in the first, 1 from number `epochs` on."""
    return min((clock.epoch + 1) / epochs, 1.0)


def separable_downsampling(channels: int, width: int, halvings: int) -> nn.Sequential:
    """From a map (B, channels, H, W) to (B, width, H / 2^halvings, W / 2^halvings), `halvings` > 0; channels double up to the last.

    Each halving is a depthwise and a 1x1 convolution with batch norm, twice; ReLU after each norm but the last.
    """
    layers: list[nn.Module] = []
    for halving in range(halvings):
        within = channels * 2**halving
        for stride, to in ((2, within), (1, width if halving == halvings - 1 else 2 * within)):
            depthwise = nn.Conv2d(within, within, 3, stride=stride, padding=1, groups=within, bias=False)
            layers += [depthwise, nn.Conv2d(within, to, 1, bias=False), BatchNorm(to), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def new_peers(student: Shapes, count: int) -> nn.ModuleList:
    """Networks of the student's architecture with random starts of their own, images -> logits."""
    if student.fresh is None:
        raise InputError("trains a second network of the student's architecture, but nothing here can make one")
    return nn.ModuleList(student.fresh() for _ in range(count))


@contextmanager
def method_rng(batch: Batch) -> Iterator[None]:
    """A block in which layers that draw (dropout, stochastic depth) do so from the method's own random stream of this step."""
    with global_stream(batch.generator.initial_seed(), "layers", device=batch.device):
        yield


def peer_logits(peers: nn.Module, batch: Batch) -> list[Tensor]:
    """Each peer's logits for the batch's images, (B, K) each, in float32 at least."""
    with method_rng(batch), full_precision(batch.inputs):
        return [wide(peer(batch.inputs)) for peer in peers.children()]
