"""A second task beside classification: its tables come from its own declaration, and the lower value wins where that is better."""

import io
import json
import math
import re

import numpy as np
import pandas as pd
import pytest
import torch
from completed import completed
from registries import registered_for_a_while
from rich.console import Console
from test_display import Time, plan
from test_leaderboard import CARDS, objective
from test_leaderboard import write as write_accuracies

import kdzoo as zoo
from kdzoo.data.canonical import Raw, make_dataset
from kdzoo.data.split import split
from kdzoo.errors import InputError
from kdzoo.runs.events import Event, RunDone, TeacherChecked
from kdzoo.runs.recipe import Recipe
from kdzoo.runs.results import result_model
from kdzoo.runs.spec import DataSpec, NetworkSpec, ObjectiveSpec, Run, TermSpec
from kdzoo.runs.store import Store, teacher_store
from kdzoo.suite.page.build import build_page
from kdzoo.suite.page.tables import tables_of
from kdzoo.suite.plan.layers import bench_config
from kdzoo.suite.plan.race import Race
from kdzoo.suite.report.bench import read_bench
from kdzoo.suite.report.compare import compare
from kdzoo.suite.report.score import scored_blocks
from kdzoo.suite.report.swept import swept_frame
from kdzoo.suite.report.table_files import write_tables
from kdzoo.suite.run.progress_bar import LiveDisplay
from kdzoo.suite.run.progress_lines import PlainDisplay
from kdzoo.suite.study.race_table import page_of_races, race_table
from kdzoo.tasks import known
from kdzoo.tasks.classification import CLASSIFICATION
from kdzoo.tasks.task import AgainstChance, Case, Metric, Task


def _errors(case: Case) -> torch.Tensor:
    return case.predictions[:, 0].double() - case.targets.double()


def _loss(outputs, targets, shares, label_smoothing):
    assert shares is None
    assert label_smoothing == 0
    known = ~targets.isnan()
    return ((outputs[:, 0].float() - targets.nan_to_num()) ** 2 * known).sum() / known.sum().clamp(min=1)


def _against_chance(predictions, targets):
    """Above chance with an error below the targets' own spread."""
    value, chance = float(RMSE.compute(Case(predictions, targets))), float(targets.std(correction=0))
    return AgainstChance(RMSE, value, chance, len(targets), above=value < chance, tells=True, test="comparison with the mean age")


RMSE = Metric(
    "rmse", "root of the mean squared error", "RMSE", lambda case: float((_errors(case) ** 2).mean().sqrt()), better="lower", least=0
)
WITHIN = Metric(
    "within", "share of samples within one unit", "within 1", lambda case: float((_errors(case).abs() <= 1).double().mean()),
    unit="share", least=0, most=1,
)  # fmt: skip
AGES = Task(
    "ages",
    metrics=(RMSE, WITHIN),
    headline=RMSE,
    loss=_loss,
    loss_name="mse",
    predict=lambda outputs: outputs.float(),
    strata=lambda targets: (targets > 4.5).long(),
    against_chance=_against_chance,
)


@pytest.fixture(autouse=True)
def _known(monkeypatch):
    monkeypatch.setitem(known.TASKS, "ages", AGES)


SP = ObjectiveSpec(task=1.0, terms=(TermSpec(method="sp", version="1", hyperparameters={}, coefficient=1.0),))
HALF = 4.302653 / math.sqrt(3)
"""half of a 95 % interval over three values of standard deviation 1: Student's t with two degrees of freedom"""


