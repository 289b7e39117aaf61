"""One collapsed method never decides about the others: it stands apart, in no test and in no pool."""

import io
import math

import numpy as np
import pandas as pd
import pytest
import scipy.stats
from rich.console import Console
from test_leaderboard import AT, KD, NONE, objective, row, write

from kdzoo.runs.spec import NetworkSpec
from kdzoo.runs.store import Store
from kdzoo.suite.report.bench import read_bench
from kdzoo.suite.report.leaderboard import leaderboard_frame
from kdzoo.suite.report.table_files import write_tables
from kdzoo.suite.report.terminal import leaderboard_view

TESTS = ("low", "high", "all_low", "all_high", "holm")
FALLEN = [0.10, 0.55, 0.30]


@pytest.fixture
def bench(tmp_path):
    """The student alone at 80 % on validation and KD; three seeds each, as far apart as a point."""
    for seed in range(3):
        write(tmp_path / "b", objective("none"), seed, val=0.79 + seed / 100, test=NONE[seed])
        write(tmp_path / "b", objective("hinton"), seed, val=0.88, test=KD[seed])
    return tmp_path / "b"


def fall(folder, seeds=3, **values) -> None:
    for seed in range(seeds):
        write(folder, objective("at"), seed, val=0.40, test=FALLEN[seed], **values)


def test_a_collapsed_method_changes_no_other_rows_numbers(bench):
    before = {method: row(bench, method) for method in ("none", "hinton")}
    fall(bench)
    for method, old in before.items():
        new = row(bench, method)
        pd.testing.assert_series_equal(new.drop("rank"), old.drop("rank"), check_names=False)
        assert new["rank"] == old["rank"]


def test_a_collapsed_method_is_shown_with_its_difference_and_without_a_test(bench):
    fall(bench)
    found = row(bench, "at")
    assert found["collapsed"] == "40.0 points below the student alone on validation"
    assert found["vs_kd"] == pytest.approx(np.mean(FALLEN) - np.mean(KD))
    for name in ("kd", "alone"):
        assert all(pd.isna(found[f"vs_{name}_{column}"]) for column in TESTS)
        assert pd.isna(found[f"p_vs_{name}"])
        assert pd.isna(found[f"p_vs_{name}_all"])
    assert all(pd.isna(found[column]) for column in ("rank", "gap_closed", "detectable", "pairing"))


def test_a_collapsed_method_stands_in_a_table_of_its_own_below_the_others(bench):
    fall(bench)
    write_tables(bench)
    text = (bench / "leaderboard.md").read_text()
    healthy, apart = text.split("## Collapsed: ")
    assert "| at |" not in healthy
    assert "| at |" in apart
    assert "40.0 points below alone" in apart
    assert "gap closed" in healthy
    assert "gap closed" not in apart.split("Top-1 in per cent")[0]
    out = Console(file=io.StringIO(), width=80)
    read = read_bench(bench)
    out.print(leaderboard_view(read, leaderboard_frame(read), 80))
    shown = out.file.getvalue()
    assert "Collapsed: " in shown
    assert max(map(len, shown.splitlines())) <= 80


def test_a_noisy_healthy_method_does_enter_the_others_error(bench):
    before = row(bench, "hinton")
    for seed, value in enumerate((0.95, 0.60, 0.80)):
        write(bench, objective("at"), seed, val=0.80, test=value)
    assert row(bench, "at")["collapsed"] is None or pd.isna(row(bench, "at")["collapsed"])
    wide = [r["vs_alone_high"] - r["vs_alone_low"] for r in (before, row(bench, "hinton"))]
    assert wide[1] != pytest.approx(wide[0])


@pytest.mark.parametrize(("val", "collapsed"), [(0.760, False), (0.740, False), (0.735, True)])
def test_the_bound_is_three_points_and_five_sds_of_the_student_alone(bench, val, collapsed):
    """Its sd over seeds is one point and 1,000 images leave sqrt(0.8 * 0.2 / 1000) = 1.26 points open: five are 6.3 points."""
    for seed in range(3):
        write(bench, objective("at"), seed, val=val, test=AT[seed])
    assert pd.notna(row(bench, "at")["collapsed"]) == collapsed


def test_a_failed_seed_collapses_a_method_however_good_the_others_are(bench):
    for seed in range(3):
        write(bench, objective("at"), seed, val=0.9, test=AT[seed], fail="RuntimeError: NaN" if seed == 1 else None)
    found = row(bench, "at")
    assert found["collapsed"] == "1 of 3 seeds failed"
    assert found["n"] == 2
    assert pd.isna(found["p_vs_kd"])


