"""The teacher's memo: what a frozen teacher says of (sample, view), computed once and kept across runs, seeds and sessions.

A memo is a folder of flat files, a column for each thing that is read (logits, embedding, a stage), a row for each
(sample, view), and a file of flags that says which rows are known. Rows are written by whoever computes them first, and
every process that writes one writes the same bits: the teacher is only ever asked in blocks of one fixed size, so its
answer depends on nothing but the sample and its view. Values are on disk before their flags are.
"""

from __future__ import annotations

import hashlib
import math
import os
import re
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import FileLock
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from kdzoo.signals import Need, Outputs
from kdzoo.spec import canonical_json
from kdzoo.store import StoreError, cache_folder, write_bytes, write_json

KEPT = (Need.LOGITS, Need.EMBEDDING, Need.STAGES, Need.PREACT, Need.DISTILLED, Need.MEMBERS)
"""what is a tensor, or a list of them, with a row for each sample"""

REMEMBERED = Need(sum(need.value for need in KEPT))

ALWAYS = Need.LOGITS | Need.EMBEDDING
"""kept even where nobody reads it yet, as far as the budget allows: the forward that gives the one gives the other"""

AUTO_SHARE = 0.25
"""the share of the free memory, and of the free disk, that a memo may take unless a size is given"""

TOLERANCE = 1e-3
"""a memo whose values stand further from the living teacher's, relative to their largest, is another teacher's"""

UNSAFE = re.compile(r"[^\w.+-]")
"""what a folder's name had better not have"""


@dataclass(frozen=True)
class Column:
    """One tensor of what the teacher gives: which, its number where there are several, one sample's shape, its dtype."""

    need: Need
    number: int | None
    shape: tuple[int, ...]
    dtype: torch.dtype

    @property
    def name(self) -> str:
        return str(self.need.name).lower() + ("" if self.number is None else f"-{self.number}")

    @property
    def row_bytes(self) -> int:
        return 4 * math.prod(self.shape)

    @staticmethod
    def of(given: Outputs, need: Need) -> tuple[Column, ...]:
        """The columns of a forward that gave `need`; none for what the network has not got."""
        found = []
        for kind in KEPT:
            value = given.get(kind) if kind in need else None
            numbered = [(None, value)] if isinstance(value, Tensor) else list(enumerate(value or ()))
            found += [Column(kind, number, tuple(tensor.shape[1:]), tensor.dtype) for number, tensor in numbered]
        return tuple(found)

    def taken(self, given: Outputs) -> Tensor:
        value = given.get(self.need)
        tensor: Tensor = value if self.number is None else value[self.number]
        return tensor


