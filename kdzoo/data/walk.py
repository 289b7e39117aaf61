"""One way through a folder of images: its files, what is skipped and counted, and what cannot be read."""

from __future__ import annotations

import os
import re
import stat
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from kdzoo.data.pixels import endings, has_image_content
from kdzoo.files import is_plain
from kdzoo.text import number_of

HIDDEN = re.compile(r"\..*|__macosx|@eadir|thumbs\.db|desktop\.ini|\$recycle\.bin|#recycle|lost\+found|__pycache__", re.IGNORECASE)
"""names of what systems and programs leave in folders, which is nobody's data"""
SHOWN = 3
ENDINGS_SHOWN = 6

KINDS = ((stat.S_ISFIFO, "a FIFO"), (stat.S_ISSOCK, "a socket"), (stat.S_ISCHR, "a device"), (stat.S_ISBLK, "a device"))


@dataclass
class SkippedFiles:
    """What is skipped. hidden: files by the hidden name above them. others: files that are not images, by ending. things: by name."""

    hidden: Counter[str] = field(default_factory=Counter)
    others: Counter[str] = field(default_factory=Counter)
    beside: int = 0
    things: list[str] = field(default_factory=list)

    def sentences(self) -> list[str]:
        """What was skipped, in one sentence; none where nothing was."""
        parts = []
        if count := sum(self.hidden.values()):
            parts.append(f"{number_of(count, 'hidden file')} ({first_of(sorted(self.hidden))})")
        if count := sum(self.others.values()):
            kinds = [f"{number:,} {ending or 'without ending'}" for ending, number in self.others.most_common()]
            parts.append(f"{number_of(count, 'file')} of another kind ({first_of(kinds, ENDINGS_SHOWN)})")
        if self.beside:
            parts.append(f"{number_of(self.beside, 'image')} beside the class folders")
        parts += self.things[:SHOWN]
        if len(self.things) > SHOWN:
            parts.append(f"{len(self.things) - SHOWN} more")
        return [f"skipped: {', '.join(parts)}"] if parts else []


@dataclass
class Walk:
    """One way through a folder: what it skipped, and what it could not read.

    unreadable: files that are named like images and cannot be opened, with the reason.
    """

    root: Path
    skipped: SkippedFiles = field(default_factory=SkippedFiles)
    problems: list[str] = field(default_factory=list)
    unreadable: dict[str, str] = field(default_factory=dict)
    listings: dict[Path, tuple[list[Path], list[Path]]] = field(default_factory=dict)

    def entries(self, folder: Path) -> tuple[list[Path], list[Path]]:
        """The visible folders and files right below a folder, by name; everything else is noted, once."""
        if folder not in self.listings:
            self.listings[folder] = self._read(folder)
        return self.listings[folder]

    def _read(self, folder: Path) -> tuple[list[Path], list[Path]]:
        folders, files = [], []
        try:
            names = sorted(os.listdir(folder))
        except OSError as error:
            self.problems.append(f"data: {folder}: cannot be read ({error.strerror})")
            return [], []
        for path in (folder / name for name in names):
            mode = self._mode(path)
            if HIDDEN.fullmatch(path.name):
                if mode is not None:
                    self.skipped.hidden[path.name] += _count_files(path) if stat.S_ISDIR(mode) else 1
            elif mode is None:
                continue
            elif stat.S_ISDIR(mode):
                folders.append(path)
            elif is_plain(mode):
                files.append(path)
            else:
                kind = next((word for is_kind, word in KINDS if is_kind(mode)), "no file")
                self.skipped.things.append(f"{self._short(path)} ({kind})")
        return folders, files

    def _mode(self, path: Path) -> int | None:
        """What a path is, without opening it; None for a link that leads nowhere, which is noted."""
        try:
            return path.stat().st_mode
        except OSError as error:
            if HIDDEN.fullmatch(path.name):
                return None
            what = "a broken link" if path.is_symlink() and isinstance(error, FileNotFoundError) else error.strerror
            if may_be_image(path):
                self.unreadable[str(path)] = str(what)
            else:
                self.skipped.things.append(f"{self._short(path)} ({what})")
            return None

    def files_below(self, folder: Path) -> Iterator[Path]:
        """All visible files below a folder; links are followed, unless they lead back to a folder above them."""
        between = [path for path in folder.parents if path == self.root or self.root in path.parents]
        yield from self._below(folder, frozenset(map(_identity, between)))

    def _below(self, folder: Path, above: frozenset[tuple[int, int]]) -> Iterator[Path]:
        here = _identity(folder)
        if here in above:
            self.skipped.things.append(f"{self._short(folder)} (a link to a folder above it)")
            return
        folders, files = self.entries(folder)
        yield from files
        for below in folders:
            yield from self._below(below, above | {here})

    def images_below(self, folder: Path) -> list[str]:
        """The image files below a folder, sorted: by their ending, and where that says nothing by their content."""
        return sorted(str(path) for path in self.files_below(folder) if self._is_image(path))

    def _is_image(self, path: Path) -> bool:
        if not os.access(path, os.R_OK):
            if may_be_image(path):
                self.unreadable[str(path)] = "permission denied"
            else:
                self.skipped.things.append(f"{self._short(path)} (permission denied)")
            return False
        if path.suffix.lower() in endings() or has_image_content(path):
            return True
        self.skipped.others[path.suffix.lower()] += 1
        return False

    def note_loose(self, files: Sequence[Path]) -> None:
        """Count files that stand beside class folders and belong to no class."""
        for path in files:
            if path.suffix.lower() in endings():
                self.skipped.beside += 1
            else:
                self.skipped.others[path.suffix.lower()] += 1

    def _short(self, path: Path) -> str:
        return str(path.relative_to(self.root))


def _identity(folder: Path) -> tuple[int, int]:
    """What tells a folder from every other, by whatever link it is reached."""
    status = folder.stat()
    return status.st_dev, status.st_ino


def may_be_image(path: Path) -> bool:
    """Whether a name is an image's, or says nothing about what it is."""
    return not path.suffix or path.suffix.lower() in endings()


def _count_files(folder: Path) -> int:
    return sum(len(names) for _, _, names in os.walk(folder))


def first_of(texts: Sequence[str], show: int = SHOWN) -> str:
    """The first of some texts, and how many more there are."""
    return ", ".join(texts[:show]) + (f", {len(texts) - show} more" if len(texts) > show else "")
