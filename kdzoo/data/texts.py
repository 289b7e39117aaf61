"""Labelled texts: rows of a CSV file, or WordNet's glosses. A text is kept as its UTF-8 bytes; a network's tokeniser reads these."""

from __future__ import annotations

import csv
import hashlib
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kdzoo.data.canonical import Raw
from kdzoo.data.known import no_such_texts
from kdzoo.errors import InputError
from kdzoo.text import number_of

MOST_BYTES = 4096
"""of a text; the rest is cut off, in whole characters"""
PARTS = ("train", "test")
SUFFIXES = (".csv", ".tsv")
LEXICOGRAPHER_FILES = {
    4: "act",
    5: "animal",
    6: "artifact",
    7: "attribute",
    8: "body",
    9: "cognition",
    10: "communication",
    11: "event",
    13: "food",
    14: "group",
    15: "location",
    17: "object",
    18: "person",
    20: "plant",
    21: "possession",
    23: "quantity",
    26: "state",
    27: "substance",
    28: "time",
}
"""those of WordNet's 26 files of nouns that hold more than 1,000 glosses, by their numbers (lexnames(5WN))"""
GLOSSES_PER_TEST_TEXT = 40

Rows = tuple[list[str], list[str]]
"""texts, and the label of each"""


def read_texts(place: Path) -> Raw:
    """The texts of a CSV file with the columns `text` and `label` (or of a .tsv), or of a folder with train.csv and test.csv.

    Of a single file a fifth of each class, chosen by content, is the test part. A quotation mark in a .tsv is one of the text, which
    ends at a tab or at the end of its line. Raises InputError for a file that is not there, lacks a column or holds no text, and for
    a label with one text to learn.
    """
    if place.is_dir():
        files = {part: _file_of(place, part) for part in PARTS}
        rows = {part: _read_rows(file) for part, file in files.items()}
        _require_two(rows["train"][1], files["train"])  # one may be held out for validation
        notes = [note for part in PARTS for note in rows[part][2]]
        return _raw(rows["train"][:2], rows["test"][:2], (), notes)
    texts, labels, notes = _read_rows(place)
    _require_two(labels, place)  # one is tested on
    return _raw(*_divide(texts, labels, 5), (), notes)


def read_glosses(file: Path) -> Raw:
    """The glosses of WordNet's nouns (data.noun), of its 19 larger lexicographer files; one in 40 of each, by content, is tested on."""
    texts, labels = [], []
    with file.open(encoding="utf-8") as lines:
        for line in lines:
            entry, bar, gloss = line.partition(" | ")
            if bar and not line.startswith("  ") and (name := LEXICOGRAPHER_FILES.get(int(entry.split(" ", 2)[1]))):
                texts.append(gloss.strip())
                labels.append(name)
    if missing := set(LEXICOGRAPHER_FILES.values()) - set(labels):
        raise InputError(f"data: {file}: no gloss of {', '.join(sorted(missing))}; expected the data.noun of WordNet 3.0")
    return _raw(*_divide(texts, labels, GLOSSES_PER_TEST_TEXT), tuple(LEXICOGRAPHER_FILES.values()), [])


def as_rows(texts: Sequence[bytes]) -> NDArray[np.uint8]:
    """Texts as rows of bytes, (N, 1, W), filled up with zeros to the longest."""
    width = max(map(len, texts), default=0)
    return np.frombuffer(b"".join(text.ljust(width, b"\0") for text in texts), dtype=np.uint8).reshape(len(texts), 1, width)


def as_texts(rows: NDArray[np.uint8]) -> list[str]:
    """The texts in rows of bytes (N, W)."""
    return [row.tobytes().rstrip(b"\0").decode("utf-8", "replace") for row in rows]


