"""The check that trains: one real step of two small networks."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from kdzoo.conformance.case import BATCH, CLASSES, SAMPLES, Fault
from kdzoo.contract.batch import Batch, Progress
from kdzoo.contract.method import Method, stage_indices
from kdzoo.contract.needs import Need, Needs, NetworkNeeds, Pass
from kdzoo.contract.objective import Objective, Term
from kdzoo.contract.outputs import Outputs, with_passes
from kdzoo.contract.shapes import DataFacts
from kdzoo.models.build import build_network
from kdzoo.models.measure import measure_shapes
from kdzoo.models.network import Peer, freeze
from kdzoo.models.stages import pair_stages
from kdzoo.runs.spec import NetworkSpec
from kdzoo.seeds import generator, global_stream


def trains_a_tiny_pair(method: Method) -> None:
    """One real step of two small timm networks: the student moves, the teacher does not."""
    name = "deit_tiny_distilled_patch16_224" if Need.DISTILLED in method.card.needs.student else "test_resnet"
    spec, other = (NetworkSpec(name=n, classes=CLASSES, start="random") for n in (name, "test_resnet"))
    like: dict[str, Any] = {"channels": 3, "side": 64, "mean": (0.5,) * 3, "std": (0.25,) * 3}
    student, teacher = build_network(spec, **like, seed=0), freeze(build_network(other, **like, seed=1))
    probed = [measure_shapes(network, (3, 64, 64)) for network in (student, teacher)]
    samples = torch.randint(0, 256, (SAMPLES, 3, 64, 64), generator=generator(0, "samples"), dtype=torch.uint8)
    shapes = [replace(shape, fresh=lambda: Peer(build_network(spec, **like, seed=2))) for shape in probed]
    shapes[1] = replace(shapes[1], embed=lambda positions: teacher(samples[positions], Need.EMBEDDING).embedding.detach())
    stages = pair_stages(shapes[0], shapes[1], "deep")
    ours, theirs = stage_indices(method, stages)
    facts = DataFacts(SAMPLES, CLASSES, torch.arange(SAMPLES) % CLASSES)
    with global_stream(0, "build"):
        module = method.build(shapes[0].pick(ours), shapes[1].pick(theirs), facts)
    objective = Objective(1.0, [Term(method, 1.0)], {method.card.name: module}, stages=stages, label_smoothing=0.0, seed=0)
    needs: Needs = objective.needs
    images = torch.randint(0, 256, (BATCH, 3, 64, 64), generator=generator(0, "images"), dtype=torch.uint8)
    batch = Batch(
        inputs=images,
        targets=torch.arange(BATCH) % CLASSES,
        index=torch.arange(BATCH),
        clock=Progress(0, 1, 0, 1),
        generator=generator(0, "step"),
    )
    before = {name: value.clone() for name, value in teacher.state_dict().items()}
    optimizer = torch.optim.SGD([*student.parameters(), *objective.parameters()], lr=1e-3)
    with torch.no_grad():
        answer = _outputs(teacher, images, needs.teacher)
    losses = objective(_outputs(student, images, needs.student), answer, batch)
    losses.total.backward()
    if not all(bool(torch.isfinite(p.grad).all()) for p in student.parameters() if p.grad is not None):
        raise Fault("a real step gives gradients that are NaN or infinite")
    optimizer.step()
    if not all(torch.equal(before[name], value) for name, value in teacher.state_dict().items()):
        raise Fault("a real step changes the teacher's weights or statistics")


def _outputs(network: Any, images: Tensor, needs: NetworkNeeds) -> Outputs:
    """What a network gives of the images, and of their mirror images where another pass is read."""
    return with_passes({which: network(images if which is Pass.FIRST else images.flip(-1), needs.outputs) for which in needs.passes})
