"""What every method's loss costs beside the networks' own step, as one table and as JSON.

    python benchmarks/losses.py                          # prints the table
    python benchmarks/losses.py --write results/losses   # and writes losses.json and losses.md there
    python benchmarks/losses.py --methods hinton,crd --device cuda

Forward and backward of the loss on what two real networks give for one batch of 64, in the memory layout in which
training runs them. The networks' own step is the teacher's forward and the student's forward and backward; every round
times it and then a few losses, and a share is the median over the rounds of their ratio, so that it holds on a machine
that does other things too. On a CPU times are those that the process spent computing, on one thread; on a GPU they are
the clock's. Peak memory is the most that one forward and backward holds above what was there before, gradients included.
What a loss reads is cut off from the student, whose own backward is not counted, but where it takes gradients of its
class scores at its maps (lwm).
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from speed_clock import synchronise, with_peak
from speed_report import machine
from torch import Tensor, nn

from kdzoo.contract.batch import Batch, Progress
from kdzoo.contract.method import LossWithAux, Method, stage_indices
from kdzoo.contract.methods import REGISTRY
from kdzoo.contract.needs import Need, NetworkNeeds, Pass
from kdzoo.contract.outputs import Outputs, with_passes
from kdzoo.contract.shapes import DataFacts, Shapes
from kdzoo.errors import InputError
from kdzoo.models.build import build_network
from kdzoo.models.measure import attention_as_products, measure_shapes, with_random_embeddings
from kdzoo.models.network import Network, Peer, freeze
from kdzoo.models.placement import Placement
from kdzoo.models.stages import pair_stages
from kdzoo.runs.options import WorkerOptions
from kdzoo.runs.spec import NetworkSpec
from kdzoo.seeds import generator, global_stream
from kdzoo.training.cost import Multiplications

BATCH, CLASSES, SAMPLES, ROUNDS, TOGETHER = 64, 100, 50_000, 7, 8
PAIRS = {"resnet32x4/resnet8x4": 32, "vit_small_patch16_224/vit_tiny_patch16_224": 128}
"""teacher and student, and the side of the images"""
LARGEST_SHARE = 0.25
"""of the networks' own step: what a loss may cost that runs no network itself and whose layers alone do not take more"""
LAYERS_TAKE_MORE = {"reviewkd", "semckd"}
"""whose published layers alone take more than LARGEST_SHARE of the step's multiplications"""


@dataclass(frozen=True)
class Pair:
    """Two networks with a batch of images and all that both say of it, and which of their stages meet."""

    name: str
    teacher: Network
    student: Network
    teacher_shapes: Shapes
    student_shapes: Shapes
    stages: tuple[tuple[int, int], ...]
    images: Tensor
    teacher_said: Outputs
    student_said: Outputs


@dataclass(frozen=True)
class Loss:
    """One method on one pair: after `prepare`, `run` is a forward and a backward of its loss alone."""

    method: Method
    prepare: Callable[[], None]
    run: Callable[[], None]
    extra_parameters: int
    module_bytes: int


@dataclass(frozen=True)
class Row:
    """What one method costs.

    milliseconds, and share of the networks' own step; work: its multiplications (convolutions, matrix products) as a share
    of the step's; peak_bytes: the most that a forward and backward holds; module_bytes: what its module keeps.
    runs_network: it runs a network itself, and may cost more than LARGEST_SHARE.
    """

    method: str
    family: str
    milliseconds: float
    share: float
    work: float
    peak_bytes: int
    module_bytes: int
    extra_parameters: int
    runs_network: bool


