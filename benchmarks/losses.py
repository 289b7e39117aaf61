"""What every method's loss costs beside the networks' own step, as one table and as JSON.

    python benchmarks/losses.py                          # prints the table
    python benchmarks/losses.py --write results/losses   # and writes losses.json and losses.md there
    python benchmarks/losses.py --methods hinton,crd --device cuda

Forward and backward of the loss on what two real networks give for one batch of 64, medians of several rounds; the
networks' own step is the teacher's forward and the student's forward and backward, timed in the same run. One thread,
so that figures of shared machines can be compared as shares.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from kdzoo.cost import saved_bytes
from kdzoo.environment import environment
from kdzoo.errors import InputError
from kdzoo.method import REGISTRY, LossAndAuxiliary, Method
from kdzoo.models.network import Learner, Network, build_network, freeze, pair_stages, probe
from kdzoo.seeds import generator, global_stream
from kdzoo.signals import PASSES, Batch, Clock, DataFacts, Need, Outputs, Shapes
from kdzoo.spec import NetworkSpec

BATCH, CLASSES, SAMPLES, ROUNDS = 64, 100, 50_000, 5
PAIRS = {"resnet32x4/resnet8x4": 32, "vit_small_patch16_224/vit_tiny_patch16_224": 128}
"""teacher and student, and the side of the images"""


@dataclass(frozen=True)
class Pair:
    """Two networks with a batch of images, and which of their stages meet."""

    name: str
    teacher: Network
    student: Network
    teacher_shapes: Shapes
    student_shapes: Shapes
    stages: tuple[tuple[int, int], ...]
    images: Tensor


@dataclass(frozen=True)
class Loss:
    """One method on one pair: `run` is a forward and a backward of its loss alone."""

    run: Callable[[], None]
    extra_parameters: int
    module_bytes: int


@dataclass(frozen=True)
class Row:
    """What one method costs: milliseconds, share of the networks' step, bytes kept for the backward and by the module."""

    method: str
    family: str
    milliseconds: float
    share: float
    kept_bytes: int
    module_bytes: int
    extra_parameters: int


def pair(name: str, device: torch.device) -> Pair:
    """The networks of `TEACHER/STUDENT` with random weights, and a batch of random images."""
    side = PAIRS[name]
    made = [
        build_network(
            NetworkSpec(name=network, classes=CLASSES, start="random", image_size=side if "vit" in network else None),
            channels=3,
            side=side,
            mean=(0.5,) * 3,
            std=(0.25,) * 3,
            seed=seed,
        ).to(device)
        for seed, network in enumerate(name.split("/"))
    ]
    teacher, student = freeze(made[0]), made[1].train()
    shapes = [probe(network, (3, side, side)) for network in (teacher, student)]
    student_name = name.split("/")[1]

    def fresh() -> nn.Module:
        spec = NetworkSpec(name=student_name, classes=CLASSES, start="random", image_size=student.image_size)
        return Learner(build_network(spec, channels=3, side=side, mean=(0.5,) * 3, std=(0.25,) * 3, seed=2))

    images = torch.randint(0, 256, (BATCH, 3, side, side), generator=generator(0, "images"), dtype=torch.uint8).to(device)
    stages = pair_stages(shapes[1], shapes[0], "deep")
    return Pair(name, teacher, student, shapes[0], replace(shapes[1], fresh=fresh), stages, images)


def own_step(made: Pair) -> None:
    """The networks' own step: the teacher's forward, the student's forward and backward."""
    with torch.no_grad():
        made.teacher(made.images, Need.LOGITS)
    made.student.logits(made.images).logsumexp(1).sum().backward()
    made.student.zero_grad(set_to_none=True)


def loss_of(method: Method, made: Pair) -> Loss:
    """A method's loss on the pair; raises InputError where it cannot serve these networks."""
    needs, device = method.card.needs, made.images.device
    targets = torch.arange(SAMPLES) % CLASSES
    student_stages, teacher_stages = ([p[i] for p in made.stages] for i in (0, 1))
    _refuse(method, made)
    with global_stream(0, "build"):
        shapes = made.student_shapes.pick(student_stages), made.teacher_shapes.pick(teacher_stages)
        module = method.build(*shapes, DataFacts(SAMPLES, CLASSES, targets)).to(device).train()
    student = _given(made.student, made.images, needs.student, student_stages, "student")
    teacher = _given(made.teacher, made.images, needs.teacher, teacher_stages, "teacher")
    steps = iter(range(10**9))

    def run() -> None:
        batch = Batch(
            inputs=made.images,
            targets=targets[:BATCH].to(device),
            index=torch.arange(BATCH, device=device),
            clock=Clock(1, 2, 1, 2),
            generator=generator(0, "benchmark", next(steps), device=device),
        )
        given = method.loss(student, teacher, batch, module)
        total = given.loss + given.auxiliary if isinstance(given, LossAndAuxiliary) else given
        total.backward()

    buffers = sum(t.numel() * t.element_size() for t in [*module.parameters(), *module.buffers()])
    return Loss(run, sum(p.numel() for p in module.parameters() if p.requires_grad), buffers)


