"""A teacher's predictions of the validation and the test images, kept beside its cache."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from kdzoo.runs.atomic import StoreError, set_aside
from kdzoo.runs.seals import OWNER, DamagedFile, read_tensors, write_tensors
from kdzoo.teachers.disk import digest_of, folder_of, mark_opened, set_aside_unless_file, touch


@dataclass(frozen=True)
class Predictions:
    """A teacher's log-probabilities for whole parts of the data, by part, and notes on how they were obtained."""

    by_part: Mapping[str, Tensor]
    notes: tuple[str, ...] = ()


def predictions(about: Mapping[str, Any], name: str, compute: Callable[[], dict[str, Tensor]]) -> Predictions:
    """The predictions of the teacher called `name` for whole parts of the data, computed where they are not kept yet.

    A file that is damaged, or another teacher's, is renamed and computed again; one that cannot be written is not kept.
    """
    folder, owner = folder_of(about, name), digest_of(about)
    file = folder / "predictions.safetensors"
    notes: list[str] = []
    try:
        if set_aside_unless_file(file):
            raise DamagedFile(f"{file}: is not a file")
        by_part, _ = read_tensors(file, owner)
        touch(folder)
        return Predictions(by_part)
    except FileNotFoundError:
        pass
    except DamagedFile as error:
        notes.append(f"the teacher's predictions are computed again: {error}")
    by_part = compute()
    try:
        if file.exists():
            set_aside(file)
        notes += mark_opened(folder, about)
        write_tensors(file, by_part, {OWNER: owner})
    except (OSError, StoreError) as error:
        notes.append(f"the teacher's predictions cannot be kept: {error}")
    return Predictions(by_part, tuple(notes))
