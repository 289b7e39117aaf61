"""Which files of a folder are images of which class and part; what is skipped is counted, what may be missing is refused."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from kdzoo.data.class_names import name_key
from kdzoo.data.pixels import endings
from kdzoo.data.walk import Walk, first_of, may_be_image
from kdzoo.errors import InputError
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


def names_a_part(name: str) -> bool:
    """Whether a folder of this name is taken for the training, validation or test part of a data set."""
    return _PART.fullmatch(name) is not None


def list_images(folder: Path, *, skip_unreadable: bool = False) -> Listing:
    """The images below `folder`: of its parts, or of one folder per class.

    skip_unreadable: whether files that cannot be opened are left out instead of refused.

    Parts are folders of the usual names (ROLES) with class folders below. A folder that holds one folder alone, such as
    `seg_train/seg_train/CLASS`, is gone through. Raises InputError, with all of it, for layouts that may mean two
    things, classes that differ or are empty, and images that cannot be read.
    """
    walk = Walk(folder)
    notes: list[str] = []
    try:
        places = _parts(walk, folder, notes)
        classes, files = _files_of_parts(walk, places, notes)
    except InputError as error:
        raise InputError(*dict.fromkeys((*_problems_of_walk(walk, skip_unreadable), *error.problems))) from error
    if problems := _problems_of_walk(walk, skip_unreadable):
        more = [f"data: {folder}: {len(problems) - 10} more cannot be read"] if len(problems) > 10 else []
        raise InputError(*dict.fromkeys(problems[:10]), *more)
    return Listing(classes, files, places, (*notes, *walk.skipped.sentences()), walk.unreadable)


def list_without_classes(folder: Path, *, skip_unreadable: bool = False) -> Listing:
    """The images below `folder` in whatever sub-folders, as one part of one class; raises InputError where it has none.

    skip_unreadable: as of `list_images`.
    """
    walk = Walk(folder)
    paths = walk.images_below(folder)
    if problems := _problems_of_walk(walk, skip_unreadable):
        raise InputError(*problems)
    if not paths:
        raise InputError(f"data: {folder}: no image files")
    files = {"train": [(path, 0) for path in paths]}
    return Listing(("image",), files, {"train": folder}, tuple(walk.skipped.sentences()), walk.unreadable)


def _problems_of_walk(walk: Walk, skip_unreadable: bool) -> list[str]:
    files = [] if skip_unreadable else [f"data: {path}: cannot be read ({why})" for path, why in walk.unreadable.items()]
    return [*walk.problems, *files]


def role_of(name: str) -> str | None:
    """The part that a folder's name stands for, or None."""
    match = _PART.fullmatch(name)
    return next((role for role, names in ROLES.items() if match and match[1].lower() in names), None)


def _parts(walk: Walk, folder: Path, notes: list[str]) -> dict[str, Path]:
    """The folder of each part; the whole folder as `train` where it has none."""
    folders, files = walk.entries(folder)
    part_folders = [(role, below) for below in folders if (role := role_of(below.name)) is not None]
    bare = {below for _, below in part_folders if not _has_classes(walk, below)}
    if len(part_folders) == len(bare) == 1 and len(folders) > 1:
        notes.append(f"{part_folders[0][1].name}/ holds images and no class folders: it is read as a class, like the folders beside it")
        part_folders = []
    if not part_folders:
        inner = _only_folder(walk, folders, files)
        if inner is None:
            return {"train": folder}
        walk.note_loose(files)
        return _parts(walk, inner, notes)
    return _named_parts(walk, folder, part_folders, bare, folders, files, notes)


def _named_parts(
    walk: Walk,
    folder: Path,
    part_folders: Sequence[tuple[str, Path]],
    bare: set[Path],
    folders: Sequence[Path],
    files: Sequence[Path],
    notes: list[str],
) -> dict[str, Path]:
    by_role: dict[str, list[Path]] = {}
    for role, below in part_folders:
        by_role.setdefault(role, []).append(below)
    if twice := [paths for paths in by_role.values() if len(paths) > 1]:
        raise InputError(
            *[f"data: {folder}: {' and '.join(f'{p.name}/' for p in paths)} may both be the same part; keep one" for paths in twice]
        )
    parts = {role: paths[0] for role, paths in by_role.items()}
    for role in [role for role, below in parts.items() if below in bare and role != "train"]:
        count = len(Walk(folder).images_below(parts[role]))
        walk.skipped.things.append(f"{parts[role].name}/ ({number_of(count, 'image')} in no class folder)")
        del parts[role]
    if "train" not in parts or parts["train"] in bare or len(parts) == 1:
        names = ", ".join(f"{below.name}/" for _, below in part_folders)
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


def _files_of_parts(walk: Walk, places: dict[str, Path], notes: list[str]) -> tuple[tuple[str, ...], dict[str, list[tuple[str, int]]]]:
    """The classes, by the names of the train part, and the files of every part."""
    classes = tuple(below.name for below in _class_folders(walk, places["train"]))
    unnamed = [name for name in classes if not name.isprintable()]
    problems = [f"data: {places['train']}: a class's name has characters that cannot be printed: {name!r}" for name in unnamed]
    files: dict[str, list[tuple[str, int]]] = {}
    for part, place in places.items():
        folders = _class_folders(walk, place)
        walk.note_loose(walk.entries(place)[1])
        key_of = _key(classes, [below.name for below in folders])
        number_by_key = {key_of(name): number for number, name in enumerate(classes)}
        name_by_key = {key_of(name): name for name in classes}
        by_key = {key_of(below.name): below for below in folders}
        if differ := sorted(
            {**name_by_key, **{key: below.name for key, below in by_key.items()}}[key] for key in set(by_key) ^ set(number_by_key)
        ):
            problems.append(f"data: {place}: its classes differ from those of the train part: {', '.join(differ)}")
            continue
        renames = [
            f"{below.name} as {classes[number_by_key[key]]}" for key, below in by_key.items() if below.name != classes[number_by_key[key]]
        ]
        if renames:
            notes.append(f"classes of {place.name}/ are taken by name: {first_of(renames)}")
        files[part] = []
        for key, below in by_key.items():
            if not (paths := walk.images_below(below)):
                problems.append(f"data: {below}: no image files")
            files[part] += [(path, number_by_key[key]) for path in paths]
    if problems:
        raise InputError(*problems)
    return classes, files


def _class_folders(walk: Walk, folder: Path) -> list[Path]:
    folders, files = walk.entries(folder)
    if len(folders) < 2:
        names = [below.name for below in folders]
        images = sum(map(may_be_image, files))
        beside = f"; {number_of(images, 'image')} right in it: put those of each class into a folder of their own" if images else ""
        raise InputError(f"data: {folder}: expected one sub-folder for each of two or more classes, found {names or 'none'}{beside}")
    return folders


def _key(classes: Sequence[str], names: Sequence[str]) -> Callable[[str], str]:
    """What class names are matched by: themselves, or what is left of them where another way of writing them is meant."""
    return str if set(names) <= set(classes) else name_key(names, classes)
