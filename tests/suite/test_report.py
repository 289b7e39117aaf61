"""What a person sees of a leaderboard: the columns that fit, and all that went wrong."""

import io
import itertools
import shutil

import pandas as pd
import pytest
from rich.console import Console
from test_leaderboard import AT, KD, NONE, objective, write

from kdzoo.errors import InputError
from kdzoo.suite.report.bench import read_bench
from kdzoo.suite.report.columns import columns_for, headings, selected
from kdzoo.suite.report.footnotes import footnotes
from kdzoo.suite.report.leaderboard import leaderboard_frame
from kdzoo.suite.report.markdown import as_markdown
from kdzoo.suite.report.sections import display_frame, sections
from kdzoo.suite.report.terminal import (
    as_many_as_fit,
    essential_columns,
    frame_table,
    leaderboard_view,
    optional_columns,
    per_class_view,
)
from kdzoo.tasks.classification import TOP1


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


def fitting(frame: pd.DataFrame, width: int) -> pd.DataFrame:
    return as_many_as_fit(frame, width, essential_columns(TOP1), optional_columns(TOP1))


@pytest.mark.parametrize("width", [80, 100, 140, 240])
def test_no_line_is_wider_than_the_terminal_and_the_essential_numbers_are_whole(bench, width):
    text = shown(bench, width)
    assert max(map(len, text.splitlines())) <= width
    for essential in ("hinton", "T=4 alpha=0.9", "85.00 ± 1.00", "teacher", "96.00"):
        assert essential in text


def test_a_wider_terminal_shows_more_columns_in_the_same_order(bench):
    frame = display_frame(leaderboard_frame(read_bench(bench)), TOP1)
    columns = [list(fitting(frame, width).columns) for width in (80, 120, 160, 300)]
    assert set(columns[0]) >= set(essential_columns(TOP1)) & set(frame)
    for narrow, wide in itertools.pairwise(columns):
        assert [name for name in wide if name in narrow] == narrow
    assert len(columns[0]) < len(columns[-1])
    assert {"vs student alone", "gap closed", "p KD", "vs KD all", "p alone all"} <= set(columns[-1])


def test_a_column_without_a_value_takes_no_room(bench):
    frame = display_frame(leaderboard_frame(read_bench(bench)), TOP1).assign(**{"val top-1": ""})
    assert "val top-1" not in fitting(frame, 300)


def test_why_the_verdict_has_wider_intervals_is_said_where_the_table_does_not_show_them(bench):
    why = "those of the verdict hold for the whole table at once, and are wider"
    assert why in " ".join(shown(bench, 80).split())
    assert why not in " ".join(shown(bench, 400).split())
    shutil.rmtree(next((bench / "runs").glob("at-*")).parent)
    for seed in range(3):
        write(bench, objective("none"), seed, val=0.80, test=NONE[seed])
        write(bench, objective("hinton"), seed, val=0.88, test=KD[seed])
    assert why not in " ".join(shown(bench, 80).split()), "one comparison with each control: the two are the same"


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
    assert set(display_frame(board, TOP1)["p KD"]) == {text}


def test_brackets_in_a_cell_are_text_and_not_markup(bench):
    out = Console(file=io.StringIO(), width=100)
    frame = display_frame(leaderboard_frame(read_bench(bench)), TOP1).assign(setting="layers=[red] [/]")
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
    tables, _, verdict = out.file.getvalue().partition("Verdict: ")
    assert "84.00" in tables
    assert "T=4" not in tables
    assert verdict


def test_columns_that_do_not_fit_are_left_out_in_the_stated_order_and_named(bench):
    frame = display_frame(leaderboard_frame(read_bench(bench)), TOP1)
    for width in range(80, 300, 10):
        kept = [name for name in optional_columns(TOP1) if name in fitting(frame, width)]
        assert kept == [name for name in optional_columns(TOP1) if frame[name].any()][: len(kept)]
    lines = shown(bench, 100).splitlines()
    assert "12 more columns (top-1 at best val; val top-1; vs KD all; p KD all;" in " ".join(lines)
    assert "--columns all, or leaderboard.csv" in " ".join(" ".join(lines).split())
    assert "more column" not in shown(bench, 300)


def test_all_columns_stand_in_parts_that_fit_and_each_names_its_rows(bench):
    out = Console(file=io.StringIO(), width=80)
    read = read_bench(bench)
    out.print(leaderboard_view(read, leaderboard_frame(read), 80, "all"))
    text = out.file.getvalue()
    assert max(map(len, text.splitlines())) <= 80
    assert "more column" not in text
    assert text.count("student alone  ") >= 3
    for heading in ("val top-1", "gap closed", "clock s", "memory", "tried"):
        assert heading in text


def test_named_columns_are_shown_in_that_order_and_a_wrong_name_has_the_nearest_beside_it(bench):
    read = read_bench(bench)
    board = leaderboard_frame(read)
    table = as_markdown(read, board, "gap closed, vs kd").split("## ")[1]
    assert table.splitlines()[2] == "| method | gap closed | vs KD |"
    with pytest.raises(InputError, match="did you mean 'gap closed'"):
        as_markdown(read, board, "gap close")


def footnote_words(text: str) -> set[str]:
    return {heading for heading in headings(TOP1) if f" {heading}: " in f" {text}"}


