"""The verdict of a bench: one sentence that says no more than the intervals of its table."""

import pandas as pd
import pytest
import scipy.stats
from test_leaderboard import AT, KD, NONE, objective, row, write

from kdzoo.runs.spec import ObjectiveSpec
from kdzoo.suite.report.bench import read_bench
from kdzoo.suite.report.leaderboard import leaderboard_frame
from kdzoo.suite.report.rivals import Rival
from kdzoo.suite.report.verdict import AT_MOST_NAMED, ENOUGH_POINTS, further_text, verdicts
from kdzoo.tasks.classification import CLASSIFICATION


def make(folder, seeds=3, **values):
    """The student alone, KD, and attention transfer, by default KD's accuracies and what is given of AT's."""
    for seed in range(seeds):
        write(folder, objective("none"), seed, val=0.80, test=NONE[seed % 3])
        if (kd := values.get("kd", KD)) is not None:
            write(folder, objective("hinton"), seed, val=values.get("kd_val", 0.88), test=kd[seed])
        if (at := values.get("at")) is not None:
            write(folder, objective("at"), seed, val=values.get("at_val", 0.84), test=at[seed], fail=values.get("fail"))
    (sentence,) = verdicts(read_bench(folder))
    return sentence


def test_a_method_is_better_only_where_its_interval_for_all_rows_says_so(tmp_path):
    sentence = make(tmp_path, at=[0.89, 0.90, 0.885])
    found = row(tmp_path, "at")
    assert found["vs_kd_all_low"] > 0
    interval = f"{100 * found['vs_kd']:+.2f} [{100 * found['vs_kd_all_low']:+.2f}, {100 * found['vs_kd_all_high']:+.2f}]"
    assert sentence == (
        f"Verdict: 'at' is better than KD (T=4 alpha=0.9) on this pair by {interval} points (95 % for both comparisons at once, 3 seeds)."
    )


def test_kd_is_enough_where_nothing_can_be_better_by_more_than_a_point(tmp_path):
    sentence = make(tmp_path, seeds=3, kd=[0.85, 0.86, 0.87], at=[0.849, 0.86, 0.869])
    found = row(tmp_path, "at")
    assert 0 < 100 * found["vs_kd_all_high"] < ENOUGH_POINTS
    assert "is enough for this pair as far as one other method shows: 'at' is not better than it" in sentence
    assert f"by more than {100 * found['vs_kd_all_high']:.2f} points (95 % for both comparisons at once, 3 seeds)" in sentence


def test_a_method_that_is_worse_is_told_by_how_much_without_a_sign(tmp_path):
    sentence = make(tmp_path, kd=[0.89, 0.90, 0.885], at=[0.84, 0.85, 0.835])
    found = row(tmp_path, "at")
    assert found["vs_kd_all_high"] < 0
    interval = f"{-100 * found['vs_kd']:.2f} [{-100 * found['vs_kd_all_high']:.2f}, {-100 * found['vs_kd_all_low']:.2f}]"
    level = "(95 % for both comparisons at once, 3 seeds)"
    enough = "KD (T=4 alpha=0.9) is enough for this pair as far as one other method shows"
    assert sentence == f"Verdict: {enough}: 'at' is worse by {interval} points {level}."


def test_where_a_method_may_be_much_better_neither_it_nor_kd_is_praised(tmp_path):
    sentence = make(tmp_path, at=AT)
    found = row(tmp_path, "at")
    assert 100 * found["vs_kd_all_high"] > ENOUGH_POINTS
    assert found["vs_kd_all_low"] < 0
    assert "is enough" not in sentence
    assert "it is not shown that the other method is better than KD" in sentence
    assert f"'at' may be better by up to {100 * found['vs_kd_all_high']:.2f} points" in sentence


def test_with_the_controls_alone_kd_is_compared_with_the_student_alone(tmp_path):
    clear = [0.85, 0.86, 0.865]
    sentence = make(tmp_path, kd=clear)
    interval = scipy.stats.ttest_rel(clear, NONE).confidence_interval(0.95)
    amount = f"+4.83 [{100 * interval.low:+.2f}, {100 * interval.high:+.2f}] points (95 %, 3 seeds)"
    assert f"KD (T=4 alpha=0.9) is better than the student alone by {amount}" in sentence
    assert "no method beside the two controls" in sentence