def write(folder, method: str, seed: int, rmse: float, temperature: float = 4.0, **about) -> Run:
    """A finished run of the second task, as training writes it."""
    terms = SP if method == "sp" else objective(method, temperature)
    run = Run(
        student=NetworkSpec(name="resnet8", classes=1),
        teacher=NetworkSpec(name="resnet20", classes=1, start="run:none-0123456789ab") if terms.terms else None,
        data=DataSpec(name="ages", fingerprint="f00d", classes=1, task="ages"),
        recipe=Recipe(epochs=5, batch_size=64, lr=0.1),
        objective=terms,
        seed=seed,
    )
    place = Store(folder).run(run.id)
    cards = {term.method: CARDS.get(term.method, CARDS["at"]) for term in terms.terms}
    place.plan(run, {"pair": "resnet20/resnet8", "recipe": "smoke", "phase": "sweep", "methods": cards, **about})
    measured = {"n": 100, "rmse": rmse, "within": 0.5}
    last = {"epoch": 5, "val": measured, "test": measured}
    teacher = {"name": "resnet20", "parameters": 9, "macs": 99, "val": measured, "test": {"n": 100, "rmse": 2.0, "within": 0.9}}
    place.finish(
        completed(
            {
                "task": "ages",
                "id": run.id,
                "status": "done",
                "last": last,
                "best": last,
                "oracle": None,
                "train": {"loss": 0.2, "steps": 100, "samples": 900},
                "teacher": teacher if terms.terms else None,
                "student": {"name": "resnet8", "parameters": 7, "macs": 77},
                "cost": None,
                "teacher_cache": None,
                "environment": {"kdzoo": "0", "python": "3", "torch": "2", "timm": "1", "device": "cpu", "threads": 1, "git": None},
                "started": "2026-01-01T00:00:00Z",
                "finished": "2026-01-01T00:00:01Z",
                "seconds": 1.0,
            },
            AGES,
        )
    )
    return run


def test_a_leaderboard_has_the_columns_of_its_task_and_the_lowest_error_first(tmp_path):
    folder = tmp_path / "ages"
    for seed in range(3):
        write(folder, "none", seed, rmse=9.0 + seed / 10)
        write(folder, "hinton", seed, rmse=6.0 + seed / 10, temperature=4.0)
        write(folder, "hinton", seed, rmse=8.0 + seed / 10, temperature=2.0)
        write(folder, "at", seed, rmse=4.0 + seed / 10)
    board, bench = write_tables(folder)
    assert bench.notes == ()
    rows = board[board["rank"].notna()]
    assert list(rows["method"]) == ["at", "hinton", "none"]
    assert list(rows["test_rmse"].round(10)) == [4.1, 6.1, 9.1], "the setting of hinton with the lower error is the chosen one"
    assert list(rows["temperature"].dropna()) == [4.0]
    assert rows["vs_kd"].iloc[0] == pytest.approx(-2.0)
    assert rows["gap_closed"].iloc[0] == pytest.approx((9.1 - 4.1) / (9.1 - 2.0))
    assert not {name for name in board if "top1" in name or "nll" in name}
    assert {"test_within", "val_rmse", "rank_rmse"} <= set(board)
    page = (folder / "leaderboard.md").read_text()
    assert "| test RMSE |" in page
    assert "4.1 ± 0.1" in page
    assert "-2" in page
    assert "'at' is better than tuned KD on this pair by +2 [" in page, "a gain is a lower error"
    assert "top-1" not in page
    assert "points" not in page
    runs = pd.read_csv(folder / "runs.csv")
    assert {"test_rmse", "val_within", "test_rmse_at_best_val"} <= set(runs)


def test_a_page_speaks_of_the_metric_of_its_task_and_the_lower_error_is_the_better_one(tmp_path):
    folder = tmp_path / "ages"
    for seed in range(3):
        write(folder, "none", seed, rmse=9.0 + seed / 10)
        write(folder, "hinton", seed, rmse=6.0 + seed / 10, temperature=4.0)
        write(folder, "hinton", seed, rmse=8.0 + seed / 10, temperature=2.0)
        write(folder, "at", seed, rmse=4.0 + seed / 10)
    tables = tables_of(folder)
    assert dict(zip(tables.forest["method"], tables.forest["side"], strict=True)) == {"at": "better", "none": "worse"}
    assert dict(zip(tables.sweeps["row"], tables.sweeps["chosen_share"], strict=True)) == {"2": 0, "4": 1}
    page = re.sub("<script.*</script>", "", build_page([folder]), flags=re.S)
    assert "at has the lowest mean test RMSE: 4.1 ± 0.1 over 3 seeds" in page
    assert "Validation RMSE of 2 settings of hinton, from 6.1 to 8.1. Chosen: T=4 alpha=0.9 with 6.1" in page
    assert "top-1" not in page
    assert "points" not in page


def test_a_result_of_another_task_names_it_and_is_refused_with_the_metrics_of_classification(tmp_path):
    run = write(tmp_path, "at", 0, rmse=3.0)
    result = Store(tmp_path).run(run.id).result()
    assert result["task"] == "ages"
    with pytest.raises(ValueError, match="top1"):
        result_model(CLASSIFICATION).model_validate(result)


