"""What keeps a worker that was taken for dead from writing when it wakes: the generation of its claim. Free of torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from kdzoo.files import read_text
from kdzoo.runs.atomic import StoreError


class ClaimLost(StoreError):
    """Another worker has taken over what this one was working on."""


@dataclass(frozen=True)
class Fence:
    """A claim that may write as long as no later one exists.

    file: holds the mark of the latest claim. mark: this claim's own.
    """

    file: Path
    mark: str

    def check(self) -> None:
        """Raises ClaimLost where the latest claim is another one, or what was claimed is gone."""
        try:
            latest = read_text(self.file)
        except OSError:
            latest = ""
        if latest != self.mark:
            raise ClaimLost(f"{self.file.parent}: another worker has taken over this job, since this one showed no sign of life")
