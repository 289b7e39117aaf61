"""The teacher cache: what a frozen teacher says of (sample, view), computed once and kept across runs, seeds and sessions.

A cache is a folder of flat files: for each thing that is read (logits, embedding, a stage) a column of values, with a row
for each (sample, view), and a column of seals, which say of every row of that column whether it was written and what.
Rows are written by whoever computes them first, and every process that writes one writes the same bits: the teacher is
only ever asked in blocks of one fixed size, so its answer depends on nothing but the sample and its view. Values are on
disk before their seals are, and a row is read only where its seal fits.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
import secrets
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import FileLock
from numpy.typing import NDArray
from torch import Tensor

from kdzoo.contract.needs import PER_SAMPLE, Need
from kdzoo.contract.outputs import Outputs
from kdzoo.files import plain_status
from kdzoo.runs.seals import OWNER, Damaged, read_tensors, write_tensors
from kdzoo.runs.spec import canonical_json
from kdzoo.runs.store import StoreError, cache_folder, set_aside, write_json

AUTO_SHARE = 0.25
"""the share of the free memory, and of the free disk, that a cache may take unless a size is given"""

TOLERANCE = 1e-3
"""a cache whose values stand further from the living teacher's, relative to their largest, is another teacher's"""

UNSAFE = re.compile(r"[^\w.+-]")
"""what a folder's name had better not have"""

EXACT = (torch.float32, torch.bfloat16, torch.float16)
"""what a float32 holds to the last bit"""

SEAL_BYTES = 8
SEAL_AT_ONCE = 1 << 18
"""bytes of rows that are sealed or checked at a time: they stay in a processor's cache"""
COPY_BYTES = 1 << 26
"""bytes of rows that are copied to or from an accelerator at a time"""

REMOVED = ".removed"
"""ends the name of a cache that is on its way out: nobody finds half of one under its own name"""


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
        """What a row takes on disk, with its seal."""
        return 4 * math.prod(self.shape) + SEAL_BYTES

    @staticmethod
    def of(given: Outputs, need: Need) -> tuple[Column, ...]:
        """The columns of a forward that gave `need`; none for what the network has not got."""
        found = []
        for kind in PER_SAMPLE:
            value = given.get(kind) if kind in need else None
            numbered = [(None, value)] if isinstance(value, Tensor) else list(enumerate(value or ()))
            found += [Column(kind, number, tuple(tensor.shape[1:]), tensor.dtype) for number, tensor in numbered]
        return tuple(found)

    def taken(self, given: Outputs) -> Tensor:
        value = given.get(self.need)
        tensor: Tensor = value if self.number is None else value[self.number]
        return tensor


@dataclass(frozen=True)
class Seal:
    """Tells what was written to a row of a column, by one number: multilinear hashing (Carter and Wegman 1979).

    seal(row, x) = salt + place * row + sum_i weights_i x_i modulo 2^64, over the row's 32-bit words x. Weights are odd, so
    one flipped bit always changes it; any other change goes unseen once in 2^32. All constants are drawn from the column
    and its owner, so that a row of another column, cache or place does not fit. 0 is the seal of a row that nobody wrote.
    """

    salt: np.int64
    place: np.int64
    weights: NDArray[np.int64]

    @staticmethod
    def of(column: Column, owner: str) -> Seal:
        words = math.prod(column.shape)
        stream = hashlib.shake_128(f"{owner} {column.name} {column.shape} {column.dtype}".encode())
        drawn = np.frombuffer(stream.digest(8 * (words + 2)), dtype=np.int64) | 1
        return Seal(drawn[0], drawn[1], drawn[2:])

    def take(self, rows: Tensor, values: Tensor) -> Tensor:
        """The seals (B,) int64 of rows (B,) with these values, (B, ...) float32 on the CPU."""
        words = values.reshape(len(rows), -1).view(torch.int32).numpy()
        return torch.from_numpy(np.einsum("ij,j->i", words, self.weights) + self.place * rows.numpy() + self.salt)