def pair(name: str, device: torch.device, *, batch: int = BATCH) -> Pair:
    """The networks of `TEACHER/STUDENT` with random weights, placed as training places them, and a batch of random images."""
    side, execution = PAIRS.get(name, 32), Placement(WorkerOptions(device=str(device), threads=torch.get_num_threads()))
    made = [
        build_network(
            NetworkSpec(name=network, classes=CLASSES, start="random", image_size=side if "vit" in network else None),
            channels=3,
            side=side,
            mean=(0.5,) * 3,
            std=(0.25,) * 3,
            seed=seed,
        )
        for seed, network in enumerate(name.split("/"))
    ]
    shapes = [measure_shapes(network, (3, side, side)) for network in made]
    teacher, student = (execution.place(network, "float32") for network in (freeze(made[0]), made[1].train()))
    student_name = name.split("/")[1]

    def fresh() -> nn.Module:
        spec = NetworkSpec(name=student_name, classes=CLASSES, start="random", image_size=student.image_size)
        return Peer(build_network(spec, channels=3, side=side, mean=(0.5,) * 3, std=(0.25,) * 3, seed=2))

    images = torch.randint(0, 256, (batch, 3, side, side), generator=generator(0, "images"), dtype=torch.uint8).to(device)
    stages = pair_stages(shapes[1], shapes[0], "deep")
    said = [_outputs(network, images, _all_of(found)) for network, found in zip((teacher, student), shapes, strict=True)]
    return Pair(name, teacher, student, with_random_embeddings(shapes[0]), replace(shapes[1], fresh=fresh), stages, images, *said)


def _all_of(shapes: Shapes) -> NetworkNeeds:
    """Everything that a network of these shapes can be asked for, and the passes over other images."""
    need = Need.LOGITS | Need.EMBEDDING | Need.STAGES | Need.MEMBERS | Need.NETWORK
    need |= Need.PREACT if shapes.preact else Need.NOTHING
    need |= Need.CLASSIFIER if shapes.classifier is not None else Need.NOTHING
    return need | Pass.SECOND_VIEW | Pass.PARTNER


@torch.no_grad()
def _outputs(network: Network, images: Tensor, needs: NetworkNeeds) -> Outputs:
    """What a network gives of the images, and of their mirror images where another pass is read."""
    return with_passes({which: network(images if which is Pass.FIRST else images.flip(-1), needs.outputs) for which in needs.passes})


def own_step(made: Pair) -> None:
    """The networks' own step: the teacher's forward, the student's forward and backward."""
    with torch.no_grad():
        made.teacher(made.images, Need.LOGITS)
    made.student.logits(made.images).logsumexp(1).sum().backward()
    made.student.zero_grad(set_to_none=True)


def loss_of(method: Method, made: Pair) -> Loss:
    """A method's loss on the pair; raises InputError where it cannot serve these networks, here or when it is run."""
    needs, device = method.card.needs, made.images.device
    targets = torch.arange(SAMPLES) % CLASSES
    student_stages, teacher_stages = stage_indices(method, made.stages)
    _refuse(method, made)
    with global_stream(0, "build"):
        shapes = made.student_shapes.pick(student_stages), made.teacher_shapes.pick(teacher_stages)
        module = method.build(*shapes, DataFacts(SAMPLES, CLASSES, targets)).to(device).train()
    teacher = _cut_off(made.teacher_said, "teacher").restrict_to(needs.teacher, teacher_stages)
    apart = _cut_off(made.student_said, "student").restrict_to(needs.student, student_stages)
    student: list[Outputs] = []
    steps = iter(range(10**9))

    def prepare() -> None:
        """The student's outputs without gradients; made anew where a backward goes through what made them."""
        if takes_gradients_at_maps(method):
            student[:] = [made.student(made.images, needs.student.outputs).restrict_to(needs.student, student_stages, owner="student")]
        else:
            student[:] = [apart.map(without_gradient)]
        for owner in (module, made.student):
            owner.zero_grad(set_to_none=True)

    def run() -> None:
        batch = Batch(
            inputs=made.images,
            targets=targets[: len(made.images)].to(device),
            index=torch.arange(len(made.images), device=device),
            clock=Progress(1, 2, 1, 2),
            generator=generator(0, "benchmark", next(steps), device=device),
        )
        given = method.loss(student[0], teacher, batch, module)
        total = given.loss + given.auxiliary if isinstance(given, LossWithAux) else given
        total.backward()

    held = sum(t.numel() * t.element_size() for t in [*module.parameters(), *module.buffers()])
    return Loss(method, prepare, run, sum(p.numel() for p in module.parameters() if p.requires_grad), held)


