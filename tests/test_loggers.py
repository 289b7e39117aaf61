"""What a run says arrives whole, once and in order; W&B, the real library, can fail in any way without harm."""

from __future__ import annotations

import csv
import hashlib
import json
import os
import resource
import signal
import struct
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import wandb
from processes import children, left_of
from warm_python import WarmPopen

from kdzoo.errors import InputError
from kdzoo.runs.loggers import LoggerGroup
from kdzoo.runs.metrics_file import JsonLines, read_lines
from kdzoo.runs.sealed_json import read_sealed_json
from kdzoo.runs.wandb import WandbLogger
from kdzoo.runs.wandb_service import wandb_id
from kdzoo.runs.wandb_settings import WandbSettings, wandb_settings

RUN = "hinton-0123456789ab"


def line_of(epoch: int) -> dict[str, Any]:
    """A record as a line of the run's file has it."""
    return {"run": RUN, **record(epoch)}


def record(epoch: int, **changes: Any) -> dict[str, Any]:
    return {
        "epoch": epoch,
        "step": 23 * epoch,
        "loss": 1 / epoch,
        "parts": {"ce": 0.5 / epoch, "hinton": 0.25},
        "lr": 0.05,
        "val": {"top1": 0.5 + epoch / 100, "nll": 0.7, "top5": None},
        "seconds": 0.4,
        **changes,
    }


# --- JSON lines


def without_digest(line: str) -> dict[str, Any]:
    """A line of the file; its last member is the beginning of the SHA-256 of what stands before that."""
    content = json.loads(line)
    before, _, _ = line.rpartition(',"digest":')
    assert content.pop("digest") == hashlib.sha256(before.encode()).hexdigest()[:16]
    return content


def test_every_record_is_on_disk_as_a_line_before_the_next_step(tmp_path):
    logger = JsonLines(tmp_path / "metrics.jsonl", RUN, keep_through_step=0)
    for epoch in (1, 2, 3):
        logger.epoch(record(epoch))
        lines = (tmp_path / "metrics.jsonl").read_text().split("\n")
        assert lines.pop() == ""
        assert [without_digest(line) for line in lines] == [line_of(e) for e in range(1, epoch + 1)]
    logger.close()


