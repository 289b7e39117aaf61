"""What a pull request needs of a bench, packed into a folder: runs, records of teachers, predictions of one run a row. Free of torch."""

from __future__ import annotations

import re
import shlex
import shutil
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kdzoo.contract.code_version import files_beside
from kdzoo.errors import InputError, collect_problems, raise_if_any
from kdzoo.files import read_text
from kdzoo.runs.atomic import ensure_writable, write_bytes, write_json
from kdzoo.runs.output_files import fault_of_new_folder
from kdzoo.runs.sealed_json import read_sealed_json, write_sealed_json
from kdzoo.runs.store import RunFolder, Store, teacher_store
from kdzoo.suite.plan.config import CONTROLS
from kdzoo.suite.plan.doses import NAME as DOSES
from kdzoo.suite.plan.starts import NAME as STARTS
from kdzoo.suite.plan.starts import read_starts
from kdzoo.suite.proof.consistency import copies, faults_of_folder
from kdzoo.suite.proof.controls import Control, compare_controls
from kdzoo.suite.proof.reference import Point
from kdzoo.suite.report.bench import BenchRecords, read_bench
from kdzoo.suite.report.cells import method_words
from kdzoo.suite.report.editions import edition_of, misfits
from kdzoo.suite.report.table_files import TABLES_LOCK, write_tables
from kdzoo.text import number_of
from kdzoo.version import VERSION

SMALL = 256 * 1024
"""bytes of predictions, up to which one run a row keeps them in git"""
SMALL_TEACHER = 1024 * 1024
"""bytes of a teacher's weights, up to which they are packed: without them a verification trains it again"""


@dataclass(frozen=True)
class Submission:
    """What was packed. controls: how these stand to their reference points; edition: the one that every run fits, if any."""

    folder: Path
    runs: int
    predictions: int
    teachers: int
    controls: tuple[Control, ...]
    edition: str | None


def submit(bench_folder: Path, out: Path, *, author: str, points: Mapping[str, Point]) -> Submission:
    """Pack a finished bench into a new folder.

    Raises InputError, before anything is written, with all that a reviewer would refuse: runs that are not over, results that
    contradict themselves, controls that are missing or far from their reference points, runs that are not of the edition
    that was asked for.
    """
    bench = read_bench(bench_folder)
    controls = tuple(compare_controls(bench.records, points))
    edition = edition_of(bench_folder)
    raise_if_any(
        [
            f"submit: {fault}" if (fault := fault_of_new_folder(out)) else None,
            *_faults(bench, controls),
            *_faults_of_edition(bench, edition),
        ]
    )
    ensure_writable(out)
    rows = _one_run_a_row(bench)
    store = Store(bench_folder)
    packed = [_pack_run(store.run(run_id), Store(out).run(run_id), predictions=run_id in rows) for run_id in store.ids()]
    teachers = [_pack_teacher(run_id, bench_folder, out) for run_id in sorted(_teachers(bench))]
    plugins = _pack_plugins(bench_folder, out)
    if (bench_folder / DOSES).exists():
        shutil.copyfile(bench_folder / DOSES, out / DOSES)
    if (bench_folder / STARTS).exists():
        write_sealed_json(out / STARTS, _without_places(read_sealed_json(bench_folder / STARTS)))
    write_tables(out)
    (out / TABLES_LOCK).unlink(missing_ok=True)
    about = {"author": author, "kdzoo": VERSION, "bench": bench.name, "edition": edition, "plugins": plugins}
    write_json(out / "submission.json", about)
    found = Submission(out, len(packed), sum(packed), sum(teachers), controls, edition)
    write_bytes(out / "SUBMISSION.md", _page(found, bench.name, author, plugins).encode())
    return found


def _faults(bench: BenchRecords, controls: Iterable[Control]) -> Iterator[str]:
    store = Store(bench.folder)
    for run_id in store.ids():
        yield from (f"{run_id}: {fault}" for fault in faults_of_folder(store.run(run_id)))
    yield from (f"{run_id}: {text}" for run_id, text in copies(bench.records).items())
    there = {record.id for record in bench.records}
    missing = [run_id for start in read_starts(bench.folder)[-1:] for run_id in start.runs if run_id not in there]
    if missing:
        yield f"{number_of(len(missing), 'run')} of the plan missing, such as {missing[0]}: rows are submitted with all of their seeds"
    paused = [record.id for record in bench.records if record.state == "paused"]
    if paused:
        yield (
            f"{number_of(len(paused), 'run')} paused by a search within a budget, such as {paused[0]}: train them to the end with the same "
            "`kdzoo bench` without --budget"
        )
    waiting = [record.id for record in bench.records if record.state not in ("done", "failed", "paused")]
    if waiting:
        yield f"{number_of(len(waiting), 'run')} not over, such as {waiting[0]}: run the same `kdzoo bench` first"
    methods = {record.method for record in bench.records if record.state == "done"}
    yield from (f"the control {method_words(method)} is missing" for method in CONTROLS if method not in methods)
    yield from (f"control {one.what}: {one.text}" for one in controls if one.verdict == "disagrees")