class TeacherCache:
    """Rows of float32 for `samples` x `views`, on disk and, on an accelerator, in its memory as well.

    Row `view * samples + sample` is what was said of a sample's view. `have` flags the rows that this process may read:
    those that it has written itself, and those that it has taken over from disk, where all columns knew them and every
    seal did fit. `notes` are what there is to tell of damage and loss.
    """

    def __init__(self, folder: Path, columns: Sequence[Column], *, samples: int, views: int, block: int, device: torch.device) -> None:
        self.folder = folder
        self.columns = tuple(columns)
        self.samples = samples
        self.views = views
        self.block = block
        self.device = device
        self.notes: list[str] = []
        rows = samples * views
        self._seals = {c.name: Seal.of(c, folder.name) for c in columns}
        self._maps = {c.name: self._mapped(f"{c.name}.f32", np.float32, (rows, *c.shape)) for c in columns}
        self._files = {name: torch.from_numpy(values) for name, values in self._maps.items()}
        self._marks = {c.name: torch.from_numpy(self._mapped(f"{c.name}.seal", np.int64, (rows,))) for c in columns}
        # On a CPU the mapped file is the memory: all processes of this machine share its pages.
        self._values = self._files if device.type == "cpu" else {n: torch.zeros_like(v, device=device) for n, v in self._files.items()}
        self._inodes = self._find()
        self.have = torch.zeros(rows, dtype=torch.bool)
        self._fresh: list[Tensor] = []
        self.lookups = 0
        self.hits = 0
        self.damaged = 0
        self.checked = False
        self._told_damaged = 0
        self._told_loss = False

    def _mapped(self, name: str, dtype: type[np.generic], shape: tuple[int, ...]) -> Any:
        values, problem = _mapped(self.folder / name, np.dtype(dtype), shape)
        if problem is not None:
            self.notes.append(f"the teacher cache: {name} {problem}; its rows are computed again")
        return values

    @property
    def bytes(self) -> int:
        return self.samples * self.views * sum(column.row_bytes for column in self.columns)

    @property
    def need(self) -> Need:
        """What its columns hold."""
        return Need(sum({column.need.value for column in self.columns}))

    def rows(self, samples: Tensor, views: Tensor | int) -> Tensor:
        return views * self.samples + samples

    def take_over(self, rows: Tensor) -> None:
        """Take note of which of these rows are on disk as they were written; what is damaged stays unknown, and is counted."""
        rows = torch.from_numpy(np.unique(rows[~self.have[rows]].numpy()))
        for marks in self._marks.values():
            rows = rows[marks[rows] != 0]
        if not len(rows):
            return
        fits = torch.ones(len(rows), dtype=torch.bool)
        for column in self.columns:
            fits &= self._sealed(column, rows) == self._marks[column.name][rows]
        self.damaged += int((~fits).sum())
        whole = rows[fits]
        if self._values is not self._files:
            for column in self.columns:
                for piece in torch.split(whole, _at_once(column, COPY_BYTES)):
                    self._values[column.name][piece.to(self.device)] = self._files[column.name][piece].to(self.device)
        self.have[whole] = True

    def _sealed(self, column: Column, rows: Tensor) -> Tensor:
        """The seals (B,) of what stands on disk at rows (B,)."""
        values, seal = self._files[column.name], self._seals[column.name]
        return torch.cat([seal.take(piece, values[piece]) for piece in torch.split(rows, _at_once(column, SEAL_AT_ONCE))])

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
        """Put what this process has computed on disk, and then say to the others that it is known.

        All goes through the mapped files, never through their names, below which another cache may lie by now: one that
        was removed while it was open is good for this process, and for those that had it open, until they end.
        """
        if not self._fresh:
            return
        rows = torch.cat(self._fresh)
        self._fresh.clear()
        if self._values is not self._files:
            for column in self.columns:
                for piece in torch.split(rows, _at_once(column, COPY_BYTES)):
                    self._files[column.name][piece] = self._values[column.name][piece.to(self.device)].cpu()
        try:
            for values in self._maps.values():
                values.flush()
        except OSError as error:
            self.notes.append(f"the teacher cache: {_count(len(rows))} cannot be put on disk ({error.strerror})")
            return
        for column in self.columns:
            self._marks[column.name][rows] = self._sealed(column, rows)
        if not self.removed:
            _touch(self.folder)

    @property
    def removed(self) -> bool:
        """Whether its files are gone, or others lie in their place."""
        found = self._find()
        return None in found or found != self._inodes

    def _find(self) -> list[int | None]:
        """The inodes below the names of its files, which no other file gets while these are mapped."""
        files = [self.folder / f"{column.name}.{kind}" for column in self.columns for kind in ("f32", "seal")]
        return [None if (found := plain_status(file)) is None else found.st_ino for file in files]

    def tell(self) -> list[str]:
        """What there is to tell since the last time: damage as soon as it is met, and more of it once, when all is done."""
        if self.damaged and not self._told_damaged:
            self._told_damaged = self.damaged
            self.notes.append(f"the teacher cache: damaged, and computed again: {_count(self.damaged)}")
        if not self._told_loss and self.removed:
            self._told_loss = True
            self.notes.append("the teacher cache: removed from disk while in use; training continues without keeping new rows")
        told, self.notes = self.notes, []
        return told

    def tell_all(self) -> list[str]:
        """The last that there is to tell."""
        told, more = self.tell(), self.damaged - self._told_damaged
        self._told_damaged = self.damaged
        return told + ([f"the teacher cache: damaged, and computed again, since then: {_count(more)}"] if more else [])

    def forget(self) -> None:
        """Remove it from disk, so that the next one starts anew."""
        self._told_loss = True
        _remove(self.folder)

    def report(self) -> dict[str, Any]:
        """How many answers were asked for, how many of them were remembered, and the bytes that are reserved."""
        return {"lookups": self.lookups, "hits": self.hits, "bytes": self.bytes}