def test_a_resume_cuts_the_records_back_to_the_checkpoint(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text("".join(json.dumps(record(e)) + "\n" for e in (1, 2, 3, 4)))
    logger = JsonLines(path, RUN, keep_through_step=50)
    logger.epoch(record(3, loss=9.0))
    logger.close()
    assert [(r["step"], r["loss"]) for r in read_lines(path, RUN)] == [(23, 1.0), (46, 0.5), (69, 9.0)]
    assert [file.name for file in tmp_path.iterdir()] == ["metrics.jsonl"]


@pytest.mark.parametrize("tear", [b'{"epoch":3,"st', b'{"epoch":3,"step":69,"loss":0.1', b"\0\0\0\0", b"\n\n"])
def test_a_torn_last_line_is_dropped_and_the_next_one_starts_afresh(tmp_path, tear):
    path = tmp_path / "metrics.jsonl"
    path.write_bytes("".join(json.dumps(record(e)) + "\n" for e in (1, 2)).encode() + tear)
    assert [r["epoch"] for r in read_lines(path, RUN)] == [1, 2]
    logger = JsonLines(path, RUN, keep_through_step=10**9)
    logger.epoch(record(3))
    logger.close()
    assert [json.loads(line)["epoch"] for line in path.read_text().splitlines()] == [1, 2, 3]


@pytest.mark.parametrize("wrong", [{"run": "at-0123456789ab"}, {"step": 46}, {"step": 23}, {"step": None}])
def test_no_line_of_another_run_and_none_out_of_order_is_read_or_kept(tmp_path, wrong):
    path = tmp_path / "metrics.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in (line_of(1), line_of(2), {**line_of(3), **wrong}, line_of(4))))
    assert read_lines(path, RUN) == [line_of(1), line_of(2)]
    JsonLines(path, RUN, keep_through_step=10**9).close()
    assert [without_digest(line) for line in path.read_text().splitlines()] == [line_of(1), line_of(2)]


def test_lines_of_earlier_versions_which_name_no_run_are_read(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text(json.dumps(record(1)) + "\n" + json.dumps(line_of(2)) + "\n")
    assert read_lines(path, RUN) == [record(1), line_of(2)]


def test_a_step_without_a_checkpoint_starts_from_nothing(tmp_path):
    path = tmp_path / "deep" / "metrics.jsonl"
    assert read_lines(path, RUN) == []
    JsonLines(path, RUN, keep_through_step=0).close()
    assert path.read_bytes() == b""


def test_what_json_cannot_say_becomes_null_and_every_reader_can_read_it(tmp_path):
    logger = JsonLines(tmp_path / "metrics.jsonl", RUN, keep_through_step=0)
    logger.epoch(record(1, loss=float("inf"), parts={"ce": float("nan")}))
    logger.close()
    text = (tmp_path / "metrics.jsonl").read_text()
    assert "NaN" not in text
    assert "Infinity" not in text
    assert json.loads(text)["loss"] is None
    assert json.loads(text)["parts"] == {"ce": None}


def test_a_full_disk_is_an_error_and_what_was_written_before_stays(tmp_path):
    """A limit on the file's size stands for the full disk: the second line fits in part only."""
    path = tmp_path / "metrics.jsonl"
    logger = JsonLines(path, RUN, keep_through_step=0)
    logger.epoch(record(1))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size + 20, hard))
    try:
        with pytest.raises(OSError, match="large"):
            logger.epoch(record(2))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    logger.close()
    assert path.stat().st_size > len(json.dumps(record(1), separators=(",", ":"))) + 1  # a torn line, as after a full disk
    assert read_lines(path, RUN) == [line_of(1)]


# --- what asks for W&B

KEY = {"WANDB_API_KEY": "0" * 40}


@pytest.mark.parametrize(
    ("requested", "environ", "mode"),
    [
        (None, {}, None),
        (None, KEY, None),
        (None, {"WANDB_MODE": "offline"}, "offline"),
        (None, {"WANDB_MODE": "dryrun"}, "offline"),
        (None, {"WANDB_MODE": "online", **KEY}, "online"),
        (None, {"WANDB_MODE": "disabled", **KEY}, None),
        ("disabled", {"WANDB_MODE": "online", **KEY}, None),
        ("offline", {"WANDB_MODE": "disabled"}, "offline"),
        ("online", KEY, "online"),
    ],
)
def test_the_option_wins_over_the_environment_and_a_key_alone_asks_for_nothing(requested, environ, mode, tmp_path):
    settings = wandb_settings(requested, {"HOME": str(tmp_path), **environ})
    assert (settings and settings.mode) == mode


def test_project_entity_and_folder_come_from_the_environment():
    environ = {"WANDB_PROJECT": "kd", "WANDB_ENTITY": "us", "WANDB_DIR": "somewhere"}
    assert wandb_settings("offline", environ) == WandbSettings("offline", "kd", "us", "somewhere", None)
    assert wandb_settings("offline", {"WANDB_ENTITY": ""}) == WandbSettings("offline", "kdzoo", None, None, None)


def test_online_without_a_key_becomes_offline_and_says_so(tmp_path):
    settings = wandb_settings("online", {"HOME": str(tmp_path)})
    assert settings is not None
    assert settings.mode == "offline"
    assert "WANDB_API_KEY" in (settings.note or "")


@pytest.mark.parametrize(
    ("machine", "base", "mode"),
    [
        ("api.wandb.ai", None, "online"),
        ("wandb.example.org", None, "offline"),
        ("wandb.example.org", "https://wandb.example.org", "online"),
        ("api.wandb.ai", "https://wandb.example.org", "offline"),
    ],
)
def test_a_key_in_netrc_counts_for_its_own_server_alone(tmp_path, machine, base, mode):
    (tmp_path / ".netrc").write_text(f"machine {machine}\n  login user\n  password {'0' * 40}\n")
    settings = wandb_settings("online", {"HOME": str(tmp_path), **({"WANDB_BASE_URL": base} if base else {})})
    assert settings is not None
    assert settings.mode == mode


