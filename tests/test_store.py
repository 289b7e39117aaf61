"""Run folders: whole or not at all, locked by the operating system, readable whatever happened."""

import hashlib
import json
import os
import resource
import subprocess
import sys

import pytest
from completed import completed
from edited import edit
from warm_python import WarmPopen, run_warm

from kdzoo.errors import InputError
from kdzoo.runs.atomic import StoreError, ensure_writable, remove_unfinished, write_bytes
from kdzoo.runs.plan_text import PlanTexts
from kdzoo.runs.recipe import Recipe
from kdzoo.runs.result_file import NewerSchema, parse_result
from kdzoo.runs.results import SCHEMA
from kdzoo.runs.sealed_json import parse_sealed
from kdzoo.runs.spec import DataSpec, NetworkSpec, ObjectiveSpec, Run
from kdzoo.runs.store import RunFolder, Store
from kdzoo.suite.report.records import read_record


@pytest.fixture
def run() -> Run:
    return Run(
        student=NetworkSpec(name="resnet8", classes=10),
        teacher=None,
        data=DataSpec(name="digits", fingerprint="f00d", classes=10),
        recipe=Recipe(epochs=1, batch_size=8, lr=0.1),
        objective=ObjectiveSpec(task=1.0),
        seed=0,
    )


@pytest.fixture
def folder(tmp_path, run) -> RunFolder:
    folder = Store(tmp_path / "bench").run(run.id)
    folder.plan(run, {"pair": "a/b"})
    return folder


def test_what_is_planned_is_read_back(folder, run):
    assert folder.read_plan() == (run, {"pair": "a/b"})
    assert folder.state() == "new"


def test_a_damaged_plan_is_written_anew_by_the_next_bench_and_kept_beside_it(folder, run):
    (folder.path / "run.json").write_text('{"id": "no')
    folder.plan(run, {"pair": "a/b"})
    assert folder.read_plan() == (run, {"pair": "a/b"})
    assert (folder.path / "run.json.damaged").read_text() == '{"id": "no'


def test_a_plan_that_is_there_is_left_alone(folder, run):
    before = (folder.path / "run.json").stat()
    folder.plan(run, {"pair": "another"})
    assert (folder.path / "run.json").stat().st_mtime_ns == before.st_mtime_ns
    assert folder.read_plan()[1] == {"pair": "a/b"}


METRICS = {"top1": 0.8, "top5": None, "balanced": 0.8, "nll": 0.6, "ece": 0.05, "n": 100, "agreement": None, "teacher_kl": None}


def whole_result(folder) -> dict:
    """What training writes of a student that was trained alone and without validation images."""
    cost = dict.fromkeys(("memory_bytes", "extra_parameters", "views", "student_passes", "teacher_passes"), 1)
    return completed(
        {
            "id": folder.id,
            "status": "done",
            "last": {"epoch": 1, "val": None, "test": METRICS},
            "best": None,
            "oracle": None,
            "train": {"loss": 0.2, "steps": 10, "samples": 80},
            "teacher": None,
            "student": {"name": "resnet8", "parameters": 7, "macs": 77},
            "cost": {"step_seconds": 0.1, "train_seconds": 1.0, **cost},
            "teacher_cache": None,
            "environment": {"kdzoo": "0", "git": None, "python": "3", "torch": "2", "timm": "1", "device": "cpu", "threads": 1},
            "started": "2026-01-01T00:00:00Z",
            "finished": "2026-01-01T00:00:01Z",
            "seconds": 1.0,
        }
    )


def test_a_result_makes_a_run_done_and_clears_its_failure(folder):
    folder.fail("Traceback ...\nRuntimeError: x\n")
    assert folder.state() == "failed"
    folder.finish(whole_result(folder))
    assert folder.state() == "done"
    assert not (folder.path / "error.txt").exists()


def test_a_result_says_its_schema_and_one_that_says_none_is_of_the_first(folder):
    folder.finish(whole_result(folder))
    assert json.loads((folder.path / "result.json").read_text())["schema"] == SCHEMA == 6
    first = {**whole_result(folder), "memo": {"lookups": 3, "hits": 2, "bytes": 1}}
    for key in ("schema", "teacher_cache", "average"):
        del first[key]
    (folder.path / "result.json").write_text(json.dumps(first))
    assert folder.result()["teacher_cache"] == first["memo"]


def test_a_result_with_a_field_too_few_or_too_many_is_not_written(folder):
    result = whole_result(folder)
    result["last"]["test"]["top3"] = 0.9
    del result["environment"]["cpu"]
    with pytest.raises(ValueError, match=r"^last\.test\.top3: not declared\nenvironment\.cpu: missing$"):
        folder.finish(result)
    assert folder.state() == "new"


