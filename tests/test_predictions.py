"""Kept predictions say what was measured, of which samples and by whom; what is no such file is told before it is unpacked."""

import io
import os
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest
from numpy.lib import format as npy

from kdzoo.runs.predictions import Predictions, read_predictions, write_predictions
from kdzoo.runs.seals import DamagedFile, seal

RUN = "hinton-0123456789ab"
RANDOM = np.random.default_rng(0)


def drawn(rows: int, classes: int = 3) -> Predictions:
    logits = RANDOM.normal(size=(rows, classes))
    log_probs = (logits - np.log(np.exp(logits).sum(1, keepdims=True))).astype(np.float32)
    return Predictions(log_probs, RANDOM.integers(0, classes, rows), RANDOM.integers(0, 256, (rows, 16), dtype=np.uint8))


def read(path: Path, **more: object) -> Predictions:
    return read_predictions(path, **{"run_id": RUN, "part": "test", "classes": 3, **more})


@pytest.fixture
def path(tmp_path: Path) -> Path:
    write_predictions(tmp_path / "predictions.npz", {"test": drawn(4), "val": drawn(2)}, RUN)
    return tmp_path / "predictions.npz"


def test_what_is_written_is_read_back_and_numpy_reads_it_too(tmp_path: Path) -> None:
    parts = {"test": drawn(4), "val": drawn(2)}
    write_predictions(tmp_path / "a.npz", parts, RUN)
    with np.load(tmp_path / "a.npz") as plain:
        assert str(plain["run"]) == RUN
        assert sorted(plain) == ["run", "test", "test_keys", "test_targets", "val", "val_keys", "val_targets"]
        for name, part in parts.items():
            found = read(tmp_path / "a.npz", part=name)
            for mine, its, theirs in zip(
                (part.log_probs, part.targets, part.keys),
                (found.log_probs, found.targets, found.keys),
                (plain[name], plain[f"{name}_targets"], plain[f"{name}_keys"]),
                strict=True,
            ):
                np.testing.assert_array_equal(mine, its)
                np.testing.assert_array_equal(mine, theirs)


def test_no_flipped_bit_goes_unseen(path: Path) -> None:
    """One or two of every byte, of what zip checks itself and of what it does not; all of the seal at the end."""
    sound = path.read_bytes()
    bits = 8 * len(sound)
    for place in [*range(0, bits, 7), *range(bits - 8 * 150, bits)]:
        content = bytearray(sound)
        content[place // 8] ^= 1 << place % 8
        path.write_bytes(content)
        with pytest.raises(DamagedFile):
            read(path)


@pytest.mark.parametrize("content", [b"", b"\0" * 500, b"PK", b"no archive", b"[" * 10_000])
def test_what_is_no_archive_is_told_in_one_line(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    with pytest.raises(DamagedFile, match="not a whole archive") as told:
        read(path)
    assert "\n" not in str(told.value)


def test_folders_and_pipes_are_not_read(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    for name in ("folder", "pipe"):
        with pytest.raises(DamagedFile, match="expected a file"):
            read(tmp_path / name)


def test_another_runs_and_another_parts_predictions_are_not_read(path: Path) -> None:
    with pytest.raises(DamagedFile, match=f"belongs to '{RUN}', not to 'none-0123456789ab'"):
        read(path, run_id="none-0123456789ab")
    with pytest.raises(DamagedFile, match=r"expected \(4, 5\) <f4, found \(4, 3\)"):
        read(path, classes=5)
    with pytest.raises(DamagedFile, match="train"):
        read(path, part="train")


def test_predictions_of_an_older_kdzoo_are_told(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", test=np.zeros((4, 3), np.float16), test_targets=np.zeros(4, np.int64))
    with pytest.raises(DamagedFile, match="has no keys and no digest"):
        read(tmp_path / "a.npz")


def strangers(path: Path, **arrays: np.ndarray | bytes) -> Path:
    """An archive as a stranger makes it, with a seal that fits its bytes; bytes stand for an array's file as they are."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, value in arrays.items():
            file = io.BytesIO()
            if isinstance(value, bytes):
                file.write(value)
            else:
                np.save(file, value, allow_pickle=True)
            archive.writestr(f"{name}.npy", file.getvalue())
    content = buffer.getvalue()
    comment = seal(content, RUN)
    path.write_bytes(content[:-2] + len(comment).to_bytes(2, "little") + comment)
    return path


def arrays(rows: int) -> dict[str, np.ndarray]:
    return {"test": np.full((rows, 3), -1.0, "f4"), "test_targets": np.zeros(rows, "i8"), "test_keys": np.zeros((rows, 16), "u1")}


def test_a_strangers_archive_in_good_order_is_read(tmp_path: Path) -> None:
    assert len(read(strangers(tmp_path / "a.npz", **arrays(4))).keys) == 4


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("test", np.zeros((4, 3), "f2")),
        ("test", np.zeros((5, 3), "f4")),
        ("test", np.full((4, 3), np.nan, "f4")),
        ("test", np.ones((4, 3), "f4")),
        ("test", np.full((4, 3), None)),
        ("test_targets", np.full(4, 3)),
        ("test_targets", np.full(4, -1)),
        ("test_targets", np.array(4)),
        ("test_keys", np.zeros((4, 8), "u1")),
        ("test_keys", b"no array"),
    ],
)
def test_arrays_that_cannot_be_predictions_are_told(tmp_path: Path, name: str, value: np.ndarray) -> None:
    with pytest.raises(DamagedFile) as told:
        read(strangers(tmp_path / "a.npz", **{**arrays(4), name: value}))
    assert "\n" not in str(told.value)


def peak_of(act) -> int:
    tracemalloc.start()
    try:
        act()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_an_archive_that_says_it_is_small_and_is_not_takes_no_memory(tmp_path: Path) -> None:
    """A header that declares a terabyte over few bytes."""
    header = io.BytesIO()
    npy.write_array_header_1_0(header, {"descr": "<f4", "fortran_order": False, "shape": (10**11, 3)})
    path = strangers(tmp_path / "a.npz", **{**arrays(4), "test": header.getvalue() + bytes(100)})

    def refused() -> None:
        with pytest.raises(DamagedFile, match="the archive declares another size"):
            read(path)

    assert peak_of(refused) < 1_000_000


def test_an_archive_that_unpacks_to_more_than_predictions_may_take_is_not_unpacked(tmp_path: Path) -> None:
    """64 KB that are 40 MB of zeros, in good order."""
    path = strangers(tmp_path / "a.npz", **arrays(1_000_000))
    assert path.stat().st_size < 100_000

    def refused() -> None:
        with pytest.raises(DamagedFile, match="more than the 10,000,000 that are unpacked"):
            read(path, largest=10_000_000)

    assert peak_of(refused) < 2_000_000
