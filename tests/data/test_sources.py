"""Data sets: the same images and fingerprint wherever the files came from, and clear words where they are missing."""

import gzip
import hashlib
import struct
import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.datasets import load_digits

from kdzoo.data.archives import prepare
from kdzoo.data.canonical import Raw, make_dataset
from kdzoo.data.dataset import statistics
from kdzoo.data.known import location_of
from kdzoo.data.sources import load, register_source
from kdzoo.errors import InputError


def raw(seed: int = 0, samples: int = 40, shape=(6, 5, 3)) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    return random.integers(0, 256, (samples, *shape), dtype=np.uint8), random.integers(0, 4, samples)


CLASSES = ("a", "b", "c", "d")


def write_npz(root, name, train, test) -> None:
    (root / name).mkdir(parents=True)
    for part, (images, labels) in (("train", train), ("test", test)):
        np.savez(root / name / f"{part}.npz", images=images, labels=labels, classes=np.array(CLASSES))


def test_every_sample_is_known_by_a_digest_of_its_pixels_and_its_label():
    made = make_dataset("x", Raw(raw(0), raw(1), CLASSES))
    for subset in (made.train, made.test):
        for image, target, key in zip(subset.images, subset.targets, subset.keys, strict=True):
            content = image.permute(1, 2, 0).numpy().tobytes() + int(target).to_bytes(8, "big")
            assert key.numpy().tobytes() == hashlib.blake2b(content, digest_size=16).digest()


@settings(max_examples=20)
@given(st.integers(0, 1000), st.integers(0, 1000))
def test_order_of_the_files_changes_neither_images_nor_fingerprint(seed, shuffle):
    images, labels = raw(seed)
    order = np.random.default_rng(shuffle).permutation(len(labels))
    one = make_dataset("x", Raw((images, labels), raw(1), CLASSES))
    two = make_dataset("x", Raw((images[order], labels[order]), raw(1), CLASSES))
    assert one.fingerprint == two.fingerprint
    assert torch.equal(one.train.images, two.train.images)
    assert torch.equal(one.train.targets, two.train.targets)


@pytest.mark.parametrize(("name", "whole"), [("cifar10_16", "cifar10"), ("cifar100_16", "cifar100")])
def test_a_set_of_half_the_side_has_the_mean_of_2x2_pixels_of_the_same_files(tmp_path, name, whole):
    train = raw(shape=(6, 4, 3))
    write_npz(tmp_path, whole, train, raw(1, shape=(6, 4, 3)))
    made = load(name, root=tmp_path)
    assert made.name == name
    assert made.classes == CLASSES
    exact = train[0].astype(float).reshape(40, 3, 2, 2, 2, 3).mean(axis=(2, 4))
    rounded = {(np.floor(image + 0.5).transpose(2, 0, 1).tobytes(), label) for image, label in zip(exact, train[1], strict=True)}
    assert {(i.numpy().astype(float).tobytes(), int(t)) for i, t in zip(made.train.images, made.train.targets, strict=True)} == rounded
    assert made.fingerprint != load(whole, root=tmp_path).fingerprint
    assert location_of(name, tmp_path) == location_of(whole, tmp_path)


def test_one_pixel_or_one_label_changes_the_fingerprint():
    images, labels = raw()
    base = make_dataset("x", Raw((images, labels), raw(1), CLASSES)).fingerprint
    pixel, label = images.copy(), labels.copy()
    pixel[3, 0, 0, 0] ^= 1
    label[3] = (label[3] + 1) % 4
    assert make_dataset("x", Raw((pixel, labels), raw(1), CLASSES)).fingerprint != base
    assert make_dataset("x", Raw((images, label), raw(1), CLASSES)).fingerprint != base


def test_every_image_keeps_its_label():
    images, labels = raw()
    made = make_dataset("x", Raw((images, labels), raw(1), CLASSES))
    known = {image.tobytes(): label for image, label in zip(images, labels, strict=True)}
    for image, target in zip(made.train.images, made.train.targets, strict=True):
        assert known[image.permute(1, 2, 0).numpy().tobytes()] == int(target)


def test_statistics_are_numpys_mean_and_deviation():
    images, _ = raw()
    mean, std = statistics(torch.from_numpy(images).permute(0, 3, 1, 2))
    assert mean == pytest.approx((images / 255).mean((0, 1, 2)), abs=1e-5)
    assert std == pytest.approx((images / 255).std((0, 1, 2)), abs=1e-5)


