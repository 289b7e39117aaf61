"""`kdzoo status --watch`: what changes is shown until nothing is left, in place on a terminal and as lines in a pipe."""

import json
import os
import pty
import select
import subprocess
import sys
from dataclasses import asdict

import pytest
from test_leaderboard import objective, write

from kdzoo.cli import status
from kdzoo.cli.watch import Pace
from kdzoo.runs.store import RunFolder, Store
from kdzoo.suite.plan.config import BenchConfig
from kdzoo.suite.plan.starts import Start
from kdzoo.suite.report.bench import read_bench

SECONDS = 120
"""until a command that hangs is given up"""


@pytest.fixture
def bench(place):
    """A bench of two runs, the second of which is three epochs of five far; and what makes it done."""
    write(place / "results" / "b", objective("none"), 0, val=0.8, test=0.8)
    run = write(place / "results" / "b", objective("hinton"), 0, val=0.9, test=0.9)
    folder = Store(place / "results" / "b").run(run.id)
    folder.checkpoint.parent.mkdir()
    folder.checkpoint.touch()
    folder.metrics.write_text("{}\n" * 3)
    (folder.path / "result.json").rename(place / "result.json")
    return lambda: (place / "result.json").rename(folder.path / "result.json")


COMMAND = [sys.executable, "-m", "kdzoo", "status", "b", "--watch"]


def test_in_a_pipe_every_change_is_a_line_and_the_end_is_the_whole_status(bench, kdzoo):
    with subprocess.Popen(COMMAND, stdout=subprocess.PIPE, text=True) as watching:
        assert select.select([watching.stdout], [], [], SECONDS)[0], "it shows nothing"
        first = watching.stdout.readline()
        assert first.rstrip().endswith("b: 1 interrupted, 1 done   80 %, no process trains a run"), "five epochs and three of five"
        bench()
        rest, _ = watching.communicate(timeout=SECONDS)
    assert (watching.returncode, rest) == (0, kdzoo("status", "b").out)
    assert rest.splitlines()[0] == "b: 2 done"


def test_the_status_of_a_finished_bench_says_what_is_done_and_which_command_shows_its_table(bench, kdzoo):
    assert "the table so far: kdzoo leaderboard results/b" in kdzoo("status", "b").out
    bench()
    summary, head, *rows, hint = kdzoo("status", "b").out.splitlines()
    assert summary == "b: 2 done"
    assert head.split()[:4] == ["method", "done", "settings", "seeds"]
    assert sorted(row.split()[:4] for row in rows) == [["hinton", "1", "1", "1"], ["student", "alone", "1", "1"]]
    words = hint.removeprefix("the table: kdzoo ").split()
    assert kdzoo(*words).out.splitlines()[0].startswith("b: ")


@pytest.mark.parametrize("of_stage", [False, True])
def test_while_a_process_trains_a_run_the_time_left_is_told(bench, place, of_stage):
    folder = next((place / "results" / "b" / "runs").glob("hinton-*"))
    if of_stage:  # which has no row
        folder = folder.with_name("fitnet-0123456789ab")
        folder.mkdir()
    with RunFolder(folder).lock(), subprocess.Popen(COMMAND, stdout=subprocess.PIPE, text=True) as watching:
        first = watching.stdout.readline()
        watching.terminate()
    assert first.rstrip().endswith("80 %, --:-- left")


def test_a_bench_that_has_no_folder_yet_is_waited_for(bench, place, kdzoo, monkeypatch):
    bench()
    (place / "results" / "b").rename(place / "planned")
    with subprocess.Popen(COMMAND, stdout=subprocess.PIPE, text=True) as watching:
        assert select.select([watching.stdout], [], [], SECONDS)[0], "it shows nothing"
        assert watching.stdout.readline() == "b: no such bench yet below results; waiting 60 seconds for one to be planned\n"
        (place / "planned").rename(place / "results" / "b")
        rest, _ = watching.communicate(timeout=SECONDS)
    assert (watching.returncode, rest) == (0, kdzoo("status", "b").out)
    assert rest.splitlines()[0] == "b: 2 done"
    monkeypatch.setattr(status, "PLANNING_SECONDS", 0.0)
    refused = kdzoo("status", "bb", "--watch")
    assert refused.status == 2
    assert "did you mean b" in refused.err or "unknown 'bb'" in refused.err
    many = kdzoo("status", "results", "--watch")
    assert (many.status, "is a folder of benches" in many.err) == (2, True)


def test_a_terminal_shows_it_in_place(bench):
    terminal, side = pty.openpty()
    with subprocess.Popen(COMMAND, stdout=side, stderr=side, env={**os.environ, "TERM": "xterm", "COLUMNS": "120"}) as watching:
        os.close(side)
        shown = b""
        while b"Ctrl-C ends this" not in shown:
            assert select.select([terminal], [], [], SECONDS)[0], shown
            shown += os.read(terminal, 10_000)
        assert b"interrupted" in shown
        bench()
        try:
            while chunk := os.read(terminal, 10_000):
                shown += chunk
        except OSError:  # the other side is closed: the command has ended
            pass
        assert watching.wait(timeout=SECONDS) == 0
    os.close(terminal)
    assert b"b: 2 done" in shown
    assert b"\x1b[1A" in shown, "the lines before are written over"


def test_what_has_ended_is_shown_once_and_json_is_no_picture(bench, kdzoo):
    bench()
    said = kdzoo("status", "b", "--watch")
    assert (said.status, said.out) == (0, kdzoo("status", "b").out)
    assert said.out.startswith("b: 2 done\n")
    refused = kdzoo("status", "--watch", "--json")
    assert (refused.status, refused.err) == (2, "kdzoo: watch: not together with --json\n")
    assert "1 bench: 2 done" in kdzoo("status", "--watch").out


def test_a_refit_that_is_not_planned_yet_is_waited_for_where_one_is_asked_for(bench, place):
    bench()
    folder = place / "results" / "b"
    records = read_bench(folder)
    found = status.bench_status(records)

    def started(**config) -> None:
        start = Start.of("kdzoo bench", BenchConfig(**config), [record.id for record in records.records])
        (folder / "bench.json").write_text(json.dumps({"starts": [asdict(start)]}))

    started(refit=True)
    assert status._refit_is_due(records, found)
    started(refit=False)
    assert not status._refit_is_due(records, found)


@pytest.mark.parametrize("content", ["{", '{"starts": [{"command": "", "config": {"recipe": "of a plugin"}, "runs": [], "kdzoo": "0"}]}'])
def test_what_cannot_be_known_of_a_refit_is_not_waited_for(bench, place, kdzoo, content):
    bench()
    (place / "results" / "b" / "bench.json").write_text(content)
    assert kdzoo("status", "b", "--watch").status == 0


def test_the_time_left_is_told_from_the_speed_of_the_last_minutes():
    pace = Pace()
    pace.add(0.0, 0.2)
    pace.add(10.0, 0.3)
    assert pace.seconds_left() is None, "too early to tell"
    pace.add(30.0, 0.5)
    assert pace.seconds_left() == pytest.approx(50.0), "a hundredth a second, and half is left"
    assert pace.words(running=True) == "50 %, 0:50 left"
    pace.add(40.0, 0.1)
    assert pace.seconds_left() is None, "more was planned"
    pace.add(70.0, 0.1)
    assert pace.seconds_left() is None, "nothing moves"
    pace.add(1000.0, 0.2)
    pace.add(1100.0, 0.3)
    assert pace.seconds_left() == pytest.approx(700.0), "what was long ago tells nothing"
