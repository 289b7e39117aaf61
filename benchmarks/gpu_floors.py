"""What bounds a training step on an H200, by arithmetic: multiplications, memory and launches of a training step.

python benchmarks/gpu_floors.py      # the table of docs/scale.md, and the operators of a step as the profiler counts them here
"""

from __future__ import annotations

import tempfile
from collections import Counter
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import speed_kdzoo as ours
import torch
from speed_base import random_cifar100
from speed_clock import Side
from speed_setup import Setup
from torch import nn
from torch.profiler import ProfilerActivity, profile

from kdzoo.models.build import build_network
from kdzoo.models.examine import quietly
from kdzoo.models.measure import network_cost
from kdzoo.models.network import Network
from kdzoo.runs.spec import NetworkSpec
from kdzoo.training.run_data import load_dataset

PEAK_FLOPS, BYTES_PER_SECOND = 989e12, 4.8e12
"""of an H200: dense bfloat16 products, and its memory"""
LAUNCH_SECONDS, NODE_SECONDS = 4e-6, 2e-6
"""assumed, not measured: what a kernel that PyTorch launches costs the host, and what one costs as a node of a graph"""
FUSED_PASSES, PASSES = 6, 19
"""passes over a map of a layer of convolution, batch norm and ReLU in a step: 2 forwards and 4 backwards where the three are one
kernel, 7 and 12 where each is its own"""
TRAINING_IMAGES, EPOCHS, TEACHER_EPOCHS = 50_000, 240, 125.3
"""the last: epochs' worth of images for which a remembered teacher is asked, of 162 views a sample"""
SIDES = {"student": "the student's step", "live": "with a live teacher", "teacher": "the teacher's forward"}
ON_A_CPU_ONLY = ("aten::zero_", "aten::as_strided_", "aten::resolve_conj", "aten::_nnpack_available")
"""operators that are leaves of a profile on a CPU and no kernels of a GPU"""
NO_KERNELS = {
    f"aten::{name}"
    for name in (
        "view",
        "reshape",
        "t",
        "transpose",
        "permute",
        "expand",
        "as_strided",
        "slice",
        "select",
        "unsqueeze",
        "squeeze",
        "detach",
        "alias",
        "empty",
        "empty_like",
        "empty_strided",
        "resize_",
        "set_",
        "unbind",
        "narrow",
        "result_type",
        "item",
        "split",
        "_local_scalar_dense",
        "chunk",
        "_unsafe_view",
        "view_as",
        "new_empty",
        "flatten",
        "expand_as",
        "to",
        "_to_copy",
        "zeros_like",
        "ones_like",
        "new_zeros",
        "_reshape_alias",
        "numpy_T",
        "lift_fresh",
        "is_nonzero",
    )
}
"""operators that change how numbers are seen, or that others do the work of"""


@dataclass(frozen=True)
class Kernels:
    """Kernels of a step in bfloat16: of a student under plain KD, its loss and views included, and of the teacher's forward."""

    student: int
    teacher: int


KERNELS = {"resnet56/resnet20": Kernels(310, 270), "resnet32x4/resnet8x4": Kernels(195, 165)}
"""rounded from what `operators` counts, with a second kernel for the backward of each convolution"""


