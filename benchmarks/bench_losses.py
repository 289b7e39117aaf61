"""Time of every method's loss, forward and backward, on the shapes of resnet32x4 over resnet8x4 at batch 64.

    pytest benchmarks/bench_losses.py --benchmark-columns=median,iqr,rounds

One thread, so that figures of shared machines can be compared as ratios.
"""

import pytest
import torch

from kdzoo.method import REGISTRY
from kdzoo.seeds import generator, global_stream
from kdzoo.signals import Batch, Clock, DataFacts, Need, Outputs, Shapes, StageShape

BATCH, CLASSES, SAMPLES = 64, 100, 5000
SHAPES = Shapes(CLASSES, 256, (StageShape(64, 32, 32, 1), StageShape(128, 16, 16, 2), StageShape(256, 8, 8, 4)))


def outputs(owner: str, seed: int) -> Outputs:
    random = generator(seed, owner)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=random).requires_grad_(owner == "student")

    stages = [draw(BATCH, s.channels, s.height, s.width) for s in SHAPES.stages]
    return Outputs({Need.LOGITS: draw(BATCH, CLASSES), Need.EMBEDDING: draw(BATCH, 256), Need.STAGES: stages}, owner=owner)


@pytest.mark.parametrize("name", REGISTRY.names())
def test_loss(benchmark, name):
    torch.set_num_threads(1)
    method = REGISTRY.get(name)()
    targets = torch.arange(SAMPLES) % CLASSES
    with global_stream(0, "build"):
        module = method.build(SHAPES, SHAPES, DataFacts(SAMPLES, CLASSES, targets)).train()
    student, teacher = outputs("student", 0), outputs("teacher", 1)
    batch = Batch(
        inputs=torch.zeros(BATCH, 3, 32, 32, dtype=torch.uint8),
        targets=targets[:BATCH],
        index=torch.arange(BATCH),
        clock=Clock(0, 1, 0, 1),
        generator=generator(0, "benchmark"),
    )
    benchmark(lambda: method.loss(student, teacher, batch, module).backward())
