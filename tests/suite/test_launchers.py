"""Where jobs are computed: launchers by name, the queue that they take their jobs from, and what their workers print."""

import pytest

from kdzoo.errors import InputError
from kdzoo.runs.events import Event, WorkerDied, WorkerReady
from kdzoo.runs.options import WorkerOptions
from kdzoo.suite.plan.jobs import Job
from kdzoo.suite.run.job_queue import JobQueue
from kdzoo.suite.run.launchers import LauncherSetup, create_launcher
from kdzoo.suite.run.launchers.here import Here
from kdzoo.suite.run.launchers.local import Local
from kdzoo.suite.run.launchers.process import LOG_BYTES, Exit, Messages, Worker


def job(name: str, ids: tuple[str, ...] = (), after: str | None = None) -> Job:
    return Job(name, "students", "bench", ids, WorkerOptions(), waits_for=after)


def test_a_launcher_is_chosen_by_name(tmp_path, monkeypatch):
    setup = LauncherSetup(tmp_path)
    monkeypatch.delenv("KDZOO_LAUNCHER", raising=False)
    assert isinstance(create_launcher(setup), Local)
    monkeypatch.setenv("KDZOO_LAUNCHER", "here")
    assert isinstance(create_launcher(setup), Here)
    assert isinstance(create_launcher(setup, "local"), Local), "what a caller names counts more than the environment"
    with pytest.raises(InputError, match="launcher: unknown 'lokal'; did you mean 'local'"):
        create_launcher(setup, "lokal")


def test_a_job_waits_until_all_jobs_of_the_name_that_it_comes_after_have_ended():
    teacher, student = job("teacher"), job("cohort", after="teacher")
    queue = JobQueue([student, teacher])
    assert queue.take() == teacher
    assert queue.take() is None
    queue.add(teacher)  # its process died: it is tried again
    queue.end(teacher)
    assert queue.take() == teacher, "a job that is tried again comes before all others"
    assert queue.take() is None
    queue.end(teacher)
    assert queue.take() == student
    assert not queue


def test_a_locked_job_is_left_for_a_while_and_others_are_taken_meanwhile():
    locked, other = job("a"), job("b")
    queue = JobQueue([other])
    queue.add(locked, delay=60.0)
    assert queue.take() == other
    assert queue.take() is None
    assert queue, "it is still to be done"


def test_a_plugin_that_hangs_while_a_worker_imports_it_costs_no_more_than_the_time_that_a_run_may_take(tmp_path):
    (tmp_path / "hangs.py").write_text("import time\ntime.sleep(600)\n")
    one = Job("cohort", "students", str(tmp_path), ("at-1",), WorkerOptions(run_timeout=1.0))
    told: list[Event] = []
    with Local(LauncherSetup(tmp_path, (str(tmp_path / "hangs.py"),))) as launcher:
        launcher.run(JobQueue([one]), lambda job, event: told.append(event), lambda: False)
    (death,) = told
    assert isinstance(death, WorkerDied)
    assert death.how == "made no progress for 1 seconds (--run-timeout) and was killed"


def test_a_log_that_has_become_large_is_rotated_while_its_process_prints_on(tmp_path):
    """A plugin prints more than a log may hold, and a last line when its process ends."""
    plugin = tmp_path / "talks.py"
    plugin.write_text(f"import atexit\nprint('x' * {LOG_BYTES}, flush=True)\natexit.register(lambda: print('the end', flush=True))\n")
    log, messages = tmp_path / "worker-0.log", Messages()
    worker = Worker(0, [str(plugin)], log, {}, messages)
    try:
        _, first = messages.get(timeout=240)
        assert isinstance(first, WorkerReady)
        worker.rotate_log()
        assert log.stat().st_size == 0
        assert (tmp_path / "worker-0.log.1").stat().st_size > LOG_BYTES
        worker.rotate_log()
        assert (tmp_path / "worker-0.log.1").stat().st_size > LOG_BYTES, "a small log stays as it is"
        worker.stop()
        _, last = messages.get(timeout=60)
        assert last == Exit(0)
    finally:
        worker.kill()
    assert log.read_text() == "the end\n"
