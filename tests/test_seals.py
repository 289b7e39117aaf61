"""What is read back is what was written, by whom it was written; anything else is told."""

import os
import random
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from kdzoo.runs.atomic import set_aside
from kdzoo.runs.seals import DamagedFile, read_sealed, read_tensors, tensors_digest, write_sealed, write_tensors

TENSORS = {
    "weight": torch.arange(6.0).view(2, 3),
    "count": torch.tensor(3),
    "half": torch.ones(4, dtype=torch.bfloat16),
    "none": torch.zeros(0, 2),
}


def test_a_sealed_file_gives_back_its_content(tmp_path: Path) -> None:
    write_sealed(tmp_path / "a", b"one\ntwo", "run-1")
    assert read_sealed(tmp_path / "a", "run-1") == b"one\ntwo"


def test_a_sealed_file_of_another_owner_is_not_read(tmp_path: Path) -> None:
    write_sealed(tmp_path / "a", b"one", "run-1")
    with pytest.raises(DamagedFile, match="belongs to 'run-1', not to 'run-2'"):
        read_sealed(tmp_path / "a", "run-2")


@pytest.mark.parametrize("seed", range(30))
def test_no_flipped_bit_of_a_sealed_file_goes_unseen(tmp_path: Path, seed: int) -> None:
    write_sealed(tmp_path / "a", bytes(range(200)), "run-1")
    _flip_a_bit(tmp_path / "a", seed)
    with pytest.raises(DamagedFile):
        read_sealed(tmp_path / "a", "run-1")


@pytest.mark.parametrize("content", [b"", b"\0" * 300, b"[" * 100_000, b"{}\n", b"null\nx", b"no seal"])
def test_what_is_no_sealed_file_is_told(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a").write_bytes(content)
    with pytest.raises(DamagedFile):
        read_sealed(tmp_path / "a", "run-1")


def test_a_folder_in_place_of_a_file_is_told(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    with pytest.raises(DamagedFile):
        read_sealed(tmp_path / "a", "run-1")
    with pytest.raises(DamagedFile):
        read_tensors(tmp_path / "a")


def test_tensors_come_back_with_their_metadata_and_plain_safetensors_reads_them(tmp_path: Path) -> None:
    write_tensors(tmp_path / "a.safetensors", TENSORS, {"owner": "run-1", "architecture": "resnet8"})
    tensors, metadata = read_tensors(tmp_path / "a.safetensors", "run-1")
    assert metadata["architecture"] == "resnet8"
    for found in (tensors, load_file(tmp_path / "a.safetensors")):
        assert found.keys() == TENSORS.keys()
        assert all(torch.equal(found[name], TENSORS[name]) and found[name].dtype == TENSORS[name].dtype for name in TENSORS)


def test_equal_tensors_are_equal_files(tmp_path: Path) -> None:
    """safetensors itself writes metadata in another order each time."""
    metadata = {"owner": "run-1", "architecture": "resnet8", "input": '{"mean": [0.5]}', "classes": "é"}
    for number in range(8):
        write_tensors(tmp_path / f"{number}.safetensors", TENSORS, dict(sorted(metadata.items(), reverse=bool(number % 2))))
    assert len({file.read_bytes() for file in tmp_path.iterdir()}) == 1
    tensors, found = read_tensors(tmp_path / "0.safetensors", "run-1")
    assert all(torch.equal(tensors[name], TENSORS[name]) for name in TENSORS)
    assert {key: found[key] for key in metadata} == metadata


def test_no_flipped_bit_of_tensors_or_their_metadata_goes_unseen(tmp_path: Path) -> None:
    """One or two of every byte: of a header's length, of names, of what stands beside the tensors, of the tensors."""
    path = tmp_path / "a.safetensors"
    write_tensors(path, TENSORS, {"owner": "run-1", "input": '{"mean": [0.5]}'})
    sound = path.read_bytes()
    for place in range(0, 8 * len(sound), 7):
        content = bytearray(sound)
        content[place // 8] ^= 1 << place % 8
        path.write_bytes(content)
        with pytest.raises(DamagedFile):
            read_tensors(path, "run-1")


def test_another_programs_safetensors_are_taken_unless_an_owner_is_asked_for(tmp_path: Path) -> None:
    save_file({"a": torch.ones(2)}, tmp_path / "a.safetensors")
    assert read_tensors(tmp_path / "a.safetensors")[0]["a"].sum() == 2
    with pytest.raises(DamagedFile, match="has no digest"):
        read_tensors(tmp_path / "a.safetensors", "run-1")


def test_the_digest_sees_names_dtypes_and_shapes(tmp_path: Path) -> None:
    one = torch.zeros(4, dtype=torch.int32)
    others = [{"b": one}, {"a": one.view(2, 2)}, {"a": one.float()}, {"a": one + 1}]
    assert len({tensors_digest(held) for held in ({"a": one}, *others)}) == 5
    assert tensors_digest({"a": one, "b": one + 1}) == tensors_digest({"b": one + 1, "a": one})


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a")
    for read in (read_sealed, read_tensors):
        with pytest.raises(DamagedFile, match="expected a file"):
            read(tmp_path / "a", "run-1")


def test_what_is_set_aside_never_replaces_what_was(tmp_path: Path) -> None:
    for content in ("first", "second"):
        (tmp_path / "a").write_text(content)
        set_aside(tmp_path / "a")
    assert (tmp_path / "a.damaged").read_text() == "first"
    assert (tmp_path / "a.damaged-2").read_text() == "second"


def _flip_a_bit(path: Path, seed: int) -> None:
    content = bytearray(path.read_bytes())
    chosen = random.Random(seed)
    content[chosen.randrange(len(content))] ^= 1 << chosen.randrange(8)
    path.write_bytes(bytes(content))