@pytest.mark.parametrize("columns", ["all", "n", "p KD", "vs KD,tried", "vs student alone,p alone all"])
def test_footnotes_explain_what_is_shown_and_nothing_else(bench, columns):
    read = read_bench(bench)
    board = leaderboard_frame(read)
    frames = [selected(frame, columns, TOP1) for _, frame in sections(read, board)]
    text = " ".join(footnotes(read, board, frames))
    (frame,) = frames
    explained = {column.name for column in columns_for(TOP1) if column.meaning}
    assert footnote_words(text) & explained == explained & set(frame)
    assert ("p-value" in text) == any(name.startswith("p ") for name in frame)
    assert ("interval of this row" in text) == bool({"vs KD", "vs student alone"} & set(frame))
    assert ("rows at once" in text) == any(name.endswith(" all") for name in frame)
    assert ("Error model" in text) == any(name.startswith(("p ", "vs ")) for name in frame)


def test_a_table_of_one_seed_promises_neither_intervals_nor_p_values_nor_a_share_of_the_gap(tmp_path):
    for method in ("none", "hinton", "at"):
        write(tmp_path / "b", objective(method), 0, val=0.8, test=0.8)
    for width in (80, 200):
        text = " ".join(shown(tmp_path / "b", width).split())
        table, _, notes = text.partition("Top-1 in per cent")
        assert "of seed 0;" in notes
        assert "One seed: nothing is ranked" in notes
        for promise in ("interval of", "p-value", "Error model", "Holm", "gap closed"):
            assert promise not in table + notes


def test_the_student_alone_has_that_name_in_rows_as_in_columns(bench):
    text = shown(bench, 140)
    assert "vs student alone" in text
    assert "2  student alone" in text or "3  student alone" in text
    assert "none" not in text.partition("Verdict")[0]


def test_columns_are_aligned_where_the_terminal_has_no_plus_minus_sign(bench):
    """Its two characters are in the cells before columns are laid out, not put in while they are written."""

    class Ascii(io.StringIO):
        encoding = "ascii"

    out = Console(file=Ascii(), width=120)
    read = read_bench(bench)
    out.print(leaderboard_view(read, leaderboard_frame(read), 120))
    text = out.file.getvalue()
    text.encode("ascii")
    rows = [line for line in text.splitlines() if " +- " in line and "|" in line]
    assert len(rows) == 3
    assert len({tuple(at for at, sign in enumerate(line) if sign == "|") for line in rows}) == 1


@pytest.mark.parametrize(("columns", "widest", "shows"), [("80", 80, 6), ("120", 120, 9), (None, 200, 15)])
def test_in_a_pipe_the_width_is_that_of_columns_or_two_hundred(bench, kdzoo, monkeypatch, columns, widest, shows):
    monkeypatch.delenv("COLUMNS", raising=False)
    if columns:
        monkeypatch.setenv("COLUMNS", columns)
    lines = kdzoo("leaderboard", bench).out.splitlines()
    rule = next(number for number, line in enumerate(lines) if line.startswith("───"))
    table = list(itertools.takewhile(bool, lines[rule:]))
    assert len(table) == 5, "a row is a line"
    assert widest - 30 < max(map(len, table)) <= widest
    assert not any(line.endswith(" ") for line in lines)
    row = next(line for line in lines if " hinton " in line)
    assert len(row.split("  ")) > shows
    assert any(line.startswith("Verdict: it is not shown that the other method is better") and line.endswith(".") for line in lines)
    read = read_bench(bench)
    board = leaderboard_frame(read)
    notes = footnotes(read, board, [display_frame(board, TOP1)])
    assert {note for note in notes if note.startswith(("Top-1", "With 3 seeds"))} <= set(lines), "a paragraph is a line too"


@pytest.mark.parametrize(
    ("width", "head"), [(120, "method setting n all 0"), (80, "method n all 0"), (48, "class images teacher at hinton")]
)
def test_errors_per_class_are_laid_out_so_that_no_class_is_broken_off(width, head):
    names = ["images", "teacher", "at", "hinton"]
    settings = ["", "", "weight 1.7 (dose 0.3)", "T=4 alpha=0.9"]
    cells = {"method": names, "setting": settings, "n": ["", "1", "3", "3"], "all": ["359", "6.0", "23.7", "13.0"]}
    frame = pd.DataFrame(cells | {str(label): ["36", "0.0", "12.3", "0.3"] for label in range(10)})
    out = Console(file=io.StringIO(), width=width)
    out.print(per_class_view([("Test errors per class", frame)], width))
    lines = [line.rstrip() for line in out.file.getvalue().splitlines()]
    assert lines[1].split()[: len(head.split())] == head.split()
    assert sum(line.startswith("──") for line in lines) == 1, "it is one table"
    assert max(map(len, lines)) <= width


def test_a_long_setting_continues_on_the_next_line_before_the_rank_is_left_out(bench):
    board = leaderboard_frame(read_bench(bench))
    frame = display_frame(board, TOP1)[["#", "method", "setting", "n", "test top-1", "vs KD"]].assign(setting="T=4 weight 7.8 (dose 0.3)")
    whole = sum(max(len(name), frame[name].map(len).max()) + 2 for name in frame.columns) - 2
    assert list(fitting(frame, whole - 5).columns) == list(frame.columns)
    out = Console(file=io.StringIO(), width=whole - 5)
    out.print(frame_table(fitting(frame, whole - 5)))
    assert max(map(len, out.file.getvalue().splitlines())) <= whole - 5
    for cell in [*frame["vs KD"], *frame["test top-1"], "weight", "0.3)"]:
        assert cell in out.file.getvalue()