def test_a_result_of_a_later_schema_is_neither_read_nor_taken_for_damaged(folder):
    (folder.path / "result.json").write_text(json.dumps({**whole_result(folder), "schema": SCHEMA + 1}))
    for read in (folder.result, folder.state, lambda: read_record(folder)):
        with pytest.raises(NewerSchema, match=r"result\.json: schema 7 is newer than this kdzoo reads \(6\); update kdzoo"):
            read()


def test_a_damaged_result_is_no_result_and_is_kept_when_the_run_is_made_new(folder):
    (folder.path / "result.json").write_text('{"id": "none-')
    assert folder.state() == "damaged"
    with pytest.raises(InputError, match=r"result\.json: damaged"):
        folder.result()
    folder.reset()
    assert folder.state() == "new"
    assert (folder.path / "result.json.damaged").read_text() == '{"id": "none-'


@pytest.mark.parametrize("wrong", [{}, {"id": "none-000000000000"}, {"status": "running"}, {"last": None}])
def test_a_result_that_is_no_result_of_this_run_is_damaged(folder, wrong):
    content = {k: v for k, v in {**whole_result(folder), **wrong}.items() if v is not None} if wrong else {"status": "done"}
    (folder.path / "result.json").write_text(json.dumps(content))
    assert folder.state() == "damaged"


@pytest.mark.parametrize(("metric", "value"), [("ece", None), ("nll", "low"), ("top1", 85.0), ("n", 0), ("balanced", float("nan"))])
def test_a_result_that_no_table_could_count_does_not_make_a_run_done(folder, metric, value):
    content = whole_result(folder)
    content["last"]["test"] = {**METRICS, metric: value}
    (folder.path / "result.json").write_text(json.dumps(content))
    assert folder.state() == "damaged"
    with pytest.raises(InputError, match=rf"result\.json: damaged \(last\.test\.{metric}: "):
        folder.result()


def test_a_planned_run_takes_up_where_its_files_lie_now_and_a_done_one_keeps_its_record(folder, run):
    old, new, newest = ({"pair": "a/b", "paths": {"teacher": f"/{place}/b.pth"}} for place in ("old", "new", "newest"))
    folder.plan(run, old)
    folder.fail("InputError: looked in /old/b.pth")
    folder.plan(run, new)
    assert folder.read_plan() == (run, new)
    assert [file.name for file in folder.path.glob("run.json*")] == ["run.json"]
    folder.finish(whole_result(folder))
    folder.plan(run, newest)
    assert folder.read_plan() == (run, new)


@pytest.mark.parametrize("about", [None, 3, {"methods": None}, {"phase": "both"}])
def test_a_record_beside_the_run_that_no_table_could_read_is_written_again_for_a_done_run_too(folder, run, about):
    folder.finish(whole_result(folder))
    content = edit(folder.path / "run.json", lambda content: content.update(about=about))
    assert "run.json: damaged (about" in folder.plan(run, {"pair": "a/b"})
    assert folder.read_plan() == (run, {"pair": "a/b"})
    assert parse_sealed((folder.path / "run.json.damaged").read_bytes(), "run.json") == content


def test_a_failure_is_told_in_its_last_line_whatever_the_file_holds(folder):
    folder.fail("Traceback ...\nRuntimeError: x\n")
    assert folder.failure().error == "RuntimeError: x"
    (folder.path / "error.txt").write_bytes(b"\xff\xfe broken")
    assert "broken" in folder.failure().error
    (folder.path / "error.txt").write_bytes(b"")
    assert folder.failure().error == "no reason was kept"


def test_a_plan_under_another_runs_name_is_refused(folder, tmp_path):
    other = RunFolder(folder.path.with_name("none-000000000000"))
    other.path.mkdir()
    (other.path / "run.json").write_bytes((folder.path / "run.json").read_bytes())
    with pytest.raises(InputError, match="not the run its folder is named after"):
        other.read_plan()


def test_a_write_that_fails_leaves_what_was_there_and_no_litter(tmp_path):
    target = tmp_path / "runs.csv"
    write_bytes(target, b"before")
    code = (
        "import sys, pathlib, resource, signal\n"
        "from kdzoo.runs.atomic import StoreError, write_bytes\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
        "try:\n    write_bytes(pathlib.Path(sys.argv[1]), b'x' * 100_000)\n"
        "except StoreError as error:\n    print(error)\n"
    )
    said = run_warm([sys.executable, "-c", code, str(target)]).stdout
    assert said.startswith(f"cannot write {target}: ")
    assert target.read_bytes() == b"before"
    assert os.listdir(tmp_path) == ["runs.csv"]
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] != 1000


