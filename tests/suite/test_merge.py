"""`kdzoo merge`: runs by id, replicas compared, and what must not stand together kept apart."""

import json
import shutil
from pathlib import Path

import pandas as pd
import pytest
from edited import edit as edit_file
from test_leaderboard import objective, write

from kdzoo.errors import InputError
from kdzoo.runs.spec import ENGINE
from kdzoo.runs.store import Store
from kdzoo.suite.proof.merge import merge
from kdzoo.suite.report.bench import read_bench
from kdzoo.suite.report.leaderboard import leaderboard_frame
from kdzoo.suite.report.markdown import as_markdown
from kdzoo.suite.report.verified_file import Verification, VerifiedRun, keep_verification, result_digest

HERE = {"cpu": "one model", "cpu_capability": "AVX512", "torch_build": "one", "threads": 1, "compile": False}
STEPS = {"last": {"epoch": 5}, "train": {"loss": 0.2, "steps": 75, "samples": 900}}
NONE, KD = [0.80, 0.81, 0.82, 0.80, 0.81], [0.85, 0.86, 0.84, 0.85, 0.86]


def edit(folder: Path, run_id: str, environment: dict | None = None, test: float | None = None, finished: str | None = None) -> None:
    def change(result: dict) -> None:
        result["environment"] |= environment or {}
        if test is not None:
            result["last"]["test"]["top1"] = test
        if finished is not None:
            result["finished"] = finished

    edit_file(Store(folder).run(run_id).path / "result.json", change)


def bench(folder: Path, shift: float = 0.0, finished: str = "2026-01-02T00:00:00Z", **environment) -> Path:
    """Five seeds of the student alone and of plain KD on one kind of machine; shift: what is added to every test accuracy."""
    for seed in range(5):
        for method, values in (("none", NONE), ("hinton", KD)):
            run = write(folder, objective(method), seed, val=0.8 + seed / 1000, test=values[seed] + shift, nll=0.3 + seed / 100)
            edit(folder, run.id, HERE | environment, finished=finished)
            set_steps(folder, run.id)
    return folder


def set_steps(folder: Path, run_id: str) -> None:
    train = STEPS["train"] | {"loss": 0.2 + len(run_id) / 100 + int(run_id[-2:], 16) / 1e6}
    edit_file(Store(folder).run(run_id).path / "result.json", lambda result: result.update(train=train))


@pytest.fixture
def one(tmp_path):
    return bench(tmp_path / "one", finished="2026-01-01T00:00:00Z")


def some_run(folder: Path, method: str = "none") -> str:
    return next(run_id for run_id in Store(folder).ids() if run_id.startswith(method))


def test_equal_bits_of_one_kind_of_machine_are_replicas_and_their_rows_are_verified(one, tmp_path):
    other = bench(tmp_path / "other")
    merged, notes = merge([one, other], [], tmp_path / "both", {})
    assert notes == []
    assert {len(replicas) for replicas in merged.replicas.values()} == {1}
    assert set(merged.runs.values()) == {"one"}
    assert {replica.by for replicas in merged.replicas.values() for replica in replicas} == {"bits"}
    board = leaderboard_frame(read_bench(tmp_path / "both")).set_index("method")
    assert board.loc[["none", "hinton"], "status"].tolist() == ["verified", "verified"]
    assert board.loc[["none", "hinton"], "replicas"].tolist() == [5, 5]
    alone = leaderboard_frame(read_bench(one)).set_index("method")
    assert "status" not in alone  # a bench that was neither verified nor merged has the tables that it had
    pd.testing.assert_frame_equal(board[alone.columns], alone)
    text = as_markdown(read_bench(tmp_path / "both"), board.reset_index())
    assert "| status |" in text
    assert "verified" in text