@pytest.fixture
def two_benches(place):
    """KD with errors of 6.0, 6.1 and 6.2 in the one, of 5.0, 5.2 and 5.4 in the other: seed by seed -1.0, -0.9 and -0.8."""
    for seed in range(3):
        write(place / "results" / "a", "hinton", seed, rmse=6.0 + seed / 10)
        write(place / "results" / "b", "hinton", seed, rmse=5.0 + seed / 5)
    return place / "results"


def test_benches_beside_each_other_are_compared_in_the_headline_of_their_task(two_benches, kdzoo):
    (row,) = json.loads(kdzoo("compare", "a", "b", "--json").out)
    assert (row["a rmse"], row["b rmse"]) == pytest.approx((6.1, 5.2))
    assert (row["b - a"], row["b - a test"]) == (pytest.approx(-0.9), "paired by seed")
    assert (row["b - a low"], row["b - a high"]) == pytest.approx((-0.9 - 0.1 * HALF, -0.9 + 0.1 * HALF), abs=1e-6)
    shown = kdzoo("compare", "a", "b").out
    assert shown.startswith("Test RMSE, differences to a with 95 % intervals")
    assert "6.1 ± 0.1" in shown
    assert "5.2 ± 0.2" in shown
    assert "-0.9 [-1.148, -0.6516]" in shown
    assert "top-1" not in shown
    assert "| -0.9 |" in kdzoo("compare", "a", "b", "--format", "md").out


def test_equal_errors_of_all_seeds_leave_no_interval_since_one_sample_is_no_step_of_theirs(tmp_path):
    for seed in range(3):
        for temperature in (2.0, 4.0):
            write(tmp_path / "b", "hinton", seed, rmse=5.0, temperature=temperature)
    frame = swept_frame(read_bench(tmp_path / "b"), "hinton")
    assert frame[["mean", "sd", "low", "high"]].to_numpy().tolist() == [[5.0, 0.0, 5.0, 5.0]] * 2


def test_tables_of_two_tasks_have_no_score(tmp_path):
    for seed in range(3):
        for method, worse in (("hinton", 0.0), ("at", 1.0)):
            write(tmp_path / "ages", method, seed, rmse=5.0 + worse + seed / 10)
            write_accuracies(tmp_path / "images", objective(method), seed, val=0.8, test=0.8 - worse / 100 + seed / 1000)
    benches = [read_bench(tmp_path / name) for name in ("ages", "images")]
    with pytest.raises(InputError, match="these benches have different metrics"):
        scored_blocks(benches)


def test_the_best_difference_of_an_error_is_the_lowest(two_benches, kdzoo):
    for seed in range(3):
        write(two_benches / "a", "at", seed, rmse=7.0 + seed / 10)
        write(two_benches / "b", "at", seed, rmse=9.0 + seed / 10)
    rows = json.loads(kdzoo("compare", "a", "b", "--json", "--sort", "b - a").out)
    assert [row["method"] for row in rows] == ["hinton", "at"]
    rows = json.loads(kdzoo("leaderboard", "b", "--json", "--sort", "test_rmse", "--filter", "method!=teacher").out)
    assert [row["test_rmse"] for row in rows] == pytest.approx([5.2, 9.1])


def test_a_table_of_errors_is_read_in_its_own_unit_and_at_the_setting_with_the_lowest_error(two_benches):
    (two_benches / "c.csv").write_text(
        "method,temperature,seed,test_rmse,val_rmse\n"
        + "".join(f"hinton,{t},{seed},{4 + t + seed / 10},{t}\n" for t in (1, 2) for seed in range(3))
    )
    (row,) = compare([two_benches / "a", two_benches / "c.csv"]).frame.to_dict("records")
    assert row["c rmse"] == pytest.approx(5.1), "the setting of the lower validation error, and no per cent"
    (two_benches / "paper.csv").write_text("method,top1\nhinton,0.9\n")
    with pytest.raises(InputError, match="expected benches of one task: a is of ages, paper is of classification"):
        compare([two_benches / "a", two_benches / "paper.csv"])


def test_two_models_of_another_task_and_published_numbers_are_refused_in_words(two_benches, kdzoo):
    ids = [folder.name for folder in sorted((two_benches / "a" / "runs").iterdir())][:2]
    assert f"{ids[0]} is of ages" in kdzoo("compare", *ids).err
    assert "no published numbers for a: it is of ages, they are of classification" in kdzoo("compare", "a", "--published").out


