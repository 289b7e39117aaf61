"""The sweep of a method over two axes of its settings, against numbers worked out by hand."""

import json
import math

import pytest
from test_leaderboard import CARDS, objective, write

from kdzoo.errors import InputError
from kdzoo.runs.spec import ObjectiveSpec, TermSpec
from kdzoo.suite.report.bench import read_bench
from kdzoo.suite.report.leaderboard import leaderboard_frame
from kdzoo.suite.report.swept import Axes, parse_axes, swept_frame
from kdzoo.suite.report.swept_text import swept_grids

VALIDATION = {
    (2.0, 0.5): (0.80, 0.82, 0.84), (2.0, 0.9): (0.85, 0.86, 0.87),
    (4.0, 0.5): (0.90, 0.91, 0.92), (4.0, 0.9): (0.899, 0.912, 0.916),
}  # fmt: skip
"""by temperature and alpha, three seeds each: the last two settings differ by -0.001, 0.002, -0.004, which is no difference"""


@pytest.fixture
def folder(tmp_path):
    for seed in range(3):
        write(tmp_path / "b", objective("none"), seed, val=0.75, test=0.75)
        for (temperature, alpha), values in VALIDATION.items():
            write(tmp_path / "b", objective("hinton", temperature, alpha), seed, val=values[seed], test=0.9)
    return tmp_path / "b"


def dkd(temperature: float, weight: float) -> ObjectiveSpec:
    fields = {"temperature": temperature, "nontarget_weight": weight}
    return ObjectiveSpec(task=1.0, terms=(TermSpec(method="dkd", version="1", hyperparameters=fields, coefficient=1.0),))


def rows_of(frame):
    return {(row["row"], row["column"]): row for _, row in frame.iterrows()}


def grid_lines(folder, method, axes=None):
    return [(grid, grid.cells.values.tolist()) for grid in swept_grids(read_bench(folder), swept_frame(read_bench(folder), method, axes))]


def test_cells_have_the_mean_and_the_spread_on_validation_and_mark_what_is_chosen_and_what_is_not_told_apart_from_it(folder):
    frame = swept_frame(read_bench(folder), "hinton")
    assert (set(frame["row_axis"]), set(frame["column_axis"])) == ({"temperature"}, {"alpha"})
    rows = rows_of(frame)
    assert rows.keys() == VALIDATION.keys()
    for place, values in VALIDATION.items():
        mean = sum(values) / 3
        sd = math.sqrt(sum((value - mean) ** 2 for value in values) / 2)
        half = 4.302653 * sd / math.sqrt(3)  # Student's t with two degrees of freedom
        row = rows[place]
        assert [row[name] for name in ("mean", "sd", "low", "high")] == pytest.approx([mean, sd, mean - half, mean + half])
        assert (row["metric"], row["n"], row["planned"], row["failed"]) == ("val_top1", 3, 3, 0)
    assert {place for place, row in rows.items() if row["chosen"]} == {(4.0, 0.5)}
    assert {place for place, row in rows.items() if row["like_chosen"]} == {(4.0, 0.9)}
    board = leaderboard_frame(read_bench(folder)).set_index("method").loc["hinton"]
    assert (board["temperature"], board["alpha"]) == (4.0, 0.5), "the chosen cell is the leaderboard's row"


def test_a_grid_says_what_its_marks_mean_without_colour(folder):
    ((grid, lines),) = grid_lines(folder, "hinton")
    assert list(grid.cells.columns) == ["temperature / alpha", "0.5", "0.9"]
    assert lines == [["2", "82.00 ± 2.00", "86.00 ± 1.00"], ["4", "* 91.00 ± 1.00", "~ 90.90 ± 0.89"]]
    (note,) = grid.notes
    assert note.startswith(
        "Validation top-1 in per cent of the last epoch, mean ± standard deviation over 3 seeds. * chosen: T=4 alpha=0.5 ("
    )


def test_a_missing_cell_a_missing_seed_and_a_failure_are_said(folder):
    write(folder, objective("hinton", 8.0, 0.9), 0, val=0.7, test=0.9)
    write(folder, objective("hinton", 8.0, 0.9), 1, val=0.0, test=0.0, fail="NonFinite: the loss is nan")
    write(folder, objective("hinton", 16.0, 0.9), 0, val=0.0, test=0.0, fail="NonFinite: the loss is nan")
    ((grid, lines),) = grid_lines(folder, "hinton")
    assert lines[2:] == [["8", "", "70.00 (n = 1, 1 failed)"], ["16", "", "failed"]]
    assert grid.notes[0] == "2 of 8 cells were not tried and are empty."


def test_one_axis_is_no_grid_and_a_setting_without_a_neighbour_stands_below(folder):
    ((grid, lines),) = grid_lines(folder, "hinton", Axes("alpha"))[1:]
    assert grid.title.startswith("hinton at temperature=4: ")
    assert lines == [["0.5", "* 91.00 ± 1.00"], ["0.9", "~ 90.90 ± 0.89"]]
    assert grid.notes[0] == "One axis, alpha: no grid."
    write(folder, objective("hinton", 8.0, 0.9), 0, val=0.7, test=0.9)
    *_, last = swept_grids(read_bench(folder), swept_frame(read_bench(folder), "hinton", Axes("alpha")))
    assert last.notes[-1] == "On none of the grids: T=8 alpha=0.9: 70.00."


