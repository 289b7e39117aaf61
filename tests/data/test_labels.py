"""Labels of every kind: read as the classes that they name, in words where they are mapped, or refused by name."""

import struct

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.datasets import load_digits

import kdzoo
from kdzoo.data.canonical import Raw, make_dataset
from kdzoo.data.labels import map_labels
from kdzoo.data.sources import load, register_source
from kdzoo.errors import InputError
from kdzoo.suite.distill.arrays import data_name

DIGITS = load_digits()
IMAGES = (DIGITS.images * 15).astype(np.uint8)
TARGETS = DIGITS.target.astype(np.int64)
CUT = 1200


def given_arrays(labels):
    return ((IMAGES[:CUT], labels[:CUT]), (IMAGES[CUT:], labels[CUT:]))


def loaded(labels):
    return load(data_name(given_arrays(labels)))


def pixels_by_class(images) -> dict[str, set[bytes]]:
    rows = zip(images.train.images.numpy(), images.train.targets.tolist(), strict=True)
    found: dict[str, set[bytes]] = {}
    for row, target in rows:
        found.setdefault(images.classes[target], set()).add(row.tobytes())
    return found


FORMS = {
    "column": lambda y: y[:, None],
    "one-hot": lambda y: np.eye(10, dtype=int)[y],
    "one-hot floats": lambda y: np.eye(10)[y],
    "whole floats": lambda y: y.astype(np.float32),
    "unsigned": lambda y: y.astype(np.uint8),
    "tensor": torch.from_numpy,
    "list": lambda y: y.tolist(),
}


@pytest.mark.parametrize("form", FORMS)
def test_numbers_from_zero_are_the_same_data_in_every_form(form):
    plain, other = loaded(TARGETS), loaded(FORMS[form](TARGETS))
    assert other.fingerprint == plain.fingerprint
    assert other.classes == tuple("0123456789")


@pytest.mark.parametrize(
    ("labels", "classes"),
    [
        (TARGETS + 1, [str(n) for n in range(1, 11)]),
        (TARGETS * 10, [str(10 * n) for n in range(10)]),
        (np.array(list("jihgfedcba"))[TARGETS], list("abcdefghij")),
        (np.array([b"zero", b"one", b"two", b"three", b"four", b"five", b"six", b"seven", b"eight", b"nine"])[TARGETS], None),
    ],
    ids=["1..10", "0, 10, .. 90", "names", "bytes"],
)
def test_other_labels_are_mapped_in_words_and_no_class_is_invented(labels, classes):
    images = loaded(labels)
    assert len(images.classes) == 10
    if classes is not None:
        assert list(images.classes) == classes
    assert len(images.train.targets.unique()) == 10
    assert any("are the 10 classes 0 to 9" in note for note in images.notes)
    name_of = dict(
        zip([label.decode() if isinstance(label, bytes) else str(label) for label in labels.tolist()], TARGETS.tolist(), strict=True)
    )
    plain = pixels_by_class(loaded(TARGETS))
    assert {str(name_of[name]): rows for name, rows in pixels_by_class(images).items()} == plain


def test_other_names_are_another_data_set_under_another_name():
    letters = np.array(list("abcdefghij"))[TARGETS]
    assert data_name(given_arrays(letters)) != data_name(given_arrays(TARGETS))
    assert data_name(given_arrays(letters)) == data_name(given_arrays(letters.astype(object)))


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        (TARGETS - 1, r"119 train labels are negative \(number 0 is -1\)"),
        (np.where(np.arange(len(TARGETS)) == 3, np.nan, TARGETS), r"1 train label is not whole \(number 3 is nan\)"),
        (TARGETS + 0.5, "not whole"),
        (np.where(TARGETS == 4, np.inf, TARGETS), "not whole"),
        (np.eye(10)[TARGETS] + np.eye(10)[0], "rows are not one-hot"),
        (np.full((len(TARGETS), 10), 0.1), r"rows are not one-hot \(row 0: 0.1, "),
        (np.zeros((len(TARGETS), 2, 2)), "shape"),
        ([None, *TARGETS[1:]], "not whole|neither numbers nor names"),
        ([["a"], *TARGETS[1:]], "neither numbers nor names"),
        (np.where(TARGETS == 1, "", "x"), "are empty"),
        (TARGETS * 0, "two or more classes"),
        (TARGETS.astype("datetime64[D]"), "expected whole numbers or names"),
    ],
)
def test_labels_that_name_no_class_are_refused(labels, words):
    with pytest.raises(InputError, match=words):
        loaded(labels)