def _refuse(method: Method, made: Pair) -> None:
    """What the bench refuses before training, so that the table says so and not a traceback."""
    for shapes, need in ((made.student_shapes, method.card.needs.student), (made.teacher_shapes, method.card.needs.teacher)):
        if Need.PREACT in need and not shapes.preact:
            raise InputError("reads pre-activation maps")
        if Need.DISTILLED in need and not shapes.distilled:
            raise InputError("reads a distillation token")


def _given(network: Network, images: Tensor, need: Need, stages: list[int], owner: str) -> Outputs:
    """What a network gives, cut off from it, so that a backward ends there; networks themselves stay whole."""
    with torch.no_grad():
        first: Outputs = network(images, need & ~PASSES)
    values: dict[Need, Any] = {}
    for name in need & ~(PASSES | Need.TARGETS):
        if name in Need.CLASSIFIER | Need.NETWORK:
            values[name] = getattr(first, str(name.name).lower())
        else:
            value = getattr(first, {"STAGES": "stages", "PREACT": "preact"}.get(str(name.name), str(name.name).lower()))
            leaf = owner == "student"
            values[name] = (
                [t.detach().requires_grad_(leaf) for t in value] if isinstance(value, list) else value.detach().requires_grad_(leaf)
            )
    made = Outputs(values, owner=owner)
    for other in PASSES & need:
        made = made.beside(other, _given(network, images.flip(-1), need & ~PASSES, stages, owner))
    return made.only(need, stages)


def median_seconds(act: Callable[[], None], device: torch.device, rounds: int = ROUNDS) -> float:
    """The median of several rounds after one that is not counted."""
    times = []
    for _ in range(rounds + 1):
        _synchronise(device)
        began = time.perf_counter()
        act()
        _synchronise(device)
        times.append(time.perf_counter() - began)
    return statistics.median(times[1:])


def _synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def table(made: Pair, names: list[str], device: torch.device) -> tuple[float, list[Row], dict[str, str]]:
    """The networks' own step in milliseconds, a row for every method, and why the others have none."""
    step = median_seconds(lambda: own_step(made), device)
    rows, refused = [], {}
    for name in names:
        method = REGISTRY.get(name)()
        try:
            loss = loss_of(method, made)
        except InputError as error:
            refused[name] = "; ".join(error.problems)
            continue
        seconds = median_seconds(loss.run, device)
        with saved_bytes() as kept:
            loss.run()
        rows.append(
            Row(name, method.card.family, 1000 * seconds, seconds / step, sum(kept.values()), loss.module_bytes, loss.extra_parameters)
        )
    return 1000 * step, rows, refused


def markdown(results: list[dict[str, Any]]) -> str:
    """The tables as text."""
    lines = ["# What each loss costs", "", __doc__.split("\n\n")[-1].strip(), ""]
    for found in results:
        lines += [f"## {found['pair']}", "", f"The networks' own step: {found['step_milliseconds']:.0f} ms.", ""]
        lines += [
            "| method | family | ms | share of the step | kept for the backward | module | extra parameters |",
            "|---|---|---:|---:|---:|---:|---:|",
        ]
        for row in sorted(found["rows"], key=lambda row: -row["milliseconds"]):
            lines.append(
                f"| {row['method']} | {row['family']} | {row['milliseconds']:.1f} | {100 * row['share']:.1f} % "
                f"| {row['kept_bytes'] / 2**20:.1f} MiB | {row['module_bytes'] / 2**20:.1f} MiB | {row['extra_parameters']:,} |"
            )
        lines += ["", *(f"- {name}: {why}" for name, why in found["refused"].items()), ""]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--methods", default=",".join(REGISTRY.names()), help="names, joined with commas")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--write", type=Path, help="a folder for losses.json and losses.md")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    device = torch.device(given.device)
    results = []
    for name in PAIRS:
        step, rows, refused = table(pair(name, device), given.methods.split(","), device)
        results.append({"pair": name, "step_milliseconds": step, "rows": [asdict(row) for row in rows], "refused": refused})
    print(markdown(results))
    if given.write is not None:
        given.write.mkdir(parents=True, exist_ok=True)
        content = {"batch": BATCH, "environment": environment(device, given.threads), "results": results}
        (given.write / "losses.json").write_text(json.dumps(content, indent=1) + "\n")
        (given.write / "losses.md").write_text(markdown(results) + "\n")


if __name__ == "__main__":
    main()