def test_a_gain_of_kd_that_may_be_chance_is_called_so(tmp_path):
    assert "cannot be told apart from the student alone, +0.33 [" in make(tmp_path, kd=[0.82, 0.80, 0.82])


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"seeds": 1, "at": [0.9]}, "none, with one seed no difference can be told from chance"),
        ({"kd": None, "at": [0.89, 0.90, 0.885]}, "none about KD, which is not in this table; better than the student alone: 'at' by +"),
        ({"kd": None, "at": [0.80, 0.82, 0.81]}, "no method is shown to be better than the student alone"),
        ({"kd_val": 0.3, "at": AT}, "none about KD, which itself collapsed (50.0 points below the student alone on validation)"),
        ({"at": AT, "at_val": 0.3}, "; collapsed and in no comparison: 'at'."),
        ({"at": AT, "fail": "RuntimeError: NaN"}, "; collapsed and in no comparison: 'at'."),
    ],
)
def test_what_cannot_be_said_is_not(tmp_path, values, words):
    assert words in make(tmp_path, **values)


def test_a_method_of_one_seed_among_others_is_in_no_verdict(tmp_path):
    make(tmp_path, seeds=3)
    write(tmp_path, objective("at"), 0, val=0.85, test=0.99)
    (sentence,) = verdicts(read_bench(tmp_path))
    assert "no method beside the two controls can be compared" in sentence
    assert sentence.endswith("; of one seed and in no comparison: 'at'.")


def test_a_method_of_one_seed_changes_nothing_that_is_said_of_the_others(tmp_path):
    before = make(tmp_path, at=[0.84, 0.86, 0.85])
    rows = leaderboard_frame(read_bench(tmp_path)).set_index("method")
    both = ObjectiveSpec(task=0.1, terms=(*objective("at").terms, *objective("hinton").terms))
    write(tmp_path, both, 0, val=0.85, test=0.99)
    (after,) = verdicts(read_bench(tmp_path))
    assert after == f"{before.removesuffix('.')}; of one seed and in no comparison: 'at+hinton'."
    assert "for both comparisons at once, 3 seeds" in after
    added = leaderboard_frame(read_bench(tmp_path)).set_index("method")
    columns = [name for name in rows.columns if name.startswith(("vs_", "p_vs_")) or name in ("detectable", "pairing")]
    pd.testing.assert_frame_equal(added.loc[rows.index, columns], rows[columns], check_dtype=False)
    assert added.loc["at+hinton", [name for name in columns if name.endswith(("_low", "_high")) or name.startswith("p_")]].isna().all()


def test_an_unfinished_bench_says_how_far_it_is(tmp_path):
    make(tmp_path, at=AT)
    (next((tmp_path / "runs").glob("at-*")) / "result.json").unlink()
    (sentence,) = verdicts(read_bench(tmp_path))
    assert sentence.startswith("Verdict: so far, with 8 of 9 runs: ")


def test_settings_of_kd_that_failed_are_told_with_the_verdict(tmp_path):
    make(tmp_path, at=AT)
    for seed in range(3):
        write(tmp_path, objective("hinton", 2.0), seed, val=0.87, test=0.9, fail="RuntimeError: NaN")
    (sentence,) = verdicts(read_bench(tmp_path))
    assert sentence.endswith("; KD was chosen among 1 of its 2 settings, because the runs of the others failed.")


def test_where_every_run_failed_the_verdict_says_that_alone(tmp_path):
    for seed in range(2):
        for method in ("none", "hinton", "at"):
            write(tmp_path, objective(method), seed, val=0.8, test=0.8, fail="RuntimeError: NaN")
    assert verdicts(read_bench(tmp_path)) == ["Verdict: none, no run is done: 6 of 6 runs failed."]


def test_tuned_is_what_several_settings_were_tried_of(tmp_path):
    make(tmp_path, at=AT)
    for seed in range(3):
        write(tmp_path, objective("hinton", 2.0), seed, val=0.87, test=0.9)
    (sentence,) = verdicts(read_bench(tmp_path))
    assert "better than tuned KD" in sentence


def test_a_folder_without_runs_has_a_verdict_of_its_own(tmp_path):
    (tmp_path / "bench.json").write_text('{"starts": []}')
    assert verdicts(read_bench(tmp_path)) == ["Verdict: none, there are no runs."]


def test_the_verdict_heads_the_markdown_table(tmp_path):
    from kdzoo.suite.report.table_files import write_tables

    sentence = make(tmp_path / "b", at=AT)
    write_tables(tmp_path / "b")
    assert (tmp_path / "b" / "leaderboard.md").read_text().startswith(f"# b\n\n{sentence}\n\n## ")


@pytest.mark.parametrize(("more", "words"), [(-1, ""), (0, ""), (1, " and 1 more"), (2, " and 2 more")])
def test_rivals_beyond_those_that_are_named_are_counted(more, words):
    rivals = [Rival(f"m{number}", 0.01, 0.005, 0.015, CLASSIFICATION.headline) for number in range(AT_MOST_NAMED + more)]
    assert further_text(rivals) == words
