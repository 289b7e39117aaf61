"""Charts as files: drawn without a browser, with as many marks as the CSV beside them has rows."""

import csv
import html
import itertools
import json
import math
import re
import shutil
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest
from test_leaderboard import AT, KD, NONE, objective, write

from kdzoo.errors import InputError
from kdzoo.runs.spec import Run
from kdzoo.runs.store import Store
from kdzoo.suite.page.build import build_page
from kdzoo.suite.page.chart_kind import ChartKind
from kdzoo.suite.page.charts.names import SIDES, WIDTH, sides_of
from kdzoo.suite.page.frames.curves import axis_end
from kdzoo.suite.page.kinds import KINDS, charts_of
from kdzoo.suite.page.plot import specification, write_plot
from kdzoo.suite.page.tables import tables_of
from kdzoo.suite.report.bench import read_bench
from kdzoo.suite.report.per_class import per_class_frame
from kdzoo.suite.report.runs_table import runs_frame

DIGITS = Path(__file__).resolve().parent.parent.parent / "results" / "digits"
SVG = "{http://www.w3.org/2000/svg}"


def rows_of(table: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(table.read_text().splitlines()))


def marks_of(file: Path) -> list[int]:
    """How many marks each chart of a file has that stand for rows."""
    groups = [
        g for g in ElementTree.fromstring(file.read_text()).iter(f"{SVG}g") if re.search(r"\brows(-|_)\d+\w*_marks\b", g.get("class", ""))
    ]
    return [len([child for child in group if child.tag != f"{SVG}g"]) for group in groups]


@pytest.mark.parametrize("kind", list(ChartKind))
def test_every_kind_has_a_mark_for_each_row_of_its_csv(tmp_path, kind):
    tables = tables_of(DIGITS)
    table = write_plot(tables, kind, tmp_path / f"{kind}.svg")
    charts = charts_of(kind, tables)
    assert marks_of(tmp_path / f"{kind}.svg") == [len(chart.frame) for chart in charts]
    assert len(rows_of(table)) == sum({chart.data: len(chart.frame) for chart in charts}.values()) > 0


@pytest.mark.parametrize("kind", list(ChartKind))
def test_every_specification_is_valid_vega_lite(kind):
    for chart in charts_of(kind, tables_of(DIGITS)):
        chart.chart.to_dict(validate=True)


def test_every_kind_has_its_entry():
    assert list(KINDS) == list(ChartKind)


@pytest.mark.parametrize(("ending", "start"), [(".svg", b"<svg"), (".png", b"\x89PNG"), (".pdf", b"%PDF")])
def test_the_ending_decides_the_format(tmp_path, ending, start):
    write_plot(tables_of(DIGITS), ChartKind.forest, tmp_path / f"f{ending}")
    assert (tmp_path / f"f{ending}").read_bytes().startswith(start)


def test_predictions_of_another_run_are_left_out_of_the_reliability_and_told(tmp_path):
    bench = shutil.copytree(DIGITS, tmp_path / "digits")
    at, none = (next(bench.glob(f"runs/{name}-*/predictions.npz")) for name in ("at", "none"))
    shutil.copy(none, at)
    tables = tables_of(bench)
    assert set(tables.reliability["method"]) == {"hinton", "none"}
    assert KINDS[ChartKind.reliability].omissions(tables) == ("The predictions of 1 run are damaged, or another run's, and left out.",)


@pytest.mark.parametrize("kind", [ChartKind.reliability, ChartKind.classes])
def test_a_chart_of_classes_asks_a_task_without_any_for_no_files(tmp_path, kind):
    bench = DIGITS.parent / "features"
    reason = f"features has no {kind} to draw: it takes a task of classes, and the task of this bench is features"
    with pytest.raises(InputError) as refused:
        write_plot(tables_of(bench), kind, tmp_path / "chart.svg")
    assert list(refused.value.problems) == [f"plot: {reason}"]


EPOCHS = 5


def write_epochs(folder: Path, run: Run, *changes: tuple[int, object], owner: str = "") -> None:
    """A run's metrics.jsonl, a line an epoch; changes: the number of a line, and what it has as its epoch."""
    epochs = {number: number for number in range(1, EPOCHS + 1)} | dict(changes)
    lines = [{"run": owner or run.id, "epoch": epoch, "step": at, "val": {"top1": 0.5}, "loss": 1.0} for at, epoch in epochs.items()]
    Store(folder).run(run.id).metrics.write_text("".join(json.dumps(line) + "\n" for line in lines))


