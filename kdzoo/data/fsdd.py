"""The Free Spoken Digit Dataset as float32 log-mel maps, with the digit and the speaker of each recording.

https://github.com/Jakobovski/free-spoken-digit-dataset: six speakers say each digit fifty times. By the set's own split the takes 0
to 4 of each are the test part. The maps are those of `spoken`, before they are rounded to the levels of an image.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import re
import urllib.request
import zipfile
from collections import Counter
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kdzoo.data.canonical import FurtherColumn, Raw
from kdzoo.data.spoken import DIGITS, LENGTH, NAME, RATE, Recordings, levels, read_recordings
from kdzoo.errors import InputError
from kdzoo.files import cache_folder
from kdzoo.runs.atomic import StoreError, write_bytes
from kdzoo.text import number_of

COMMIT = "26eb9aaf76e81b692f806f9140c2d2777410d7a1"
ARCHIVE = f"https://codeload.github.com/Jakobovski/free-spoken-digit-dataset/zip/{COMMIT}"
TEST_TAKES = range(5)
"""of each digit by each speaker, by the set's README"""
TAKES = 50
"""of each digit by each speaker, in the archive"""
TIMEOUT_SECONDS = 15
MAPS_VERSION = 1
"""raised when the map of a recording changes, so that earlier maps are not taken from the cache"""
DAMAGED = (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile)
"""what numpy raises for bytes that are no whole archive"""


def float_map(samples: NDArray[Any]) -> NDArray[np.float32]:
    """The log-mel map (BANDS, FRAMES) float32 of a recording, from 0 (80 dB or more below the loudest cell) to 255 (that cell)."""
    return levels(samples).astype(np.float32)


def read_maps(folder: Path) -> Raw:
    """The maps of a folder's recordings: takes 0 to 4 of each digit and speaker are the test part, digit and speaker the columns.

    Computed once and kept in the cache folder. Raises InputError for files that are no recordings, and where a part has none.
    """
    recordings = _kept(folder)
    speakers = tuple(sorted(set(recordings.speakers)))
    number_of_speaker = np.array([speakers.index(name) for name in recordings.speakers], dtype=np.int64)
    test = np.isin(recordings.takes, list(TEST_TAKES))
    if test.all() or not test.any():
        missing, words = ("train", "5 and more") if test.all() else ("test", "0 to 4")
        raise InputError(f"data: {folder}: no recording of the {missing} part, the takes {words} (7_theo_31.wav is take 31)")
    if len(speakers) < 2:
        raise InputError(f"data: {folder}: expected recordings of two speakers or more, which are a column of targets, got {speakers[0]}")
    cut = f"cut off after {LENGTH / RATE:g} s: {number_of(recordings.cut, 'recording')}"
    return Raw(
        train=(recordings.maps[~test], recordings.digits[~test]),
        test=(recordings.maps[test], recordings.digits[test]),
        classes=DIGITS,
        notes=(cut,) if recordings.cut else (),
        column="digit",
        further=(FurtherColumn("speaker", number_of_speaker[~test], number_of_speaker[test], speakers),),
    )


def _kept(folder: Path) -> Recordings:
    """The recordings of a folder with their maps, from the cache where the files are those that it was made of."""
    place = cache_folder() / "fsdd" / f"{_digest(folder)}.npz"
    try:
        with np.load(place, allow_pickle=False) as arrays:
            maps, digits, takes = (arrays[name] for name in ("maps", "digits", "takes"))
            return Recordings(maps, digits, tuple(map(str, arrays["speakers"])), int(arrays["cut"]), takes)
    except FileNotFoundError:
        pass
    except DAMAGED:  # written again below
        place.unlink(missing_ok=True)
    recordings = read_recordings(folder, float_map)
    buffer = io.BytesIO()
    np.savez(
        buffer,
        maps=recordings.maps,
        digits=recordings.digits,
        takes=recordings.takes,
        speakers=np.array(recordings.speakers),
        cut=np.array(recordings.cut),
    )
    with contextlib.suppress(StoreError):  # a cache that cannot be written costs seconds, not the data
        write_bytes(place, buffer.getvalue())
    return recordings


def _digest(folder: Path) -> str:
    """A digest of the files' names, sizes and times of change, and of how maps are computed."""
    files = [(file.name, (status := file.stat()).st_size, status.st_mtime_ns) for file in sorted(folder.glob("*.wav"))]
    return hashlib.blake2b(f"{MAPS_VERSION} {files}".encode(), digest_size=16).hexdigest()


def prepare(root: Path, archive: str = ARCHIVE) -> None:
    """Put the recordings below `root/fsdd/recordings`, downloaded unless some are there, and check that none is missing.

    Raises OSError where the download fails, and InputError for an archive that is none, and for recordings that are missing.
    """
    folder = root / "fsdd" / "recordings"
    if not any(folder.glob("*.wav")):
        with urllib.request.urlopen(archive, timeout=TIMEOUT_SECONDS) as answer:
            content = answer.read()
        _unpack(content, folder, archive)
    counts = Counter((match[1], match[2]) for file in folder.glob("*.wav") if (match := NAME.fullmatch(file.name)))
    pairs = [(digit, speaker) for speaker in sorted({speaker for _, speaker in counts}) for digit in DIGITS]
    short = [f"{counts[key]} of {key[0]} by {key[1]}" for key in pairs if counts[key] < TAKES]
    if short or not pairs:
        text = f"{', '.join(short[:3])}{', ...' if len(short) > 3 else ''}" if short else "none"
        raise InputError(
            f"data: {folder}: expected {TAKES} recordings of each digit by each speaker, found {text}; remove it to fetch them again"
        )


def _unpack(content: bytes, folder: Path, archive: str) -> None:
    """Write the recordings of an archive into a folder, whatever folders they have in it."""
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as files:
            names = [name for name in files.namelist() if re.search(r"(^|/)recordings/[^/]+\.wav$", name)]
            for name in names:
                write_bytes(folder / PurePosixPath(name).name, files.read(name))
    except zipfile.BadZipFile as error:
        raise InputError(f"data: {archive} gave no archive ({error})") from error
    if not names:
        raise InputError(f"data: {archive} holds no recordings")
