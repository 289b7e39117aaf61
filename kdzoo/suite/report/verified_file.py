"""What was trained again of a bench, in `verified.json` in its folder, and which rows that proves. Free of torch."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from kdzoo.errors import InputError, problems_of
from kdzoo.files import read_file
from kdzoo.runs.atomic import read_json, write_json
from kdzoo.runs.store import RunFolder

NAME = "verified.json"

Verdict = Literal["agrees", "disagrees", "not comparable"]


class _Part(BaseModel):
    model_config = ConfigDict(extra="ignore", strict=True, frozen=True, allow_inf_nan=False)


class VerifiedRun(_Part):
    """A run that was drawn. result: the SHA-256 of its result.json, so that an edit later on is no verified run."""

    id: str
    result: str
    verdict: Verdict
    by: Literal["bits", "spread"] | None
    text: str


class VerifiedControl(_Part):
    """A control or a teacher of a table against its reference point."""

    what: str
    verdict: Verdict
    text: str


class Verification(_Part):
    """One call of `kdzoo verify`. faults: by id, what a run's own files contradict."""

    date: str
    kdzoo: str
    seed: int
    sample: Annotated[int, Field(ge=0)]
    of: Annotated[int, Field(ge=0)]
    environment: dict[str, Any]
    runs: list[VerifiedRun]
    controls: list[VerifiedControl]
    faults: dict[str, list[str]]

    @property
    def verdict(self) -> Verdict:
        """`disagrees` where anything does; `not comparable` where nothing could be compared."""
        verdicts = [*(run.verdict for run in self.runs), *(control.verdict for control in self.controls)]
        if self.faults or "disagrees" in verdicts:
            return "disagrees"
        return "agrees" if any(run.verdict == "agrees" for run in self.runs) else "not comparable"


def read_verifications(folder: Path) -> list[Verification]:
    """The verifications of a bench, in their order; none where the file is missing. Raises InputError for a damaged one."""
    file = folder / NAME
    if not file.exists():
        return []
    try:
        return [Verification.model_validate(entry) for entry in read_json(file)["verifications"]]
    except ValidationError as error:
        raise InputError(f"{file}: damaged ({'; '.join(problems_of(error))})") from error
    except (KeyError, TypeError) as error:
        raise InputError(f"{file}: damaged ({error})") from error


def write_verifications(folder: Path, verifications: Iterable[Verification]) -> None:
    """Replace a bench's file."""
    write_json(folder / NAME, {"verifications": [one.model_dump(mode="json") for one in verifications]})


def keep_verification(folder: Path, verification: Verification) -> None:
    """Add a verification to a bench's file; raises InputError where that is damaged."""
    write_verifications(folder, [*read_verifications(folder), verification])


def result_digest(folder: RunFolder) -> str:
    """The SHA-256 of a run's result.json; empty where it cannot be read."""
    try:
        return hashlib.sha256(read_file(folder.path / "result.json")).hexdigest()
    except OSError:
        return ""


def verdicts_of_runs(verifications: Iterable[Verification], digest_of: Mapping[str, str]) -> dict[str, Verdict]:
    """What the last verification that could compare a run said of the result that it has now, by id.

    digest_of: the digests of the present results.
    """
    found: dict[str, Verdict] = {}
    for verification in verifications:
        for run in verification.runs:
            if run.verdict != "not comparable" and run.result == digest_of.get(run.id):
                found[run.id] = run.verdict
    return found
