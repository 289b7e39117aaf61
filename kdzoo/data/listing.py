"""Which files of a folder are images of which class and part; what is skipped is counted, what may be missing is refused."""

from __future__ import annotations

import os
import re
import stat
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from kdzoo.data.class_names import name_key
from kdzoo.data.pixels import endings, identified
from kdzoo.errors import InputError
from kdzoo.files import is_plain
from kdzoo.text import number_of

ROLES = {
    "train": ("train", "training"),
    "test": ("test", "testing"),
    "val": ("val", "valid", "validation", "validate", "eval", "evaluation", "dev"),
}
"""the names of the parts' folders, in any case, alone or as `seg_train`, `train_set`, `TrainingData`, `test-images`"""
_AROUND = "seg|segmentation|images?|imgs?|photos?|data|dataset"
_PART = re.compile(
    rf"(?:(?:{_AROUND})[ _.-]?)?({'|'.join(name for names in ROLES.values() for name in names)})(?:[ _.-]?(?:set|split|part|{_AROUND}))?",
    re.IGNORECASE,
)
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
        """What there is to say."""
        found = []
        if count := sum(self.hidden.values()):
            found.append(f"{number_of(count, 'hidden file')} ({_listed(sorted(self.hidden))})")
        if count := sum(self.others.values()):
            kinds = [f"{number:,} {ending or 'without ending'}" for ending, number in self.others.most_common()]
            found.append(f"{number_of(count, 'file')} of another kind ({_listed(kinds, ENDINGS_SHOWN)})")
        if self.beside:
            found.append(f"{number_of(self.beside, 'image')} beside the class folders")
        found += self.things[:SHOWN]
        if len(self.things) > SHOWN:
            found.append(f"{len(self.things) - SHOWN} more")
        return [f"skipped: {', '.join(found)}"] if found else []


@dataclass(frozen=True)
class Listing:
    """The image files of a folder.

    parts: path and class number of each, by part. places: the folder of each part. notes: how the folder was read.
    unreadable: the files that cannot be opened, with the reason; they are in no part.
    """

    classes: tuple[str, ...]
    parts: dict[str, list[tuple[str, int]]]
    places: dict[str, Path]
    notes: tuple[str, ...]
    unreadable: Mapping[str, str] = field(default_factory=dict)


@dataclass
class Walk:
    """One way through a folder: what it skipped, and what it could not read.

    unreadable: files that are named like images and cannot be opened, with the reason.
    """

    root: Path
    skipped: SkippedFiles = field(default_factory=SkippedFiles)
    problems: list[str] = field(default_factory=list)
    unreadable: dict[str, str] = field(default_factory=dict)
    known: dict[Path, tuple[list[Path], list[Path]]] = field(default_factory=dict)

    def entries(self, folder: Path) -> tuple[list[Path], list[Path]]:
        """The visible folders and files right below a folder, by name; everything else is noted, once."""
        if folder not in self.known:
            self.known[folder] = self._read(folder)
        return self.known[folder]

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
        if path.suffix.lower() in endings() or identified(path):
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
    known = folder.stat()
    return known.st_dev, known.st_ino


def may_be_image(path: Path) -> bool:
    """Whether a name is an image's, or says nothing about what it is."""
    return not path.suffix or path.suffix.lower() in endings()


def list_images(folder: Path, *, skip_unreadable: bool = False) -> Listing:
    """The images below `folder`: of its parts, or of one folder a class.

    skip_unreadable: whether files that cannot be opened are left out instead of refused.

    Parts are folders of the usual names (ROLES) with class folders below. A folder that holds one folder alone, such as
    `seg_train/seg_train/CLASS`, is gone through. Raises InputError, with all of it, for layouts that may mean two
    things, classes that differ or are empty, and images that cannot be read.
    """
    walk = Walk(folder)
    notes: list[str] = []
    try:
        places = _parts(walk, folder, notes)
        classes, listed = _listed_parts(walk, places, notes)
    except InputError as error:
        raise InputError(*dict.fromkeys((*_refused(walk, skip_unreadable), *error.problems))) from error
    if problems := _refused(walk, skip_unreadable):
        more = [f"data: {folder}: {len(problems) - 10} more cannot be read"] if len(problems) > 10 else []
        raise InputError(*dict.fromkeys(problems[:10]), *more)
    return Listing(classes, listed, places, (*notes, *walk.skipped.sentences()), walk.unreadable)


def _refused(walk: Walk, skip_unreadable: bool) -> list[str]:
    files = [] if skip_unreadable else [f"data: {path}: cannot be read ({why})" for path, why in walk.unreadable.items()]
    return [*walk.problems, *files]


def role_of(name: str) -> str | None:
    """The part that a folder's name stands for, or None."""
    found = _PART.fullmatch(name)
    return next((role for role, names in ROLES.items() if found and found[1].lower() in names), None)


def _parts(walk: Walk, folder: Path, notes: list[str]) -> dict[str, Path]:
    """The folder of each part; the whole folder as `train` where it has none."""
    folders, files = walk.entries(folder)
    named = [(role, below) for below in folders if (role := role_of(below.name)) is not None]
    bare = {below for _, below in named if not _has_classes(walk, below)}
    if len(named) == len(bare) == 1 and len(folders) > 1:
        notes.append(f"{named[0][1].name}/ holds images and no class folders: it is read as a class, like the folders beside it")
        named = []
    if not named:
        inner = _only_folder(walk, folders, files)
        if inner is None:
            return {"train": folder}
        walk.note_loose(files)
        return _parts(walk, inner, notes)
    return _named_parts(walk, folder, named, bare, folders, files, notes)