def test_a_class_of_the_test_part_alone_is_refused_and_one_of_the_train_part_alone_is_told():
    train, test = (IMAGES[:CUT], TARGETS[:CUT]), (IMAGES[CUT:], TARGETS[CUT:])
    without = TARGETS[:CUT] != 9
    with pytest.raises(InputError, match=r"58 test images are of 1 class without a training image \(9\)"):
        data_name(((train[0][without], train[1][without]), test))
    few = TARGETS[CUT:] < 8
    notes = load(data_name((train, (test[0][few], test[1][few])))).notes
    assert "without a test image: 2 of 10 classes (8, 9)" in notes


def test_empty_parts_and_parts_of_other_lengths_are_refused():
    train = (IMAGES[:CUT], TARGETS[:CUT])
    with pytest.raises(InputError, match="the test part has no images"):
        data_name((train, (IMAGES[:0], TARGETS[:0])))
    with pytest.raises(InputError, match="as many test labels as images, got 11 and 10"):
        load(data_name((train, (IMAGES[:10], np.arange(11) % 10))))


def test_labels_beyond_the_names_are_refused_and_names_without_images_are_told():
    with pytest.raises(InputError, match=r"train labels are not among the class names: 10; expected 0 to 9, since there are 10 names"):
        make_dataset("x", Raw(*given_arrays(TARGETS + 1), tuple("abcdefghij")))
    with pytest.raises(
        InputError, match="1 train label is not among the class names: catt; expected one of the 2 names; did you mean 'cat'"
    ):
        map_labels(["cat", "catt"], ["dog"], ("cat", "dog"))
    images = make_dataset("x", Raw(*given_arrays(TARGETS), tuple("abcdefghijkl")))
    assert "without a training image: 2 of 12 classes (k, l)" in images.notes
    named = make_dataset("x", Raw(*given_arrays(np.array(list("abcdefghij"))[TARGETS]), tuple("jihgfedcba")))
    assert named.classes == tuple("jihgfedcba")
    assert pixels_by_class(named)["a"] == pixels_by_class(make_dataset("x", Raw(*given_arrays(TARGETS), tuple("abcdefghij"))))["a"]


@settings(max_examples=40)
@given(st.lists(st.integers(0, 10**6), min_size=2, max_size=30, unique=True), st.randoms(use_true_random=False))
def test_every_image_keeps_the_label_that_it_came_with(values, random):
    train = values * 2
    random.shuffle(train)
    found = map_labels(train, values[:1])
    assert [int(found.classes[number]) for number in found.train] == train
    assert list(map(int, found.classes)) == sorted(values)


# --- archives and sources


def write(root, part, images, labels, classes=None):
    (root / "cifar10").mkdir(parents=True, exist_ok=True)
    np.savez(root / "cifar10" / f"{part}.npz", images=images, labels=labels, **({} if classes is None else {"classes": np.array(classes)}))


def test_classes_of_two_archives_are_matched_by_name(tmp_path):
    names = list("abcdefghij")
    for root, order in ((tmp_path / "same", names), (tmp_path / "turned", names[::-1])):
        write(root, "train", IMAGES[:CUT], TARGETS[:CUT], names)
        write(root, "test", IMAGES[CUT:], np.array([order.index(names[target]) for target in TARGETS[CUT:]]), order)
    same, turned = (load("cifar10", root=tmp_path / name, allow_download=False) for name in ("same", "turned"))
    assert turned.classes == tuple(names)
    assert turned.fingerprint == same.fingerprint
    write(tmp_path / "turned", "test", IMAGES[CUT:], TARGETS[CUT:], [*names[:9], "other"])
    with pytest.raises(InputError, match="differ from those of the train part: other"):
        load("cifar10", root=tmp_path / "turned", allow_download=False)


def test_one_archive_without_the_other_is_named(tmp_path):
    write(tmp_path, "train", IMAGES[:CUT], TARGETS[:CUT])
    with pytest.raises(InputError, match=r"train\.npz is there and .*test\.npz is not"):
        load("cifar10", root=tmp_path, allow_download=False)


