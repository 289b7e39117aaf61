"""Under which licences that stands which a run is made from, as run.json records it, and which of them are permissive. Free of torch."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

import yaml

from kdzoo.files import read_text
from kdzoo.text import code_text, markdown_text, one_line

Part = Literal["teacher", "student's start", "data", "transfer data"]
PARTS: tuple[Part, ...] = get_args(Part)
Allowed = Literal["permissive", "unknown"]

UNKNOWN = "unknown"
OWN = "own"
"""of weights that began at random and were trained here: whoever trained them decides"""
SPDX = re.compile(r"SPDX-License-Identifier:[ \t]*(.+?)[ \t]*(?:\*/|-->)?[ \t]*$", re.MULTILINE)
FRONT_MATTER = re.compile(r"\ufeff?---\r?\n(.*?)^---\r?$", re.MULTILINE | re.DOTALL)
SEPARATOR = "; "
"""between the things in a file's metadata"""
AND = re.compile(r"\s+AND\s+")
SPELLINGS = {
    name.casefold(): name
    for name in (
        "Apache-2.0", "MIT", "ISC", "0BSD", "BSD-2-Clause", "BSD-3-Clause", "CC0-1.0",
        "CC-BY-3.0", "CC-BY-4.0", "CC-BY-SA-3.0", "CC-BY-SA-4.0", "CC-BY-NC-4.0", "CC-BY-NC-SA-4.0",
    )
}  # fmt: skip
"""SPDX's spelling of the names that model hubs write in lower case"""
PERMISSIVE = re.compile(r"apache-2\.0|mit|isc|0bsd|bsd(-\d-clause)?|cc0(-1\.0)?|cc-by(-\d\.\d)?", re.IGNORECASE)
PERMISSIVE_WORDS = "Apache-2.0, MIT, BSD, ISC, CC0 or CC-BY"


@dataclass(frozen=True)
class Licensed:
    """A thing that a run is made from, and its licence: an SPDX identifier, another's own name for it, `own` or `unknown`.

    part: what it is to the run. of: its name, such as `resnet50.a1_in1k`.
    """

    part: Part
    of: str
    licence: str

    @property
    def of_teacher(self) -> Licensed:
        """The same of a network that teaches: its start is the teacher."""
        return replace(self, part="teacher") if self.part == "student's start" else self

    def __str__(self) -> str:
        return f"{self.part} {self.of}: {self.licence}"


def spelled(licence: str | None) -> str:
    """A licence that somebody names in SPDX's spelling, where it is a usual one; `unknown` for none.

    `own` names none either: what is the user's own is known from the training alone.
    """
    text = one_line(licence or UNKNOWN).strip() or UNKNOWN
    return UNKNOWN if text.casefold() == OWN else SPELLINGS.get(text.casefold(), text)


def licence_in(path: Path) -> str | None:
    """The licence that a text file names in lines `SPDX-License-Identifier: NAME`; None where there is no such file or line.

    Several lines stand for all of their licences: `MIT AND CC-BY-NC-4.0`.
    """
    try:
        found = SPDX.findall(read_text(path))
    except OSError:
        return None
    return " AND ".join(dict.fromkeys(map(spelled, found))) if found else None


def licence_in_card(path: Path) -> str | None:
    """The licence that a model card (README.md) names in the YAML above its text; None where there is no such file or line.

    What model hubs call `other` has a name of its own (`license_name`), or is unknown.
    """
    try:
        front = FRONT_MATTER.match(read_text(path))
        card = yaml.safe_load(front[1]) if front else None
    except (OSError, yaml.YAMLError, ValueError, RecursionError):  # such as a day that no month has, and nesting without an end
        return None
    if not isinstance(card, dict) or not isinstance(name := card.get("license"), str):
        return None
    return spelled(str(card.get("license_name") or UNKNOWN) if name == "other" else name)


def record(things: Iterable[Licensed]) -> list[dict[str, str]]:
    """What run.json records under `about.licences`, each thing once."""
    return [asdict(thing) for thing in dict.fromkeys(things)]


def recorded(about: Mapping[str, Any]) -> tuple[Licensed, ...]:
    """What run.json says under `about.licences`; empty for a run that was planned before it was recorded."""
    return tuple(Licensed(one["part"], one["of"], one["licence"]) for one in about.get("licences", ()))


def refusals(things: Iterable[Licensed], allowed: Collection[Allowed]) -> list[str]:
    """Why things may not be used where only such licences are allowed, a sentence each; none where all are.

    What is the user's own always may.
    """
    if not allowed:
        return []
    found = []
    for thing in sorted(dict.fromkeys(things), key=lambda thing: PARTS.index(thing.part)):
        if thing.licence in (OWN, UNKNOWN):
            if thing.licence == UNKNOWN and UNKNOWN not in allowed:
                found.append(f"licence: {thing.part} {thing.of}: its licence is unknown; --licence permissive,unknown lets it pass")
        elif not is_permissive(thing.licence):
            found.append(f"licence: {thing.part} {thing.of} is under {thing.licence}, expected {PERMISSIVE_WORDS}")
    return found


def is_permissive(licence: str) -> bool:
    """Whether a licence, or every one of several joined by AND, is permissive; other expressions are not taken apart."""
    return all(PERMISSIVE.fullmatch(part) for part in AND.split(licence))


def of_all(licences: Iterable[str]) -> str:
    """What a thing stands under that is made from things of these licences, as far as that can be told.

    One that is not permissive decides, with all that are known; else one unknown thing makes the whole unknown.
    """
    found = dict.fromkeys(licence for licence in licences if licence != OWN)
    known = [licence for licence in found if licence != UNKNOWN]
    if all(map(is_permissive, known)) and (UNKNOWN in found or not known):
        return UNKNOWN
    return " AND ".join(known)


def parse_list(text: str) -> list[str]:
    """The licences in the words of several things (`list_text`)."""
    return [thing.rpartition(": ")[2] for thing in text.split(SEPARATOR)]


def list_text(things: Iterable[Licensed]) -> str:
    """Things with their licences, for the metadata of a file; `unknown` for none."""
    return SEPARATOR.join(map(str, things)) or UNKNOWN


def distilled_words(things: Sequence[Licensed], teacher: str) -> str:
    """`distilled with kdzoo from X under Y`: whose knowledge a student has, and under which licence that is."""
    licences = {thing.of: thing.licence for thing in things if thing.part == "teacher"} or {teacher: UNKNOWN}
    return "distilled with kdzoo from " + " and ".join(
        f"{code_text(of)}, which was trained here" if licence == OWN else f"{code_text(of)} under {_under(licence)}"
        for of, licence in licences.items()
    )


def _under(licence: str) -> str:
    return {UNKNOWN: "an unknown licence"}.get(licence, markdown_text(licence))