def takes_gradients_at_maps(method: Method) -> bool:
    """Whether the student's class scores must come from the very maps that are read."""
    return Need.NETWORK | Need.STAGES in method.card.needs.student


def without_gradient(tensor: Tensor) -> Tensor:
    """The tensor, its gradient dropped."""
    tensor.grad = None
    return tensor


def _refuse(method: Method, made: Pair) -> None:
    """What the bench refuses before training, so that the table says so and not a traceback."""
    for shapes, need in ((made.student_shapes, method.card.needs.student), (made.teacher_shapes, method.card.needs.teacher)):
        if Need.PREACT in need and not shapes.preact:
            raise InputError("reads pre-activation maps")
        if Need.DISTILLED in need and not shapes.distilled:
            raise InputError("reads a distillation token")


def _cut_off(outputs: Outputs, owner: str) -> Outputs:
    """The outputs as leaves, at which a backward ends; the student's take gradients."""
    return outputs.map(lambda tensor: tensor.detach().requires_grad_(owner == "student")).restrict_to(outputs.needs, owner=owner)


def seconds(act: Callable[[], None], device: torch.device) -> float:
    """What `act` takes: on a CPU the seconds that this process computed, whatever else the machine did."""
    clock = time.perf_counter if device.type == "cuda" else time.process_time
    synchronise(device)
    began = clock()
    act()
    synchronise(device)
    return clock() - began


def measured(made: Pair, losses: Sequence[Loss], rounds: int = ROUNDS) -> tuple[list[float], list[list[float]]]:
    """Seconds of the networks' own step and of each loss, one after the other in every round, after one that is not counted."""
    steps: list[float] = []
    found: list[list[float]] = [[] for _ in losses]
    for _ in range(rounds + 1):
        steps.append(seconds(lambda: own_step(made), made.images.device))
        for loss, spent in zip(losses, found, strict=True):
            loss.prepare()
            spent.append(seconds(loss.run, made.images.device))
    return steps[1:], [spent[1:] for spent in found]


def share(steps: Sequence[float], spent: Sequence[float]) -> float:
    """What a loss costs of the networks' own step: the median of the rounds."""
    return statistics.median(loss / step for step, loss in zip(steps, spent, strict=True))


def runs_network(method: Method) -> bool:
    """Whether the loss runs a network itself, for gradients or peers, so that it may cost more than LARGEST_SHARE."""
    return Need.NETWORK in method.card.needs.student | method.card.needs.teacher


def names_without_networks() -> list[str]:
    """The methods that run no network themselves."""
    return [name for name in REGISTRY.names() if not runs_network(REGISTRY.get(name)())]


def losses_on(made: Pair, names: Iterable[str]) -> dict[str, Loss]:
    """The losses of those methods that can serve the pair, by name."""
    found = {}
    for name in names:
        with contextlib.suppress(InputError):
            found[name] = loss_of(REGISTRY.get(name)(), made)
    return found


def table(made: Pair, names: Sequence[str], rounds: int = ROUNDS) -> dict[str, Any]:
    """The networks' own step in milliseconds, a row for every method, and why the others have none."""
    steps: list[float] = []
    rows: list[Row] = []
    refused: dict[str, str] = {}
    step_work = work(lambda: own_step(made))
    for first in range(0, len(names), TOGETHER):
        losses, peaks, works = [], [], []
        for name in names[first : first + TOGETHER]:
            try:
                loss = loss_of(REGISTRY.get(name)(), made)
                peaks.append(peak_bytes(loss, made.images.device))
                works.append(work_of(loss) / step_work)
                losses.append(loss)
            except InputError as error:
                refused[name] = "; ".join(error.problems)
        own, found = measured(made, losses, rounds)
        steps += own
        rows += [_row(loss, peak, done, own, spent) for loss, peak, done, spent in zip(losses, peaks, works, found, strict=True)]
    return {
        "pair": made.name,
        "step_milliseconds": 1000 * statistics.median(steps),
        "rows": [asdict(row) for row in rows],
        "refused": refused,
    }