@pytest.mark.parametrize("harm", ["half", "zeros", "bits", "bomb", "objects"])
def test_damaged_archives_are_refused_in_words(tmp_path, harm):
    import io
    import zipfile

    write(tmp_path, "train", IMAGES[:CUT], TARGETS[:CUT])
    write(tmp_path, "test", IMAGES[CUT:], TARGETS[CUT:])
    file = tmp_path / "cifar10" / "train.npz"
    np.savez_compressed(file, images=IMAGES[:CUT], labels=TARGETS[:CUT])
    content = bytearray(file.read_bytes())
    if harm == "half":
        file.write_bytes(content[: len(content) // 2])
    elif harm == "zeros":
        file.write_bytes(bytes(len(content)))
    elif harm == "bits":
        content[200:400] = bytes(200)
        file.write_bytes(content)
    elif harm == "bomb":
        header = io.BytesIO()
        np.lib.format.write_array_header_1_0(header, {"descr": "|u1", "fortran_order": False, "shape": (2**50, 8, 8)})
        with zipfile.ZipFile(file, "w") as archive:
            archive.writestr("images.npy", header.getvalue())
            archive.writestr("labels.npy", header.getvalue())
    else:
        np.savez(file, images=np.array([{}, []], dtype=object), labels=TARGETS[:2])
    with pytest.raises(InputError, match=r"train\.npz is damaged"):
        load("cifar10", root=tmp_path, allow_download=False)


def test_damaged_files_of_torchvision_are_refused_in_words(tmp_path):
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for prefix in ("train", "t10k"):
        (raw / f"{prefix}-images-idx3-ubyte").write_bytes(struct.pack(">IIII", 0x803, 40, 28, 28) + bytes(100))
        (raw / f"{prefix}-labels-idx1-ubyte").write_bytes(struct.pack(">II", 0x801, 40) + bytes(40))
    with pytest.raises(InputError, match="mnist"):
        load("mnist", root=tmp_path, allow_download=False)


@pytest.fixture
def source(monkeypatch):
    """Register a source for one test."""
    return lambda read: register_source("mine", read)


@pytest.mark.parametrize(
    ("read", "words"),
    [
        (lambda: 1 / 0, "the source 'mine' failed: ZeroDivisionError"),
        (lambda: (IMAGES, TARGETS), "gave a tuple; expected a kdzoo.Raw"),
        (
            lambda: Raw((IMAGES.astype(float), TARGETS), (IMAGES, TARGETS)),
            "expected uint8 images, or float32 maps, in 0..255, got float64 in train",
        ),
        (lambda: Raw((IMAGES.reshape(-1, 64), TARGETS), (IMAGES, TARGETS)), r"got the shape \(1797, 64\)"),
        (lambda: Raw((IMAGES, TARGETS), (IMAGES[:, :4], TARGETS)), r"one shape of all images \(H, W, C\)"),
    ],
)
def test_what_a_source_gives_wrong_is_named(source, read, words):
    source(read)
    with pytest.raises(InputError, match=words):
        load("mine")


def test_a_source_without_names_of_classes_takes_them_from_its_labels(source):
    source(lambda: kdzoo.Raw(*given_arrays(np.array(["even", "odd"])[TARGETS % 2])))
    images = load("mine")
    assert images.classes == ("even", "odd")


def test_repeats_and_plain_images_of_arrays_are_told_by_their_numbers():
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (40, 8, 8), dtype=np.uint8)
    labels = np.arange(40) % 4
    images[5], images[7] = images[1], 9
    test, targets = images[30:].copy(), labels[30:].copy()
    images, labels = images[:30], labels[:30]
    test[2], targets[2] = images[3], (labels[3] + 1) % 4
    notes = make_dataset("x", Raw((images, labels), (test, targets), tuple("abcd"))).notes
    assert "in the train part too: 1 test image (train 3 = test 2)" in notes
    assert any(note.startswith("under two labels: 1 image (") and "train 3" in note and "test 2" in note for note in notes)
    assert any(note.startswith("again in the train part") and ": 1 training image (" in note for note in notes)
    assert "of one colour: 1 image (train 7)" in notes
