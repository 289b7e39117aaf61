"""A second task beside classification: its tables come from its own declaration, and the lower value wins where that is better."""

import pandas as pd
import pytest
from completed import completed
from test_leaderboard import CARDS, objective

from kdzoo.runs.results import result_model
from kdzoo.runs.spec import DataSpec, NetworkSpec, Recipe, Run
from kdzoo.runs.store import Store
from kdzoo.suite.report.table_files import write_tables
from kdzoo.tasks import known
from kdzoo.tasks.classification import CLASSIFICATION
from kdzoo.tasks.task import Metric, Task

RMSE = Metric("rmse", "root of the mean squared error", "RMSE", lambda case: 0.0, better="lower", least=0)
WITHIN = Metric("within", "share of samples within one unit", "within 1", lambda case: 0.0, unit="share", least=0, most=1)
AGES = Task("ages", metrics=(RMSE, WITHIN), headline=RMSE)


@pytest.fixture(autouse=True)
def _known(monkeypatch):
    monkeypatch.setitem(known.TASKS, "ages", AGES)


def write(folder, method: str, seed: int, rmse: float, temperature: float = 4.0) -> Run:
    """A finished run of the second task, as training writes it."""
    terms = objective(method, temperature)
    run = Run(
        student=NetworkSpec(name="resnet8", classes=1),
        teacher=NetworkSpec(name="resnet20", classes=1, start="run:none-0123456789ab") if terms.terms else None,
        data=DataSpec(name="ages", fingerprint="f00d", classes=1, task="ages"),
        recipe=Recipe(epochs=5, batch_size=64, lr=0.1),
        objective=terms,
        seed=seed,
    )
    place = Store(folder).run(run.id)
    place.plan(
        run, {"pair": "resnet20/resnet8", "recipe": "smoke", "phase": "sweep", "methods": {t.method: CARDS[t.method] for t in terms.terms}}
    )
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
    assert "at is better than tuned KD on this pair by +2 [" in page, "a gain is a lower error"
    assert "top-1" not in page
    assert "points" not in page
    runs = pd.read_csv(folder / "runs.csv")
    assert {"test_rmse", "val_within", "test_rmse_at_best_val"} <= set(runs)


def test_a_result_of_another_task_names_it_and_is_refused_with_the_metrics_of_classification(tmp_path):
    run = write(tmp_path, "at", 0, rmse=3.0)
    result = Store(tmp_path).run(run.id).result()
    assert result["task"] == "ages"
    with pytest.raises(ValueError, match="top1"):
        result_model(CLASSIFICATION).model_validate(result)
