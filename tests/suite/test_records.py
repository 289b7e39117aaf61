"""What run folders say: whole, failed, damaged in every way, of several versions; and settings in the words of the tables."""

import csv
import io
import math
import re
import subprocess
import sys

import pandas as pd
import pytest
from edited import edit
from test_leaderboard import KD, NONE, objective, write

from kdzoo.errors import InputError
from kdzoo.runs.plan_text import PlanTexts
from kdzoo.runs.spec import FirstSpec, ObjectiveSpec, Run, TermSpec
from kdzoo.runs.store import Store
from kdzoo.suite.report.bench import read_bench
from kdzoo.suite.report.leaderboard import leaderboard_frame
from kdzoo.suite.report.runs_table import runs_frame
from kdzoo.suite.report.settings import setting_of
from kdzoo.suite.report.table_files import ROWS, as_csv, write_tables


@pytest.fixture
def bench(tmp_path):
    for seed in range(3):
        write(tmp_path / "b", objective("none"), seed, val=0.8, test=NONE[seed])
        write(tmp_path / "b", objective("hinton"), seed, val=0.88, test=KD[seed])
    return tmp_path / "b"


@pytest.mark.parametrize(
    ("how", "fault"),
    [
        (lambda c: c.update(id="hinton-000000000000"), "id: expected hinton-"),
        (lambda c: c.update(last=None), "last: "),
        (lambda c: c.pop("last"), "last: missing"),
        (lambda c: c["last"]["test"].pop("top1"), "last.test.top1: missing"),
        (lambda c: c["last"]["test"].update(top1="high"), "last.test.top1: .*'high'"),
        (lambda c: c["last"]["test"].update(top1=float("nan")), "last.test.top1: .*nan"),
        (lambda c: c["last"]["test"].update(top1=85.0), "last.test.top1: expected a number <= 1, got 85.0"),
        (lambda c: c.update(cost=[]), "cost: "),
        (lambda c: c.update(teacher={"name": "resnet20"}), "teacher.test: missing"),
    ],
)
def test_a_result_that_says_nonsense_is_damaged_named_and_not_counted(bench, how, fault):
    file = next((bench / "runs").glob("hinton-*/result.json"))
    edit(file, how)
    before = file.read_bytes()
    write_tables(bench)
    read = read_bench(bench)
    (note,) = read.notes
    assert str(file) in note
    assert note.endswith("a bench that plans it trains it again and keeps the file")
    assert Store(bench).run(file.parent.name).state() == "damaged"
    (damaged,) = [record for record in read.records if record.state == "damaged"]
    assert re.search(fault, damaged.error)
    assert runs_frame(read).set_index("id").loc[damaged.id, "error"] == damaged.error
    board = leaderboard_frame(read).set_index("method")
    assert board.loc["hinton", ["n", "planned"]].tolist() == [2, 3]
    assert file.read_bytes() == before


@pytest.mark.parametrize(
    "how",
    [
        lambda c: c["about"].update(methods=None),
        lambda c: c["about"]["methods"]["hinton"].pop("published"),
        lambda c: c["about"].update(pair=3),
    ],
)
def test_a_run_whose_description_is_damaged_beside_the_run_itself_keeps_its_row(bench, how):
    file = next((bench / "runs").glob("hinton-*/run.json"))
    edit(file, how)
    write_tables(bench)
    read = read_bench(bench)
    assert [record.state for record in read.records].count("damaged") == 1
    assert len(runs_frame(read)) == 6
    assert read.notes[0].startswith(f"{file}: damaged (about")
    assert read.notes[0].endswith("a bench that plans it writes it again and keeps the file")


@pytest.mark.parametrize(
    "text", ["", '{"id": ', "[]", "{}", '{"run": {}, "about": {}}', '{"run": null}', "\x00\xff", '{"id": "x", "run": [], "about": 3}']
)
def test_a_run_json_that_says_no_run_is_a_note_and_the_rest_stands(bench, text):
    file = next((bench / "runs").glob("hinton-*/run.json"))
    file.write_bytes(text.encode("latin-1"))
    write_tables(bench)
    read = read_bench(bench)
    assert len(read.records) == 5
    assert all(str(file) in note for note in read.notes)
    assert read.notes


def test_a_run_json_under_another_runs_name_is_a_note(bench):
    one, other = sorted((bench / "runs").glob("hinton-*"))[:2]
    (one / "run.json").write_bytes((other / "run.json").read_bytes())
    read = read_bench(bench)
    assert len(read.records) == 5
    assert "not the run its folder is named after" in read.notes[0]