def _count(rows: int) -> str:
    return "1 row" if rows == 1 else f"{rows:,} rows"


def _at_once(column: Column, limit: int) -> int:
    """How many rows of a column are handled at a time within `limit` bytes."""
    return max(1, limit // column.row_bytes)


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
    """The cache of all that `about` says of the teacher called `name`, or the reason in words why there is none.

    columns: what the teacher gives of `read` and of what is always kept; those that nobody reads are left out where they
    do not fit into `limit` bytes (None: a share of what is free).
    """
    folder = _folder(about, name)
    columns = list(columns)
    inexact = [c for c in columns if c.dtype not in EXACT]
    if coarse := [f"{c.name} ({c.dtype})" for c in inexact if c.need in read]:
        return f"the teacher cache keeps float32, which would round its {', '.join(coarse)}; the teacher is run in every step"
    columns = [c for c in columns if c not in inexact]
    rows = samples * views
    wanted = [c for c in columns if c.need in read]
    free = _free(folder, device) if limit is None else limit
    needed = rows * sum(c.row_bytes for c in wanted)
    if needed > free:
        return f"the teacher cache would take {_size(needed)}, more than {_size(free)}; --teacher-cache SIZE allows more"
    for column in (c for c in columns if c not in wanted):
        if needed + rows * column.row_bytes <= free:
            wanted.append(column)
            needed += rows * column.row_bytes
    wanted = [c for c in columns if c in wanted]
    try:
        _make_room(folder, free)
        notes = _opened(folder, about)
        cache = TeacherCache(folder, wanted, samples=samples, views=views, block=block, device=device)
        cache.notes += notes + _opened(folder, about)  # again, where another process has removed the first meanwhile
        return cache
    except (OSError, StoreError) as error:
        return f"the teacher cache cannot be kept below {folder.parent}: {error}"


@dataclass(frozen=True)
class Predictions:
    """What a teacher says of whole parts of the data, by part, and in `notes` what there is to tell of how it was had."""

    by_part: Mapping[str, Tensor]
    notes: tuple[str, ...] = ()


def predictions(about: Mapping[str, Any], name: str, compute: Callable[[], dict[str, Tensor]]) -> Predictions:
    """What the teacher called `name` says of whole parts of the data, computed where it is not kept yet.

    A file that is damaged, or another teacher's, is renamed and computed again; one that cannot be written is not kept.
    """
    folder, owner = _folder(about, name), _digest(about)
    file = folder / "predictions.safetensors"
    notes: list[str] = []
    try:
        if _set_aside_unless_file(file):
            raise Damaged(f"{file}: is not a file")
        by_part, _ = read_tensors(file, owner)
        _touch(folder)
        return Predictions(by_part)
    except FileNotFoundError:
        pass
    except Damaged as error:
        notes.append(f"the teacher's predictions are computed again: {error}")
    by_part = compute()
    try:
        if file.exists():
            set_aside(file)
        notes += _opened(folder, about)
        write_tensors(file, by_part, {OWNER: owner})
    except (OSError, StoreError) as error:
        notes.append(f"the teacher's predictions cannot be kept: {error}")
    return Predictions(by_part, tuple(notes))


def _digest(about: Mapping[str, Any]) -> str:
    return hashlib.sha256(canonical_json(about).encode()).hexdigest()


def _folder(about: Mapping[str, Any], name: str) -> Path:
    """Where the cache of all that `about` says lies."""
    return cache_folder() / "teacher-cache" / f"{UNSAFE.sub('_', name)}-{_digest(about)[:16]}"


def _opened(folder: Path, about: Mapping[str, Any]) -> list[str]:
    """Say what a cache stands for, and that it has just been opened; in words what was wrong with what was said before."""
    file, notes = folder / "about.json", []
    odd = _set_aside_unless_file(file)
    if file.exists() and _says(file) != json.loads(canonical_json(about)):
        odd = True
        set_aside(file)
    if odd:
        notes.append(f"the teacher cache: {file} was damaged and is written again")
    if not file.exists():
        write_json(file, about)
    _touch(folder)
    return notes


def _says(file: Path) -> Any:
    """What a JSON file says; None for one that is none."""
    try:
        return json.loads(file.read_bytes())
    except (ValueError, RecursionError):
        return None


def _touch(folder: Path) -> None:
    """Say that a cache is in use, unless another process has just removed it."""
    with suppress(FileNotFoundError):
        os.utime(folder / "about.json")


def _set_aside_unless_file(path: Path) -> bool:
    """Rename what is not a plain file (a folder, a pipe, a link) and would be read or written as one; whether there was any."""
    other = os.path.lexists(path) and plain_status(path) is None
    if other:
        set_aside(path)
    return other


def _mapped(path: Path, dtype: np.dtype[Any], shape: tuple[int, ...]) -> tuple[Any, str | None]:
    """A file of zeros mapped into memory, made whole where it is not there, and in words what was wrong with the one that was.

    Its disk space is taken at once, so that a full disk is an error here and not a fault in the middle of a step.
    """
    size, problem = dtype.itemsize * math.prod(shape), None
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path.with_suffix(f"{path.suffix}.lock")):
        if _set_aside_unless_file(path):
            problem = "was damaged (not a file)"
        elif path.exists() and (length := path.stat().st_size) != size:
            problem = f"was damaged ({length:,} bytes for {size:,})"
        if problem or not path.exists():
            _make_zeros(path, size)
        return np.memmap(path, dtype=dtype, mode="r+", shape=shape), problem


