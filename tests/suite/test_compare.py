"""Benches and tables beside each other: rows that belong together, tests, warnings, and text in every format."""

import io
import json
import math
import shutil

import numpy as np
import pandas as pd
import pytest
import scipy.stats
from rich.console import Console
from test_leaderboard import AT, KD, NONE, objective, write

from kdzoo.errors import InputError
from kdzoo.runs.spec import NetworkSpec
from kdzoo.suite.report.compare import compare
from kdzoo.suite.report.comparison_text import comparison_sections
from kdzoo.suite.report.render import FORMATS, render, words
from kdzoo.suite.report.rows import filtered, sorted_by
from kdzoo.suite.report.table_files import write_tables
from kdzoo.suite.report.terminal import comparison_view, frame_table
from kdzoo.tasks.classification import CLASSIFICATION, TOP1

BETTER = [0.87, 0.88, 0.855]


@pytest.fixture
def benches(tmp_path):
    """Bench a, and b with a better KD that was trained under another recipe."""
    for seed in range(3):
        write(tmp_path / "a", objective("none"), seed, val=0.8, test=NONE[seed])
        write(tmp_path / "a", objective("hinton"), seed, val=0.88, test=KD[seed])
        write(tmp_path / "a", objective("at"), seed, val=0.84, test=AT[seed])
        write(tmp_path / "b", objective("hinton"), seed, val=0.88, test=BETTER[seed], recipe={"epochs": 9, "precision": "bfloat16"})
    for name in "ab":
        write_tables(tmp_path / name)
    return tmp_path


def row(frame: pd.DataFrame, **where) -> pd.Series:
    found = frame
    for column, value in where.items():
        found = found[found[column] == value]
    assert len(found) == 1, found
    return found.iloc[0]


@pytest.mark.parametrize(("first", "second"), [("a", "b"), ("a", "b/runs.csv"), ("a/runs.csv", "b/runs.csv")])
def test_where_single_runs_are_known_the_test_is_paired_by_seed(benches, first, second):
    found = row(compare([benches / first, benches / second]).frame, method="hinton")
    expected = scipy.stats.ttest_rel(BETTER, KD)
    interval = expected.confidence_interval(0.95)
    assert found["b - a test"] == "paired by seed"
    assert found["b - a"] == pytest.approx(np.mean(BETTER) - np.mean(KD))
    assert found["b - a p"] == pytest.approx(expected.pvalue)
    assert (found["b - a low"], found["b - a high"]) == pytest.approx((interval.low, interval.high))


def test_where_only_means_are_known_the_test_is_welchs(benches):
    found = row(compare([benches / "a" / "leaderboard.csv", benches / "b" / "leaderboard.csv"]).frame, method="hinton")
    expected = scipy.stats.ttest_ind(BETTER, KD, equal_var=False)
    interval = expected.confidence_interval(0.95)
    assert found["b - a test"] == "Welch"
    assert found["b - a p"] == pytest.approx(expected.pvalue)
    assert (found["b - a low"], found["b - a high"]) == pytest.approx((interval.low, interval.high))


def test_a_collapsed_row_has_a_difference_and_no_test(benches):
    for seed in range(3):
        write(benches / "b", objective("none"), seed, val=0.85, test=NONE[seed], recipe={"epochs": 9, "precision": "bfloat16"})
        write(benches / "b", objective("at"), seed, val=0.3, test=0.3 + seed / 100, recipe={"epochs": 9, "precision": "bfloat16"})
    write_tables(benches / "b")
    for second in ("b", "b/leaderboard.csv"):
        frame = compare([benches / "a", benches / second]).frame
        fallen = row(frame, method="at")
        assert fallen["b - a"] == pytest.approx(0.31 - np.mean(AT))
        assert pd.isna(fallen["b - a p"])
        assert pd.isna(fallen["b - a low"])
        assert fallen["b - a test"] == "none: collapsed"
        assert row(frame, method="hinton")["b - a p"] > 0


def test_what_only_one_side_has_is_kept_without_a_difference(benches):
    frame = compare([benches / "a", benches / "b"]).frame
    assert set(frame["method"]) == {"none", "hinton", "at"}
    alone = row(frame, method="at")
    assert pd.isna(alone["b top1"])
    assert pd.isna(alone["b - a"])


@pytest.mark.parametrize(("first", "second"), [("a", "b"), ("a", "b/leaderboard.csv"), ("a/runs.csv", "b")])
def test_a_difference_in_epochs_is_warned_of_whatever_the_sides_are(benches, first, second):
    assert "recipe.epochs differs: a has 5, b has 9" in compare([benches / first, benches / second]).warnings