@dataclass(frozen=True)
class Floors:
    """Seconds of a step of a pair's student at a batch size, by what bounds it."""

    pair: str
    batch: int
    macs: int
    elements: int

    @property
    def products(self) -> float:
        """Two operations for a multiply-accumulate, a backward as two forwards, at the peak."""
        return 2 * 3 * self.macs * self.batch / PEAK_FLOPS

    def memory(self, passes: int) -> float:
        """So many passes over every convolution's maps in bfloat16."""
        return 2 * passes * self.elements * self.batch / BYTES_PER_SECOND

    @property
    def eager(self) -> float:
        """Launches of the student's step and of a live teacher."""
        return LAUNCH_SECONDS * (KERNELS[self.pair].student + KERNELS[self.pair].teacher)

    def graphs(self, stack: int) -> float:
        """Nodes of a graph that so many students share, or the memory's time without fusion, whichever is longer."""
        return max(NODE_SECONDS * KERNELS[self.pair].student / stack, self.memory(PASSES))

    @property
    def steps(self) -> int:
        """Of 240 epochs."""
        return EPOCHS * -(-TRAINING_IMAGES // self.batch)

    def teacher(self, runs: int) -> float:
        """Seconds in which a remembered teacher, launched kernel by kernel, is asked in 240 epochs, a run's share."""
        return TEACHER_EPOCHS / EPOCHS * self.steps * LAUNCH_SECONDS * KERNELS[self.pair].teacher / runs


def floors_of(pair: str, batch: int) -> Floors:
    """The floors of a pair of networks on images of 32 pixels and 100 classes, whose sizes are counted."""
    spec = NetworkSpec(name=pair.partition("/")[2], classes=100)
    network = build_network(spec, channels=3, side=32, mean=(0.5,) * 3, std=(0.25,) * 3, seed=0)
    return Floors(pair, batch, network_cost(network, (3, 32, 32)).macs, elements_of(network))


def elements_of(network: Network) -> int:
    """Numbers in the outputs of all convolutions for one image."""
    counts: list[int] = []
    hooks = [m.register_forward_hook(lambda _, __, out: counts.append(out.numel())) for m in network.modules() if isinstance(m, nn.Conv2d)]
    quietly(network, lambda: network.logits(torch.zeros(1, 3, 32, 32, dtype=torch.uint8)))
    for hook in hooks:
        hook.remove()
    return sum(counts)


def table(batches: tuple[int, ...] = (128, 64)) -> list[str]:
    """The lines of the table of docs/scale.md."""
    head = (
        "student",
        "batch",
        "products",
        "memory, fused",
        "memory, not fused",
        "eager",
        "240 epochs: eager",
        "as graphs, alone",
        "as graphs, 8 stacked of 27",
    )
    lines = ["| " + " | ".join(head) + " |", "|" + " --- |" * len(head)]
    for pair in KERNELS:
        for batch in batches:
            of = floors_of(pair, batch)
            step = [1e3 * seconds for seconds in (of.products, of.memory(FUSED_PASSES), of.memory(PASSES), of.eager)]
            whole = [of.steps * of.eager, of.steps * of.graphs(1) + of.teacher(1), of.steps * of.graphs(8) + of.teacher(27)]
            cells = [*(f"{value:.2g} ms" for value in step), *(f"{value:.0f} s" for value in whole)]
            lines.append(f"| {pair.partition('/')[2]} | {batch} | " + " | ".join(cells) + " |")
    return lines


def operators(side: Side) -> float:
    """Operators of a step on a CPU that would each be a kernel at least of a GPU."""
    for _ in range(3):
        side.step()
    with profile(activities=[ProfilerActivity.CPU]) as seen:
        side.step()
    leaves: Counter[str] = Counter()
    for event in seen.events() or []:
        name = event.name
        inner = [child.name for child in event.cpu_children if child.name.startswith("aten::") and child.name not in NO_KERNELS]
        if name.startswith("aten::") and name not in NO_KERNELS and not name.startswith(ON_A_CPU_ONLY) and not inner:
            leaves[name] += 1
    return leaves.total()


def main() -> None:
    print("\n".join(table()))
    with tempfile.TemporaryDirectory() as folder:
        random_cifar100(Path(folder))
        images = load_dataset("cifar100", folder, None)
        for pair in KERNELS:
            teacher, _, student = pair.partition("/")
            setup = Setup(teacher, student, 8, images, torch.device("cpu"), 1, None, "bfloat16", Path(folder))
            makes = {"student": partial(ours.live, runs=0), "live": partial(ours.live, runs=1), "teacher": ours.teacher}
            for name, make in makes.items():
                print(f"{pair} in bfloat16, {SIDES[name]}: {operators(make(setup))} operators")


if __name__ == "__main__":
    main()