def test_a_folder_that_takes_no_file_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="results: cannot write to"):
        ensure_writable(tmp_path / "file" / "results")
    with pytest.raises(StoreError, match="cannot write"):
        write_bytes(tmp_path / "file" / "x.json", b"")


def test_one_process_at_a_time_holds_a_run_and_a_killed_one_lets_go(folder):
    code = (
        "import sys, time, pathlib\n"
        "from kdzoo.runs.store import RunFolder\n"
        "with RunFolder(pathlib.Path(sys.argv[1])).lock() as mine:\n"
        "    print(mine, flush=True)\n    time.sleep(60)\n"
    )
    holder = WarmPopen([sys.executable, "-c", code, str(folder.path)], stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout.readline().strip() == "True"
        with folder.lock() as mine:
            assert not mine
    finally:
        holder.kill()
        holder.wait()
    with folder.lock() as mine:
        assert mine


def test_json_is_written_in_one_form_with_the_digest_of_what_stands_before_it(folder):
    """As `sha256sum` computes it of the file up to the comma before its last member."""
    folder.finish(whole_result(folder))
    for name in ("run.json", "result.json"):
        text = (folder.path / name).read_text()
        content = json.loads(text)
        assert list(content)[-1] == "digest"
        before, _, _ = text.rpartition(',\n "digest"')
        assert content.pop("digest") == hashlib.sha256(before.encode()).hexdigest()
        assert f"{before}\n}}\n" == json.dumps(content, indent=1, sort_keys=True, ensure_ascii=False) + "\n"


def test_what_a_killed_process_was_writing_is_removed_once_nobody_can_be_writing_it(tmp_path):
    names = (".result.json.abcdefgh.part", ".state.pt.ijklmnop.part", ".lock", "result.json", ".result.json.kept")
    for name in names:
        (tmp_path / name).write_text("x")
    remove_unfinished(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == set(names), "it may be written at this moment"
    for name in names:
        os.utime(tmp_path / name, (0, 0))
    remove_unfinished(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == set(names[2:])
    remove_unfinished(tmp_path / "nowhere")


def test_results_are_read_as_json_reads_them_and_hold_one_copy_of_what_they_share(folder, tmp_path, run):
    other = Store(tmp_path / "bench").run(run.model_copy(update={"seed": 1}).id)
    for one in (folder, other):
        one.finish(whole_result(one))
    first, second = folder.result(), other.result()
    for one, content in ((folder, first), (other, second)):
        assert content == parse_sealed((one.path / "result.json").read_bytes(), "result.json")
    assert first["environment"] is second["environment"]
    assert first["student"] is second["student"]
    assert first["last"] is not second["last"]


@pytest.mark.parametrize("changed", [{"best": None}, {"last": None}, {"student": float("nan")}])
def test_a_result_of_any_layout_and_content_is_parsed_as_json_parses_it(folder, changed):
    content = {name: value for name, value in {**whole_result(folder), **changed}.items() if value is not None}
    for text in (json.dumps(content, indent=1, sort_keys=True) + "\n", json.dumps(content)):
        assert repr(parse_result(text.encode(), "result.json")) == repr(json.loads(text))
    with pytest.raises(InputError, match=r"result\.json: damaged"):
        parse_result(b'{\n "best": {,\n "last": 3\n}\n', "result.json")


def test_a_run_that_was_read_is_known_until_its_files_are_others(folder, run):
    planned = (run, {"pair": "a/b"}, PlanTexts())
    assert folder.known_run(*planned) is None
    folder.finish(whole_result(folder))
    known = folder.known_run(*planned)
    assert known is not None
    assert read_record(folder, known) == read_record(folder)
    assert read_record(folder, known).result is known.result
    assert read_record(folder, known).run is run
    folder.finish({**whole_result(folder), "seconds": 2.0})
    assert read_record(folder, known).result["seconds"] == 2.0
    edit(folder.path / "run.json", lambda content: content["about"].update(pair="c/d"))
    assert read_record(folder, known).about == {"pair": "c/d"}
    assert folder.known_run(*planned).plan is None
    (folder.path / "run.json").write_text("{")
    with pytest.raises(InputError, match=r"run\.json: damaged"):
        read_record(folder, known)
    folder.plan(run, {"pair": "a/b"})
    (folder.path / "result.json").write_text("{")
    assert read_record(folder, known).state == "damaged"
    (folder.path / "result.json").unlink()
    assert read_record(folder, known).state == "new"