def peak_bytes(loss: Loss, device: torch.device) -> int:
    """The most bytes that a forward and backward of the loss hold above what was there before."""
    loss.prepare()
    return with_peak(loss.run, device)[1]


def work_of(loss: Loss) -> int:
    """The multiplications of a forward and backward of the loss."""
    loss.prepare()
    return work(loss.run)


def work(act: Callable[[], None]) -> int:
    """The multiplications of convolutions, matrix products and attention, forward and backward."""
    with attention_as_products(), Multiplications() as counted:
        act()
    return counted.total


def _row(loss: Loss, peak: int, done: float, steps: Sequence[float], spent: Sequence[float]) -> Row:
    card = loss.method.card
    return Row(
        method=card.name,
        family=card.family,
        milliseconds=1000 * statistics.median(spent),
        share=share(steps, spent),
        work=done,
        peak_bytes=peak,
        module_bytes=loss.module_bytes,
        extra_parameters=loss.extra_parameters,
        runs_network=runs_network(loss.method),
    )


def markdown(content: dict[str, Any]) -> str:
    """The tables as text."""
    where = content["environment"]
    lines = ["# What each loss costs", "", (__doc__ or "").split("\n\n")[-1].strip(), ""]
    lines += [
        f"A loss is to cost {100 * LARGEST_SHARE:.0f} % of the step at most, but where it runs a network itself (*), or where the "
        "layers that its paper puts on the maps take more than that by their multiplications alone (**; their share of the step's is "
        "beside the time's).",
        "",
        f"{where['processor']}, {where['device']}, threads: {where['threads']}; torch {where['torch']}, timm {where['timm']}, "
        f"kdzoo {where['kdzoo']} at {where['git']}{', changed since' if where['changed_since_commit'] else ''}; load of the machine "
        f"{where['load_average_before']:.1f} before and {where['load_average_after']:.1f} after; {where['date']}.",
        "",
    ]
    for found in content["results"]:
        lines += [f"## {found['pair']}", "", f"The networks' own step: {found['step_milliseconds']:.0f} ms.", ""]
        lines += [*_rows(found["rows"]), ""]
        why = defaultdict(list)
        for name, reason in found["refused"].items():
            why[reason].append(name)
        lines += [*(f"- {', '.join(names)}: {reason}" for reason, names in why.items()), ""] if why else []
    return "\n".join(lines)


def _rows(rows: list[dict[str, Any]]) -> list[str]:
    """One line a method, the dearest first."""
    return [
        "| method | family | ms | share of the step | of its multiplications | peak memory | held by its module | extra parameters |",
        "|---|---|---:|---:|---:|---:|---:|---:|",
        *(
            f"| {row['method']}{_mark(row)} | {row['family']} | {row['milliseconds']:.1f} | {100 * row['share']:.1f} % | "
            f"{100 * row['work']:.1f} % | {row['peak_bytes'] / 2**20:.1f} MiB | {row['module_bytes'] / 2**20:.1f} MiB | "
            f"{row['extra_parameters']:,} |"
            for row in sorted(rows, key=lambda row: -row["share"])
        ),
    ]


def _mark(row: dict[str, Any]) -> str:
    """Why a loss may cost more than the others."""
    return " *" if row["runs_network"] else " **" if row["work"] > LARGEST_SHARE else ""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--methods", default=",".join(REGISTRY.names()), help="names, joined with commas")
    parser.add_argument("--pairs", default=",".join(PAIRS), help="TEACHER/STUDENT, joined with commas")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--write", type=Path, help="a folder for losses.json and losses.md")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    device = torch.device(given.device)
    about = machine(device, given.threads)
    results = [table(pair(name, device), given.methods.split(","), given.rounds) for name in given.pairs.split(",")]
    about["load_average_after"] = os.getloadavg()[0]
    content = {"batch": BATCH, "rounds": given.rounds, "environment": about, "results": results}
    print(markdown(content))
    if given.write is not None:
        given.write.mkdir(parents=True, exist_ok=True)
        (given.write / "losses.json").write_text(json.dumps(content, indent=1) + "\n")
        (given.write / "losses.md").write_text(markdown(content))


if __name__ == "__main__":
    main()