def test_every_part_of_the_protocol_that_differs_is_named_with_its_values(tmp_path):
    write(tmp_path / "a", objective("hinton"), 0, val=0.8, test=0.8)
    teacher = NetworkSpec(name="resnet20", classes=10, start="run:none-ffffffffffff")
    write(tmp_path / "b", objective("hinton"), 0, val=0.8, test=0.8, data={"val_fraction": 0.2, "split_seed": 3}, teacher=teacher)
    write(tmp_path / "b", objective("hinton"), 1, val=0.8, test=0.8, data={"val_fraction": 0.2, "split_seed": 3}, teacher=teacher)
    warnings = "\n".join(compare([tmp_path / "a", tmp_path / "b"]).warnings)
    for said in (
        "data.val_fraction differs: a has 0.1, b has 0.2",
        "data.split_seed differs: a has 0, b has 3",
        "seeds differs: a has [0], b has [0, 1]",
        "n differs: a has 1, b has 2",
        "none-0123456789ab",
        "none-ffffffffffff",
    ):
        assert said in warnings
    (copy,) = compare([tmp_path / "a", tmp_path / "a"]).warnings
    assert "the same runs" in copy


def test_a_table_that_says_little_is_named_as_such(benches):
    (benches / "paper.csv").write_text("method,top1\nhinton,0.9\n")
    assert any(
        warning.startswith("paper: a table alone does not tell how") for warning in compare([benches / "a", benches / "paper.csv"]).warnings
    )


def test_rows_of_two_pairs_are_both_compared_with_a_table_that_names_no_pair(benches):
    other = {"teacher": NetworkSpec(name="resnet56", classes=10, start="run:none-ffffffffffff"), "about": {"pair": "resnet56/resnet8"}}
    write(benches / "a", objective("hinton"), 0, val=0.9, test=0.9, **other)
    (benches / "paper.csv").write_text("method,top1\nhinton,95.0\n")
    frame = compare([benches / "a", benches / "paper.csv"]).frame
    assert row(frame, method="hinton", pair="resnet20/resnet8")["paper - a"] == pytest.approx(0.95 - 0.85)
    assert row(frame, method="hinton", pair="resnet56/resnet8")["paper - a"] == pytest.approx(0.95 - 0.90)


def test_two_tables_of_one_bench_are_told_apart_by_what_differs(benches):
    write(benches / "b", objective("hinton"), 0, val=0.9, test=0.6, recipe={"epochs": 5})
    frame = compare([benches / "b", benches / "a"]).frame
    assert row(frame, method="hinton", epochs=5)["a - b"] == pytest.approx(0.85 - 0.6)
    assert pd.isna(row(frame, method="hinton", epochs=9)["a top1"])


def test_settings_of_a_table_by_seed_are_chosen_on_validation_and_never_mixed(benches):
    for seed in range(3):
        write(benches / "a", objective("hinton", 2.0), seed, val=0.5, test=0.99)
    write_tables(benches / "a")
    assert row(compare([benches / "a" / "runs.csv"]).frame, method="hinton")["a top1"] == pytest.approx(np.mean(KD))
    (benches / "c.csv").write_text("method,temperature,seed,top1\nhinton,1,0,0.8\nhinton,1,1,0.9\nhinton,2,0,0.5\nhinton,2,1,0.6\n")
    frame = compare([benches / "c.csv"]).frame
    assert sorted(frame["c top1"]) == pytest.approx([0.55, 0.85])


def test_three_sides_are_each_compared_with_the_first(benches):
    (benches / "paper.csv").write_text("method,top1\nhinton,0.9\n")
    frame = compare([benches / "a", benches / "b", benches / "paper.csv"]).frame
    found = row(frame, method="hinton")
    assert found["paper - a"] == pytest.approx(0.05)
    assert "paper - b" not in frame


def test_one_number_has_a_difference_and_no_test(benches):
    (benches / "paper.csv").write_text("method,top1\nhinton,0.9\n")
    found = row(compare([benches / "a", benches / "paper.csv"]).frame, method="hinton")
    assert found["paper - a"] == pytest.approx(0.05)
    assert pd.isna(found["paper - a p"])


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("method,top1\nhinton,high\nat,0.9\nrkd,?\n", r"(?s)expected a number, got 'high' \(line 2\).*got '\?' \(line 4\)"),
        ("name,score\na,1\n", "expected columns method and test_top1"),
        ("method,seed,top1\nhinton,0,0.9\nhinton,0,0.8\n", "hinton has seed 0 twice"),
        ("", "not a CSV table"),
    ],
)
def test_a_table_that_cannot_be_read_is_refused_in_words(tmp_path, text, fault):
    (tmp_path / "bad.csv").write_text(text)
    with pytest.raises(InputError, match=fault):
        compare([tmp_path / "bad.csv"])