@pytest.mark.parametrize("epoch", [math.nan, None, 2.5, "2", True, -1, EPOCHS + 1, 10**400, 1, [2]])
def test_a_line_whose_epoch_is_none_of_the_runs_is_passed_over_and_told(tmp_path, kdzoo, epoch):
    run = write(tmp_path / "b", objective("none"), 0, val=0.8, test=0.8)
    write_epochs(tmp_path / "b", run, (2, epoch))
    said = kdzoo("plot", tmp_path / "b", "--kind", "curves", "-o", tmp_path / "c.svg")
    assert said.status == 0
    assert said.err == "kdzoo: note: 1 line of metrics.jsonl is passed over, with an epoch that is none of the run's or out of order.\n"
    assert sorted({int(row["epoch"]) for row in rows_of(tmp_path / "c.svg.csv")}) == [1, 3, 4, 5]


@pytest.mark.parametrize("value", [math.nan, math.inf, 10**400, "0.5", True, [], {"top1": 1}])
def test_a_value_that_is_no_number_is_no_point_of_a_curve(tmp_path, value):
    run = write(tmp_path / "b", objective("none"), 0, val=0.8, test=0.8)
    line = {"run": run.id, "epoch": 1, "step": 1, "val": {"top1": value}, "parts": [], "loss": 2.0}
    Store(tmp_path / "b").run(run.id).metrics.write_text(f"{json.dumps(line)}\n")
    frame = tables_of(tmp_path / "b").curves.frame
    assert frame[["measure", "mean"]].to_numpy().tolist() == [["training loss: ce", 2.0]]


def test_runs_without_a_curve_are_told_on_the_page_and_with_the_chart(tmp_path, kdzoo):
    runs = [write(tmp_path / "b", objective("none"), seed, val=0.8, test=0.8) for seed in range(4)]
    write_epochs(tmp_path / "b", runs[0])
    write_epochs(tmp_path / "b", runs[1], owner=runs[0].id)
    Store(tmp_path / "b").run(runs[2].id).metrics.mkdir()
    write_epochs(tmp_path / "b", runs[3])
    metrics = Store(tmp_path / "b").run(runs[3].id).metrics
    lines = metrics.read_text().splitlines()
    metrics.write_text("\n".join([*lines[:2], "torn", *lines[3:]]))
    expected = (
        "2 runs have no curve: metrics.jsonl is missing there, or has no line that can be read as theirs.",
        "3 lines of metrics.jsonl are not read: the first that is torn or another run's, and all below it.",
    )
    tables = tables_of(tmp_path / "b")
    assert tables.curves.omissions == expected
    assert tables.curves.frame.groupby("epoch")["n"].max().to_dict() == {1: 2, 2: 2, 3: 1, 4: 1, 5: 1}
    page = html.unescape(build_page([tmp_path / "b"]))
    assert all(f'<p class="note">{line}</p>' in page for line in expected)
    Store(tmp_path / "b").run(runs[0].id).metrics.unlink()
    metrics.unlink()
    assert "Learning curves" in build_page([tmp_path / "b"]), "the section says why it is empty"
    said = kdzoo("plot", tmp_path / "b", "--kind", "curves", "-o", tmp_path / "c.svg")
    assert said.status == 2
    assert "4 runs have no curve" in said.err


def test_a_loss_that_explodes_leaves_the_picture_and_is_named_and_flattens_no_other(tmp_path):
    losses = {"none": [2.0, 1.0], "hinton": [2.2, 1.1], "at": [300.0, 3e4]}
    for name, course in losses.items():
        run = write(tmp_path / "b", objective(name), 0, val=0.8, test=0.8)
        lines = [json.dumps({"run": run.id, "epoch": epoch, "step": epoch, "loss": loss}) for epoch, loss in enumerate(course, start=1)]
        Store(tmp_path / "b").run(run.id).metrics.write_text("\n".join([*lines, ""]))
    (chart,) = charts_of(ChartKind.curves, tables_of(tmp_path / "b"))
    at = next(series for series in set(chart.frame["series"]) if series.startswith("at"))
    assert chart.summary.endswith(f"The axis ends at 2.42, so that the others can be told apart: {at} reaches 3e+04.")
    scales = [layer["encoding"]["y"]["scale"] for layer in chart.chart.to_dict()["layer"]]
    assert [scale["domainMax"] for scale in scales] == pytest.approx([1.1 * 2.2] * 3)
    assert len(chart.frame) == 6, "the numbers beside the chart are whole"


@pytest.mark.parametrize(
    ("peaks", "end", "beyond"),
    [
        ([2.0, 3e4], 2.2, ["m1"]),
        ([2.0, 2.2, 3e4, 4e4], 1.1 * 2.2, ["m3", "m2"]),
        ([-1.0, -1.1, -0.9], None, []),
        ([0.0, 0.0, 5.0], None, []),
        ([2.0], None, []),
        ([math.nan, math.nan], None, []),
    ],
)
def test_the_end_of_an_axis_of_losses(peaks, end, beyond):
    rows = pd.DataFrame({"series": [f"m{n}" for n in range(len(peaks))], "measure": "training loss: ce", "high": peaks})
    found = axis_end(rows)
    assert found.end == (end and pytest.approx(end))
    assert [name for name, _ in found.beyond] == beyond


