"""Jobs that workers on any machine take from a bench's folder: claims, fences, what happens to a worker that dies or sleeps."""

import contextlib
import dataclasses
import errno
import os
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from edited import edit
from processes import running_in
from shared_benches import assert_nothing_is_left, assert_same_results, bench, slow_checkpoint, wait_until, work

from kdzoo.errors import InputError
from kdzoo.runs.events import Event, JobEnded, Note, RunDone, WorkerDied
from kdzoo.runs.fence import ClaimLost
from kdzoo.runs.options import WorkerOptions
from kdzoo.runs.store import Store
from kdzoo.suite.plan.jobs import Job
from kdzoo.suite.run.claim import Claim, DriverWatch, driving
from kdzoo.suite.run.job_queue import JobQueue
from kdzoo.suite.run.launchers import LauncherSetup, create_launcher
from kdzoo.suite.run.take_work import JobSource, Workers, do_claimed, ready_jobs, reason_to_wait
from kdzoo.suite.run.work_folder import End, EventLog, EventTail, JobFolder, WorkFolder

LEASE = 2.0


def job(name: str, after: str | None = None) -> Job:
    return Job(name, "students", "r/b", (name,), WorkerOptions(threads=3), units=7, waits_for=after, checked_run=("r/b", "x-1"))


def published(tmp_path: Path, one: Job) -> JobFolder:
    return WorkFolder.of_bench(tmp_path).publish(one, 1, LauncherSetup(tmp_path, ("mine.py",), bench=tmp_path))


def test_a_job_is_read_as_it_was_published_with_what_a_machine_needs_for_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("KDZOO_CACHE", "cache")
    folder = published(tmp_path, job("at-1"))
    shared = folder.read()
    assert shared.job == dataclasses.replace(job("at-1"), folder=str(tmp_path / "r/b"), checked_run=(str(tmp_path / "r/b"), "x-1"))
    assert shared.plugins == {str(tmp_path / "mine.py"): "not there"}
    assert shared.environment["KDZOO_CACHE"] == str(tmp_path / "cache")
    missing = "\n".join(shared.faults())
    assert "the cache folder" in missing
    assert "mine.py is not there" in missing
    assert dataclasses.replace(shared, version="0.0.1").faults()[0].startswith(f"{os.uname().nodename}: expected kdzoo 0.0.1")
    (folder.path / "job.json").write_text('{"job": 1}')
    with pytest.raises(InputError, match=r"job\.json: damaged"):
        folder.read()


def test_a_node_with_another_version_of_a_plugin_or_of_a_module_beside_it_is_told_by_name_before_any_work(tmp_path, kdzoo, monkeypatch):
    """Two folders stand for the disks of two machines, with the plugin at the same place below each."""
    monkeypatch.setenv("KDZOO_CACHE", str(tmp_path))
    for machine in ("driver", "node"):
        (tmp_path / machine).mkdir()
        (tmp_path / machine / "mine.py").write_text("import kdzoo\nfrom helper import FACTOR\n")
        (tmp_path / machine / "helper.py").write_text("FACTOR = 2\n")
    folder = WorkFolder.of_bench(tmp_path).publish(job("at-1"), 1, LauncherSetup(tmp_path, ("driver/mine.py",), bench=tmp_path))
    (version,) = folder.read().plugins.values()

    def on_the_node(content: dict) -> None:
        content["job"].update(checked_run=None, folder=str(tmp_path))
        content.update(working_folder=str(tmp_path), plugins={str(tmp_path / "node/mine.py"): version})

    edit(folder.path / "job.json", on_the_node)
    (tmp_path / "node/helper.py").write_text("# a comment is no other version\nFACTOR = 2\n")
    assert folder.read().faults() == []
    (tmp_path / "node/helper.py").write_text("FACTOR = 3\n")
    said = kdzoo("work", tmp_path)
    assert said.status == 2
    assert f"{os.uname().nodename}: the plugin {tmp_path}/node/mine.py, with the modules beside it, is version " in said.err
    assert f"the driver's is {version}" in said.err
    assert not (folder.path / "claimed").exists()


