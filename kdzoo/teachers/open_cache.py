"""Opening the cache of a teacher: what its rows stand for, which outputs fit, and where it lies."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import torch

from kdzoo.contract.needs import ALWAYS_CACHED, PER_SAMPLE, Need, Pass
from kdzoo.contract.shapes import Shapes
from kdzoo.data.epoch import WHOLE, Shard
from kdzoo.data.loader import fetch_once
from kdzoo.data.policy import policy_versions
from kdzoo.data.split import Splits
from kdzoo.data.views import evaluation_view, has_numbered_views, view_count
from kdzoo.models.network import Network
from kdzoo.models.placement import Placement
from kdzoo.runs.atomic import StoreError
from kdzoo.runs.recipe import Recipe
from kdzoo.teachers.answers import block_size, forward_block
from kdzoo.teachers.cache import TeacherCache
from kdzoo.teachers.code import CODE_DIGEST
from kdzoo.teachers.columns import EXACT, Column
from kdzoo.teachers.disk import folder_of, free_bytes, make_room, mark_opened, size_text


def open_teacher_cache(
    network: Network,
    name: str,
    identity: str,
    need: Need,
    passes: Pass,
    splits: Splits,
    recipe: Recipe,
    seed: int,
    execution: Placement,
    shard: Shard = WHOLE,
) -> TeacherCache | str | None:
    """The cache of what is read (`need`) of a network; a reason (str) why there is none, or None where none is wanted.

    passes: all that may be read of it, in the order in which the cache numbers them. shard: the part of every batch whose rows this
    process reads and writes; others of a run write the rest into the same cache.
    """
    if execution.options.teacher_cache == 0 or not need & PER_SAMPLE:
        return None
    if shard != WHOLE and recipe.mixes:
        return "the teacher cache holds no answers for mixed images where several processes train a run: a block is no whole batch"
    block = block_size(splits, recipe, shard)
    samples, views = cache_rows(splits, recipe, passes)
    about: dict[str, Any] = {
        "teacher": identity,
        "code": CODE_DIGEST,
        "data": splits.description,
        "augment": recipe.augment.model_dump(mode="json"),
        "precision": recipe.precision,
        "block": block,
        **execution.arithmetic,
    }
    if not has_numbered_views(recipe):
        about |= {"seed": seed, "epochs": recipe.drawn_epochs, "passes": [str(which.name) for which in passes]}
    if recipe.augment.auto_augment is not None:
        about |= policy_versions()
    if recipe.mixes:
        about |= {"mixing": [recipe.mixup, recipe.cutmix, recipe.mix_prob], "numpy": np.__version__}  # which draws the shares
        if Pass.PARTNER in passes:  # what is mixed with what then depends on the labels
            about["labels"] = hashlib.sha256(splits.train.targets.numpy().tobytes()).hexdigest()
    images = evaluation_view(fetch_once(splits.train.images, torch.arange(block), execution.device), recipe.augment)
    outputs = forward_block(network, need | ALWAYS_CACHED, images, block, recipe)
    return open_cache(
        about,
        name,
        Column.of(outputs, need | ALWAYS_CACHED),
        need,
        samples=samples,
        views=views,
        block=block,
        device=execution.device,
        limit=execution.options.teacher_cache,
    )


def cache_rows(splits: Splits, recipe: Recipe, passes: Pass) -> tuple[int, int]:
    """How many samples a cache has rows of, and how many rows it has of each: views, or epochs and passes where views are endless."""
    views = view_count(recipe.augment) if has_numbered_views(recipe) else None
    return len(splits.train.targets), recipe.drawn_epochs * len(passes) if views is None else views


def outputs_beyond_cache(need: Need, shapes: Shapes, splits: Splits, recipe: Recipe, passes: Pass, execution: Placement) -> Need:
    """Those of the outputs that are read (`need`) which are too large for the cache, so that the network is run in every step."""
    samples, views = cache_rows(splits, recipe, passes)
    size = samples * views * sum(column.row_bytes for column in Column.expected(shapes, need))
    limit = execution.options.teacher_cache
    free = free_bytes(folder_of({}, "any"), execution.device) if limit is None else limit
    return need & PER_SAMPLE & ~ALWAYS_CACHED if size > free else Need.NOTHING


def open_cache(
    about: Mapping[str, Any],
    name: str,
    columns: Iterable[Column],
    read: Need,
    *,
    samples: int,
    views: int,
    block: int,
    device: torch.device,
    limit: int | None,
) -> TeacherCache | str:
    """The cache that `about` describes, of the teacher called `name`; a reason (str) why there is none.

    columns: what the teacher gives of `read` and of what is always kept. All that is read is kept where it fits into `limit`
    bytes (None: a share of what is free) with every row written; else, since what is missing takes a forward in every step anyway,
    logits and embedding alone, and a note says so.
    """
    folder = folder_of(about, name)
    rows, free = samples * views, free_bytes(folder, device) if limit is None else limit
    kept_columns, note = _choose_columns(list(columns), read, rows, free)
    if not kept_columns:
        return note
    try:
        make_room(folder, free)
        notes = mark_opened(folder, about)
        cache = TeacherCache(folder, kept_columns, samples=samples, views=views, block=block, device=device)
        cache.notes += [note] if note else []
        cache.notes += notes + mark_opened(folder, about)  # again, where another process has removed the first meanwhile
        return cache
    except (OSError, StoreError) as error:
        return f"the teacher cache cannot be kept below {folder.parent}: {error}"


def _choose_columns(columns: list[Column], read: Need, rows: int, free: int) -> tuple[list[Column], str]:
    """The columns that a cache of so many rows keeps within `free` bytes, and a note on those that it does not keep."""
    inexact = [c for c in columns if c.dtype not in EXACT]
    exact = [c for c in columns if c not in inexact]
    size = rows * sum(c.row_bytes for c in columns if c.need in read)
    why = ""
    if rounded := [f"{c.name} ({c.dtype})" for c in inexact if c.need in read]:
        why = f"the teacher cache keeps float32, which would round its {', '.join(rounded)}"
    elif size > free:
        why = f"the teacher cache would take {size_text(size)}, more than {size_text(free)}; --teacher-cache SIZE allows more"
    first = [c for c in exact if c.need in (read & ALWAYS_CACHED if why else read)]
    fitting: list[Column] = []
    for column in [*first, *(c for c in exact if c.need in ALWAYS_CACHED and c not in first)]:
        if rows * sum(c.row_bytes for c in (*fitting, column)) <= free:
            fitting.append(column)
    kept_columns = [c for c in columns if c in fitting]
    if not why:
        return kept_columns, ""
    left_out = [c for c in columns if c.need in read and c not in kept_columns]
    if not kept_columns or any(c.need in ALWAYS_CACHED for c in left_out):
        return [], f"{why}; the teacher is run in every step"
    missing = " and ".join(dict.fromkeys(str(c.need.name).lower() for c in left_out))
    keeps = " and ".join(dict.fromkeys(str(c.need.name).lower() for c in kept_columns))
    return kept_columns, f"{why}: it keeps {keeps}, and the teacher is run in every step for methods that read its {missing}"