def _raw(train: Rows, test: Rows, classes: tuple[str, ...], notes: list[str]) -> Raw:
    parts: list[tuple[NDArray[np.uint8], Any]] = []
    cut = 0
    rows = []
    for texts, _ in (train, test):
        whole = [text.encode() for text in texts]
        cut += sum(len(text) > MOST_BYTES for text in whole)
        rows.append([text[:MOST_BYTES].decode("utf-8", "ignore").encode() for text in whole])
    together = as_rows([*rows[0], *rows[1]])
    for (_, labels), place in ((train, slice(0, len(rows[0]))), (test, slice(len(rows[0]), None))):
        parts.append((together[place], labels))
    long = [f"cut off after {MOST_BYTES} bytes: {number_of(cut, 'text')}"] if cut else []
    return Raw(parts[0], parts[1], classes, (*notes, *long), of_text=True)


def _divide(texts: Sequence[str], labels: Sequence[str], one_in: int) -> tuple[Rows, Rows]:
    """Train and test: one text in so many of each class, at least one, by a digest of its content."""
    ranks = [hashlib.blake2b(b"test part" + text.encode(), digest_size=8).digest() for text in texts]
    chosen: set[int] = set()
    for name in sorted(set(labels)):
        members = sorted((i for i, label in enumerate(labels) if label == name), key=lambda i: ranks[i])
        chosen.update(members[: max(1, round(len(members) / one_in))])
    train, test = ([i for i in range(len(texts)) if (i in chosen) is tested] for tested in (False, True))
    return ([texts[i] for i in train], [labels[i] for i in train]), ([texts[i] for i in test], [labels[i] for i in test])


def _file_of(folder: Path, part: str) -> Path:
    for suffix in SUFFIXES:
        if (file := folder / f"{part}{suffix}").is_file():
            return file
    raise InputError(f"data: {folder}: no {part}.csv; expected train.csv and test.csv with the columns text and label")


def _read_rows(file: Path) -> tuple[list[str], list[str], list[str]]:
    """The texts and labels of a file, and notes on rows that were passed over and on what quotation marks may have done to others."""
    if not file.is_file():
        raise InputError(no_such_texts(file))
    tabs = file.suffix == ".tsv"
    try:
        with file.open(encoding="utf-8-sig", newline="") as lines:
            reader = csv.DictReader(lines, delimiter="\t", quoting=csv.QUOTE_NONE) if tabs else csv.DictReader(lines)
            if missing := [name for name in ("text", "label") if name not in (reader.fieldnames or ())]:
                got = ", ".join(reader.fieldnames or ()) or "none"
                raise InputError(f"data: {file}: no column {' and '.join(missing)}; expected the columns text and label, got {got}")
            rows = [((row["text"] or "").replace("\0", " ").strip(), (row["label"] or "").strip()) for row in reader]
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"data: {file}: not a CSV file in UTF-8 ({error})") from error
    whole = [(text, label) for text, label in rows if text and label]
    if not whole:
        raise InputError(f"data: {file}: no row has a text and a label")
    texts, labels = [text for text, _ in whole], [label for _, label in whole]
    return texts, labels, _notes(file, len(rows) - len(whole), texts, tabs=tabs)


def _notes(file: Path, skipped: int, texts: Sequence[str], *, tabs: bool) -> list[str]:
    notes = [f"without a text or a label, passed over: {number_of(skipped, 'row')} of {file.name}"] if skipped else []
    if tabs and (quoted := sum(len(text) > 1 and text[0] == text[-1] == '"' for text in texts)):
        notes.append(f"between quotation marks, which are kept, as a .tsv has none of its own: {number_of(quoted, 'text')} of {file.name}")
    if broken := sum("\n" in text or "\r" in text for text in texts):
        notes.append(f"of several lines (a lone quotation mark joins rows): {number_of(broken, 'text')} of {file.name}")
    return notes


def _require_two(labels: Sequence[str], file: Path) -> None:
    if alone := [label for label, count in Counter(labels).items() if count < 2]:
        raise InputError(f"data: {file}: expected two texts or more of each label, got one of {alone[0]!r}")
