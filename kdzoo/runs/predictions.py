"""The predictions that a run keeps: log-probabilities with the keys and the targets of their samples. Free of torch.

`predictions.npz` is a plain archive that `numpy.load` reads: `run` (the run's id) and, for each part, `test` (N, K)
float32, `test_keys` (N, 16) uint8 and `test_targets` (N,) int64; `val` likewise where there is a validation part. Where several
columns of targets are learned these are of the primary one, and `test.COLUMN` is of another. The
run's id and a digest of all bytes stand in the archive's comment too, where they are checked before anything is unpacked.
"""

from __future__ import annotations

import io
import math
import struct
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from kdzoo.runs.atomic import write_bytes
from kdzoo.runs.seals import DamagedFile, check_seal, refuse_what_is_no_file, seal
from kdzoo.text import first_line

KEY_BYTES = 16
LARGEST = 4 * 1024**3
"""bytes that the arrays of one part may take in memory; a file that declares more is not unpacked"""

DAMAGE = (OSError, EOFError, ValueError, KeyError, RuntimeError, NotImplementedError, struct.error, zipfile.BadZipFile, zlib.error)
"""what zipfile and numpy raise for bytes that are not a whole archive"""


@dataclass(frozen=True)
class Predictions:
    """log_probs (N, K) float32; targets (N,) int64; keys (N, 16) uint8: one digest per sample, the same one for the same sample."""

    log_probs: NDArray[np.float32]
    targets: NDArray[np.int64]
    keys: NDArray[np.uint8]


def write_predictions(path: Path, parts: Mapping[str, Predictions], run_id: str) -> None:
    """Keep the predictions of a run, `test` and perhaps `val`, whole or not at all."""
    arrays: dict[str, NDArray[Any]] = {"run": np.array(run_id)}
    for name, part in parts.items():
        arrays |= {
            name: part.log_probs.astype(np.float32, copy=False),
            f"{name}_keys": part.keys.astype(np.uint8, copy=False),
            f"{name}_targets": part.targets,
        }
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **cast(Any, arrays))
    content = buffer.getvalue()
    comment = seal(content, run_id)
    write_bytes(path, content[:-2] + len(comment).to_bytes(2, "little") + comment)  # an archive ends with its comment's length: 0


def read_predictions(path: Path, run_id: str, *, part: str, classes: int, largest: int = LARGEST) -> Predictions:
    """The predictions of a run on one part, for so many classes, which may take `largest` bytes in memory.

    Raises DamagedFile, in one line, for what is not a run's whole predictions, before memory is taken for them, and
    FileNotFoundError where there is no file.
    """
    refuse_what_is_no_file(path)
    try:
        if path.stat().st_size > largest:
            raise DamagedFile(f"{path}: larger than the {largest:,} bytes that predictions may take")
        content = path.read_bytes()
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            comment = archive.comment
            if not comment:
                raise DamagedFile(f"{path}: has no keys and no digest; another program or an older kdzoo wrote it")
            whole = content.removesuffix(len(comment).to_bytes(2, "little") + comment) + b"\0\0"
            check_seal(path, comment, whole, run_id)
            predictions = _arrays(path, archive, part, classes, largest)
    except FileNotFoundError:
        raise
    except DAMAGE as error:
        reason = first_line(error)
        raise DamagedFile(f"{path}: not a whole archive of predictions ({reason})") from error
    return _require_log_probs(path, predictions, classes)


def _arrays(path: Path, archive: zipfile.ZipFile, part: str, classes: int, largest: int) -> Predictions:
    """The three arrays of a part, unpacked once what they declare fits together and into memory."""
    names = (part, f"{part}_targets", f"{part}_keys")
    declarations = [_declaration(path, archive, name) for name in names]
    rows = declarations[1][0][:1]
    expected = [((*rows, classes), "<f4"), (rows, "<i8"), ((*rows, KEY_BYTES), "|u1")]
    for name, got, want in zip(names, declarations, expected, strict=True):
        if got != want:
            raise DamagedFile(f"{path}: {name}: expected {want[0]} {want[1]}, found {got[0]} {got[1]}")
    if (size := sum(archive.getinfo(f"{name}.npy").file_size for name in names)) > largest:
        raise DamagedFile(f"{path}: {part}: takes {size:,} bytes, more than the {largest:,} that are unpacked")
    return Predictions(*(_array(archive, name) for name in names))


def _declaration(path: Path, archive: zipfile.ZipFile, name: str) -> tuple[tuple[int, ...], str]:
    """The shape and the dtype that an array declares; DamagedFile where the archive declares another size for it."""
    with archive.open(f"{name}.npy") as file:
        if npy.read_magic(file) != (1, 0):
            raise DamagedFile(f"{path}: {name}: an array of an unknown version")
        shape, _, dtype = npy.read_array_header_1_0(file)
        header = file.tell()
    size = header + math.prod(shape) * dtype.itemsize
    if archive.getinfo(f"{name}.npy").file_size != size:
        raise DamagedFile(f"{path}: {name}: {shape} {dtype.str} takes {size:,} bytes, the archive declares another size")
    return shape, dtype.str


def _array(archive: zipfile.ZipFile, name: str) -> Any:
    with archive.open(f"{name}.npy") as file:
        return npy.read_array(file, allow_pickle=False)


def _require_log_probs(path: Path, predictions: Predictions, classes: int) -> Predictions:
    if np.isnan(predictions.log_probs).any() or (predictions.log_probs > 0).any():
        raise DamagedFile(f"{path}: expected log-probabilities, found NaN or numbers above 0")
    if ((predictions.targets < 0) | (predictions.targets >= classes)).any():
        raise DamagedFile(f"{path}: expected targets from 0 to {classes - 1}, found others")
    return predictions