def test_a_job_of_an_earlier_driver_whose_runs_came_out_in_others_is_removed_and_one_that_is_open_stays(tmp_path):
    over, still_open = published(tmp_path, job("at-1")), published(tmp_path, job("at-2"))
    for folder in (over, still_open):
        edit(folder.path / "job.json", lambda content: content["job"].update(folder=str(tmp_path)))
    Store(tmp_path).run("at-1").fail("as planned")
    WorkFolder.of_bench(tmp_path).remove_ended()
    assert WorkFolder.of_bench(tmp_path).jobs() == [still_open]


def test_a_job_that_is_open_is_not_published_anew_and_one_that_has_ended_is(tmp_path):
    token = published(tmp_path, job("at-1")).read().token
    assert published(tmp_path, job("at-1")).read().token == token
    folder = published(tmp_path, job("at-1"))
    folder.write_end(End(failed="as planned"))
    assert folder.end() == End(failed="as planned")
    assert published(tmp_path, job("at-1")).end() is None
    assert folder.read().token != token


def test_an_open_job_that_is_damaged_or_asked_for_otherwise_is_published_anew_and_its_worker_stops(tmp_path):
    folder = published(tmp_path, job("at-1"))
    fence = Claim(folder, "t", 60.0).take()
    assert fence is not None
    (folder.path / "job.json").write_text((folder.path / "job.json").read_text()[:100])
    with pytest.raises(InputError, match="the same `kdzoo bench` again writes it anew"):
        folder.read()
    token = published(tmp_path, job("at-1")).read().token
    with pytest.raises(ClaimLost):
        fence.check()
    moved = LauncherSetup(tmp_path, ("elsewhere/mine.py",), bench=tmp_path)
    again = WorkFolder.of_bench(tmp_path).publish(job("at-1"), 1, moved).read()
    assert again.token != token
    assert [Path(plugin).parent.name for plugin in again.plugins] == ["elsewhere"]


def test_a_driver_that_starts_in_another_folder_leaves_open_jobs_as_they_are(tmp_path, monkeypatch):
    setup = LauncherSetup(tmp_path, (), bench=tmp_path)
    token = WorkFolder.of_bench(tmp_path).publish(job("at-1"), 1, setup).read().token
    monkeypatch.chdir(tmp_path)
    one = dataclasses.replace(job("at-1"), folder=job("at-1").with_absolute_folders().folder)
    assert WorkFolder.of_bench(tmp_path).publish(one, 2, setup).read().token != token, "relative folders are others there"
    token = WorkFolder.of_bench(tmp_path).publish(one, 2, setup).read().token
    (tmp_path / "r").mkdir()
    absolute = one.with_absolute_folders()
    assert WorkFolder.of_bench(tmp_path).publish(absolute, 3, setup).read().token == token
    monkeypatch.chdir(tmp_path / "r")
    assert WorkFolder.of_bench(tmp_path).publish(absolute, 4, setup).read().token == token


def test_a_bench_in_a_folder_called_work_is_a_bench(tmp_path):
    folder = published(tmp_path / "work/b", job("at-1"))
    assert JobSource.at(tmp_path / "work/b").jobs() == [folder]
    assert JobSource.at(folder.path) == JobSource(WorkFolder.of_bench(tmp_path / "work/b"), folder)


def test_a_folder_that_is_no_bench_is_refused_and_one_whose_driver_is_planning_is_waited_for(tmp_path, kdzoo):
    said = kdzoo("work", tmp_path)
    assert (said.status, said.out) == (2, "")
    assert f"{tmp_path} is no bench; expected results/BENCH" in said.err
    with driving(WorkFolder.of_bench(tmp_path), 60.0):
        assert JobSource.at(tmp_path).may_have_jobs()