def test_a_missing_about_is_no_damage(bench):
    edit(next((bench / "runs").glob("hinton-*/run.json")), lambda c: c.pop("about"))
    write_tables(bench)
    assert read_bench(bench).notes == ()


def test_a_failure_says_its_last_line_whatever_bytes_it_is_made_of(bench):
    run = write(bench, objective("at"), 0, val=0, test=0, fail="x")
    error = Store(bench).run(run.id).path / "error.txt"
    for content, expected in (
        (b"Traceback\nValueError: no\n\n", "ValueError: no"),
        (b"\xff boom", "\ufffd boom"),
        (b"", "no reason was kept"),
    ):
        error.write_bytes(content)
        (record,) = [r for r in read_bench(bench).records if r.id == run.id]
        assert (record.state, record.error) == ("failed", expected)


def test_a_folder_that_is_no_bench_is_refused(tmp_path):
    with pytest.raises(InputError, match="not a bench"):
        read_bench(tmp_path)


def test_strange_folders_and_files_among_the_runs_stop_nothing(bench):
    (bench / "runs" / ".cache").mkdir()
    (bench / "runs" / "notes.txt").write_text("mine")
    assert len(read_bench(bench).records) == 6


def of_version(version: str) -> ObjectiveSpec:
    made = objective("at")
    return ObjectiveSpec(task=made.task, terms=(made.terms[0].model_copy(update={"version": version}),))


def versions(folder) -> set[str]:
    return {record.run.objective.terms[0].version for record in read_bench(folder).records if record.method == "at"}


def test_the_greatest_number_is_the_newest_version(bench):
    for version in ("2", "9", "10"):
        for seed in range(3):
            write(bench, of_version(version), seed, val=0.8, test=0.8)
    assert versions(bench) == {"10"}
    assert "left out: 6 runs of older method versions" in read_bench(bench).notes


def test_runs_that_are_known_from_their_plan_leave_older_versions_out_as_those_that_are_read(bench):
    for version in ("2", "10"):
        for seed in range(3):
            write(bench, of_version(version), seed, val=0.8, test=0.8)
    store, texts = Store(bench), PlanTexts()
    newest = [record for record in read_bench(bench).records if record.method == "at"]
    known = {record.id: store.run(record.id).known_run(record.run, record.about, texts) for record in newest}
    assert [one.plan is not None for one in known.values()] == [True] * 3
    with_known = read_bench(bench, known)
    assert (with_known.records, with_known.notes) == (read_bench(bench).records, read_bench(bench).notes)
    assert "left out: 3 runs of older method versions" in with_known.notes


def test_of_hashes_the_one_that_finished_last_is_the_newest(bench):
    for version, day in (("aaaa", 3), ("ffff", 1), ("bbbb", 2)):
        write(bench, of_version(version), 0, val=0.8, test=0.8, finished=f"2026-01-0{day}T00:00:00Z")
    assert versions(bench) == {"aaaa"}


def test_seeds_of_an_older_version_never_fill_up_those_of_a_newer(bench):
    for version, seeds in (("1", range(5)), ("2", range(2))):
        for seed in seeds:
            write(bench, of_version(version), seed, val=0.8, test=0.7 if version == "2" else 0.9)
    board = leaderboard_frame(read_bench(bench)).set_index("method")
    assert board.loc["at", ["n", "settings_tried", "test_top1"]].tolist() == pytest.approx([2, 1, 0.7])


def test_settings_of_two_versions_side_by_side_are_said(bench):
    write(bench, of_version("2"), 0, val=0.8, test=0.8)
    other = of_version("1").terms[0].model_copy(update={"coefficient": 300.0})
    write(bench, ObjectiveSpec(task=1.0, terms=(other,)), 0, val=0.8, test=0.8)
    assert "at: settings of versions 1 and 2 stand side by side" in read_bench(bench).notes


def learnt_from(bench, run: Run, digest: str) -> None:
    edit(Store(bench).run(run.id).path / "result.json", lambda c: c["teacher"].update(weights_digest=digest))


def test_what_learnt_from_different_trainings_of_one_teacher_is_said(bench):
    """Runs of earlier versions, those of the fixture here, do not say who taught them: nothing is said of them."""
    one = [write(bench, objective("at"), seed, val=0.8, test=0.8) for seed in range(3)]
    for run in one:
        learnt_from(bench, run, "aa")
    assert not [note for note in read_bench(bench).notes if "trainings" in note]
    learnt_from(bench, one[1], "bb")
    expected = (
        "resnet20/resnet8, smoke, sweep: the runs were taught by 2 different trainings of teacher resnet20 (at seeds 0, 2; at seed 1)"
        ": what is compared is not the methods alone"
    )
    assert [note for note in read_bench(bench).notes if "trainings" in note] == [expected]
    write_tables(bench)
    assert expected in (bench / "leaderboard.md").read_text()