def test_an_unknown_mode_is_refused_by_the_name_of_who_said_it():
    with pytest.raises(InputError, match=r"wandb: expected online, offline or disabled, got 'onlin'; did you mean 'online'"):
        wandb_settings("onlin", {})
    with pytest.raises(InputError, match=r"WANDB_MODE: .*'maybe'"):
        wandb_settings(None, {"WANDB_MODE": "maybe"})


@pytest.mark.parametrize("bench", ["digits", "my bench", "a/b#c?", "é" * 200, "x" * 300])
def test_ids_keep_to_what_wandb_allows_and_differ_where_bench_or_run_differ(bench):
    runs = ["hinton-0123456789ab", "at+hinton-0123456789ab", "at-hinton-0123456789ab", "hinton-0123456789ac"]
    ids = {wandb_id(bench, run) for run in runs} | {wandb_id(bench + "!", run) for run in runs}
    assert len(ids) == 2 * len(runs)
    assert all(len(i) <= 128 and set(i) <= set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-") for i in ids)
    assert wandb_id(bench, runs[0]) == wandb_id(bench, runs[0])


def test_a_plain_bench_and_run_are_readable_in_the_id():
    assert wandb_id("digits", "hinton-0123456789ab") == "digits-hinton-0123456789ab"


# --- W&B itself, offline


@pytest.fixture
def wandb_home(tmp_path, monkeypatch) -> Iterator[Path]:
    """A fresh folder for W&B; its service process is ended with the test."""
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("WANDB_ERROR_REPORTING", "false")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    yield tmp_path / "logs"
    wandb.teardown()
    assert left_of(services) == []


def services() -> list[int]:
    """The process ids of W&B's service below this process."""
    return children("wandb")


def wandb_file(path: Path) -> list[Any]:
    """The records of a .wandb file: LevelDB's log format (blocks of 32 KiB, chunks with crc, length, type) of protobufs."""
    from wandb.proto.wandb_internal_pb2 import Record

    data, position, records, begun = path.read_bytes(), 7, [], b""
    assert data[:4] == b":W&B"
    while position + 7 <= len(data):
        left = 32768 - position % 32768
        if left < 7:
            position += left
            continue
        _, length, kind = struct.unpack("<IHB", data[position : position + 7])
        begun += data[position + 7 : position + 7 + length]
        position += 7 + length
        if kind in (1, 4):  # a whole record, or the last chunk of one
            records.append(Record.FromString(begun))
            begun = b""
    return records


def written(home: Path | str, run_id: str) -> list[Path]:
    return sorted(Path(home).glob(f"wandb/offline-run-*-{run_id}/run-*.wandb"))


def files_of(home: Path, run_id: str) -> list[Path]:
    wandb.teardown()  # the service has then written all it was told
    return written(home, run_id)


def value_of(items: Any) -> dict[str, Any]:
    return {"/".join(item.nested_key) or item.key: json.loads(item.value_json) for item in items}


def rows_of(files: list[Path]) -> list[dict[str, Any]]:
    """The curves, a row a call, in the order in which they stand in the files."""
    return [value_of(r.history.item) for file in files for r in wandb_file(file) if r.WhichOneof("record_type") == "history"]


def header_of(file: Path) -> Any:
    return next(r.run for r in wandb_file(file) if r.WhichOneof("record_type") == "run")


def summary_of(file: Path) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for r in wandb_file(file):
        if r.WhichOneof("record_type") == "summary":
            found |= value_of(r.summary.update)
    return found


def exit_code_of(file: Path) -> int:
    return next(r.exit.exit_code for r in wandb_file(file) if r.WhichOneof("record_type") == "exit")


RESULT = {"id": "hinton-0123456789ab", "status": "done", "last": {"epoch": 3, "val": {"top1": 0.53, "top5": None}, "test": {"top1": 0.5}}}


def opened(home: Path, run_id: str, cursor: Path, notes: list[str], **settings: Any) -> WandbLogger:
    config = {"id": run_id, "run": {"recipe": {"epochs": 3, "lr": 0.05}, "seed": 0}}
    return WandbLogger(WandbSettings("offline", directory=str(home), **settings), "digits", run_id, config, cursor, notes.append)


def test_a_run_is_in_wandbs_file_with_id_group_config_curves_and_summary(wandb_home, tmp_path):
    notes: list[str] = []
    logger = opened(wandb_home, "hinton-0123456789ab", tmp_path / "cursor", notes, project="kd", entity="us")
    for epoch in (1, 2, 3):
        logger.epoch(record(epoch))
    logger.finish(RESULT)
    logger.close()

    (file,) = files_of(wandb_home, "digits-hinton-0123456789ab")
    run = header_of(file)
    assert (run.run_id, run.run_group, run.display_name) == ("digits-hinton-0123456789ab", "digits", "hinton-0123456789ab")
    assert (run.project, run.entity) == ("kd", "us")
    config = value_of(run.config.update)
    assert config["id"] == "hinton-0123456789ab"
    assert config["run"] == {"recipe": {"epochs": 3, "lr": 0.05}, "seed": 0}
    assert [
        (r["_step"], r["epoch"], r["train/loss"], r["train/parts/ce"], r["train/parts/hinton"], r["lr"], r["val/top1"], r["val/nll"])
        for r in rows_of([file])
    ] == [(23 * e, e, 1 / e, 0.5 / e, 0.25, 0.05, 0.5 + e / 100, 0.7) for e in (1, 2, 3)]
    summary = summary_of(file)
    assert (summary["status"], summary["last/val/top1"], summary["last/test/top1"]) == ("done", 0.53, 0.5)
    assert exit_code_of(file) == 0
    assert notes == []


@pytest.mark.slow
def test_a_bench_logs_each_run_as_its_files_have_it_and_its_leaderboard_as_a_table(kdzoo, place, wandb_home, monkeypatch):
    """A real bench: configuration, curves and summary of every run number by number; the table cell by cell; the line that uploads."""
    monkeypatch.setenv("WANDB_DIR", str(place / "logs"))
    words = ["--methods", "hinton", "--temperatures", "4", "--seeds", "1", "--epochs", "2", "--threads", "1", "--jobs", "1"]
    said = kdzoo("bench", *words, "--wandb", "offline")
    assert said.status == 0, said.err

    (line,) = [line for line in said.out.splitlines() if "wandb sync" in line]
    named = line.partition("wandb sync ")[2].strip()
    assert str((place / "logs" / "wandb").resolve()) in line
    folders = {folder.name.split("-", 4)[-1]: folder for folder in Path().glob(str(Path(named).relative_to(place)))}
    runs = {folder.name: folder for folder in (place / "results" / "digits" / "runs").iterdir()}
    assert set(folders) == {*runs, "leaderboard"}
    for name, folder in runs.items():
        (file,) = folders[name].glob("run-*.wandb")
        config = value_of(header_of(file).config.update)
        assert {key: config[key] for key in config if key != "_wandb"} == read_sealed_json(folder / "run.json")
        expected = leaves(read_sealed_json(folder / "result.json"))
        found = summary_of(file)
        assert {key: found.get(key) for key in expected} == expected
        assert sum(isinstance(value, float) for value in expected.values()) > 20
        curves = [(epoch["step"], epoch["loss"], epoch["val"]["top1"]) for epoch in read_lines(folder / "metrics.jsonl", name)]
        assert [(row["_step"], row["train/loss"], row["val/top1"]) for row in rows_of([file])] == curves

    (table,) = folders["leaderboard"].glob("files/media/table/*.table.json")
    logged = json.loads(table.read_text())
    with open(place / "results" / "digits" / "leaderboard.csv") as file:
        board = list(csv.DictReader(file))
    assert logged["columns"] == list(board[0])
    assert len(logged["data"]) == len(board) == 3  # the teacher, the student alone, KD
    for row, expected_row in zip(logged["data"], board, strict=True):
        for cell, text in zip(row, expected_row.values(), strict=True):
            assert (text == "") if cell is None else cell == pytest.approx(float(text)) if is_number(cell) else str(cell) == text


def leaves(value: Any, path: str = "") -> dict[str, Any]:
    """Every value of nested mappings by its path, but for those that are null."""
    if isinstance(value, dict):
        return {key: leaf for name, item in value.items() for key, leaf in leaves(item, f"{path}/{name}" if path else name).items()}
    return {} if value is None else {path: value}


def is_number(cell: Any) -> bool:
    return isinstance(cell, int | float) and not isinstance(cell, bool)


def test_an_epoch_without_validation_has_its_other_curves(wandb_home, tmp_path):
    logger = opened(wandb_home, "none-1", tmp_path / "cursor", [])
    logger.epoch(record(1, val=None))
    logger.finish(RESULT)
    logger.close()
    (row,) = rows_of(files_of(wandb_home, "digits-none-1"))
    assert row["train/loss"] == 1
    assert not [key for key in row if key.startswith("val")]


def test_a_cohort_of_eight_keeps_its_runs_apart(wandb_home, tmp_path):
    notes: list[str] = []
    ids = [f"hinton-{n}" for n in range(8)]
    cohort = [opened(wandb_home, run_id, tmp_path / run_id, notes) for run_id in ids]
    for epoch in (1, 2):
        for number, logger in enumerate(cohort):
            logger.epoch(record(epoch, loss=float(number)))
    for logger in cohort:
        logger.finish(RESULT)
        logger.close()
    for number, run_id in enumerate(ids):
        rows = rows_of(files_of(wandb_home, f"digits-{run_id}"))
        assert [(r["_step"], r["train/loss"]) for r in rows] == [(23, number), (46, number)]
    assert notes == []


def test_a_failed_run_says_so_and_a_stopped_one_is_not_called_finished(wandb_home, tmp_path):
    failed, stopped = (opened(wandb_home, run_id, tmp_path / run_id, []) for run_id in ("at-1", "at-2"))
    failed.fail("Traceback ...\nRuntimeError: loss became NaN at step 12\n")
    for logger in (failed, stopped):
        logger.close()
    (file,) = files_of(wandb_home, "digits-at-1")
    assert exit_code_of(file) == 1
    assert summary_of(file)["error"] == "RuntimeError: loss became NaN at step 12"
    (file,) = files_of(wandb_home, "digits-at-2")
    assert exit_code_of(file) not in (0, 1)


def test_after_a_hard_end_the_same_id_goes_on_and_no_step_is_there_twice(wandb_home, tmp_path):
    """A process ends without a word after four epochs; the next one repeats two of them from its checkpoint."""
    code = f"""
        import os, sys, time
        from pathlib import Path
        sys.path.insert(0, {str(Path(__file__).parent)!r})
        from test_loggers import opened, record, rows_of, written
        logger = opened(Path({str(wandb_home)!r}), "at-1", Path({str(tmp_path / "cursor")!r}), [])
        for epoch in (1, 2, 3, 4):
            logger.epoch(record(epoch))
        while len(rows_of(written({str(wandb_home)!r}, "digits-at-1"))) < 4:
            time.sleep(0.05)
        os._exit(9)
        """
    with WarmPopen([sys.executable, "-c", textwrap.dedent(code)]) as process:
        assert process.wait(timeout=60) == 9
    time.sleep(1.1)  # W&B names its folders by the second
    logger = opened(wandb_home, "at-1", tmp_path / "cursor", [])
    for epoch in (3, 4, 5, 6):
        logger.epoch(record(epoch))
    logger.finish(RESULT)
    logger.close()
    files = files_of(wandb_home, "digits-at-1")
    assert len(files) == 2
    assert {header_of(file).run_id for file in files} == {"digits-at-1"}
    assert [row["_step"] for row in rows_of(files)] == [23 * e for e in (1, 2, 3, 4, 5, 6)]


def test_disabled_makes_no_file(wandb_home, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WANDB_MODE", "disabled")
    assert wandb_settings(None, os.environ) is None
    assert list(tmp_path.iterdir()) == []


def test_the_option_beats_the_environment_in_wandb_too(wandb_home, tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "disabled")
    monkeypatch.setenv("WANDB_RUN_ID", "theirs")
    logger = opened(wandb_home, "at-1", tmp_path / "cursor", [])
    logger.epoch(record(1))
    logger.finish(RESULT)
    logger.close()
    assert len(rows_of(files_of(wandb_home, "digits-at-1"))) == 1


def told_to_both(wandb_sink: WandbLogger, folder: Path) -> None:
    """Three epochs and a result, to JSON lines and to W&B; the lines have to be whole."""
    tee = LoggerGroup([JsonLines(folder / "metrics.jsonl", RUN, keep_through_step=0), wandb_sink])
    for epoch in (1, 2, 3):
        tee.epoch(record(epoch))
    tee.finish(RESULT)
    tee.close()
    assert read_lines(folder / "metrics.jsonl", RUN) == [line_of(e) for e in (1, 2, 3)]


def test_a_folder_that_cannot_be_written_costs_no_result_and_is_noted_once(wandb_home, tmp_path):
    (tmp_path / "file").write_text("")
    notes: list[str] = []
    told_to_both(opened(tmp_path / "file" / "below", "at-1", tmp_path / "cursor", notes), tmp_path)
    assert len(notes) == 1
    assert notes[0].startswith("wandb: NotADirectoryError")


def test_a_missing_library_costs_no_result_and_is_noted_once(wandb_home, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    notes: list[str] = []
    told_to_both(opened(wandb_home, "at-1", tmp_path / "cursor", notes), tmp_path)
    monkeypatch.undo()
    assert len(notes) == 1
    assert "ModuleNotFoundError" in notes[0]


def test_a_damaged_cursor_costs_no_result(wandb_home, tmp_path):
    (tmp_path / "cursor").write_text("4x")
    notes: list[str] = []
    told_to_both(opened(wandb_home, "at-1", tmp_path / "cursor", notes), tmp_path)
    assert len(notes) == 1


def isolated(code: str, **environ: str) -> subprocess.CompletedProcess[str]:
    """Python in a process of its own, where W&B's service may come to harm."""
    start = f"""
        import os, signal, sys, time
        from pathlib import Path
        sys.path.insert(0, {str(Path(__file__).parent)!r})
        from kdzoo.runs import wandb, wandb_service
        from kdzoo.runs.wandb import WandbLogger
        from kdzoo.runs.wandb_settings import WandbSettings
        from test_loggers import RESULT, opened, record, services, told_to_both
        notes = []
        """
    program = textwrap.dedent(start) + textwrap.dedent(code)
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:  # a pipe would end with W&B's service, not with this
        command, environment = [sys.executable, "-c", program], {**os.environ, **environ}
        with WarmPopen(command, env=environment, stdin=subprocess.DEVNULL, stdout=out, stderr=err) as process:
            status = process.wait(timeout=60)
        out.seek(0), err.seek(0)
        return subprocess.CompletedProcess(command, status, out.read(), err.read())


def test_a_service_killed_in_the_middle_costs_no_result_and_is_noted_once(wandb_home, tmp_path):
    done = isolated(f"""
        logger = opened(Path({str(wandb_home)!r}), "at-1", Path({str(tmp_path / "cursor")!r}), notes)
        logger.epoch(record(1, step=1))
        while logger._last_step < 0:
            time.sleep(0.01)
        for pid in services():
            os.kill(pid, signal.SIGKILL)
        told_to_both(logger, Path({str(tmp_path)!r}))
        print(len(notes), *notes)
        """)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("1 wandb: ConnectionResetError")


@pytest.mark.slow
def test_a_service_that_hangs_holds_nothing_up_for_longer_than_the_patience(wandb_home, tmp_path):
    done = isolated(f"""
        wandb.PATIENCE_SECONDS = wandb_service.PATIENCE_SECONDS = 2.0
        logger = opened(Path({str(wandb_home)!r}), "at-1", Path({str(tmp_path / "cursor")!r}), notes)
        logger.epoch(record(1, step=1))
        while logger._last_step < 0:
            time.sleep(0.01)
        pids = services()
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        start = time.monotonic()
        told_to_both(logger, Path({str(tmp_path)!r}))
        again = opened(Path({str(wandb_home)!r}), "at-2", Path({str(tmp_path / "second")!r}), notes)
        told_to_both(again, Path({str(tmp_path)!r}))
        print(time.monotonic() - start, *notes, sep=chr(10))
        print(*pids)
        """)
    seconds, first, second, pids = done.stdout.splitlines()
    for pid in pids.split():
        os.kill(int(pid), signal.SIGKILL)
    assert done.returncode == 0, done.stderr
    assert first.startswith("wandb: no answer within 4 seconds")
    assert second.startswith("wandb: no answer to an earlier run")
    assert 4 <= float(seconds) < 8  # one run is waited for, not two


@pytest.mark.slow
def test_a_server_that_is_not_there_costs_a_bounded_time_and_no_result(wandb_home, tmp_path):
    done = isolated(
        f"""
        wandb.PATIENCE_SECONDS = wandb_service.PATIENCE_SECONDS = 2.0
        settings = WandbSettings("online", directory={str(wandb_home)!r})
        logger = WandbLogger(settings, "digits", "at-1", {{}}, Path({str(tmp_path / "cursor")!r}), notes.append)
        told_to_both(logger, Path({str(tmp_path)!r}))
        print(len(notes), *notes)
        """,
        WANDB_API_KEY="0" * 40,
        WANDB_BASE_URL="http://127.0.0.1:1",
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("1 wandb: ")
    assert "continuing without it" in done.stdout
    assert done.stderr == ""


def test_a_terminal_is_never_asked_for_a_key(wandb_home, tmp_path):
    """On a pseudo-terminal, online, and with no key anywhere: the settings say offline, and so does the logger if asked anyway."""
    import pty

    code = f"""
        import sys
        from pathlib import Path
        from kdzoo.runs.wandb import WandbLogger
        from kdzoo.runs.wandb_settings import WandbSettings
        notes = []
        assert sys.stdin.isatty() and sys.stderr.isatty()
        settings = WandbSettings("online", directory={str(wandb_home)!r})
        logger = WandbLogger(settings, "digits", "at-1", {{}}, Path({str(tmp_path / "cursor")!r}), notes.append)
        logger.finish({{}})
        logger.close()
        Path({str(tmp_path / "notes")!r}).write_text(str(notes))
        """
    seen = []

    def keep(fd: int) -> bytes:
        data = os.read(fd, 1024)
        seen.append(data)
        return data

    stdout = os.dup(1)
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    try:
        status = pty.spawn([sys.executable, "-c", textwrap.dedent(code)], keep, lambda fd: b"")
    finally:
        os.dup2(stdout, 1)
        os.close(stdout)
        os.close(null)
    assert os.waitstatus_to_exitcode(status) == 0
    assert "No API key" in (tmp_path / "notes").read_text()
    assert b"choice" not in b"".join(seen)


def test_a_group_closes_every_logger_even_where_one_of_them_fails():
    closed = []

    class Closing(JsonLines):
        def __init__(self, name: str) -> None:
            self.name = name

        def close(self) -> None:
            closed.append(self.name)
            if self.name == "first":
                raise OSError("no space left")

    with pytest.raises(OSError, match="no space"):
        LoggerGroup([Closing("first"), Closing("second")]).close()
    assert closed == ["first", "second"]


def test_importing_the_loggers_imports_no_wandb():
    code = "import sys, kdzoo.runs.loggers, kdzoo.runs.wandb; sys.exit('wandb' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
