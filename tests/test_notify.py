"""`--notify`: what runs at the end of a bench ends in time, with all that it has started."""

import os
from pathlib import Path

import pytest

from kdzoo.cli.notify import notification
from kdzoo.suite.plan.jobs import Outcome


def is_there(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return "Z" not in Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]


def test_a_command_that_does_not_end_is_killed_with_what_it_has_started(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("kdzoo.cli.notify.PATIENCE_SECONDS", 1.0)
    with notification(f"sleep 300 & echo $! > {tmp_path}/pid; wait; echo late", tmp_path):
        pass
    assert "did not end within 1 seconds and was killed" in capsys.readouterr().err
    assert not is_there(int((tmp_path / "pid").read_text()))


@pytest.mark.parametrize(("failed", "status"), [({}, "done"), ({"at-1": "NaN"}, "failed")])
def test_the_command_is_told_how_the_bench_ended(tmp_path, failed, status):
    with notification(f'echo "$KDZOO_STATUS $KDZOO_RUNS_DONE $KDZOO_RUNS_FAILED" > {tmp_path}/told', tmp_path) as ending:
        ending.outcome = Outcome({"none-2"}, failed)
    assert (tmp_path / "told").read_text() == f"{status} 1 {len(failed)}\n"


def test_the_command_runs_once_after_all_searches(place, kdzoo):
    words = ["--methods", "hinton", "--temperatures", "4", "--seeds", 1, "--refit-seeds", 1, "--epochs", 1, "--limit", 163]
    tell = f'echo "$KDZOO_STATUS $KDZOO_BENCH" >> {place}/told'
    said = kdzoo("bench", *words, "--allow-chance-teacher", "--searches", 1, "--threads", 1, "--jobs", 1, "--notify", tell)
    assert said.status == 0, said.err
    assert (place / "told").read_text() == f"done {place}/results/digits\n"