def test_a_setting_without_a_value_on_one_of_the_axes_has_no_place(folder):
    beside_ce = objective("hinton", 4.0).model_copy(update={"task": 1.0})  # a sum of both losses, which has a weight and no alpha
    write(folder, beside_ce, 0, val=0.7, test=0.9)
    frame = swept_frame(read_bench(folder), "hinton", Axes("temperature", "alpha"))
    placeless = frame[frame["row"].isna()]
    assert placeless["column"].isna().all()
    assert placeless["mean"].tolist() == pytest.approx([0.7])
    assert len(frame) == len(VALIDATION) + 1


def test_a_method_with_one_setting_has_no_grid(folder):
    ((grid, lines),) = grid_lines(folder, "none")
    assert grid.title.startswith("student alone, tried at 1 setting: ")
    assert list(grid.cells.columns) == ["setting", "validation top-1 in per cent"]
    assert lines == [["as published", "* 75.00 ± 0.00"]]
    assert grid.notes[0] == "No grid."


@pytest.mark.parametrize(
    ("how", "line"), [("latex", r"as published & {*} 75.00 $\pm$ 0.00 \\"), ("md", "| as published | * 75.00 ± 0.00 |")]
)
def test_what_is_no_grid_is_a_table_of_settings_in_every_format(folder, kdzoo, how, line):
    said = kdzoo("leaderboard", folder, "--surface", "none", "--format", how)
    assert said.status == 0
    assert line in said.out.splitlines()
    assert r"\begin{tabular}{}" not in said.out


def test_a_field_of_the_method_is_an_axis_and_a_third_one_cuts_the_sweep_into_grids(tmp_path, monkeypatch):
    monkeypatch.setitem(CARDS, "dkd", {"scale": 1.0, "published": {"task": 1.0, "term": 1.0}, "declared": {}})
    for seed in range(2):
        for temperature in (2.0, 4.0):
            for weight in (1.0, 8.0):
                write(tmp_path / "b", dkd(temperature, weight), seed, val=0.8 + weight / 100 + temperature / 1000 + seed / 100, test=0.9)
    ((grid, lines),) = grid_lines(tmp_path / "b", "dkd")
    assert list(grid.cells.columns) == ["temperature / nontarget_weight", "1", "8"]
    assert lines[1] == ["4", "81.90 ± 0.71", "* 88.90 ± 0.71"]
    frame = swept_frame(read_bench(tmp_path / "b"), "dkd", Axes("nontarget_weight"))
    assert {json.loads(others)["temperature"] for others in frame["others"]} == {2, 4}
    assert len(swept_grids(read_bench(tmp_path / "b"), frame)) == 2


def test_where_nothing_was_held_out_the_test_images_stand_there_and_choose_nothing(tmp_path):
    for temperature, test in ((2.0, 0.8), (4.0, 0.9)):
        write(tmp_path / "b", objective("hinton", temperature), 0, val=None, test=test, data={"val_fraction": 0.0})
    ((grid, lines),) = grid_lines(tmp_path / "b", "hinton")
    assert lines == [["2", "80.00"], ["4", "90.00"]]
    assert "Nothing was held out, so these are test images, which choose nothing." in grid.notes[-1]
    assert "Nothing is known of how far cells are apart by chance." in grid.notes[-1]


def test_unknown_methods_and_axes_are_refused_with_the_nearest_name(folder):
    with pytest.raises(InputError, match=r"surface: unknown 'hintn'; did you mean 'hinton'\?"):
        swept_frame(read_bench(folder), "hintn")
    with pytest.raises(InputError, match=r"axis of hinton: unknown 'alfa'; did you mean 'alpha'\?"):
        swept_frame(read_bench(folder), "hinton", Axes("alfa"))
    assert parse_axes(" alpha , temperature") == Axes("alpha", "temperature")
    for text in ("alpha,", "alpha,alpha", "a,b,c", ""):
        with pytest.raises(InputError, match="axes: expected one axis, or two different ones"):
            parse_axes(text)


def test_the_command_shows_the_grid_in_every_format(folder, kdzoo):
    table = kdzoo("leaderboard", folder, "--surface", "hinton")
    assert table.status == 0
    assert "* 91.00 ± 1.00" in table.out
    assert "| 4 | * 91.00 ± 1.00 | ~ 90.90 ± 0.89 |" in kdzoo("leaderboard", folder, "--surface", "hinton", "--format", "md").out
    rows = json.loads(kdzoo("leaderboard", folder, "--surface", "hinton", "--filter", "chosen=True", "--format", "json").out)
    assert [(row["row"], row["column"], row["n"]) for row in rows] == [(4, 0.5, 3)]
    refused = kdzoo("leaderboard", folder, "--axes", "alpha")
    assert (refused.status, "axes: they are those of --surface METHOD" in refused.err) == (2, True)


def test_what_a_grid_has_besides_its_axes_is_told_as_an_alpha_where_it_is_one(folder):
    bench = read_bench(folder)
    titles = [grid.title.partition(":")[0] for grid in swept_grids(bench, swept_frame(bench, "hinton", parse_axes("temperature")))]
    assert sorted(titles) == ["hinton at alpha=0.5", "hinton at alpha=0.9"]