def test_losses_of_one_size_are_drawn_to_their_largest(tmp_path):
    for name, loss in (("none", 1.0), ("hinton", 1.5), ("at", 3.9)):
        run = write(tmp_path / "b", objective(name), 0, val=0.8, test=0.8)
        Store(tmp_path / "b").run(run.id).metrics.write_text(json.dumps({"run": run.id, "epoch": 1, "step": 1, "loss": loss}) + "\n")
    (chart,) = charts_of(ChartKind.curves, tables_of(tmp_path / "b"))
    assert "axis" not in chart.summary
    assert all("domainMax" not in layer["encoding"]["y"]["scale"] for layer in chart.chart.to_dict()["layer"])


def test_methods_that_read_features_have_no_training_loss_in_common():
    charts = charts_of(ChartKind.curves, tables_of(DIGITS.parent / "features"))
    assert [chart.title for chart in charts] == ["Validation top-1 (kNN)"]


NAMES = ["a", [], ["a"] * 10, [f"c{label}" for label in range(9)], [*range(10)], [{}] * 10, 7]


@pytest.mark.parametrize("names", NAMES)
def test_classes_without_a_name_each_are_numbered(tmp_path, kdzoo, names):
    bench = shutil.copytree(DIGITS, tmp_path / "digits")
    for file in bench.glob("runs/*/run.json"):
        content = json.loads(file.read_text())
        content["about"]["class_names"] = names
        file.write_text(json.dumps(content))
    assert set(tables_of(bench).classes["class"]) == set(map(str, range(10)))
    assert kdzoo("leaderboard", bench, "--per-class").status == 0


def test_lists_of_other_classes_than_the_runs_are_not_counted(tmp_path):
    bench = shutil.copytree(DIGITS, tmp_path / "digits")
    file = next(bench.glob("runs/none-*/result.json"))
    content = json.loads(file.read_text())
    content["last"]["test"]["errors_per_class"].pop()
    file.write_text(json.dumps(content))
    counts = per_class_frame(read_bench(bench)).groupby("method")["n"].max()
    assert (counts["none"], counts["at"]) == (2, 3)


def test_conditions_pick_rows_of_chart_and_csv(tmp_path):
    table = write_plot(tables_of(DIGITS), ChartKind.surface, tmp_path / "s.svg", ["method=hinton"])
    rows = rows_of(table)
    assert {row["method"] for row in rows} == {"hinton"}
    assert marks_of(tmp_path / "s.svg") == [len(rows)]


def test_what_cannot_be_drawn_is_refused_with_what_it_takes(tmp_path):
    write(tmp_path / "b", objective("hinton"), 0, val=0.8, test=0.8)
    with pytest.raises(InputError, match="no surface to draw: it takes a method of which two settings or more are done"):
        write_plot(tables_of(tmp_path / "b"), ChartKind.surface, tmp_path / "s.svg")
    with pytest.raises(InputError, match=r"unknown '.jpg'; did you mean '.png'"):
        write_plot(tables_of(DIGITS), ChartKind.forest, tmp_path / "f.jpg")
    with pytest.raises(InputError, match="no forest to draw for these rows"):
        write_plot(tables_of(DIGITS), ChartKind.forest, tmp_path / "f.svg", ["method=crd"])
    assert not list(tmp_path.glob("*.*"))


def test_where_no_run_is_done_that_is_said_whatever_was_tried(tmp_path):
    for temperature in (2.0, 4.0):
        write(tmp_path / "b", objective("hinton", temperature), 0, val=0.8, test=0.8, fail="RuntimeError: NaN")
    for kind in ChartKind:
        with pytest.raises(InputError, match=f"plot: b has no {kind} to draw: no run is done"):
            write_plot(tables_of(tmp_path / "b"), kind, tmp_path / "s.svg")


def test_the_file_needs_nothing_from_elsewhere():
    text = json.dumps(specification(charts_of(ChartKind.curves, tables_of(DIGITS))))
    assert re.findall(r"https?://[^\"]+", text) == re.findall(r"https://vega.github.io/schema/[^\"]+", text)