def test_what_is_not_there_is_refused(tmp_path):
    with pytest.raises(InputError, match="no such bench or file"):
        compare([tmp_path / "nothing"])


FRAME = pd.DataFrame({"method": ["a_b", "c|d", None], "test_top1": [0.5, 0.25, math.nan], "p_vs_kd": [0.04, 0.5, math.nan], "n": [3, 1, 2]})


def test_rows_are_sorted_best_first_and_those_without_a_value_come_last():
    assert list(sorted_by(FRAME, "test_top1", CLASSIFICATION)["n"]) == [3, 1, 2]
    assert list(sorted_by(FRAME, "p_vs_kd", CLASSIFICATION)["n"]) == [3, 1, 2]
    assert list(sorted_by(FRAME, "n", CLASSIFICATION)["n"]) == [1, 2, 3]
    with pytest.raises(InputError, match="did you mean 'test_top1'"):
        sorted_by(FRAME, "test_top", CLASSIFICATION)


@pytest.mark.parametrize(
    ("condition", "left"),
    [
        ("n>=2", [3, 2]),
        ("n!=3", [1, 2]),
        ("test_top1<0.5", [1]),
        ("method=a_b", [3]),
        (" method != a_b ", [1, 2]),
        ("p_vs_kd<0.05", [3]),
        ("method>a", [3, 1]),
    ],
)
def test_rows_are_filtered(condition, left):
    assert list(filtered(FRAME, condition)["n"]) == left


@pytest.mark.parametrize(
    ("condition", "fault"),
    [
        ("metod=a", "did you mean 'method'"),
        ("n=three", "n holds numbers, got 'three'"),
        ("n", "expected COLUMN=VALUE"),
        ("", "expected COLUMN=VALUE"),
    ],
)
def test_a_filter_that_says_nothing_is_refused(condition, fault):
    with pytest.raises(InputError, match=fault):
        filtered(FRAME, condition)


def test_numbers_go_into_csv_and_json_as_they_are():
    assert render(FRAME, "csv", CLASSIFICATION) == "method,test_top1,p_vs_kd,n\na_b,0.5,0.04,3\nc|d,0.25,0.5,1\n,,,2\n"
    assert json.loads(render(FRAME, "json", CLASSIFICATION))[0] == {"method": "a_b", "test_top1": 0.5, "p_vs_kd": 0.04, "n": 3}
    assert json.loads(render(FRAME, "json", CLASSIFICATION))[2]["test_top1"] is None


def test_text_is_in_per_cent_and_escaped_for_what_reads_it():
    assert render(FRAME, "md", CLASSIFICATION).splitlines() == [
        "| method | test_top1 | p_vs_kd | n |",
        "| --- | --- | --- | --- |",
        "| a_b | 50.00 | 0.04 | 3 |",
        r"| c\|d | 25.00 | 0.5 | 1 |",
        "|  |  |  | 2 |",
    ]
    assert r"a\_b & 50.00 & 0.04 & 3 \\" in render(FRAME, "latex", CLASSIFICATION)
    assert r"\textbackslash{}\textasciicircum{}" in render(pd.DataFrame({"x": ["\\^"]}), "latex", CLASSIFICATION)
    assert "50.00" in render(FRAME, "table", CLASSIFICATION)


def test_every_format_that_is_offered_is_there_and_others_are_refused():
    for how in FORMATS:
        assert "a" in render(FRAME, how, CLASSIFICATION)
    with pytest.raises(InputError, match="did you mean 'latex'"):
        render(FRAME, "latx", CLASSIFICATION)


def test_differences_are_in_points_and_their_p_values_are_not():
    shown = words(pd.DataFrame({"b - a": [0.015], "b - a low": [-0.01], "b - a p": [0.03], "b - a test": ["Welch"]}), CLASSIFICATION)
    assert shown.iloc[0].tolist() == ["+1.50", "-1.00", "0.03", "Welch"]


