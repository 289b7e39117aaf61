"""200 real steps of every method on handwritten digits, under a teacher that has learnt them: no NaN, and its own loss falls.

All methods see the same batches and one teacher, on one thread. An epoch is 20 steps, so that the mean of a
method's own loss over the first and over the last 20 steps is what its first and last epoch report.
"""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from timm.models.deit import VisionTransformerDistilled
from torch import nn

from kdzoo.assemble import Modules
from kdzoo.method import REGISTRY
from kdzoo.pages import zoo
from kdzoo.signals import Need
from kdzoo.spec import NetworkSpec, ObjectiveSpec, Run, TermSpec
from kdzoo.store import RunFolder, teacher_store
from kdzoo.suite.config import bench_config
from kdzoo.suite.jobs import Options
from kdzoo.suite.sweep import plan
from kdzoo.suite.worker import Bench, train_runs

pytestmark = pytest.mark.slow

STEPS_AN_EPOCH, EPOCHS = 20, 10
BENCH = {
    "name": "steps",
    "data": "digits",
    "pairs": "digits",
    "recipe": "digits",
    "methods": "hinton",
    "temperatures": "4",
    "limit": 1400,
    "val_fraction": 0.2,
    "seeds": "1",
    "epochs": EPOCHS,
    "set": {"recipe.batch_size": 56, "recipe.lr": 0.03, "teacher_recipe.lr": 0.1, "teacher_recipe.epochs": 10},
}
DISTILLED = "module:distilled"

NOT_MEANT_TO_FALL = {
    "bss": "it looks at images that both networks get right, of which there are more as the student learns",
    "cskd": "two images of a class agree best while the student knows nothing",
    "dml": "two networks agree best while neither knows anything",
    "kdcl": "networks agree best while none knows anything",
    "norm": "the factor on its matching rises and falls within its own loss",
}
"""methods whose own loss need not fall, and why"""


def distilled_transformer() -> nn.Module:
    """A transformer with a distillation token for 8x8 grey images."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return VisionTransformerDistilled(img_size=8, patch_size=2, in_chans=1, num_classes=10, embed_dim=32, depth=2, num_heads=2)


def own_loss(run: Run, name: str) -> Run:
    """The run with cross-entropy and one method's own loss as published, in one stage."""
    method = REGISTRY.get(name)()
    card = method.card
    term = TermSpec(method=name, version=card.version, hyperparameters=method.model_dump(mode="json"), coefficient=card.published.term)
    changed: dict[str, object] = {"objective": ObjectiveSpec(task=card.published.task, terms=(term,))}
    if Need.DISTILLED in card.needs.student:  # a transformer, which learns nothing in 200 steps of SGD
        changed["student"] = NetworkSpec(name=DISTILLED, classes=run.student.classes)
        changed["recipe"] = run.recipe.model_copy(update={"optimizer": "adamw", "lr": 0.003})
    return run.model_copy(update=changed)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, RunFolder]]:
    """The folder of a run of every method, all trained together."""
    folder, threads = tmp_path_factory.mktemp("steps"), torch.get_num_threads()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KDZOO_CACHE", str(folder / "cache"))
        patch.setenv("WANDB_MODE", "disabled")
        torch.set_num_threads(1)
        made = plan(bench_config({**BENCH, "results": str(folder)}, None))
        (planned,) = (p for p in made.students if p.run.teacher is not None)
        for teacher in made.teachers.values():
            teacher_store().run(teacher.run.id).plan(teacher.run, teacher.about)
            train_runs(teacher_store(), [teacher.run.id], Options(), Bench(), lambda _: None, lambda: False)
        runs = {name: own_loss(planned.run, name) for name in zoo()}
        for run in runs.values():
            made.store.run(run.id).plan(run, planned.about)
        bench = Bench(Modules({DISTILLED: distilled_transformer()}))
        for recipe in {str(run.recipe): run.recipe for run in runs.values()}.values():
            cohort = [run.id for run in runs.values() if run.recipe == recipe]
            train_runs(made.store, cohort, Options(keep=()), bench, lambda _: None, lambda: False)
        yield {name: made.store.run(run.id) for name, run in runs.items()}
    torch.set_num_threads(threads)


def metrics(folder: RunFolder) -> list[dict]:
    return [json.loads(line) for line in Path(folder.metrics).read_text().splitlines()]


def test_the_teacher_knows_the_digits(trained):
    assert trained["hinton"].result()["teacher"]["test"]["top1"] > 0.9


@pytest.mark.parametrize("name", zoo())
def test_200_steps_end_without_a_number_that_is_none(trained, name):
    """A loss that is NaN or infinite at any step fails a run, as does any other fault."""
    assert trained[name].state() == "done", trained[name].failure()
    assert [line["step"] for line in metrics(trained[name])] == [STEPS_AN_EPOCH * (epoch + 1) for epoch in range(EPOCHS)]


@pytest.mark.parametrize("name", [name for name in zoo() if name not in NOT_MEANT_TO_FALL])
def test_its_own_loss_falls(trained, name):
    first, *_, last = (line["parts"][name] for line in metrics(trained[name]))
    assert last < first


def test_only_methods_of_the_zoo_are_excused():
    assert set(NOT_MEANT_TO_FALL) <= set(zoo())