def test_a_worker_without_work_says_what_it_waits_for(tmp_path):
    first, second = published(tmp_path, job("at-1")), published(tmp_path, job("at-2", after="teacher t"))
    bench = JobSource(WorkFolder.of_bench(tmp_path))
    jobs = {folder: folder.read() for folder in (first, second)}
    assert reason_to_wait(jobs, {first: jobs[first]}, bench).startswith("other workers have the open jobs")
    assert reason_to_wait({second: jobs[second]}, {}, bench) == "waiting for teacher t"
    alone = JobSource(bench.work, second)
    assert reason_to_wait({second: jobs[second]}, {}, alone) == f"waiting for teacher t, which `kdzoo work {tmp_path}` trains"
    assert reason_to_wait({}, {}, bench).startswith("no job is open; waiting as long as the bench's driver")


def test_one_worker_has_a_job_and_another_gets_it_when_no_sign_of_life_comes(tmp_path):
    folder = published(tmp_path, job("at-1"))
    first, second = Claim(folder, "t", 60.0), Claim(folder, "t", 60.0)
    fence = first.take()
    assert fence is not None
    fence.check()
    assert second.take() is None
    first.give_back()
    assert second.take() is not None
    with pytest.raises(ClaimLost, match="another worker has taken over"):
        fence.check()
    second.give_back()


LEASES = """
import select, sys, time
from pathlib import Path
from kdzoo.suite.run.claim import Claim
from kdzoo.suite.run.work_folder import JobFolder

claim = Claim(JobFolder(Path(sys.argv[1])), "t", float(sys.argv[2]))
while claim.take() is None:
    select.select([], [], [], 0.1)  # time.sleep fails under libfaketime when the clock jumps
print(f"taken at {time.time():.0f}", flush=True)
while not claim.is_lost:
    select.select([], [], [], 0.1)
print("lost", flush=True)
"""


