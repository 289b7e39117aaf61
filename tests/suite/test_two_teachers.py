"""Teachers of one architecture in one bench: every student learns from its own."""

import json
from pathlib import Path

import timm
import torch

import kdzoo
from kdzoo.models.names import load_zoo
from kdzoo.suite.plan.cohorts import make_jobs
from kdzoo.suite.plan.layers import bench_config
from kdzoo.suite.run.bench import run
from kdzoo.suite.run.launchers.here import Here
from kdzoo.suite.run.prepare import prepare

OPTIONS = {
    "data": "digits",
    "recipe": "digits",
    "limit": 200,
    "epochs": 1,
    "alphas": "0.5",
    "seeds": "1",
    "name": "b",
    "refit": False,
    "allow_chance_teacher": True,
}


def files(folder: Path) -> dict[str, Path]:
    """Two files of weights for the digits' teacher."""
    load_zoo()
    found = {}
    for seed, name in enumerate(("one", "other")):
        torch.manual_seed(seed)
        found[name] = folder / f"{name}.pth"
        torch.save(timm.create_model("digits_teacher", num_classes=10, in_chans=1).state_dict(), found[name])
    return found


def trained(pairs: list[str], results: Path, method: str = "hinton") -> dict[str, tuple[float, float]]:
    """By run id of a method: the student's and its teacher's NLL on the test images."""
    asked = {**OPTIONS, "methods": method, "pairs": pairs, "results": str(results)}
    prepared = prepare(bench_config(asked, None))
    for job in make_jobs(prepared.plan.students, prepared.plan, prepared.options, prepared.jobs):
        of_job = [planned.run for planned in prepared.plan.students if planned.run.id in job.ids]
        assert len({str(one.teacher) for one in of_job if one.teacher is not None}) <= 1
    outcome = run(prepared, Here(), lambda _: None, retry_failed=False)
    assert not outcome.failed
    found = [json.loads(file.read_text()) for file in results.glob(f"b/runs/{method}-*/result.json")]
    return {one["id"]: (one["last"]["test"]["nll"], one["teacher"]["test"]["nll"]) for one in found}


def test_each_student_has_its_own_teacher(place: Path) -> None:
    weights = files(place)
    pairs = {name: f"digits_teacher:{file.name}/digits_student" for name, file in weights.items()}
    together = trained(list(pairs.values()), place / "together")
    alone = {**trained([pairs["one"]], place / "one"), **trained([pairs["other"]], place / "other")}
    assert len(together) == 2
    assert together == alone
    assert len({teacher for _, teacher in together.values()}) == 2


def test_each_normalisation_of_one_file_is_its_own_teacher(place: Path) -> None:
    file = files(place)["one"]
    both = trained([f"digits_teacher:{file.name}{norm}/digits_student" for norm in ("", "@norm=pixels")], place / "together")
    assert len(both) == 2
    assert len({teacher for _, teacher in both.values()}) == 2


def test_what_a_users_loss_draws_from_numpy_and_random_depends_on_the_step_alone(place: Path) -> None:
    """The same run twice, under other states of the global generators, is the same to the bit."""
    import random

    import numpy as np

    @kdzoo.register("draws_from_libraries")
    def draws_from_libraries(student, teacher, batch):  # type: ignore[no-untyped-def]
        """The squared distance of logits, weighed at random."""
        weight = random.random() + np.random.rand()
        return weight * (student.logits - teacher.logits).square().mean()

    files(place)
    found = []
    for seed in (0, 1):
        random.seed(seed)
        np.random.seed(seed)
        before = random.getstate()
        found.append(trained(["digits_teacher:one.pth/digits_student"], place / str(seed), method="draws_from_libraries"))
        assert random.getstate() == before
    assert len(found[0]) == 1
    assert found[0] == found[1]
