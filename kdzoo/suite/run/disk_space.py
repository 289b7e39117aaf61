"""How much disk space the results of a bench will take, and whether there is as much."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from pathlib import Path

from kdzoo.data.split import Splits
from kdzoo.models.network import Network
from kdzoo.suite.plan.budget import search_rungs
from kdzoo.suite.plan.config import BenchConfig
from kdzoo.suite.plan.planned import Plan, PlannedRun
from kdzoo.suite.run.untrained import Untrained, bind
from kdzoo.teachers.disk import size_text

RECORDS_BYTES = 16 * 1024
"""what run.json, metrics.jsonl and result.json of a run take"""
STATES = {"sgd": 1, "adam": 2, "adamw": 2}
"""how many numbers an optimiser keeps for each weight"""


PAUSED_KEEP = ("checkpoint",)
"""what a run keeps that a search within a budget has paused"""


def bytes_of_results(students: Iterable[PlannedRun], plan: Plan, keep: tuple[str, ...], untrained: Untrained) -> int:
    """What these runs will keep, in bytes: records, predictions, weights and checkpoints, uncompressed; modules of methods are left out."""
    total = 0
    by_kind: dict[tuple[str, ...], int] = {}
    for planned in students:
        key = (str(planned.run.student), str(planned.run.data), planned.run.recipe.optimizer, str(planned.run.recipe.ema))
        if key not in by_kind:
            located = bind(planned, plan)
            _, splits = untrained.data(located)
            network, shapes = untrained.student(located)
            width = planned.run.student.classes or shapes.embedding
            by_kind[key] = RECORDS_BYTES + _bytes_of(planned, network, width, splits, keep)
        total += by_kind[key]
    return total


def _bytes_of(planned: PlannedRun, network: Network, outputs: int, splits: Splits, keep: tuple[str, ...]) -> int:
    """What a run keeps besides its records; outputs: how many numbers its student gives for an image, scores or an embedding."""
    weights = sum(tensor.numel() * tensor.element_size() for tensor in network.state_dict().values())
    evaluated = len(splits.test.targets) + (0 if splits.val is None else len(splits.val.targets))
    recipe = planned.run.recipe
    copies = 2 + STATES[recipe.optimizer] + (recipe.ema is not None)  # the weights, the best epoch's, the optimiser's, the average
    return int(
        ("predictions" in keep) * evaluated * (4 * outputs + 8 + 16)
        + ("student" in keep) * weights
        + ("checkpoint" in keep) * copies * weights
    )


def bytes_of_bench(config: BenchConfig, missing: Iterable[PlannedRun], plan: Plan, untrained: Untrained) -> int:
    """The most that the missing runs of a bench will take at once; of a search within a budget with the checkpoints of paused runs."""
    missing, keep = tuple(missing), config.files_kept
    if config.budget is None or not missing:
        return bytes_of_results(missing, plan, keep, untrained)
    whole = min(search_rungs(config, plan.students)[-1].settings * len(config.seeds), len(missing))
    new = [planned for planned in missing if plan.store.run(planned.run.id).paused_after() is None]  # others have their checkpoints
    paused = new[: len(missing) - whole]
    return bytes_of_results(missing[:whole], plan, keep, untrained) + bytes_of_results(paused, plan, PAUSED_KEEP, untrained)


def note_of_space(plan: Plan, needed: int, keep: tuple[str, ...]) -> str | None:
    """A note where the disk has less space than the missing runs will take, in bytes; None where it has enough."""
    free = free_space(plan.folder)
    if needed <= free:
        return None
    parts = " and ".join(keep) or "records"
    return (
        f"the results will take about {size_text(needed)} ({parts} of every run), and {size_text(free)} are free at {plan.folder}: choose "
        "another --results, or keep less (--keep nothing, --keep predictions)"
    )


def free_space(folder: Path) -> int:
    """Bytes that are free where a folder lies, or will lie."""
    there = next(parent for parent in (folder.absolute(), *folder.absolute().parents) if parent.exists())
    return shutil.disk_usage(there).free
