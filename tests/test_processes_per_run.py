"""Runs that two processes train together, each on half of every batch, come to the weights of one process up to rounding."""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from test_training import planned
from torch.nn.parallel import DistributedDataParallel
from warm_python import run_warm

from kdzoo.errors import InputError
from kdzoo.runs.events import RunDone
from kdzoo.runs.options import ExecutionSpec, WorkerOptions
from kdzoo.runs.recipe import Recipe
from kdzoo.runs.spec import DataSpec, NetworkSpec, ObjectiveSpec, Run
from kdzoo.runs.store import Store
from kdzoo.suite.plan.planned import Plan
from kdzoo.suite.run import followers as followers_module
from kdzoo.suite.run.channel import PROCESSES_BROKEN
from kdzoo.suite.run.followers import Followers
from kdzoo.suite.run.launchers.gpus import VISIBLE, environment_of
from kdzoo.suite.run.sharing import problems_of_sharing, refuse_sharing
from kdzoo.suite.run.train_runs import train_runs
from kdzoo.suite.run.worker_state import WorkerState
from kdzoo.training.processes import buffers_as_they_are
from kdzoo.training.train import Stopped

TOLERANCE = 1e-4
"""the largest difference of a tensor's values, relative to the largest of them: float32 over a dozen steps"""


@pytest.fixture(autouse=True)
def _alone(tmp_path, monkeypatch):
    monkeypatch.setenv("KDZOO_CACHE", str(tmp_path / "cache"))
    torch.set_num_threads(1)


def train_with(made: Plan, processes: int, stop_after: int | None = None, until: int | None = None) -> list[str]:
    """Train a plan's students in this process and its followers, until it has asked so often whether to stop; the ids that are done.

    until: the epoch after which they are paused.
    """
    state, done, asked = WorkerState(), [], iter(range(10**6))
    try:
        train_runs(
            made.store,
            [p.run.id for p in made.students],
            WorkerOptions(processes_per_run=processes, until=until),
            state,
            lambda event: done.append(event.id) if isinstance(event, RunDone) else None,
            lambda: stop_after is not None and next(asked) >= stop_after,
        )
    finally:
        if state.followers is not None:
            state.followers.close()
    return done


def difference(one: Path, other: Path) -> float:
    """The largest difference of two students' tensors, relative to the largest value of each."""
    ours, theirs = load_file(one), load_file(other)
    assert ours.keys() == theirs.keys()
    return max(float((ours[name] - value).abs().max() / value.abs().max().clamp(min=1e-6)) for name, value in theirs.items())


SMALL = {"methods": "hinton,at,rkd,crd,sp", "limit": 163, "epochs": 1, "set": {"recipe.batch_size": 32, "teacher_recipe.epochs": 15}}
"""four batches of 32, and a last one of 2: the halves of a batch of the digits' 130 training images"""


def test_two_processes_come_to_the_weights_of_one(tmp_path):
    """hinton, a mean over samples; at, of maps; rkd and sp, of relations in the batch; crd, with its memory of samples; batch norm."""
    one, two = planned(tmp_path / "one", **SMALL), planned(tmp_path / "two", **SMALL)
    ids = sorted(p.run.id for p in one.students)
    assert sorted(train_with(one, 1)) == sorted(train_with(two, 2)) == ids
    for run_id in ids:
        ours, theirs = (made.store.run(run_id) for made in (two, one))
        assert difference(ours.student, theirs.student) < TOLERANCE
        (line,), (expected,) = (list(map(json.loads, folder.metrics.read_text().splitlines())) for folder in (ours, theirs))
        assert line["parts"] == pytest.approx(expected["parts"], rel=1e-3)
        assert line["val"]["nll"] == pytest.approx(expected["val"]["nll"], rel=1e-3)
        assert ours.result()["last"]["test"]["nll"] == pytest.approx(theirs.result()["last"]["test"]["nll"], rel=1e-3)
        assert (ours.result()["environment"]["processes"], theirs.result()["environment"]["processes"]) == (2, None)


@pytest.mark.slow
def test_mixed_images_and_a_stop_in_the_middle_change_nothing(tmp_path):
    """The first image of a half is mixed with the last one of the other; what was stopped goes on from its checkpoint."""
    mixing = {**SMALL, "methods": "hinton,rkd", "set": {**SMALL["set"], "recipe.mixup": 0.8, "recipe.cutmix": 1.0}}
    one, two = planned(tmp_path / "one", **mixing), planned(tmp_path / "two", **mixing)
    train_with(one, 1)
    with pytest.raises(Stopped):
        train_with(two, 2, stop_after=2)
    assert all(two.store.run(p.run.id).checkpoint.exists() for p in two.students)
    train_with(two, 2)
    for run_id in [p.run.id for p in one.students]:
        assert difference(two.store.run(run_id).student, one.store.run(run_id).student) < TOLERANCE


