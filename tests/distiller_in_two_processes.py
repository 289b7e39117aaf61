"""Run by test_distiller.py: gradients and memories of batches of which each of two processes has a part, by torch's DDP over gloo."""

import copy
import sys
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

import kdzoo

METHODS = ("hinton", "at", "vkd")
REMEMBERING = ("crd", "crd_queue", "pskd")
STEPS = 4
HALVES, UNEQUAL = (slice(0, 4), slice(4, 8)), (slice(0, 5), slice(5, 8))
"""of each process in a batch; where their numbers differ, the mean of two means of cross-entropy, which pskd has none of, is another"""
INPUTS = torch.randn(8, 3, 8, 8, generator=torch.Generator().manual_seed(0))
TARGETS = torch.arange(8) % 5


class Net(nn.Module):
    """Two convolutions, a pooling and a linear layer."""

    def __init__(self, width: int, classes: int = 5) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(3, width, 3, padding=1), nn.ReLU())
        self.second = nn.Sequential(nn.Conv2d(width, 2 * width, 3, stride=2, padding=1), nn.ReLU())
        self.head = nn.Linear(2 * width, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.second(self.first(x)).mean((2, 3)))


def nets() -> tuple[Net, Net]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Net(4), Net(6)


def distiller(method: str) -> kdzoo.Distiller:
    return kdzoo.Distiller(*nets(), method, inputs=INPUTS[:1])


def remembering(method: str) -> kdzoo.Distiller:
    """A method that remembers samples; in four steps some come again, and crd draws a part of its negatives."""
    facts = kdzoo.DataFacts(20, 5, torch.arange(20) % 5, input_shape=(3, 8, 8))
    drawn = {"crd": {"negatives": 4}}.get(method, {})
    made = kdzoo.Distiller(*nets(), method, data=facts, epochs=2, **drawn)
    made.progress = 0.5
    return made


def steps(model: nn.Module, rows: slice) -> Iterator[kdzoo.Losses]:
    """Some steps of SGD on these rows of every batch."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for step in range(STEPS):
        index = (torch.arange(8) * 3 + 5 * step) % 20
        inputs = torch.randn(8, 3, 8, 8, generator=torch.Generator().manual_seed(step))
        losses = model(inputs[rows], index[rows] % 5, index[rows])
        optimizer.zero_grad()
        losses.total.backward()
        optimizer.step()
        yield losses


def work(rank: int, folder: str) -> None:
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2)
    half = slice(4 * rank, 4 * rank + 4)
    for method in METHODS:
        # parameters are looked for in what the forward returns, so that the losses must be something that DDP looks into
        model = DistributedDataParallel(distiller(method), find_unused_parameters=True)
        losses = model(INPUTS[half], TARGETS[half])
        losses.total.backward()
        if rank == 0:
            torch.save({name: copy.copy(p.grad) for name, p in model.module.named_parameters()}, f"{folder}/{method}.pt")
    for method in REMEMBERING:
        model = DistributedDataParallel(remembering(method), find_unused_parameters=True)
        shares = [losses.parts[method].item() for losses in steps(model, (UNEQUAL if method == "pskd" else HALVES)[rank])]
        torch.save((model.module.method_state_dict(), shares), f"{folder}/{method}-{rank}.pt")
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    torch.multiprocessing.start_processes(work, args=(str(folder),), nprocs=2, start_method="fork")