def test_other_bits_on_one_kind_of_machine_stop_the_merge_and_nothing_is_written(one, tmp_path):
    other = bench(tmp_path / "other")
    edit(other, some_run(other), test=0.8100001)
    with pytest.raises(InputError) as stopped:
        merge([one, other], [], tmp_path / "both", {})
    assert [problem.partition(":")[0] for problem in stopped.value.problems] == [f"{some_run(one)}, of one and of other"]
    assert "here the same bits were expected" in str(stopped.value)
    assert not (tmp_path / "both").exists()


def test_elsewhere_the_first_is_kept_within_the_spread_and_beyond_it_the_merge_stops(one, tmp_path):
    other = bench(tmp_path / "other", shift=0.005, threads=2)
    merged, _ = merge([other, one], [], tmp_path / "both", {})
    assert set(merged.runs.values()) == {"one"}
    assert {replica.by for replicas in merged.replicas.values() for replica in replicas} == {"spread"}
    kept = read_bench(tmp_path / "both").records
    assert sorted(record.headline("test") for record in kept) == sorted([*NONE, *KD])
    far = bench(tmp_path / "far", shift=-0.1, threads=2)
    with pytest.raises(InputError, match="another number of threads"):
        merge([one, far], [], tmp_path / "neither", {})


def test_without_a_known_spread_two_trainings_of_a_run_are_not_merged(one, tmp_path):
    other = bench(tmp_path / "other", threads=2)
    for folder in (one, other):
        for run_id in [run_id for run_id in Store(folder).ids() if run_id.startswith("none")][:2]:
            shutil.rmtree(Store(folder).run(run_id).path)
    with pytest.raises(InputError, match="no spread of five seeds or more is known"):
        merge([one, other], [], tmp_path / "both", {})


def test_the_same_files_are_one_training_and_runs_that_one_bench_has_are_joined(one, tmp_path):
    other = Path(shutil.copytree(one, tmp_path / "copy"))
    added = write(other, objective("at"), 0, val=0.8, test=0.83)
    set_steps(other, added.id)
    merged, _ = merge([one, other], [], tmp_path / "both", {})
    assert merged.replicas == {}
    assert merged.runs[added.id] == "copy"
    board = leaderboard_frame(read_bench(tmp_path / "both")).set_index("method")
    assert set(board.loc[["none", "hinton", "at"], "status"]) == {"measured"}


@pytest.mark.parametrize(
    ("change", "what"), [("version", "versions 1 and 2 of hinton"), ("engine", f"versions {ENGINE - 1} and {ENGINE} of engine")]
)
def test_versions_never_share_a_table(one, tmp_path, change, what):
    made = objective("hinton")
    changes = {}
    if change == "version":
        made = made.model_copy(update={"terms": (made.terms[0].model_copy(update={"version": "2"}),)})
    else:
        changes = {"engine": ENGINE - 1}
    set_steps(tmp_path / "other", write(tmp_path / "other", made, 7, val=0.8, test=0.9, **changes).id)
    with pytest.raises(InputError, match=what):
        merge([one, tmp_path / "other"], [], tmp_path / "both", {})


def test_rows_of_two_trainings_of_a_teacher_are_marked(one, tmp_path):
    for seed, digest in ((0, "a" * 64), (1, "b" * 64)):
        run = write(tmp_path / f"t{seed}", objective("at"), seed, val=0.8, test=0.83)
        set_steps(tmp_path / f"t{seed}", run.id)
        file = Store(tmp_path / f"t{seed}").run(run.id).path / "result.json"
        edit_file(file, lambda result, digest=digest: result["teacher"].update(weights_digest=digest))
    _, notes = merge([one, tmp_path / "t0", tmp_path / "t1"], [], tmp_path / "both", {})
    board = leaderboard_frame(read_bench(tmp_path / "both")).set_index("method")
    assert board.loc["at", "teacher_weights"] == f"{'a' * 12} {'b' * 12}"
    assert any("2 different trainings of teacher resnet20" in note for note in notes)


