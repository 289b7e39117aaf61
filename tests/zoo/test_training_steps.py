"""200 real steps of every method under a teacher that has learnt, by benchmarks/steps.py: no NaN, and its own loss falls.

No step makes the host wait for the device: on a GPU the next step is launched while this one is computed.

Trained here on handwritten digits, a twelfth of the methods at each commit (see turns.py); on photographs of CIFAR-10 the
committed results say how it went, for every method.
"""

import json
import sys
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
from turns import part_of

from kdzoo.training.device_reads import device_reads

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))

from steps import FALLS_LATER, NOT_MEANT_TO_FALL, STEPS, TRIALS, Outcome, excused, table, train

from kdzoo.contract.methods import REGISTRY
from kdzoo.runs.metrics_file import read_lines
from kdzoo.runs.store import RunFolder
from kdzoo.training import train as training

ROOT = Path(__file__).resolve().parents[2]
PHOTOGRAPHS = json.loads((ROOT / "results" / "steps" / "cifar10.json").read_text())
TRIED = sorted({"hinton", *part_of(REGISTRY.names_for_images(), 12)})
"""the methods that are trained at this commit; hinton's run knows the teacher"""
ON_THE_HOST = {"teachers/answers.py", "teachers/cache.py"}
"""files whose reads are of row numbers, which never leave the host"""
FALLING = {data: [name for name in REGISTRY.names_for_images() if name not in excused(data)] for data in TRIALS}


@pytest.fixture(scope="module")
def reads() -> set[str]:
    """Where the first steps of all cohorts, teachers' too, make the host wait for the device."""
    return set()


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, reads: set[str]) -> Iterator[dict[str, RunFolder]]:
    """The folder of a run of every method of this commit on the digits, all trained together."""
    folder, threads = tmp_path_factory.mktemp("steps"), torch.get_num_threads()
    step = training.step

    def watched(cohort, plan, loaded, clock, answers):
        with device_reads() if clock.step < 2 else nullcontext(()) as found:
            step(cohort, plan, loaded, clock, answers)
        reads.update(found)

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KDZOO_CACHE", str(folder / "cache"))
        patch.setenv("WANDB_MODE", "disabled")
        patch.setattr(training, "step", watched)
        yield train("digits", TRIED, folder)
    torch.set_num_threads(threads)


@pytest.mark.slow
def test_the_teacher_knows_the_digits(trained):
    assert trained["hinton"].result()["teacher"]["test"]["top1"] > 0.9


@pytest.mark.slow
@pytest.mark.parametrize("name", TRIED)
def test_200_steps_end_without_a_number_that_is_none(trained, name):
    """A loss that is NaN or infinite at any step fails a run, as does any other fault."""
    assert trained[name].state() == "done", trained[name].failure().error
    epochs = TRIALS["digits"]["epochs"]
    assert [line["step"] for line in read_lines(trained[name].metrics, trained[name].id)] == [
        STEPS // epochs * (i + 1) for i in range(epochs)
    ]


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in TRIED if name in FALLING["digits"]])
def test_its_own_loss_falls(trained, name):
    first, *_, last = (line["parts"][name] for line in read_lines(trained[name].metrics, trained[name].id))
    assert last < first


@pytest.mark.slow
def test_no_step_makes_the_host_wait_for_the_device(trained, reads):
    assert reads, "the rows of the teacher's cache are looked up"
    assert {read for read in reads if read.partition(":")[0] not in ON_THE_HOST} == set()


@pytest.mark.parametrize(
    "read",
    [
        lambda x: float(x.sum()),
        lambda x: bool((x > 0).any()),
        lambda x: x[x > 0],
        lambda x: x.nonzero(),
        lambda x: x.tolist(),
        lambda x: x.cpu(),
        lambda x: x * torch.tensor([1.0, 2.0, 3.0]),
        lambda x: x.unique(),
        lambda x: torch.masked_select(x, x > 0),
    ],
)
def test_what_makes_the_host_wait_is_found(read):
    with device_reads() as found:
        read(torch.arange(3.0))
    assert found


def test_what_stays_on_the_device_is_no_read():
    x = torch.arange(3.0)
    with device_reads() as found:
        torch.where(x > 1, x, 0.0).sum().mul_(2)
        x.index_select(0, torch.zeros(1, dtype=torch.int64))
        x.to("cpu", torch.float64)
    assert found == []


@pytest.mark.release
def test_on_photographs_every_method_took_200_steps_under_a_teacher_that_knows_them():
    assert PHOTOGRAPHS["data"] == "cifar10"
    assert min(one["teacher_test_top1"] for one in PHOTOGRAPHS["methods"]) > 0.4
    assert {one["method"]: (one["steps"], one["error"]) for one in PHOTOGRAPHS["methods"]} == dict.fromkeys(
        REGISTRY.names_for_images(), (STEPS, None)
    )


@pytest.mark.release
def test_on_photographs_every_loss_fell_that_should():
    first, last = ({one["method"]: one[when] for one in PHOTOGRAPHS["methods"]} for when in ("first", "last"))
    assert {name for name in FALLING["cifar10"] if not last[name] < first[name]} == set()


def test_the_committed_table_is_what_the_record_says():
    outcomes = [Outcome(**one) for one in PHOTOGRAPHS["methods"]]
    assert table(outcomes, "cifar10") in (ROOT / "results" / "steps" / "cifar10.md").read_text()


def test_only_methods_of_the_zoo_are_excused():
    assert {*NOT_MEANT_TO_FALL, *FALLS_LATER["cifar10"]} <= set(REGISTRY.names_for_images())