def _faults_of_edition(bench: BenchRecords, edition: str | None) -> list[str]:
    problems: list[str] = []
    if edition is not None:
        with collect_problems(problems):
            wrong = misfits(edition, bench.records)
            problems += [f"edition {edition}: {run_id}: {'; '.join(reasons)}" for run_id, reasons in sorted(wrong.items())]
    return problems


def _one_run_a_row(bench: BenchRecords) -> set[str]:
    """The run of the lowest seed of every row."""
    return {min(standing.done, key=lambda one: one.run.seed).id for block in bench.blocks for standing in block.standings if standing.done}


def _teachers(bench: BenchRecords) -> set[str]:
    return {str(record.about["teacher_id"]) for record in bench.records if record.about.get("teacher_id")}


def _pack_run(folder: RunFolder, to: RunFolder, *, predictions: bool) -> bool:
    """Pack one run, without places of this machine; whether its predictions went along."""
    to.path.mkdir(parents=True, exist_ok=True)
    content = read_sealed_json(folder.path / "run.json")
    write_sealed_json(to.path / "run.json", _without_places(content))
    for file in (folder.path / "result.json", folder.metrics):
        if file.is_file():
            shutil.copyfile(file, to.path / file.name)
    if folder.state() == "failed":  # a traceback names files of this machine
        to.fail(read_text(folder.path / "error.txt").strip().rpartition("\n")[2] + "\n")
    small = predictions and folder.predictions.is_file() and folder.predictions.stat().st_size <= SMALL
    if small:
        shutil.copyfile(folder.predictions, to.predictions)
    return small


def _pack_teacher(run_id: str, bench_folder: Path, out: Path) -> bool:
    """Pack the record of a teacher, and its weights where they are small; whether it was there."""
    for folder in (RunFolder(bench_folder / "teachers" / run_id), teacher_store().run(run_id)):
        if folder.state() == "done":
            to = RunFolder(out / "teachers" / run_id)
            _pack_run(folder, to, predictions=False)
            if folder.student.is_file() and folder.student.stat().st_size <= SMALL_TEACHER:
                shutil.copyfile(folder.student, to.student)
            return True
    return False


def _pack_plugins(bench_folder: Path, out: Path) -> list[str]:
    """Copy the files of the bench's plugins with the modules beside them; their names. Raises InputError for one that is gone."""
    files = [Path(name) for start in read_starts(bench_folder) for name in start.config.get("plugin", ())]
    if missing := [file for file in dict.fromkeys(files) if not file.is_file()]:
        raise InputError(*(f"plugin: {file} is gone: nobody could train these runs again" for file in missing))
    for file in dict.fromkeys(files):
        for part in (file, *files_beside(file)):
            write_bytes(out / "plugins" / part.name, part.read_bytes())
    return [f"plugins/{file.name}" for file in dict.fromkeys(files)]


def _without_places(value: Any) -> Any:
    """The same JSON with absolute paths as the names of their last parts."""
    if isinstance(value, Mapping):
        return {key: _without_places(one) for key, one in value.items()}
    if isinstance(value, list):
        return [_without_places(one) for one in value]
    return _named(value) if isinstance(value, str) else value


ABSOLUTE = re.compile(r"(?<![\w/.-])~?/(?!/)(?:[^/\s]+/)*([^/\s]+)")
"""an absolute path, or one below a home folder; no part of an address or of a pair's name"""


def _named(text: str) -> str:
    """A text in which every absolute path is its last part: `folder:/home/me/photos` is `folder:photos`."""
    return ABSOLUTE.sub(r"\1", text)


def _page(submission: Submission, name: str, author: str, plugins: Iterable[str]) -> str:
    """The text of a pull request with the rows of the bench `name`."""
    place = f"results/{name}"
    lines = [
        f"# Rows for {name}",
        "",
        f"Author: {author}. kdzoo {VERSION}. {number_of(submission.runs, 'run')}, predictions of {submission.predictions}.",
        f"Edition: {submission.edition or 'none'}.",
        "",
        "To check:",
        "",
        "```bash",
        shlex.join(["kdzoo", "verify", place, "--sample", "3", *(word for file in plugins for word in ("--plugin", f"{place}/{file}"))]),
        "```",
        "",
        "## Controls",
        "",
        *(f"- {one.what}: {one.verdict}: {one.text}" for one in submission.controls),
    ]
    return "\n".join(lines) + "\n"
