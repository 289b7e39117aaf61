"""What a person sees of a leaderboard: the columns that fit, and all that went wrong."""

import io
import itertools

import pytest
from rich.console import Console
from test_leaderboard import AT, KD, NONE, objective, write

from kdzoo.suite.leaderboard import leaderboard_frame
from kdzoo.suite.records import read_bench
from kdzoo.suite.report import ESSENTIAL, fitting, frame_table, leaderboard_view
from kdzoo.suite.tables import display_frame


@pytest.fixture
def bench(tmp_path):
    for seed in range(3):
        write(tmp_path / "b", objective("none"), seed, val=0.80, test=NONE[seed])
        write(tmp_path / "b", objective("hinton"), seed, val=0.88, test=KD[seed])
        write(tmp_path / "b", objective("at"), seed, val=0.84, test=AT[seed])
    return tmp_path / "b"


def shown(folder, width: int) -> str:
    out = Console(file=io.StringIO(), width=width)
    read = read_bench(folder)
    out.print(leaderboard_view(read, leaderboard_frame(read), width))
    return out.file.getvalue()


@pytest.mark.parametrize("width", [80, 100, 140, 240])
def test_no_line_is_wider_than_the_terminal_and_the_essential_numbers_are_whole(bench, width):
    text = shown(bench, width)
    assert max(map(len, text.splitlines())) <= width
    for essential in ("hinton", "T=4 alpha=0.9", "85.00 ± 1.00", "teacher", "96.00"):
        assert essential in text


def test_a_wider_terminal_shows_more_columns_in_the_same_order(bench):
    frame = display_frame(leaderboard_frame(read_bench(bench)))
    columns = [list(fitting(frame, width).columns) for width in (80, 120, 160, 300)]
    assert set(columns[0]) >= set(ESSENTIAL) & set(frame)
    for narrow, wide in itertools.pairwise(columns):
        assert [name for name in wide if name in narrow] == narrow
    assert len(columns[0]) < len(columns[-1])
    assert {"vs alone", "gap closed", "p KD", "vs KD, all", "p alone, all"} <= set(columns[-1])


def test_a_column_without_a_value_takes_no_room(bench):
    frame = display_frame(leaderboard_frame(read_bench(bench))).assign(val="")
    assert "val" not in fitting(frame, 300)


def test_what_failed_is_shown_with_its_reason_and_what_is_damaged_with_its_file(bench):
    run = write(bench, objective("hinton", 2.0), 0, val=0, test=0, fail="ValueError: tensors of shape [3, 4]")
    damaged = next((bench / "runs").glob("at-*/result.json"))
    damaged.write_text("{")
    text = " ".join(shown(bench, 400).split())
    assert f"failed: {run.id} (seed 0): ValueError: tensors of shape [3, 4]" in text
    assert str(damaged) in text
    assert "2 of 3" in text


@pytest.mark.parametrize(("p", "text"), [(0.0496, "0.0496"), (0.05002, "0.050020"), (0.0512, "0.051"), (0.5, "0.500"), (4e-5, "<0.001")])
def test_a_p_value_shows_on_which_side_of_five_per_cent_it_lies(bench, p, text):
    board = leaderboard_frame(read_bench(bench)).assign(p_vs_kd=p)
    assert set(display_frame(board)["p KD"]) == {text}


def test_brackets_in_a_cell_are_text_and_not_markup(bench):
    out = Console(file=io.StringIO(), width=100)
    frame = display_frame(leaderboard_frame(read_bench(bench))).assign(setting="layers=[red] [/]")
    out.print(frame_table(frame[["method", "setting"]], "b [bold]"))
    assert "layers=[red] [/]" in out.file.getvalue()
    assert "b [bold]" in out.file.getvalue()


def test_where_there_is_no_terminal_the_text_is_plain(bench):
    assert "\x1b" not in shown(bench, 100)


def test_only_the_rows_that_were_asked_for_are_shown(bench):
    out = Console(file=io.StringIO(), width=120)
    read = read_bench(bench)
    board = leaderboard_frame(read)
    out.print(leaderboard_view(read, board[board["method"] == "at"], 120))
    assert "84.00" in out.file.getvalue()
    assert "T=4" not in out.file.getvalue()