def test_mnist_from_idx_files_and_from_npz_is_one_data_set(tmp_path):
    images, labels = raw(shape=(28, 28))
    labels = labels.astype(np.int64)
    write_npz(tmp_path / "npz", "mnist", (images, labels), (images[:9], labels[:9]))
    folder = tmp_path / "idx" / "MNIST" / "raw"
    folder.mkdir(parents=True)
    for prefix, count in (("train", 40), ("t10k", 9)):
        pixels = struct.pack(">IIII", 0x803, count, 28, 28) + images[:count].tobytes()
        numbers = struct.pack(">II", 0x801, count) + labels[:count].astype(np.uint8).tobytes()
        for name, content in ((f"{prefix}-images-idx3-ubyte", pixels), (f"{prefix}-labels-idx1-ubyte", numbers)):
            (folder / name).write_bytes(content)
            (folder / f"{name}.gz").write_bytes(gzip.compress(content))
    one, two = (load("mnist", root=tmp_path / kind, allow_download=False) for kind in ("npz", "idx"))
    assert torch.equal(one.train.images, two.train.images)
    assert one.mean == two.mean == (0.1307,)
    # ten classes by torchvision's names, four by the archive's: only that differs
    assert (len(one.classes), len(two.classes)) == (4, 10)
    assert (one.source, two.source) == ("mnist in the data folder", "files of torchvision in the data folder")  # whatever machine it is


def test_digits_are_scikit_learns_with_a_stratified_test_part():
    digits = load("digits")
    assert (len(digits.train.targets), len(digits.test.targets)) == (1438, 359)
    assert digits.train.images.shape[1:] == (1, 8, 8)
    assert int(digits.train.images.max()) == 255
    share = torch.bincount(digits.test.targets) / torch.bincount(torch.cat([digits.train.targets, digits.test.targets]))
    assert bool((share - 0.2).abs().max() < 0.01)


def test_digits_are_read_as_scikit_learn_reads_them_without_importing_it():
    theirs, digits = load_digits(), load("digits")
    pixels = torch.cat([digits.train.images, digits.test.images]).flatten(1).tolist()
    labels = torch.cat([digits.train.targets, digits.test.targets]).tolist()
    expected = zip(np.round(theirs.data * 255 / 16).astype(int).tolist(), theirs.target.tolist(), strict=True)
    assert sorted(zip(pixels, labels, strict=True)) == sorted(expected)
    code = "import sys; from kdzoo.data.sources import load; load('digits'); print('sklearn' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "False"


def test_a_missing_set_says_where_it_was_looked_for_and_both_ways_to_provide_it(tmp_path):
    with pytest.raises(InputError) as error:
        load("cifar10", root=tmp_path, allow_download=False)
    text = str(error.value)
    assert str(tmp_path / "cifar10" / "train.npz") in text
    assert "--data-root" in text
    assert "KDZOO_DATA" in text
    assert "kdzoo data prepare cifar10" in text


def test_the_environment_names_the_root(tmp_path, monkeypatch):
    write_npz(tmp_path, "cifar10", raw(), raw(1))
    monkeypatch.setenv("KDZOO_DATA", str(tmp_path))
    assert len(load("cifar10").train.targets) == 40
    assert location_of("cifar10", None) == str(tmp_path / "cifar10" / "train.npz")
    assert location_of("cifar100", None) is None
    (tmp_path / "MNIST" / "raw").mkdir(parents=True)  # what a download leaves that found no network
    assert location_of("mnist", None) is None


def test_a_damaged_archive_and_an_unknown_name_are_refused(tmp_path):
    write_npz(tmp_path, "cifar10", raw(), raw(1))
    (tmp_path / "cifar10" / "test.npz").write_bytes(b"PK\x03\x04 not really")
    with pytest.raises(InputError, match=r"test\.npz is damaged"):
        load("cifar10", root=tmp_path)
    with pytest.raises(InputError, match="did you mean 'cifar100'"):
        load("cifar1000")


def test_a_set_that_lies_here_is_checked_and_not_downloaded(tmp_path, monkeypatch):
    write_npz(tmp_path, "cifar10", raw(), raw(1))
    monkeypatch.setattr("kdzoo.data.archives.TORCHVISION", {"cifar10": "nothing that torchvision has"})
    images, _ = prepare("cifar10", tmp_path).train
    assert np.array_equal(images, raw()[0])
    (tmp_path / "cifar10" / "train.npz").write_bytes(b"PK")
    with pytest.raises(InputError, match=r"train\.npz is damaged"):
        prepare("cifar10", tmp_path)


def test_a_source_of_ones_own(monkeypatch):
    register_source("noise", lambda: Raw(raw(), raw(1), CLASSES), "random pixels")
    assert load("noise").classes == CLASSES