def test_a_first_stage_that_another_training_of_the_teacher_taught_is_said(bench):
    stage = FirstSpec(owner="at", epochs=2, term=objective("at").terms[0])
    run = write(bench, objective("at").model_copy(update={"first": stage}), 0, val=0.8, test=0.8)
    first = write(bench, run.pretrain_run.objective, 0, val=0.8, test=0.8, kind="pretrain", recipe={"epochs": 2})
    assert first == run.pretrain_run
    learnt_from(bench, run, "aa")
    learnt_from(bench, first, "aa")
    assert not [note for note in read_bench(bench).notes if "trainings" in note]
    learnt_from(bench, first, "bb")
    (note,) = [note for note in read_bench(bench).notes if "trainings" in note]
    assert "2 different trainings of teacher resnet20 (at seed 0)" in note


CARDS = {
    "hinton": {"scale": 1.0, "published": {"task": 0.1, "term": 0.9}, "declared": {"temperature": 4.0}},
    "at": {"scale": 1000.0, "published": {"task": 1.0, "term": 1000.0}, "declared": {"power": 2}},
}


def term(method: str, coefficient: float, **hyperparameters) -> TermSpec:
    return TermSpec(method=method, version="1", hyperparameters=hyperparameters, coefficient=coefficient)


@pytest.mark.parametrize(
    ("task", "terms", "expected", "text"),
    [
        (1.0, (), (None, None, None, {}), ""),
        (0.1, (term("hinton", 0.9, temperature=4.0),), (4.0, 0.9, None, {}), "T=4 alpha=0.9"),
        (0.1, (term("hinton", 0.27, temperature=2.0),), (2.0, None, 0.3, {}), "T=2 weight=0.3"),
        (1.0, (term("at", 1000.0, power=2),), (None, None, 1.0, {}), ""),
        (0.5, (term("at", 500.0, power=2),), (None, 0.5, None, {}), "alpha=0.5"),
        (1.0, (term("at", 3000.0, power=4),), (None, None, 3.0, {"power": 4}), "weight=3 power=4"),
        (0.7, (term("hinton", 0.7, temperature=4.0),), (4.0, None, None, {}), "T=4"),
        (
            1.0,
            (term("at", 1000.0, power=2), term("hinton", 0.9, temperature=4.0)),
            (4.0, None, None, {"at": 1000.0, "hinton": 0.9}),
            "T=4 at=1000 hinton=0.9",
        ),
        (1.0, (term("mine", 2.0, temperature=3.0),), (3.0, None, None, {"mine": 2.0}), "T=3 mine=2"),
    ],
)
def test_a_setting_in_the_words_of_the_tables(task, terms, expected, text):
    found = setting_of(ObjectiveSpec(task=task, terms=terms), CARDS)
    assert (found.temperature, found.alpha, found.weight, found.others) == expected
    assert str(found) == text


def test_two_temperatures_in_one_sum_are_both_said():
    found = setting_of(ObjectiveSpec(task=1.0, terms=(term("dkd", 1.0, temperature=2.0), term("hinton", 0.9, temperature=4.0))), {})
    assert found.temperature is None
    assert found.others == {"dkd": 1.0, "dkd.temperature": 2.0, "hinton": 0.9, "hinton.temperature": 4.0}


def test_nothing_that_makes_tables_imports_torch_or_all_of_scipys_statistics():
    rooms = ", ".join(f"kdzoo.suite.report.{room}" for room in ("table_files", "compare", "terminal", "beside_text"))
    code = f"import sys, {rooms}; print([m for m in ('torch', 'scipy.stats') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"


def test_a_table_of_many_rows_is_laid_out_in_parts_as_it_is_whole():
    """Also where the first part of a column has no value, or none that is a number."""
    count = 2 * ROWS + 1
    frame = pd.DataFrame(
        {
            "share": [math.nan] * ROWS + [0.123456789012345] * (ROWS + 1),
            "seed": range(count),
            "error": [None] * ROWS + ["=1+1"] + [None] * ROWS,
            "empty": [None] * count,
        }
    )
    rows = list(csv.reader(io.StringIO(as_csv(frame).decode())))
    assert rows[0] == ["share", "seed", "error", "empty"]
    assert len(rows) == count + 1
    for number, row in enumerate(rows[1:]):
        text = "'=1+1" if number == ROWS else ""
        assert row == ["" if number < ROWS else "0.123456789", str(number), text, ""]
    assert as_csv(frame[:0]) == b"share,seed,error,empty\n"