def test_status_and_the_list_of_teachers_have_the_headline_of_their_task(place, kdzoo):
    teacher = write(teacher_store().folder, "none", 0, rmse=2.5)
    run = write(place / "results" / "a", "hinton", 0, rmse=6.25, teacher_id=teacher.id)
    status = json.loads(kdzoo("status", "a", "--json").out)
    assert [row["val_rmse"] for row in (*status["runs"], *status["teachers"])] == [6.25, 2.5]
    (place / "results" / "a" / "runs" / run.id / "result.json").unlink()
    head, row = (line.split("  ") for line in kdzoo("status", "a").out.splitlines()[1:3])
    assert "val RMSE" in [cell.strip() for cell in head]
    assert "2.5" in [cell.strip() for cell in row]
    (kept,) = json.loads(kdzoo("teachers", "--json").out)
    assert (kept["val_rmse"], kept["test_rmse"]) == (2.5, 2.5)
    assert "test RMSE" in kdzoo("teachers").out


EVENTS: tuple[Event, ...] = (
    plan(total=3, done=0),
    TeacherChecked("resnet20", ("none-0",), "ages", None, 2.0),
    RunDone("at-1", "at", "", 0, "ages", 4.125, 4.3, 3.0),
    RunDone("hinton-1", "hinton", "T=4", 0, "ages", 6.0, 6.1, 3.0),
    RunDone("at-2", "at", "", 1, "ages", 3.9, 4.0, 3.0),
)


def test_progress_tells_the_headline_of_the_task_and_the_best_is_the_lowest_error():
    file = io.StringIO()
    display = PlainDisplay(Console(file=file, width=200), Time())
    for event in EVENTS:
        display.handle(event)
    assert file.getvalue().splitlines()[1:] == [
        "teacher resnet20: test RMSE 2",
        "[1/3] at, seed 0: val RMSE 4.125  test RMSE 4.3  3.0 s  best on validation so far",
        "[2/3] hinton, T=4, seed 0: val RMSE 6  test RMSE 6.1  3.0 s",
        "[3/3] at, seed 1: val RMSE 3.9  test RMSE 4  3.0 s  best on validation so far",
    ]
    console = Console(file=io.StringIO(), width=100, force_terminal=True, record=True)
    live = LiveDisplay(console, Time())
    for event in EVENTS:
        live.handle(event)
    console.print(live)
    assert console.export_text().splitlines()[-1].strip() == "best single run so far: at: val RMSE 3.9"


def test_a_race_goes_on_with_the_lowest_errors_and_tells_them_in_their_own_unit(tmp_path):
    config = bench_config(
        {"name": "r", "data": "digits", "pairs": ["digits"], "recipe": "smoke", "methods": ["at", "sp"], "seeds": 1, "tune": 2,
         "val_fraction": 0.2, "refit": True, "refit_seeds": 3}, None,
    )  # fmt: skip
    errors = {"none": 9.0, "hinton": 6.0, "at": 7.0, "sp": 4.0}
    for method, error in errors.items():
        write(tmp_path / "r", method, 0, rmse=error)
        for seed in (1, 2, 3):
            write(tmp_path / "r", method, seed, rmse=error + seed / 10, phase="refit")
    table = race_table(read_bench(tmp_path / "r"), config, Race(stage="r", best=1, widest=0, seeds=5, control_seeds=6), "r")
    (decision,) = table.decisions
    assert [standing.record.method for standing in decision.best] == ["sp"]
    rows = table.frame.set_index("method")
    assert rows.loc["sp", ["mean", "sd", "low", "high", "vs_kd"]].tolist() == pytest.approx(
        [4.2, 0.1, 4.2 - 0.1 * HALF, 4.2 + 0.1 * HALF, -2.0], abs=1e-6
    )
    assert rows.loc["teacher", "mean"] == 2.0
    ((_, shown),) = table.shown
    cells = shown.set_index("method")
    assert list(cells.index) == ["teacher", "sp", "hinton", "at", "student alone"]
    assert cells.loc["sp", "RMSE"] == "4.2 ± 0.1"
    assert cells.loc["sp", "95 % interval"] == "[3.952, 4.448]"
    assert cells.loc["sp", "vs KD"].startswith("-2 [")
    lines = "\n".join(page_of_races([table]))
    assert "RMSE: on the test images after the last epoch" in lines
    assert "difference to tuned plain KD in units" in lines
    assert "top-1" not in lines
    assert "points" not in lines
    assert "| published |" not in lines