def _make_zeros(path: Path, size: int) -> None:
    """Put a file of `size` zero bytes in a place, whole or not at all."""
    part = path.with_suffix(f"{path.suffix}.part")
    try:
        with part.open("wb") as file:
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(file.fileno(), 0, size)
            else:  # macOS has no such call
                file.truncate(size)
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def _free(folder: Path, device: torch.device) -> int:
    """A share of what is free where a cache would lie."""
    there = next(parent for parent in folder.parents if parent.exists())
    spaces = [shutil.disk_usage(there).free + _taken(folder)]
    if device.type == "cuda":
        spaces.append(torch.cuda.mem_get_info(device)[0])
    spaces.append(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    return int(AUTO_SHARE * min(spaces))


def _taken(folder: Path) -> int:
    """The bytes of a cache's files; another process may be removing them."""
    return sum(status.st_size for file in folder.glob("*") if (status := plain_status(file)) is not None)


def _make_room(folder: Path, limit: int) -> None:
    """Remove the caches that were not in use for longest, until all but this one fit into `limit` bytes.

    One that another process has open stays usable for that process until it ends.
    """
    found = {path.parent: plain_status(path) for path in folder.parent.glob("*/about.json") if path.parent != folder}
    used = {other: 0.0 if known is None else known.st_mtime for other, known in found.items()}
    total = 0
    for other in sorted(used, key=lambda other: -used[other]):
        total += _taken(other)
        if total > limit or other.name.endswith(REMOVED):
            _remove(other)


def _remove(folder: Path) -> None:
    """Remove a cache, first from under its name: whoever opens one there begins a new one, and finds no half of the old."""
    gone = folder.with_name(f"{folder.name}-{secrets.token_hex(4)}{REMOVED}")
    try:
        folder.rename(gone)
    except FileNotFoundError:  # another process was faster
        return
    shutil.rmtree(gone, ignore_errors=True)


def _size(count: int) -> str:
    return f"{count / 1024**3:.1f} GB" if count >= 1024**3 else f"{count / 1024**2:.1f} MB"


Show = Callable[[Need, Tensor], Tensor]
"""the images (B, C, H, W) of a pass at positions (B,) of an epoch's order"""
Ask = Callable[[Tensor], Outputs]
"""one forward of the teacher on at most a block of images"""


@dataclass
class Page:
    """What the cache has to say in one epoch: the rows of every pass, by position in the epoch's order, from `begin` on.

    show: None where images depend on more than sample and view, so that only a batch's own images can fill its rows.
    A row that is missing is computed with the next missing ones of the epoch, so that every block is full.
    """

    teacher_cache: TeacherCache
    rows: Mapping[Need, Tensor]
    ask: Ask
    show: Show | None
    begin: int = 0
    missing: dict[Need, list[int]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for which, rows in self.rows.items():
            self.teacher_cache.take_over(rows[self.begin :])
            known = self.teacher_cache.have[rows[self.begin :]]
            self.missing[which] = (self.begin + (~known).nonzero().flatten()).tolist()[::-1]
            self.teacher_cache.lookups += len(known)
            self.teacher_cache.hits += int(known.sum())

    def outputs(self, start: int, seen: Mapping[Need, Tensor]) -> dict[Need, dict[Need, Any]]:
        """By pass, what the teacher says of the batch that begins at position `start`; `seen` are its images."""
        return {which: self._said(which, start, images) for which, images in seen.items() if which in self.rows}

    def _said(self, which: Need, start: int, images: Tensor) -> dict[Need, Any]:
        rows = self.rows[which][start : start + len(images)]
        missing, end = self.missing[which], start + len(images)
        if self.show is None and missing and missing[-1] < end:
            self.teacher_cache.write(rows, self.ask(images))
        elif self.show is not None:
            while missing and missing[-1] < end:
                positions = torch.tensor([missing.pop() for _ in range(min(self.teacher_cache.block, len(missing)))])
                own = torch.equal(positions, torch.arange(start, end))  # which have been fetched and augmented already
                self.teacher_cache.write(self.rows[which][positions], self.ask(images if own else self.show(which, positions)))
        while missing and missing[-1] < end:
            missing.pop()
        return self.teacher_cache.read(rows)

    def first_known(self) -> Tensor | None:
        """The positions of the first batch of the first pass of which anything is known; None where nothing is."""
        rows = self.rows[Need.NOTHING]
        known = self.teacher_cache.have[rows[self.begin :]].nonzero()
        if not len(known):
            return None
        start = (self.begin + int(known[0])) // self.teacher_cache.block * self.teacher_cache.block
        return torch.arange(start, min(start + self.teacher_cache.block, len(rows)))

    def differs(self, positions: Tensor, images: Tensor) -> float:
        """How far the cache stands from the living teacher on what it knows of a batch, relative to the largest value of a column."""
        rows = self.rows[Need.NOTHING][positions]
        known = self.teacher_cache.have[rows]
        remembered, alive = Outputs.of(self.teacher_cache.read(rows), owner="teacher cache"), self.ask(images)
        return max(_apart(column.taken(remembered)[known], column.taken(alive)[known]) for column in self.teacher_cache.columns)


def _apart(one: Tensor, other: Tensor) -> float:
    """The largest difference, relative to the largest value; infinite where one of the two is no number."""
    apart = float((one.float() - other.float()).abs().max() / other.float().abs().max().clamp(min=1e-6))
    return math.inf if math.isnan(apart) else apart