class Memo:
    """Rows of float32 for `samples` x `views`, on disk and, on an accelerator, in its memory as well.

    Row `view * samples + sample` is what was said of a sample's view. `have` flags the rows that this process may read.
    """

    def __init__(self, folder: Path, columns: Sequence[Column], *, samples: int, views: int, block: int, device: torch.device) -> None:
        self.folder = folder
        self.columns = tuple(columns)
        self.samples = samples
        self.views = views
        self.block = block
        self.device = device
        rows = samples * views
        self._flags = _mapped(folder / "known.u8", np.dtype(np.uint8), (rows,))
        self._files = {c.name: torch.from_numpy(_mapped(folder / f"{c.name}.f32", np.dtype(np.float32), (rows, *c.shape))) for c in columns}
        # On a CPU the mapped file is the memory: all processes of this machine share its pages.
        self._values = self._files if device.type == "cpu" else {n: torch.zeros_like(v, device=device) for n, v in self._files.items()}
        self.have = torch.zeros(rows, dtype=torch.bool)
        self._fresh: list[Tensor] = []
        self.lookups = 0
        self.hits = 0
        self.checked = False
        self.refresh()

    @property
    def bytes(self) -> int:
        return self.samples * self.views * sum(column.row_bytes for column in self.columns)

    @property
    def need(self) -> Need:
        """What its columns hold."""
        return Need(sum({column.need.value for column in self.columns}))

    def rows(self, samples: Tensor, views: Tensor | int) -> Tensor:
        return views * self.samples + samples

    def refresh(self) -> None:
        """Take note of the rows that other processes have written since."""
        known = torch.from_numpy(np.array(self._flags, dtype=bool))
        if self._values is not self._files:
            new = (known & ~self.have).nonzero().flatten()
            for name, values in self._values.items():
                values[new.to(self.device)] = self._files[name][new].to(self.device)
        self.have |= known

    def read(self, rows: Tensor) -> dict[Need, Any]:
        """What was said, by need, for rows (B,) that are known."""
        found: dict[Need, Any] = {}
        here = rows.to(self.device, non_blocking=True)
        for column in self.columns:
            value = self._values[column.name][here].to(column.dtype)
            if column.number is None:
                found[column.need] = value
            else:
                found.setdefault(column.need, []).append(value)
        return found

    def write(self, rows: Tensor, given: Outputs) -> None:
        """Remember what was said of rows (B,)."""
        here = rows.to(self.device, non_blocking=True)
        for column in self.columns:
            self._values[column.name][here] = column.taken(given).float()
        self.have[rows] = True
        self._fresh.append(rows)

    def flush(self) -> None:
        """Put what this process has computed on disk, and then say to the others that it is known."""
        if not self._fresh:
            return
        rows = torch.cat(self._fresh)
        self._fresh.clear()
        if self._values is not self._files:
            for name, values in self._values.items():
                self._files[name][rows] = values[rows.to(self.device)].cpu()
        for name in self._files:
            with (self.folder / f"{name}.f32").open("rb") as file:
                os.fsync(file.fileno())
        self._flags[rows.numpy()] = 1

    def forget(self) -> None:
        """Remove it from disk, so that the next one starts anew."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def report(self) -> dict[str, Any]:
        """How many answers were asked for, how many of them were remembered, and the bytes that are set aside."""
        return {"lookups": self.lookups, "hits": self.hits, "bytes": self.bytes}


def open_memo(
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
) -> Memo | str:
    """The memo of all that `about` says of the teacher called `name`, or the reason in words why there is none.

    columns: what the teacher gives of `read` and of what is always kept; those that nobody reads are left out where they
    do not fit into `limit` bytes (None: a share of what is free).
    """
    folder = _folder(about, name)
    columns = list(columns)
    rows = samples * views
    wanted = [c for c in columns if c.need in read]
    free = _free(folder, device) if limit is None else limit
    needed = rows * sum(c.row_bytes for c in wanted)
    if needed > free:
        return f"the teacher's memo would take {_size(needed)}, more than {_size(free)}; --teacher-memo SIZE allows more"
    for column in (c for c in columns if c not in wanted):
        if needed + rows * column.row_bytes <= free:
            wanted.append(column)
            needed += rows * column.row_bytes
    try:
        _opened(folder, about)
        _make_room(folder, free)
        return Memo(folder, [c for c in columns if c in wanted], samples=samples, views=views, block=block, device=device)
    except (OSError, StoreError) as error:
        return f"the teacher's memo cannot be kept below {folder.parent}: {error}"


def predictions(about: Mapping[str, Any], name: str, compute: Callable[[], dict[str, Tensor]]) -> dict[str, Tensor]:
    """What the teacher called `name` says of whole parts of the data, by part, computed where it is not kept yet.

    A file that cannot be read is computed anew; one that cannot be written is done without.
    """
    folder = _folder(about, name)
    file = folder / "predictions.safetensors"
    try:
        kept = load_file(file)
        os.utime(folder / "about.json")
    except (OSError, SafetensorError):
        kept = compute()
        with suppress(StoreError):
            _opened(folder, about)
            write_bytes(file, save(kept))
    return kept


def _folder(about: Mapping[str, Any], name: str) -> Path:
    """Where the memo of all that `about` says lies."""
    digest = hashlib.sha256(canonical_json(about).encode()).hexdigest()
    return cache_folder() / "memo" / f"{UNSAFE.sub('_', name)}-{digest[:16]}"


def _opened(folder: Path, about: Mapping[str, Any]) -> None:
    """Say what a memo stands for, and that it has just been opened."""
    if not (folder / "about.json").exists():
        write_json(folder / "about.json", about)
    os.utime(folder / "about.json")


def _mapped(path: Path, dtype: np.dtype[Any], shape: tuple[int, ...]) -> Any:
    """A file of zeros mapped into memory, made whole where it is not there.

    Its disk space is taken at once, so that a full disk is an error here and not a fault in the middle of a step.
    """
    with FileLock(path.with_suffix(".lock")):
        if not path.exists():
            part = path.with_suffix(".part")
            try:
                with part.open("wb") as file:
                    if hasattr(os, "posix_fallocate"):
                        os.posix_fallocate(file.fileno(), 0, dtype.itemsize * math.prod(shape))
                    else:  # macOS has no such call
                        file.truncate(dtype.itemsize * math.prod(shape))
                os.replace(part, path)
            finally:
                part.unlink(missing_ok=True)
    return np.memmap(path, dtype=dtype, mode="r+", shape=shape)


def _free(folder: Path, device: torch.device) -> int:
    """A share of what is free where a memo would lie."""
    there = next(parent for parent in folder.parents if parent.exists())
    spaces = [shutil.disk_usage(there).free + _taken(folder)]
    if device.type == "cuda":
        spaces.append(torch.cuda.mem_get_info(device)[0])
    spaces.append(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    return int(AUTO_SHARE * min(spaces))


def _taken(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.glob("*") if file.is_file())


def _make_room(folder: Path, limit: int) -> None:
    """Remove the memos that were not opened for longest, until all but this one fit into `limit` bytes.

    One that another process has open goes on for that process until it ends.
    """
    others = sorted(
        (path.parent for path in folder.parent.glob("*/about.json") if path.parent != folder),
        key=lambda other: -(other / "about.json").stat().st_mtime,
    )
    total = 0
    for other in others:
        total += _taken(other)
        if total > limit:
            shutil.rmtree(other, ignore_errors=True)


def _size(count: int) -> str:
    return f"{count / 1024**3:.1f} GB" if count >= 1024**3 else f"{count / 1024**2:.1f} MB"


Show = Callable[[Need, Tensor], Tensor]
"""the images (B, C, H, W) of a pass at positions (B,) of an epoch's order"""
Ask = Callable[[Tensor], Outputs]
"""one forward of the teacher on at most a block of images"""