def test_benches_of_one_name_are_told_apart_by_their_folders(benches, tmp_path):
    for folder in ("one", "two"):
        shutil.copytree(benches / "a", tmp_path / folder / "same")
    sides = [tmp_path / "one" / "same", tmp_path / "two" / "same" / "runs.csv", benches / "b"]
    assert compare(sides).names == ("one/same", "two/same", "b")
    assert compare([benches / "a", benches / "a"]).names == ("a (1)", "a (2)")


def test_a_heading_of_a_folder_is_broken_behind_a_slash_and_at_no_hyphen():
    heading = "my-results/my-digits - my-results/others-digits top-1"
    (column,) = frame_table(pd.DataFrame({heading: ["1.00"]})).columns
    assert str(column.header).split("\n") == ["my-results/", "my-digits", "-", "my-results/", "others-digits", "top-1"]


@pytest.mark.parametrize("table", ["", "runs.csv"])
def test_copies_of_the_same_runs_are_recognised_and_have_no_test(benches, tmp_path, table):
    copy = tmp_path / "copy"
    shutil.copytree(benches / "a", copy)
    found = compare([benches / "a", copy / table])
    assert set(found.frame["copy - a test"]) == {"none: the same runs"}
    assert (found.frame["copy - a"] == 0).all()
    assert found.frame["copy - a p"].isna().all()
    alike = "the same runs with the same results as in a (a copy, or trained again)"
    assert f"copy: 3 of 3 rows are {alike}: they have no test" in found.warnings


def test_a_run_that_was_trained_again_elsewhere_is_no_copy(benches, tmp_path):
    for seed in range(3):
        write(tmp_path / "again", objective("hinton"), seed, val=0.88, test=KD[seed] + 0.001 * seed)
    found = row(compare([benches / "a", tmp_path / "again"]).frame, method="hinton")
    assert found["again - a test"] == "paired by seed"


def test_chosen_settings_are_shown_side_by_side_where_they_differ(benches):
    for seed in range(3):
        write(benches / "c", objective("hinton", 2.0), seed, val=0.88, test=KD[seed])
    found = compare([benches / "a", benches / "c"])
    assert row(found.frame, method="hinton")[["a setting", "c setting"]].tolist() == ["T=4 alpha=0.9", "T=2 alpha=0.9"]
    ((_, shown),) = comparison_sections(found.frame, found.names, TOP1)
    assert row(shown, method="hinton")[["a setting", "c setting"]].tolist() == ["T=4 alpha=0.9", "T=2 alpha=0.9"]
    same = compare([benches / "a", benches / "b"])
    ((_, shown),) = comparison_sections(same.frame.drop(columns=["recipe", "epochs"], errors="ignore"), same.names, TOP1)
    assert row(shown, method="hinton")["setting"] == "T=4 alpha=0.9"


def test_a_warning_names_what_differs_of_a_network_and_nothing_that_is_equal(tmp_path):
    teacher = NetworkSpec(name="resnet20", classes=10, start="run:none-ffffffffffff")
    write(tmp_path / "a", objective("hinton"), 0, val=0.8, test=0.8)
    write(tmp_path / "b", objective("hinton"), 0, val=0.8, test=0.8, teacher=teacher)
    (warning,) = compare([tmp_path / "a", tmp_path / "b"]).warnings
    assert warning == "teacher.start differs: a has run:none-0123456789ab, b has run:none-ffffffffffff"


@pytest.mark.parametrize("width", [80, 120, 200])
def test_at_eighty_columns_the_method_and_the_difference_with_its_interval_are_there(benches, width):
    found = compare([benches / "a", benches / "b"])
    out = Console(file=io.StringIO(), width=width)
    out.print(comparison_view(comparison_sections(found.frame, found.names, TOP1), found.names, TOP1, width, None))
    text = out.file.getvalue()
    assert max(map(len, text.splitlines())) <= width
    difference = row(found.frame, method="hinton")
    interval = f"+1.83 [{100 * difference['b - a low']:+.2f}, {100 * difference['b - a high']:+.2f}]"
    (line,) = [line for line in text.splitlines() if interval in line]
    assert line.lstrip().startswith("hinton ")
    assert "student alone" in text


def test_json_of_a_comparison_counts_in_integers(benches):
    rows = json.loads(render(compare([benches / "a", benches / "b"]).frame, "json", CLASSIFICATION))
    counts = {row["method"]: (row["a n"], row["b n"]) for row in rows}
    assert counts["hinton"] == (3, 3)
    assert counts["at"] == (3, None)
    assert all(type(n) is int for pair in counts.values() for n in pair if n is not None)
