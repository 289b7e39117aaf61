"""Performs a step of a study, one seed after the other, and reads its results. Free of torch until something is missing.

`<stage>/seed-<N>.json` holds a result, with the runs and the words that it was made from: it counts as long as the study
asks for just that of just these runs, and the network that it came with is the one that was written, so that the same command
makes only what is missing. Beside it stands what it was made with (`environment`, the threads too), which it does not hang on.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kdzoo.errors import InputError
from kdzoo.files import read_file
from kdzoo.runs.atomic import set_aside, write_json
from kdzoo.runs.store import Store
from kdzoo.suite.study.stages import finished_runs_of, runs_of
from kdzoo.suite.study.steps.step import Result, Step, Work, network_file
from kdzoo.suite.study.study import Study, StudyStage, step_seeds

NETWORK = "network_sha256"
"""in the file of a result that comes with a network: the digest of that network's file"""


@dataclass(frozen=True)
class Wanted:
    """A result of a step: its file, and the record of what it has to be made from."""

    file: Path
    made_from: Mapping[str, Any]


def wanted_results(study: Study, stage: StudyStage, folder: Path, seeds: Sequence[int]) -> dict[int, Wanted]:
    """The results of a step by seed, made from runs with these seeds; raises InputError where one of them is not finished."""
    step = _step(stage)
    ids = {record.run.seed: record.id for record in runs_of(study, step.of, seeds, folder)}
    words = {"kind": stage.kind, "version": step.version, **step.model_dump(mode="json")}
    words["of"].pop("seeds")  # the runs say which
    return {
        seed: Wanted(folder / stage.name / f"seed-{seed}.json", {"step": words, "runs": [ids[one] for one in group]})
        for seed, group in step.groups(seeds).items()
    }


def _step(stage: StudyStage) -> Step:
    assert stage.step is not None, f"stage {stage.name} is a bench"
    return stage.step


def read_results(study: Study, stage: StudyStage, folder: Path) -> dict[int, Result]:
    """The results of a step that are there, by seed; raises InputError where none is, or one cannot be read.

    Those of the seeds that are finished, which may be fewer than planned, or more where a command asked for more.
    """
    step = _step(stage)
    finished = finished_runs_of(study, step.of, folder)
    seeds = [seed for seed in finished if seed in step_seeds(study, step) or (folder / stage.name / f"seed-{seed}.json").is_file()]
    wanted = wanted_results(study, stage, folder, sorted(seeds))
    results = {seed: result for seed, one in wanted.items() if (result := _read(one)) is not None}
    if not results:
        raise InputError(f"stage {stage.name} has not been done")
    return results


def _read(wanted: Wanted) -> Result | None:
    """A result that is there and made from what is wanted; raises InputError for a damaged file."""
    try:
        content = json.loads(read_file(wanted.file))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{wanted.file}: damaged ({error})") from error
    if not isinstance(content, dict) or not isinstance(content.get("result"), dict):
        raise InputError(f"{wanted.file}: damaged (expected a JSON object with a result)")
    return content["result"] if content.get("made_from") == wanted.made_from else None


def missing_results(study: Study, stage: StudyStage, folder: Path, seeds: int | None, note: Callable[[str], None]) -> dict[int, Wanted]:
    """The results of a step that have to be made; a damaged file is renamed, and so is a network that is not its result's."""
    missing = {}
    for seed, wanted in wanted_results(study, stage, folder, step_seeds(study, _step(stage), seeds)).items():
        file = wanted.file
        try:
            if _read(wanted) is not None:
                if not _step(stage).teaches:
                    continue
                file = network_file(folder / stage.name, seed)
                if _has_its_network(wanted.file, file):
                    continue
        except InputError as error:
            note(f"{error}; it is made again, and the old file is kept as {set_aside(file).name}")
        missing[seed] = wanted
    return missing


def _has_its_network(result: Path, network: Path) -> bool:
    """Whether the network of a result is there; raises InputError where the file is not what was written with the result."""
    if not network.is_file():
        return False
    expected, actual = json.loads(read_file(result)).get(NETWORK), _sha256(network)
    if expected is None:
        raise InputError(f"{network}: {result.name} does not say which network was written with it")
    if expected != actual:
        raise InputError(
            f"{network}: not the file that was written with {result.name} (sha256 {str(expected)[:12]}..., now {actual[:12]}...)"
        )
    return True


def _sha256(file: Path) -> str:
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def perform(
    study: Study, stage: StudyStage, folder: Path, seeds: int | None, options: Mapping[str, Any], note: Callable[[str], None]
) -> int:
    """Make the results of a step that are missing, one after the other; how many they were.

    options: `device`, where networks are asked, `threads` of the CPU (1 unless given), and `data_root`, where the data lie (where
    they lay when the runs were planned, unless given); others are those of benches. note: tells the user what was found. Raises
    InputError where a result cannot be made.
    """
    missing = missing_results(study, stage, folder, seeds, note)
    if not missing:
        return 0
    import torch

    from kdzoo.runs.environment import environment
    from kdzoo.suite.run.prepare import device_of

    step, where, threads = _step(stage), device_of(options.get("device") or "auto"), options.get("threads") or 1
    store = Store(folder / step.of.stage)
    for seed, wanted in missing.items():
        runs = tuple(store.run(run_id) for run_id in wanted.made_from["runs"])
        work = Work(seed, runs, folder / stage.name, where, note, threads, options.get("data_root"))
        try:
            result = _act(step, work)
        except InputError as error:
            raise InputError(*[f"stage {stage.name}, seed {seed}: {problem}" for problem in error.problems]) from error
        network = {NETWORK: _sha256(network_file(work.folder, seed))} if step.teaches else {}
        about = {"environment": environment(torch.device(where), threads), **network}
        write_json(wanted.file, {"made_from": dict(wanted.made_from), "result": result, **about})
        shutil.rmtree(work.parts, ignore_errors=True)
    return len(missing)


def _act(step: Step, work: Work) -> Result:
    """Make one result with so many threads, which decide the last bits of its numbers."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(work.threads)
    try:
        return step.act(work)
    finally:
        torch.set_num_threads(before)