def _named_parts(
    walk: Walk,
    folder: Path,
    named: Sequence[tuple[str, Path]],
    bare: set[Path],
    folders: Sequence[Path],
    files: Sequence[Path],
    notes: list[str],
) -> dict[str, Path]:
    found: dict[str, list[Path]] = {}
    for role, below in named:
        found.setdefault(role, []).append(below)
    if twice := [paths for paths in found.values() if len(paths) > 1]:
        raise InputError(
            *[f"data: {folder}: {' and '.join(f'{p.name}/' for p in paths)} may both be the same part; keep one" for paths in twice]
        )
    parts = {role: paths[0] for role, paths in found.items()}
    for role in [role for role, below in parts.items() if below in bare and role != "train"]:
        count = len(Walk(folder).images_below(parts[role]))
        walk.skipped.things.append(f"{parts[role].name}/ ({number_of(count, 'image')} in no class folder)")
        del parts[role]
    if "train" not in parts or parts["train"] in bare or len(parts) == 1:
        names = ", ".join(f"{below.name}/" for _, below in named)
        raise InputError(
            f"data: {folder} has {names}{_bare(bare)}; expected parts such as train/CLASS/ and test/CLASS/ or val/CLASS/ (the final "
            "numbers need images that were never trained on), or class folders alone: a class of such a name needs another name"
        )
    if others := [below for below in folders if below not in parts.values() and below not in bare]:
        walk.skipped.things += [f"{below.name}/ (no part)" for below in others]
    walk.note_loose(files)
    if "test" not in parts:
        parts["test"] = parts.pop("val")
        notes.append(f"{parts['test'].name}/ serves as the test part; validation is drawn from {parts['train'].name}/")
    return {role: _inner(walk, below, notes) for role, below in parts.items()}


def _bare(bare: set[Path]) -> str:
    return f" ({', '.join(sorted(f'{below.name}/' for below in bare))} without two or more class folders)" if bare else ""


def _has_classes(walk: Walk, folder: Path) -> bool:
    """Whether a folder, or the only one in it, holds folders and not images themselves."""
    folders, files = walk.entries(folder)
    if any(path.suffix.lower() in endings() for path in files):
        return False
    return len(folders) > 1 or _only_folder(walk, folders, files) is not None or not (folders or files)


def _only_folder(walk: Walk, folders: Sequence[Path], files: Sequence[Path]) -> Path | None:
    """The only folder at a level without images, where several folders follow."""
    if len(folders) != 1 or any(path.suffix.lower() in endings() for path in files):
        return None
    below, _ = walk.entries(folders[0])
    return folders[0] if len(below) > 1 else None


def _inner(walk: Walk, folder: Path, notes: list[str]) -> Path:
    """The folder that holds a part's classes, where it is doubled."""
    folders, files = walk.entries(folder)
    inner = _only_folder(walk, folders, files)
    if inner is None:
        return folder
    walk.note_loose(files)
    return _inner(walk, inner, notes)


def _listed_parts(walk: Walk, places: dict[str, Path], notes: list[str]) -> tuple[tuple[str, ...], dict[str, list[tuple[str, int]]]]:
    """The classes, by the names of the train part, and the files of every part."""
    classes = tuple(below.name for below in _class_folders(walk, places["train"]))
    unnamed = [name for name in classes if not name.isprintable()]
    problems = [f"data: {places['train']}: a class's name has characters that cannot be printed: {name!r}" for name in unnamed]
    listed: dict[str, list[tuple[str, int]]] = {}
    for part, place in places.items():
        folders = _class_folders(walk, place)
        walk.note_loose(walk.entries(place)[1])
        key_of = _key(classes, [below.name for below in folders])
        known = {key_of(name): number for number, name in enumerate(classes)}
        names = {key_of(name): name for name in classes}
        theirs = {key_of(below.name): below for below in folders}
        if differ := sorted({**names, **{key: below.name for key, below in theirs.items()}}[key] for key in set(theirs) ^ set(known)):
            problems.append(f"data: {place}: its classes differ from those of the train part: {', '.join(differ)}")
            continue
        renamed = [f"{below.name} as {classes[known[key]]}" for key, below in theirs.items() if below.name != classes[known[key]]]
        if renamed:
            notes.append(f"classes of {place.name}/ are taken by name: {_listed(renamed)}")
        listed[part] = []
        for key, below in theirs.items():
            if not (paths := walk.images_below(below)):
                problems.append(f"data: {below}: no image files")
            listed[part] += [(path, known[key]) for path in paths]
    if problems:
        raise InputError(*problems)
    return classes, listed


def _class_folders(walk: Walk, folder: Path) -> list[Path]:
    folders, _ = walk.entries(folder)
    if len(folders) < 2:
        names = [below.name for below in folders]
        raise InputError(f"data: {folder}: expected one sub-folder for each of two or more classes, found {names or 'none'}")
    return folders


def _key(classes: Sequence[str], theirs: Sequence[str]) -> Callable[[str], str]:
    """What class names are matched by: themselves, or what is left of them where another way of writing them is meant."""
    return str if set(theirs) <= set(classes) else name_key(theirs, classes)


def _count_files(folder: Path) -> int:
    return sum(len(names) for _, _, names in os.walk(folder))


def _listed(texts: Sequence[str], show: int = SHOWN) -> str:
    return ", ".join(texts[:show]) + (f", {len(texts) - show} more" if len(texts) > show else "")