def test_what_contradicts_itself_is_not_merged(one, tmp_path):
    file = Store(one).run(some_run(one)).path / "result.json"
    text = file.read_text()
    file.write_text(text.replace('"steps": 75', '"steps": 80'))
    with pytest.raises(InputError, match=r"result\.json: damaged \(its content has changed since it was written"):
        merge([one], [], tmp_path / "both", {})
    file.write_text(text)
    edit_file(file, lambda result: result["train"].update(steps=80))
    with pytest.raises(InputError, match=r"train\.steps: 80"):
        merge([one], [], tmp_path / "both", {})


def test_numbers_of_papers_are_reported_in_a_table_of_their_own(one, tmp_path, kdzoo):
    (tmp_path / "paper.csv").write_text("method,top1,n,sd,source\ncrd,0.9,3,0.002,A paper\n")
    before = leaderboard_frame(read_bench(one)).set_index("method")
    said = kdzoo("merge", one, tmp_path / "paper.csv", "-o", tmp_path / "both")
    assert said.status == 0
    read = read_bench(tmp_path / "both")
    board = leaderboard_frame(read).set_index("method")
    assert "crd" not in board.index
    pd.testing.assert_frame_equal(board[before.columns], before)
    text = as_markdown(read, board.reset_index())
    assert "## Reported: numbers of papers, in no test" in text
    assert "| crd | 3 | 90.00 ± 0.20 | A paper |" in text
    (tmp_path / "wrong.csv").write_text("method,top1\ncrd,90\n")
    assert "expected shares from 0 to 1" in kdzoo("merge", one, tmp_path / "wrong.csv", "-o", tmp_path / "no").err


def test_a_verified_row_is_one_only_as_long_as_its_result_is_what_was_verified(one):
    run_id = some_run(one)
    run = VerifiedRun(id=run_id, result=result_digest(Store(one).run(run_id)), verdict="agrees", by="bits", text="to the last bit")
    whole = {
        "date": "2026-01-03T00:00:00Z",
        "kdzoo": "0",
        "seed": 1,
        "sample": 1,
        "of": 10,
        "environment": {},
        "controls": [],
        "faults": {},
    }
    keep_verification(one, Verification(runs=[run], **whole))
    status = leaderboard_frame(read_bench(one)).set_index("method")["status"]
    assert (status["none"], status["hinton"]) == ("verified", "measured")
    edit(one, run_id, test=0.99)
    assert leaderboard_frame(read_bench(one)).set_index("method")["status"]["none"] == "measured"


def test_a_folder_that_holds_something_is_not_merged_into(one, kdzoo):
    said = kdzoo("merge", one, "-o", one)
    assert said.status == 2
    assert "holds something already; name a new folder" in said.err


def test_two_benches_made_with_different_numbers_of_threads_are_merged(place, kdzoo, train_here):
    options = ("--data", "digits", "--pairs", "digits", "--recipe", "digits", "--limit", 300, "--epochs", 2, "--temperatures", 4,
               "--methods", "hinton", "--jobs", 1, "--allow-chance-teacher", "--keep", "nothing")  # fmt: skip
    assert kdzoo("bench", *options, "--name", "one", "--threads", 1, "--seeds", 5).status == 0
    assert kdzoo("bench", *options, "--name", "two", "--threads", 2, "--seeds", 2).status == 0
    said = kdzoo("merge", "one", "two", "-o", "results/both", "--json")
    assert said.status == 0, said.err
    told = json.loads(said.out)
    assert sorted(len(replicas) for replicas in told["replicas"].values()) == [1, 1, 1, 1]
    assert {replica["by"] for replicas in told["replicas"].values() for replica in replicas} == {"spread"}
    assert {replica["environment"]["threads"] for replicas in told["replicas"].values() for replica in replicas} == {2}
    assert kdzoo("leaderboard", "both").status == 0
    assert (place / "results" / "both" / "leaderboard.csv").read_text().splitlines()[0].endswith("status,replicas,teacher_weights")