def test_an_interrupted_run_is_missing_and_no_collapse(bench):
    for seed in range(3):
        run = write(bench, objective("at"), seed, val=0.85, test=AT[seed])
    (Store(bench).run(run.id).path / "result.json").unlink()
    found = row(bench, "at")
    assert pd.isna(found["collapsed"])
    assert (found["n"], found["planned"], found["pairing"]) == (2, 3, "none")
    assert found["p_vs_kd"] > 0


def test_without_validation_only_failed_seeds_count(tmp_path):
    nothing = {"data": {"val_fraction": 0.0}}
    for seed in range(3):
        write(tmp_path, objective("none"), seed, val=None, test=NONE[seed], **nothing)
        write(tmp_path, objective("hinton"), seed, val=None, test=0.2 + seed / 100, **nothing)
        write(tmp_path, objective("at"), seed, val=None, test=0.8, fail="ValueError: x" if seed == 2 else None, **nothing)
    assert pd.isna(row(tmp_path, "hinton")["collapsed"])
    assert row(tmp_path, "at")["collapsed"] == "1 of 3 seeds failed"


def test_a_refit_takes_the_sweeps_verdict(bench):
    fall(bench)
    refit = {"data": {"val_fraction": 0.0}, "about": {"phase": "refit"}}
    for seed in range(3, 6):
        write(bench, objective("none"), seed, val=None, test=NONE[seed - 3], **refit)
        write(bench, objective("hinton"), seed, val=None, test=KD[seed - 3], **refit)
        write(bench, objective("at"), seed, val=None, test=AT[seed - 3], **refit)
    board = leaderboard_frame(read_bench(bench)).set_index(["phase", "method"])
    assert board.loc[("refit", "at"), "collapsed"] == "in the sweep: 40.0 points below the student alone on validation"
    assert pd.isna(board.loc[("refit", "hinton"), "collapsed"])
    paired = scipy.stats.ttest_rel(NONE, KD)
    assert board.loc[("refit", "none"), "p_vs_kd"] == pytest.approx(paired.pvalue)


def another(seed: int) -> NetworkSpec:
    """A teacher of another seed, or one that was trained on all images."""
    return NetworkSpec(name="resnet20", classes=10, start=f"run:none-{seed:012d}")


@pytest.mark.parametrize("fallen", [1, 2])
@pytest.mark.parametrize("recorded", [True, False])
def test_a_refit_takes_the_verdict_of_its_own_teachers_sweep_alone(tmp_path, fallen, recorded):
    """Two teachers of one architecture; attention transfer falls with one of them. Records without the teacher tell of neither."""
    for seed in range(3):
        write(tmp_path, objective("none"), seed, val=0.79 + seed / 100, test=NONE[seed])
        refit = {"data": {"val_fraction": 0.0}, "about": {"phase": "refit"}}
        write(tmp_path, objective("none"), seed + 3, val=None, test=NONE[seed], **refit)
        for teacher in (1, 2):
            val = 0.4 if teacher == fallen else 0.85
            write(tmp_path, objective("at"), seed, val=val, test=AT[seed], teacher=another(teacher))
            origin = {"sweep_teacher": another(teacher).start} if recorded else {}
            about = {"phase": "refit", **origin}
            values = {"data": {"val_fraction": 0.0}, "teacher": another(teacher + 10), "about": about}
            write(tmp_path, objective("at"), seed + 3, val=None, test=AT[seed], **values)
    verdicts = {
        block.table_key.teacher: standing.collapsed
        for block in read_bench(tmp_path).blocks
        for standing in block.standings
        if block.table_key.phase == "refit" and standing.record.method == "at"
    }
    found = {teacher for teacher, verdict in verdicts.items() if verdict}
    assert len(verdicts) == 2
    assert found == ({teacher for teacher in verdicts if another(fallen + 10).start in teacher} if recorded else set())


def test_a_collapsed_control_leaves_its_family_without_tests(bench):
    write(bench, objective("hinton"), 3, val=0, test=0, fail="ValueError: x")
    for seed in range(3):
        write(bench, objective("at"), seed, val=0.85, test=AT[seed])
    found = row(bench, "at")
    assert found["vs_kd"] == pytest.approx(np.mean(AT) - np.mean(KD))
    assert pd.isna(found["p_vs_kd"])
    assert found["p_vs_alone"] == pytest.approx(scipy.stats.ttest_rel(AT, NONE).pvalue)


def test_the_student_alone_and_kd_are_one_paired_test_whatever_else_collapses(bench):
    fall(bench)
    found = row(bench, "none")
    expected = scipy.stats.ttest_rel(NONE, KD)
    interval = expected.confidence_interval(0.95)
    assert (found["p_vs_kd"], found["vs_kd_low"], found["vs_kd_high"]) == pytest.approx((expected.pvalue, interval.low, interval.high))
    (block,) = read_bench(bench).blocks
    assert len(block.healthy) == 2
    assert not math.isnan(float(block.model.prior.variance))