def test_the_forest_is_the_rows_of_the_leaderboard_with_the_side_that_their_interval_lies_on(tmp_path):
    for seed in range(3):
        write(tmp_path / "b", objective("none"), seed, val=0.80, test=NONE[seed])
        write(tmp_path / "b", objective("hinton"), seed, val=0.88, test=KD[seed])
        write(tmp_path / "b", objective("at"), seed, val=0.84, test=AT[seed])
    tables = tables_of(tmp_path / "b")
    forest = tables.forest.set_index("method")
    board = tables.board.set_index("method")
    assert set(forest.index) == {"none", "at"}
    for method, row in forest.iterrows():
        assert row["vs_kd"] == board.loc[method, "vs_kd"]
        low, high = board.loc[method, ["vs_kd_all_low", "vs_kd_all_high"]]
        assert row["side"] == ("better" if low > 0 else "worse" if high < 0 else "not told apart")


def test_the_front_holds_what_nothing_cheaper_reaches():
    from kdzoo.suite.page.frames.board import on_front

    costs, values = [1, 2, 2, 3, 4], [0.5, 0.7, 0.6, 0.7, 0.9]
    assert on_front(costs, values) == [True, True, False, False, True]
    assert on_front([1, 1], [0.5, 0.5]) == [True, True]


STUDENTS = {"resnet8": {"parameters": 78, "macs": 12}, "resnet20": {"parameters": 272, "macs": 41}}


def timed(folder: Path, student: str, seed: int, test: float, milliseconds: float, **environment) -> None:
    """The student alone, with the time that its run measured."""
    parts = {
        "student": {"name": student, **STUDENTS[student]},
        "cost": {"student_milliseconds": milliseconds},
        "environment": environment,
    }
    write(folder, objective("none"), seed, val=test, test=test, about={"pair": f"resnet56/{student}"}, parts=parts)


def test_accuracy_is_set_against_the_shortest_time_that_any_run_of_a_student_measured(tmp_path):
    for seed, (small, large) in enumerate([(2.0, 5.0), (1.0, 4.0), (3.0, 6.0)]):
        timed(tmp_path / "b", "resnet8", seed, 0.80, small)
        timed(tmp_path / "b", "resnet20", seed + 3, 0.90, large)
    tables = tables_of(tmp_path / "b")
    assert sorted(tables.board["student_milliseconds"].dropna()) == [1.0, 4.0]
    assert sorted(runs_frame(tables.bench)["student_milliseconds"]) == [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]
    of_time = tables.pareto[tables.pareto["cost"].str.startswith("milliseconds")]
    assert list(of_time["value"]) == [1.0, 4.0]
    assert of_time["test_top1"].tolist() == pytest.approx([0.8, 0.9])
    assert of_time["front"].all()
    titles = [chart.title for chart in charts_of(ChartKind.pareto, tables)]
    assert {"Milliseconds of one image", "Parameters of the student"} <= set(titles)


def test_times_of_two_machines_are_not_compared_and_a_bench_without_times_has_no_column(tmp_path):
    timed(tmp_path / "two", "resnet8", 0, 0.80, 2.0, cpu="one")
    timed(tmp_path / "two", "resnet20", 1, 0.90, 1.0, cpu="another")
    tables = tables_of(tmp_path / "two")
    assert "student_milliseconds" not in tables.board
    assert list(runs_frame(tables.bench)["student_milliseconds"].sort_values()) == [1.0, 2.0]
    assert not tables.pareto["cost"].str.startswith("milliseconds").any()
    earlier = tables_of(DIGITS)
    assert "student_milliseconds" not in {*earlier.board, *runs_frame(earlier.bench)}


def test_the_command_writes_chart_and_numbers(kdzoo, place):
    answer = kdzoo("plot", DIGITS, "--kind", "forest", "-o", "out/forest.svg")
    assert answer.status == 0, answer.err
    assert answer.out == "plot: out/forest.svg, with its numbers in out/forest.svg.csv\n"
    assert (place / "out" / "forest.svg.csv").exists()
    assert kdzoo("plot", DIGITS, "--kind", "forst", "-o", "x.svg").status == 2


@pytest.mark.parametrize("seed", range(5))
def test_no_name_beside_a_point_covers_another_or_leaves_the_chart(seed):
    random = np.random.default_rng(seed)
    names = ["m" * int(length) for length in random.integers(2, 20, 30)]
    xs, ys = random.uniform(0, WIDTH, 30), random.uniform(0, 260, 30)
    sides = sides_of(names, list(xs), list(ys))
    boxes = [side.box(x, y, name) for side, x, y, name in zip(sides, xs, ys, names, strict=True) if side is not None]
    assert len(boxes) > 10
    assert all(left >= 0 and right <= WIDTH for left, right, _, _ in boxes)
    for (a, b, c, d), (e, f, g, h) in itertools.combinations(boxes, 2):
        assert min(b, f) <= max(a, e) or min(d, h) <= max(c, g)


def test_points_of_one_place_have_their_names_around_it():
    sides = sides_of(["one", "two", "three", "four", "five"], [140.0] * 5, [130.0] * 5)
    assert sides == [*SIDES, None]