@pytest.mark.slow
def test_runs_that_two_processes_pause_go_on_to_the_same_weights(tmp_path):
    longer = {**SMALL, "methods": "hinton,rkd", "epochs": 2}
    one, two = planned(tmp_path / "one", **longer), planned(tmp_path / "two", **longer)
    train_with(one, 2)
    assert train_with(two, 2, until=1) == []
    assert {two.store.run(p.run.id).paused_after() for p in two.students} == {1}
    train_with(two, 2)
    for run_id in [p.run.id for p in one.students]:
        assert difference(two.store.run(run_id).student, one.store.run(run_id).student) == 0


class EarlierDDP(torch.nn.Module):
    """The parameters of torch 2.9's DistributedDataParallel that matter here."""

    def __init__(self, module, broadcast_buffers=True, find_unused_parameters=False):
        super().__init__()


@pytest.fixture
def group_of_one(tmp_path):
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/rendezvous", rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


def test_no_buffer_is_copied_in_a_forward_and_no_version_of_torch_warns(group_of_one):
    assert buffers_as_they_are(EarlierDDP) == {"broadcast_buffers": False}
    module = torch.nn.BatchNorm1d(3)
    with warnings.catch_warnings():
        warnings.simplefilter("error", FutureWarning)
        sharded = DistributedDataParallel(module, **buffers_as_they_are(DistributedDataParallel))
    assert not sharded.will_sync_module_buffers()


LEADER = """
import sys
from kdzoo.suite.run.followers import Followers
Followers(int(sys.argv[1]), "cpu", ())
"""


class Meeting:
    """A leader and the followers that it starts, on their way into a rendezvous in a folder of their own."""

    def __init__(self, place: Path, count: int) -> None:
        words = [sys.executable, "-W", "error::ResourceWarning", "-c", LEADER, str(count)]
        self.leader = subprocess.Popen(words, env={**os.environ, "TMPDIR": str(place)}, stderr=subprocess.PIPE)
        self._place, self._count = place, count
        wait_for(lambda: self.folders() and len(self.followers()) == count - 1)

    def folders(self) -> list[Path]:
        return list(self._place.glob("kdzoo-processes-*"))

    def followers(self) -> list[int]:
        """By process number, those that are programs of their own already and not copies of their leader."""
        return [pid for pid in children_of(self.leader.pid) if b"suite.run.follower" in Path(f"/proc/{pid}/cmdline").read_bytes()]


def is_running(pid: int) -> bool:
    """Whether a process has not ended; one that nobody has waited for is listed still."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def children_of(pid: int) -> list[int]:
    """The processes that another has started from any of its threads and that are not waited for yet."""
    return [int(child) for thread in Path(f"/proc/{pid}/task").iterdir() for child in (thread / "children").read_text().split()]


@pytest.mark.slow
@pytest.mark.parametrize(("dead", "count"), [("leader", 2), ("leader", 3), ("follower", 2), ("follower", 3)])
def test_who_dies_in_the_rendezvous_takes_all_along_and_leaves_no_folder_behind(tmp_path, dead, count):
    """Killed as soon as all are started: the followers are importing torch, and the leader waits for them."""
    meeting = Meeting(tmp_path, count)
    followers = meeting.followers()
    os.kill(meeting.leader.pid if dead == "leader" else followers[0], signal.SIGKILL)
    wait_for(lambda: not meeting.folders() and not any(map(is_running, followers)))
    _, said = meeting.leader.communicate(timeout=60)
    assert meeting.leader.returncode == (-signal.SIGKILL if dead == "leader" else PROCESSES_BROKEN), said.decode()


def test_a_leader_that_cannot_join_leaves_neither_followers_nor_a_folder(tmp_path, new_interpreters, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    started = []

    def fail(*_):
        in_folder = bytes(tmp_path)
        started.extend(pid for pid in children_of(os.getpid()) if in_folder in Path(f"/proc/{pid}/cmdline").read_bytes())
        raise RuntimeError("no backend")

    monkeypatch.setattr(followers_module, "join_processes", fail)
    with pytest.raises(RuntimeError, match="no backend"):
        Followers(3, "cpu", ())
    assert len(started) == 3, "two followers, and the process that would remove the folder"
    assert not any(Path(f"/proc/{pid}").exists() for pid in started)
    assert list(tmp_path.iterdir()) == []


KILLED = """
import os, signal, subprocess, sys
from kdzoo.suite.run.followers import rendezvous_file
with rendezvous_file() as (file, keep):
    subprocess.Popen([sys.executable, "-ISc", "import sys; sys.stdin.read()"], pass_fds=(keep,))
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_the_folder_of_a_rendezvous_stays_until_the_last_process_is_gone(tmp_path):
    """Torch waits for it in C++, where no thread that ends the process gets its turn."""
    leader = subprocess.Popen([sys.executable, "-c", KILLED], env={**os.environ, "TMPDIR": str(tmp_path)}, stdin=subprocess.PIPE)
    assert leader.wait(timeout=120) == -signal.SIGKILL
    time.sleep(0.5)
    assert len(list(tmp_path.iterdir())) == 1
    leader.stdin.close()  # the other process reads the same pipe and ends with it
    wait_for(lambda: not list(tmp_path.iterdir()))