def _brightness(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Grey images of noise, and nine times the mean brightness of each, from 0 to 9."""
    random = np.random.default_rng(seed)
    images = (random.random((count, 8, 8)) * random.random((count, 1, 1)) * 255).astype(np.uint8)
    return images, (images.mean((1, 2)) * 9 / 127.5).astype(np.float32)


def raw() -> Raw:
    return Raw(_brightness(160, 0), _brightness(40, 1), classes=("age",), task=AGES)


def test_measured_targets_are_split_by_strata_and_hidden_as_nan():
    images = make_dataset("ages", raw())
    assert images.train.targets.dtype == torch.float32
    assert sorted(images.train.targets.tolist()) == sorted(raw().train[1].tolist())
    spec = DataSpec(name="ages", fingerprint=images.fingerprint, classes=1, task="ages", val_fraction=0.25, label_fraction=0.5)
    parts = split(images, spec)
    above = float((images.train.targets > 4.5).double().mean())
    assert len(parts.val.targets) == 40
    assert float((parts.val.targets > 4.5).double().mean()) == pytest.approx(above, abs=1 / 40)
    assert int(parts.train.targets.isnan().sum()) == 60
    assert parts.facts.lacks_labels
    moved = Raw((raw().train[0], raw().train[1] + np.float32(1e-3)), raw().test, classes=("age",), task=AGES)
    assert make_dataset("ages", moved).fingerprint != images.fingerprint, "the target is a part of what a sample is"
    with pytest.raises(InputError, match="1 train label is no finite number"):
        make_dataset("ages", Raw((raw().train[0], np.where(np.arange(160) == 3, np.nan, raw().train[1])), raw().test, task=AGES))


SMALL = {
    "data": "ages", "teacher": "resnet20", "student": "resnet8", "recipe": "smoke", "epochs": 1, "seeds": 1, "val_fraction": 0.25,
    "execution": zoo.Execution(threads=1),
}  # fmt: skip


KEEPING = zoo.Execution(threads=1, keep="predictions,student", allow_chance_teacher=True)


@pytest.fixture
def ages(place):
    with registered_for_a_while():
        zoo.register_source("ages", raw)
        yield place


def test_a_student_is_trained_by_the_loss_of_its_task_and_measured_by_its_metrics(ages, kdzoo):
    slow = {"recipe.lr": 0.001, "teacher_recipe.lr": 0.001}
    zoo.bench(**{**SMALL, "name": "own", "methods": "logits,fitnet", "set": slow, "execution": KEEPING})
    runs = [Store(ages / "results" / "own").run(run_id) for run_id in Store(ages / "results" / "own").ids()]
    assert sorted(folder.id.partition("-")[0] for folder in runs) == ["fitnet", "hinton", "logits", "none"]
    for folder in runs:
        result = folder.result()
        with np.load(folder.predictions) as kept:
            errors = kept["test"][:, 0].astype(np.float64) - kept["test_targets"]
            assert kept["test_targets"].dtype == np.float32
        assert result["task"] == "ages"
        assert result["last"]["test"]["rmse"] == pytest.approx(math.sqrt((errors**2).mean()))
        assert result["last"]["test"]["within"] == pytest.approx((abs(errors) <= 1).mean())
        assert "mse" in json.loads(folder.metrics.read_text().splitlines()[-1])["parts"]
    assert kdzoo("evaluate", runs[0].path).status == 0, "its kept weights give the numbers of its result"


@pytest.mark.parametrize(
    ("asked", "fault"),
    [
        ({"methods": "crd"}, "crd: reads the labels of every sample, which has to be a class: the data's task is ages"),
        ({"methods": "logits", "set": {"recipe.mixup": 0.2}}, "recipe.mixup: needs targets that are classes, the data's task is ages"),
        ({"methods": "logits", "transfer_classes": "0"}, "transfer_classes: needs targets that are classes, the task of ages is ages"),
        ({"methods": "logits", "set": {"teacher_recipe.lr": 1e-12}}, "is not above chance"),
    ],
)
def test_what_needs_classes_or_a_teacher_that_knows_something_is_refused_by_name(ages, asked, fault):
    with pytest.raises(InputError, match=fault):
        zoo.bench(name="refused", **SMALL, **asked)
