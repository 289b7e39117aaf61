"""A reader that leaves, an ASCII terminal and closed streams stop nothing, and the status tells of the work alone."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from warm_python import WarmPopen, run_warm

COMMAND = [sys.executable, "-m", "kdzoo"]
BENCH = ["bench", "--quick", "--temperatures", "4", "--epochs", "1", "--methods", "hinton", "--results", "r", "--jobs", "1"]


def environment(place: Path, **more: str) -> dict[str, str]:
    return {**os.environ, "KDZOO_CACHE": str(place / "cache"), "WANDB_MODE": "disabled", **more}


def test_a_list_into_a_pipe_that_closes_ends_quietly(place: Path) -> None:
    command = f"{' '.join(COMMAND)} methods | head -1; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], env=environment(place), capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0
    assert done.stderr == ""


@pytest.mark.slow
def test_a_bench_whose_reader_leaves_is_trained_to_its_end(place: Path) -> None:
    with WarmPopen([*COMMAND, *BENCH], cwd=place, env=environment(place), stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:
        assert process.stdout is not None
        assert process.stdout.readline()
        process.stdout.close()
        assert process.wait(timeout=300) == 0
    assert len(list((place / "r").glob("*/runs/*/result.json"))) == 2
    assert list((place / "r").glob("*/leaderboard.md"))


@pytest.mark.slow
def test_a_table_is_printed_where_the_terminal_knows_ascii_alone(place: Path) -> None:
    done = run_warm([*COMMAND, *BENCH, "--seeds", "2"], cwd=place, env=environment(place, PYTHONIOENCODING="ascii"), text=False)
    assert done.returncode == 0, done.stderr.decode()
    assert b"+-" in done.stdout  # mean and standard deviation
    assert b"hinton" in done.stdout
    assert max(done.stdout) < 128


def test_closed_streams_are_led_nowhere_and_no_file_takes_their_descriptors(place: Path) -> None:
    script = "import os, sys; from kdzoo.cli.streams import make_streams_durable; make_streams_durable(); print('x'); sys.stdout.flush();"
    script += f" print(os.open({str(place / 'file')!r}, os.O_CREAT | os.O_WRONLY), file=open({str(place / 'number')!r}, 'w'))"
    done = subprocess.run(["bash", "-c", f'exec {sys.executable} -c "$0" >&- 2>&-', script], check=False, timeout=60)
    assert done.returncode == 0
    assert int((place / "number").read_text()) > 2
    assert (place / "file").read_bytes() == b""


def test_a_full_disk_below_standard_output_is_not_passed_over(place: Path) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("this system has no /dev/full")
    with open("/dev/full", "w") as full:
        for words in (["methods"], ["--help"]):
            done = subprocess.run(
                [*COMMAND, *words], env=environment(place), stdout=full, stderr=subprocess.PIPE, text=True, timeout=120, check=False
            )
            assert (done.returncode, done.stderr) == (1, "kdzoo: the output cannot be written: No space left on device\n")