def test_a_clock_that_jumps_on_the_holders_machine_and_on_a_watchers_ends_no_lease_and_keeps_none(tmp_path):
    """Leases are counted by each machine's monotonic clock; that of the calendar jumps 30 hours ahead, and 30 behind."""
    library, clock = next(iter(sorted(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"))), None), tmp_path / "clock"
    if library is None:
        pytest.skip("no libfaketime")
    folder = published(tmp_path, job("at-1"))
    faked = {
        "LD_PRELOAD": str(library),
        "FAKETIME_TIMESTAMP_FILE": str(clock),
        "FAKETIME_NO_CACHE": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
    }
    clock.write_text("+0")
    command = [sys.executable, "-c", LEASES, str(folder.path), str(LEASE)]
    with contextlib.ExitStack() as stack:

        def start() -> subprocess.Popen[str]:
            process = subprocess.Popen(command, env={**os.environ, **faked}, stdout=subprocess.PIPE, text=True)
            stack.callback(process.wait)
            stack.callback(process.kill)
            return process

        holder = start()
        assert holder.stdout.readline().startswith("taken")
        mark, here, watcher = (folder.path / "claimed").read_text(), Claim(folder, "t", LEASE), start()
        for jump in ("+30h", "-30h"):
            clock.write_text(jump)
            until = time.monotonic() + 1.5 * LEASE
            while time.monotonic() < until:
                assert here.take() is None
                time.sleep(0.1)
        assert (folder.path / "claimed").read_text() == mark, "the watcher has not taken it either"
        holder.kill()
        began = time.monotonic()
        taken = watcher.stdout.readline()
        assert int(taken.split()[-1]) < time.time() - 29 * 3600, "its clock had jumped"
        assert time.monotonic() - began < 3 * LEASE


def test_nothing_is_written_to_a_run_under_a_claim_that_is_lost(tmp_path):
    folder = published(tmp_path, job("at-1"))
    (folder.path / "claimed").write_text("t 2")
    late, current = (Store(tmp_path, folder.fence(mark)).run("at-1") for mark in ("t 1", "t 2"))
    with pytest.raises(ClaimLost):
        late.fail("no")
    assert not (tmp_path / "runs/at-1/error.txt").exists()
    current.fail("yes")
    assert late.failure() == current.failure()
    with pytest.raises(ClaimLost):
        EventLog(folder, folder.fence("t 1")).append(Note("late"))
    shutil.rmtree(folder.path)
    with pytest.raises(ClaimLost):
        current.fail("its job is gone")


def test_events_are_read_once_as_they_come_also_after_half_a_line(tmp_path):
    folder = published(tmp_path, job("at-1"))
    (folder.path / "claimed").write_text("t 1")
    log, tail = EventLog(folder, folder.fence("t 1")), EventTail(folder)
    assert list(tail.new_events()) == []
    log.append(Note("one"))
    assert list(tail.new_events()) == [Note("one")]
    with folder.events.open("ab") as file:
        file.write(b'Note {"text": "a worker that di')
    assert list(tail.new_events()) == []
    done = RunDone("at-1", "at", "", 0, "classification", None, 0.5, 1.0)
    log.append(done)
    assert list(tail.new_events()) == [done]


def test_a_job_waits_for_the_one_that_it_comes_after_and_for_ever_where_that_is_refused(tmp_path):
    of_teacher = dataclasses.replace(job("teacher"), kind="teacher")
    teacher, student = published(tmp_path, of_teacher), published(tmp_path, job("at-1", after="teacher"))
    work_folder = WorkFolder.of_bench(tmp_path)
    assert list(ready_jobs({student: student.read()}, work_folder)) == []
    teacher.write_end(End(refused=("at chance",)))
    assert list(ready_jobs({student: student.read()}, work_folder)) == []
    teacher.write_end(End())
    assert list(ready_jobs({student: student.read()}, work_folder)) == [student]


def test_a_job_that_another_driver_has_removed_ends_where_its_runs_have_come_out_and_is_published_anew_elsewhere(tmp_path):
    told: list[Event] = []
    queue = JobQueue([Job("one", "students", str(tmp_path), ("at-1",), WorkerOptions())])

    def emit(of_job: Job | None, event: Event) -> None:
        told.append(event)
        if isinstance(event, WorkerDied):
            assert of_job is not None
            queue.add(of_job)

    launcher = create_launcher(LauncherSetup(tmp_path, bench=tmp_path), "print")
    with launcher, ThreadPoolExecutor(1) as threads:
        running = threads.submit(launcher.run, queue, emit, lambda: False)
        for come_out in (False, True):
            while not WorkFolder.of_bench(tmp_path).jobs():
                time.sleep(0.02)
            (folder,) = WorkFolder.of_bench(tmp_path).jobs()
            if come_out:
                Store(tmp_path).run("at-1").fail("as planned")
            shutil.rmtree(folder.path)
            while come_out is False and not any(isinstance(event, WorkerDied) for event in told):
                time.sleep(0.02)
        running.result(timeout=30)
    ends = [event for event in told if isinstance(event, WorkerDied | JobEnded)]
    assert [type(event) for event in ends] == [WorkerDied, JobEnded]
    assert isinstance(ends[0], WorkerDied)
    assert "lost its folder" in ends[0].how


def test_a_file_system_without_hard_links_is_refused_with_the_folder_and_what_to_do(tmp_path, monkeypatch):
    """As FAT, and some mounts of networks: the driver is refused, and a worker whose mount differs from the driver's."""
    folder = published(tmp_path, job("at-1"))

    def refuse(source, target, **_):
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM), str(source), None, str(target))

    monkeypatch.setattr(os, "link", refuse)
    advice = r"takes no hard links \(Operation not permitted\).*put the results on a file system that has them .*--launcher local"
    with pytest.raises(InputError, match=f"{tmp_path}/work {advice}"), driving(WorkFolder.of_bench(tmp_path), 60.0):
        pass
    shared = folder.read()
    with pytest.raises(InputError, match=f"{folder.path} {advice}"):
        do_claimed(folder, shared, Claim(folder, shared.token, 60.0), Workers(), print, lambda: False)
    assert not list(tmp_path.rglob(".link.*"))


def test_a_driver_is_seen_while_it_is_there(tmp_path):
    work_folder = WorkFolder.of_bench(tmp_path)
    watch = DriverWatch(work_folder, 60.0)
    with driving(work_folder, 60.0), driving(work_folder, 60.0):
        assert watch.is_there()
        published(tmp_path, job("at-1"))
    assert not watch.is_there()
    assert [folder.exists() for folder in work_folder.jobs()] == [True], "jobs outlast their driver"
    watch.clear()
    assert work_folder.jobs(), "what is left to do is not cleared"
    shutil.rmtree(work_folder.jobs()[0].path)
    watch.clear()
    assert not work_folder.path.exists()


def print_bench(folder: Path, undisturbed: Path) -> subprocess.Popen[str]:
    """Start a bench whose commands are printed, with a kept teacher, and wait for its jobs."""
    shutil.copytree(undisturbed / "cache", folder / "cache")
    driver = bench(folder, "--launcher", "print", "--lease-seconds", str(LEASE))
    wait_until(lambda: list(folder.glob("r/b/work/students-*/job.json")), [driver])
    return driver


@pytest.mark.slow
def test_a_worker_that_is_killed_and_one_that_sleeps_lose_their_jobs_and_no_result(tmp_path: Path, undisturbed: Path) -> None:
    """The first of three workers is killed, the second is stopped until the third has its job; then it wakes, and writes nothing."""
    driver = print_bench(tmp_path, undisturbed)
    doomed = work(tmp_path)
    checkpoint = slow_checkpoint(tmp_path)
    wait_until(checkpoint.exists, [driver, doomed])
    doomed.kill()
    sleeper, before = work(tmp_path), marks(tmp_path)
    wait_until(lambda: marks(tmp_path) - before, [driver, sleeper])
    saved = checkpoint.stat().st_mtime_ns
    wait_until(lambda: checkpoint.stat().st_mtime_ns != saved, [driver, sleeper])
    for process in running_in(sleeper.pid):
        os.kill(process, signal.SIGSTOP)
    last, before = work(tmp_path), marks(tmp_path)
    wait_until(lambda: marks(tmp_path) - before, [driver, last])
    for process in running_in(sleeper.pid):
        os.kill(process, signal.SIGCONT)
    output, _ = driver.communicate(timeout=200)
    assert driver.returncode == 0, output
    for worker in (sleeper, last):
        told, _ = worker.communicate(timeout=60)
        assert worker.returncode == 0, told
    assert_same_results(tmp_path, undisturbed)
    assert "kdzoo work " in output
    assert_nothing_is_left(tmp_path, *(process.pid for process in (doomed, sleeper, last, driver)))


@pytest.mark.slow
def test_after_the_death_of_a_driver_two_of_the_same_command_follow_the_workers_that_went_on(tmp_path: Path, undisturbed: Path) -> None:
    """Killed while a worker trains; then two drivers on one folder. The worker keeps its claims, and no run is trained twice."""
    driver = print_bench(tmp_path, undisturbed)
    worker = work(tmp_path, step="0.2")
    checkpoint = slow_checkpoint(tmp_path)
    wait_until(checkpoint.exists, [driver, worker])
    driver.kill()
    driver.wait()
    before = marks(tmp_path)
    drivers = [bench(tmp_path, "--launcher", "print", "--lease-seconds", str(LEASE)) for _ in range(2)]
    outputs = [one.communicate(timeout=200)[0] for one in drivers]
    assert [one.returncode for one in drivers] == [0, 0], outputs
    told, _ = worker.communicate(timeout=60)
    assert worker.returncode == 0, told
    assert before
    assert "another worker has taken over" not in told
    assert_same_results(tmp_path, undisturbed)
    assert_nothing_is_left(tmp_path, driver.pid, worker.pid, *(one.pid for one in drivers))


def marks(folder: Path) -> set[str]:
    """The marks of all claims on jobs that are open."""
    return {file.read_text() for file in folder.glob("r/b/work/students-*/claimed")}