def wait_for(there: Callable[[], object], seconds: float = 120.0) -> None:
    deadline = time.monotonic() + seconds
    while not there():
        assert time.monotonic() < deadline
        time.sleep(0.05)


BREAKING = """
import os, signal, pathlib, torch.distributed as dist, kdzoo

def in_second():
    return dist.is_available() and dist.is_initialized() and dist.get_rank() == 1

@kdzoo.register("breaks")
def breaks(student, teacher, batch):
    if in_second() and batch.clock.step == 2:
        raise RuntimeError("only one of two fails")
    return student.logits.square().mean()

@kdzoo.register("dies")
def dies(student, teacher, batch):
    marker = pathlib.Path(os.environ["KDZOO_CACHE"]) / "died"
    if in_second() and batch.clock.step == 3 and not marker.exists():
        marker.write_text("")
        os.kill(os.getpid(), signal.SIGKILL)
    return student.logits.square().mean()
"""


@pytest.mark.slow
def test_an_error_and_a_death_in_one_of_two_processes_cost_no_other_run_anything(tmp_path):
    """The run that fails has the error of the process in which it was raised; all others go on from their checkpoints."""
    plugin = tmp_path / "plugin.py"
    plugin.write_text(BREAKING)
    of_bench = f"--plugin {plugin} --methods breaks,dies --data digits --pairs digits --recipe digits --limit 163 --epochs 1 --seeds 1"
    words = ["bench", *of_bench.split(), "--set", "recipe.batch_size=32", "--allow-chance-teacher", "-j", "1"]
    done = run_warm(
        [sys.executable, "-m", "kdzoo", *words, "--processes-per-run", "2", "--results", str(tmp_path), "--name", "b"], timeout=600
    )
    assert done.returncode == 1, done.stdout + done.stderr
    runs = Store(tmp_path / "b")
    states = {run_id.rpartition("-")[0]: runs.run(run_id) for run_id in runs.ids()}
    assert {name: folder.state() for name, folder in states.items()} == {
        "none": "done",
        "hinton": "done",
        "dies": "done",
        "breaks": "failed",
    }
    assert states["breaks"].failure().error == "RuntimeError: only one of two fails"
    assert f"{plugin}" in (states["breaks"].path / "error.txt").read_text()
    assert "lost one of the processes that trained with it (--processes-per-run)" in done.stdout + done.stderr
    for folder in (states["none"], states["hinton"], states["dies"]):
        assert [json.loads(line)["epoch"] for line in folder.metrics.read_text().splitlines()] == [1]


def test_what_several_processes_cannot_train_is_refused_by_name():
    together = ExecutionSpec(processes_per_run=4, launcher="here", compile=True)
    assert list(problems_of_sharing(together.model_copy(update={"processes_per_run": 1}), "cuda", 0)) == []
    launcher, compiled = problems_of_sharing(together, "cpu", 0)
    assert launcher == "processes_per_run: the launcher here trains in this process alone; take local"
    assert compiled.startswith("compile: cannot be combined with processes_per_run")
    (few,) = problems_of_sharing(ExecutionSpec(processes_per_run=4), "cuda", 2)
    assert few == "processes_per_run: expected at most 2, the number of GPUs, got 4"

    def run(**recipe):
        return Run(
            teacher=None,
            student=NetworkSpec(name="digits_student", classes=10),
            data=DataSpec(name="digits", fingerprint="0" * 16, classes=10),
            recipe=Recipe(**{"epochs": 1, "batch_size": 32, "lr": 0.1, **recipe}),
            objective=ObjectiveSpec(task=1.0),
            seed=0,
        )

    refuse_sharing(run(), 130, 2)
    with pytest.raises(InputError, match=r"the last batch of an epoch has 2 of 130 samples, fewer than 4 processes; set recipe\.drop_last"):
        refuse_sharing(run(), 130, 4)
    refuse_sharing(run(drop_last=True), 130, 4)
    with pytest.raises(InputError, match=r"recipe\.batch_size: expected at least 64, a sample for each process, got 32 of 130 samples"):
        refuse_sharing(run(), 130, 64)
    with pytest.raises(InputError, match=r"recipe\.dot: its two gradients cannot be those of several processes"):
        refuse_sharing(run(dot=0.1, momentum=0.5), 128, 2)


def test_each_worker_sees_as_many_gpus_as_it_has_processes():
    assert [environment_of(worker, "0123", 2) for worker in range(2)] == [{VISIBLE: "0,1"}, {VISIBLE: "2,3"}]