@dataclass
class Page:
    """What the memo has to say in one epoch: the rows of every pass, by position in the epoch's order, from `begin` on.

    show: None where images depend on more than sample and view, so that only a batch's own images can fill its rows.
    A row that is missing is computed with the next missing ones of the epoch, so that every block is full.
    """

    memo: Memo
    rows: Mapping[Need, Tensor]
    ask: Ask
    show: Show | None
    begin: int = 0
    missing: dict[Need, list[int]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for which, rows in self.rows.items():
            known = self.memo.have[rows[self.begin :]]
            self.missing[which] = (self.begin + (~known).nonzero().flatten()).tolist()[::-1]
            self.memo.lookups += len(known)
            self.memo.hits += int(known.sum())

    def outputs(self, start: int, seen: Mapping[Need, Tensor]) -> dict[Need, dict[Need, Any]]:
        """By pass, what the teacher says of the batch that begins at position `start`; `seen` are its images."""
        return {which: self._said(which, start, images) for which, images in seen.items() if which in self.rows}

    def _said(self, which: Need, start: int, images: Tensor) -> dict[Need, Any]:
        rows = self.rows[which][start : start + len(images)]
        missing, end = self.missing[which], start + len(images)
        if self.show is None and missing and missing[-1] < end:
            self.memo.write(rows, self.ask(images))
        elif self.show is not None:
            while missing and missing[-1] < end:
                positions = torch.tensor([missing.pop() for _ in range(min(self.memo.block, len(missing)))])
                own = torch.equal(positions, torch.arange(start, end))  # which have been fetched and augmented already
                self.memo.write(self.rows[which][positions], self.ask(images if own else self.show(which, positions)))
        while missing and missing[-1] < end:
            missing.pop()
        return self.memo.read(rows)

    def differs(self, start: int, images: Tensor) -> float:
        """How far the memo stands from the living teacher on what it knows of a batch, relative to the largest value."""
        rows = self.rows[Need.NOTHING][start : start + len(images)]
        known = self.memo.have[rows]
        if not bool(known.any()):
            return 0.0
        remembered, alive = Outputs(self.memo.read(rows), owner="memo"), self.ask(images)
        return max(_apart(column.taken(remembered)[known], column.taken(alive)[known]) for column in self.memo.columns)


def _apart(one: Tensor, other: Tensor) -> float:
    """The largest difference, relative to the largest value."""
    return float((one - other).abs().max() / other.abs().max().clamp(min=1e-6))
