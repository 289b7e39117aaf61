"""The teacher cache: the outputs of a frozen teacher by (sample, view), computed once and kept across runs, seeds and sessions.

A cache is a folder of flat files: for each thing that is read (logits, embedding, a stage) a column of values, with a row
for each (sample, view), and a column of seals, which say of every row of that column whether it was written and what.
Rows are written by whoever computes them first, and every process that writes one writes the same bits: the teacher is
only ever run on blocks of one fixed size, so its output depends on nothing but the sample and its view. Values are on
disk before their seals are, and a row is read only where its seal fits. Which runs share a cache is decided in `open_cache`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from kdzoo.contract.needs import Need
from kdzoo.contract.outputs import Outputs
from kdzoo.data.copies import send
from kdzoo.files import plain_status
from kdzoo.teachers.columns import Column, Seal
from kdzoo.teachers.disk import MappedFile, remove, touch

SEAL_AT_ONCE = 1 << 18
"""bytes of rows that are sealed or checked at a time: they stay in a processor's cache"""
COPY_BYTES = 1 << 26
"""bytes of rows that are copied to or from an accelerator at a time"""


class TeacherCache:
    """Rows of float32 for `samples` x `views`, on disk and, on an accelerator, in its memory as well.

    Row `view * samples + sample` holds the outputs for a sample's view. `known` flags the rows that this process may read:
    those that it has written itself, and those that it has checked on disk, which all columns have and whose seals all
    fit. `notes` are messages about damage and loss.
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
        self._value_files = {c.name: self._open(f"{c.name}.f32", np.float32, (rows, *c.shape)) for c in columns}
        self._seal_files = {c.name: self._open(f"{c.name}.seal", np.int64, (rows,)) for c in columns}
        self._files = {name: torch.from_numpy(file.values) for name, file in self._value_files.items()}
        self._marks = {name: torch.from_numpy(file.values) for name, file in self._seal_files.items()}
        # On a CPU the mapped file is the memory: all processes of this machine share its pages.
        self._values = self._files if device.type == "cpu" else {n: torch.zeros_like(v, device=device) for n, v in self._files.items()}
        self.known = torch.zeros(rows, dtype=torch.bool)
        self._fresh: list[Tensor] = []
        self.lookups = 0
        self.hits = 0
        self.damaged = 0
        self.checked = False
        self.full = False
        self._noted_damage = 0
        self._noted_loss = False
        self._noted_full = False

    def _open(self, name: str, dtype: type[np.generic], shape: tuple[int, ...]) -> MappedFile:
        file = MappedFile(self.folder / name, np.dtype(dtype), shape)
        if file.problem is not None:
            self.notes.append(f"the teacher cache: {name} {file.problem}; its rows are computed again")
        return file

    @property
    def _mapped_files(self) -> list[MappedFile]:
        return [*self._value_files.values(), *self._seal_files.values()]

    @property
    def bytes(self) -> int:
        """The bytes that it would take with every row written."""
        return self.samples * self.views * sum(column.row_bytes for column in self.columns)

    @property
    def need(self) -> Need:
        """What its columns hold."""
        return Need(sum({column.need.value for column in self.columns}))

    def rows(self, samples: Tensor, views: Tensor | int) -> Tensor:
        return views * self.samples + samples

    def check_rows(self, rows: Tensor) -> None:
        """Find out which of these rows are on disk as they were written; damaged ones stay unknown, and are counted."""
        rows = torch.from_numpy(np.unique(rows[~self.known[rows]].numpy()))
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
                for piece in torch.split(whole, rows_at_once(column, COPY_BYTES)):
                    self._values[column.name][piece.to(self.device)] = self._files[column.name][piece].to(self.device)
        self.known[whole] = True

    def _sealed(self, column: Column, rows: Tensor) -> Tensor:
        """The seals (B,) of the values on disk at rows (B,)."""
        values, seal = self._files[column.name], self._seals[column.name]
        return torch.cat([seal.take(piece, values[piece]) for piece in torch.split(rows, rows_at_once(column, SEAL_AT_ONCE))])

    def read(self, rows: Tensor) -> dict[Need, Any]:
        """The outputs, by need, of rows (B,) that are known."""
        values: dict[Need, Any] = {}
        here = send(rows, self.device)
        for column in self.columns:
            value = self._values[column.name][here].to(column.dtype)
            if column.number is None:
                values[column.need] = value
            else:
                values.setdefault(column.need, []).append(value)
        return values

    def reserve(self, rows: Tensor) -> bool:
        """Take the disk space of rows (N,) that will be written; False, and a note, where the disk has none left for them."""
        ascending = np.unique(rows.numpy())
        self.full = False
        try:
            for file in self._mapped_files:
                file.reserve(ascending)
        except OSError as error:
            self.full = True
            if not self._noted_full:
                self.notes.append(f"the teacher cache: no room for new rows ({error.strerror}); the teacher is run for those it lacks")
            self._noted_full = True
        return not self.full

    def write(self, rows: Tensor, outputs: Outputs) -> None:
        """Remember a teacher's outputs for rows (B,), which have been reserved."""
        here = send(rows, self.device)
        for column in self.columns:
            self._values[column.name][here] = column.value(outputs).float()
        self.known[rows] = True
        self._fresh.append(rows)

    def flush(self) -> None:
        """Put what this process has computed on disk, and then mark it as known to all processes.

        All goes through the mapped files, never through their names, below which another cache may lie by now: one that
        was removed while it was open is good for this process, and for those that had it open, until they end.
        """
        if not self._fresh:
            return
        rows = torch.from_numpy(np.unique(torch.cat(self._fresh).numpy()))  # ascending: files are written from beginning to end
        self._fresh.clear()
        if self._values is not self._files:
            for column in self.columns:
                for piece in torch.split(rows, rows_at_once(column, COPY_BYTES)):
                    self._files[column.name][piece] = self._values[column.name][piece.to(self.device)].cpu()
        try:
            for file in self._value_files.values():
                file.flush()
        except OSError as error:
            self.notes.append(f"the teacher cache: {_count(len(rows))} cannot be put on disk ({error.strerror})")
            return
        for column in self.columns:
            self._marks[column.name][rows] = self._sealed(column, rows)
        if not self.removed:
            touch(self.folder)

    @property
    def removed(self) -> bool:
        """Whether its files were removed or replaced: an inode is not used again while its file is open."""
        files = [self.folder / f"{column.name}.{kind}" for kind in ("f32", "seal") for column in self.columns]
        statuses = [plain_status(file) for file in files]
        return any(s is None or s.st_ino != file.inode for s, file in zip(statuses, self._mapped_files, strict=True))

    def new_notes(self) -> list[str]:
        """The notes since the last call: damage as soon as it is met; what is met later is in `last_notes`."""
        if self.damaged and not self._noted_damage:
            self._noted_damage = self.damaged
            self.notes.append(f"the teacher cache: damaged, and computed again: {_count(self.damaged)}")
        if not self._noted_loss and self.removed:
            self._noted_loss = True
            self.notes.append("the teacher cache: removed from disk while in use; training continues without keeping new rows")
        notes, self.notes = self.notes, []
        return notes

    def last_notes(self) -> list[str]:
        """The notes since the last call, with all damage that was met after the first."""
        notes, more = self.new_notes(), self.damaged - self._noted_damage
        self._noted_damage = self.damaged
        return notes + ([f"the teacher cache: damaged, and computed again, since then: {_count(more)}"] if more else [])

    def delete(self) -> None:
        """Remove it from disk, so that the next one starts anew."""
        self._noted_loss = True
        remove(self.folder)

    def report(self) -> dict[str, Any]:
        """How many answers were asked for, how many of them were remembered, and the bytes of disk that are reserved."""
        return {"lookups": self.lookups, "hits": self.hits, "bytes": sum(file.disk_bytes for file in self._mapped_files)}


def _count(rows: int) -> str:
    return "1 row" if rows == 1 else f"{rows:,} rows"


def rows_at_once(column: Column, limit: int) -> int:
    """How many rows of a column are handled at a time within `limit` bytes."""
    return max(1, limit // column.row_bytes)
