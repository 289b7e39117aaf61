"""Which files of a folder train: parts by their usual names, hidden and strange things skipped and told, no hang."""

import os
import shutil
import signal
import socket

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from kdzoo.data.folder import load_folder
from kdzoo.data.listing import role_of
from kdzoo.data.report import LINES, WIDTH, data_lines, data_record
from kdzoo.data.split import split
from kdzoo.errors import InputError
from kdzoo.runs.spec import DataSpec

DIGITS = load_digits()
CLASSES = ("cat", "dog")


@pytest.fixture(autouse=True)
def no_hang(tmp_path, monkeypatch):
    """What would wait for ever fails after five minutes instead."""
    monkeypatch.setenv("KDZOO_CACHE", str(tmp_path / "cache"))

    def stop(number: int, frame: object) -> None:
        raise TimeoutError("stood still")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(300)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def digit(number: int) -> Image.Image:
    return Image.fromarray((DIGITS.images[number] * 15).astype(np.uint8))


def fill(folder, label: int, start: int = 0, count: int = 8) -> None:
    """Real digits of one class as files."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in (DIGITS.target == label).nonzero()[0][start : start + count]:
        digit(number).save(folder / f"{number}.png")


@pytest.fixture
def photos(tmp_path):
    for label, name in enumerate(CLASSES):
        fill(tmp_path / "photos" / name, label)
    return tmp_path / "photos"


def parts(root, **places):
    """Folders of parts with class folders below; '/' is written as two underscores."""
    for number, (place, classes) in enumerate(places.items()):
        for label, name in enumerate(classes):
            fill(root / place.replace("__", "/") / name, label, start=8 * number)
    return root


def sizes(images) -> tuple[int, ...]:
    return tuple(len(part.targets) for part in (images.train, images.val, images.test) if part is not None)


@pytest.mark.parametrize(
    ("train", "test"),
    [
        ("Training", "Testing"),
        ("training_set", "test_set"),
        ("seg_train", "seg_test"),
        ("training", "validation"),
        ("train-images", "Test Images"),
        ("TRAIN", "eval"),
        ("seg_train__seg_train", "seg_test__seg_test"),
        ("archive__train", "archive__test"),
    ],
)
def test_folders_of_the_usual_names_are_parts_and_no_classes(tmp_path, train, test):
    images = load_folder(parts(tmp_path / "set", **{train: CLASSES, test: CLASSES}), 8)
    assert images.classes == CLASSES
    assert sizes(images) == (16, 16)
    assert images.origins["train"] == train.replace("__", "/") + "/"
    assert images.origins["test"] == test.replace("__", "/") + "/"


@pytest.mark.parametrize("name", ["trainer", "contest", "tests2", "values", "latest", "bus", "data"])
def test_other_names_are_no_parts(name):
    assert role_of(name) is None


def test_the_role_of_a_validation_folder_is_told(tmp_path):
    three = load_folder(parts(tmp_path / "three", Train=CLASSES, Valid=CLASSES, TEST=CLASSES), 8)
    assert sizes(three) == (16, 16, 16)
    assert three.origins == {"train": "Train/", "val": "Valid/", "test": "TEST/"}
    two = load_folder(parts(tmp_path / "two", train=CLASSES, val=CLASSES), 8)
    assert sizes(two) == (16, 16)
    assert "val/ serves as the test part; validation is drawn from train/" in two.notes


def test_a_part_without_classes_is_passed_over_where_another_serves(tmp_path):
    root = parts(tmp_path / "set", train=CLASSES, val=CLASSES)
    fill(root / "test", 0, start=40)
    images = load_folder(root, 8)
    assert images.classes == CLASSES
    assert "skipped: test/ (8 images in no class folder)" in images.notes


@pytest.mark.parametrize(
    ("places", "words"),
    [
        ({"val": CLASSES, "test": CLASSES}, "has test/, val/; expected parts"),
        ({"train": CLASSES}, "has train/; expected parts"),
        ({"train": ("",), "test": ("",)}, "without two or more class folders"),
        ({"train": CLASSES, "training": CLASSES, "test": CLASSES}, "train/ and training/ may both be the same part"),
    ],
)
def test_layouts_that_may_mean_two_things_are_refused(tmp_path, places, words):
    with pytest.raises(InputError, match=words):
        load_folder(parts(tmp_path / "set", **places), 8)


def test_a_class_that_is_called_train_among_others_is_a_class_in_words(tmp_path):
    root = tmp_path / "vehicles"
    for label, name in enumerate(("bus", "car", "train")):
        fill(root / name, label)
    images = load_folder(root, 8)
    assert images.classes == ("bus", "car", "train")
    assert any(note.startswith("train/ holds images and no class folders: it is read as a class") for note in images.notes)


def test_classes_of_the_test_part_are_matched_by_name(tmp_path):
    root = tmp_path / "set"
    for part, names in (("train", {"Cat": 0, "Dog": 1}), ("test", {"dog": 1, "cat": 0})):
        for name, label in names.items():
            fill(root / part / name, label, start=8 * (part == "test"))
    images = load_folder(root, 8)
    assert images.classes == ("Cat", "Dog")
    assert "classes of test/ are taken by name: cat as Cat, dog as Dog" in images.notes
    plain = tmp_path / "plain"
    for part, names in (("train", ("Cat", "Dog")), ("test", ("Cat", "Dog"))):
        for label, name in enumerate(names):
            fill(plain / part / name, label, start=8 * (part == "test"))
    assert load_folder(plain, 8).fingerprint == images.fingerprint


def test_what_is_hidden_never_trains_and_is_counted(photos):
    before = load_folder(photos, 8)
    fill(photos / "cat" / ".ipynb_checkpoints", 7)
    fill(photos / "__MACOSX" / "cat", 7)
    fill(photos / "@eaDir", 7)
    for name in ("cat/.DS_Store", "cat/._1.png", "dog/Thumbs.db", "dog/desktop.ini"):
        (photos / name).write_bytes(b"nothing")
    after = load_folder(photos, 8)
    assert after.fingerprint == before.fingerprint
    (note,) = after.notes
    assert note.startswith("skipped: 28 hidden files (")


def test_files_that_are_no_images_are_counted_by_their_endings(photos):
    for name, content in (
        ("cat/a.csv", "1,2"),
        ("cat/b.txt", "P1 x"),
        ("cat/c.heic", "ftypheic"),
        ("dog/b.txt", "text"),
        ("README.md", "#"),
    ):
        (photos / name).write_text(content)
    digit(50).save(photos / "loose.png")
    (note,) = load_folder(photos, 8).notes
    assert note == "skipped: 5 files of another kind (2 .txt, 1 .md, 1 .csv, 1 .heic), 1 image beside the class folders"


@pytest.mark.parametrize("ending", [".jfif", ".gif", ".avif", ".webp", ".PNG", ".dat", ""])
def test_images_of_any_ending_are_read(photos, ending):
    kind = {".jfif": "JPEG", ".gif": "GIF", ".avif": "AVIF", ".webp": "WEBP"}.get(ending, "PNG")
    for number in (100, 101, 102):
        digit(number).convert("RGB").resize((32, 32)).save(photos / "dog" / f"new{number}{ending}", format=kind)
    assert sum(sizes(load_folder(photos, 8))) == 19


def test_fifos_sockets_and_devices_are_passed_over_without_being_opened(photos, monkeypatch):
    before = load_folder(photos, 8).fingerprint
    os.mkfifo(photos / "cat" / "pipe.jpg")
    os.mkfifo(photos / "pipe")
    monkeypatch.chdir(photos / "dog")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("listener.png")
        (photos / "dog" / "zero.png").symlink_to("/dev/zero")
        images = load_folder(photos, 8)
    assert images.fingerprint == before
    assert set(images.notes[0].removeprefix("skipped: ").split(", ")) == {
        *("pipe (a FIFO)", "cat/pipe.jpg (a FIFO)", "dog/listener.png (a socket)", "1 more")
    }


def test_a_folder_named_like_an_image_is_a_folder(photos):
    fill(photos / "cat" / "best.jpg", 0, start=30, count=3)
    assert sum(sizes(load_folder(photos, 8))) == 19


def test_links_that_lead_nowhere_and_files_that_may_not_be_read_are_named(photos):
    (photos / "cat" / "gone.jpg").symlink_to("nowhere")
    (photos / "dog" / "self.png").symlink_to("self.png")
    (photos / "dog" / "latest.log").symlink_to("nowhere")
    with pytest.raises(InputError) as error:
        load_folder(photos, 8)
    assert f"data: {photos / 'cat' / 'gone.jpg'}: cannot be read (a broken link)" in error.value.problems
    assert any(problem.startswith(f"data: {photos / 'dog' / 'self.png'}: cannot be read (") for problem in error.value.problems)
    for name in ("cat/gone.jpg", "dog/self.png"):
        (photos / name).unlink()
    assert load_folder(photos, 8).notes == ("skipped: dog/latest.log (a broken link)",)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_without_permission_is_named(photos):
    secret = next((photos / "cat").glob("*.png"))
    secret.chmod(0)
    with pytest.raises(InputError, match=rf"{secret}: cannot be read \(permission denied\)"):
        load_folder(photos, 8)


@pytest.mark.parametrize("target", [".", ".."])
def test_a_link_to_a_folder_above_is_not_followed(photos, target):
    before = load_folder(photos, 8).fingerprint
    (photos / "cat" / "up").symlink_to(target)
    images = load_folder(photos, 8)
    assert images.fingerprint == before
    assert images.notes == ("skipped: cat/up (a link to a folder above it)",)


def test_a_linked_folder_of_images_is_read_as_if_it_stood_there(photos, tmp_path):
    shutil.move(photos / "cat", tmp_path / "elsewhere")
    (photos / "cat").mkdir()
    (photos / "cat" / "linked").symlink_to(tmp_path / "elsewhere")
    assert sum(sizes(load_folder(photos, 8))) == 16


# --- the same image twice


def test_the_same_image_in_two_parts_or_under_two_labels_is_told_with_two_examples(tmp_path):
    root = parts(tmp_path / "set", train=CLASSES, test=CLASSES)
    first, second, third, *_ = sorted((root / "train" / "cat").glob("*.png"))
    Image.open(first).save(root / "test" / "cat" / "same.bmp")  # other bytes, the same pixels
    shutil.copy(second, root / "train" / "dog" / "same.png")
    shutil.copy(third, root / "train" / "cat" / "twice.png")
    notes = load_folder(root, 8).notes
    assert f"in the train part too: 1 test image (train/cat/{first.name} = test/cat/same.bmp)" in notes
    (labels,) = [note for note in notes if note.startswith("under two labels: 1 image (")]
    assert {f"train/cat/{second.name}", "train/dog/same.png"} == set(labels.partition("(")[2].rstrip(")").split(" = "))
    (copies,) = [note for note in notes if note.startswith("again in the train part")]
    assert ": 2 training images (" in copies


def test_images_of_one_colour_and_classes_that_are_all_of_one_are_told(photos):
    Image.new("RGB", (9, 9), (3, 4, 5)).save(photos / "cat" / "plain.png")
    assert "of one colour: 1 image (cat/plain.png)" in load_folder(photos, 8).notes
    for number in range(4):
        (photos / "none").mkdir(exist_ok=True)
        Image.new("L", (9, 9), number).save(photos / "none" / f"{number}.png")
    (note,) = [note for note in load_folder(photos, 8).notes if note.startswith("of one colour")]
    assert note.startswith("of one colour: 5 images, all of none (")


@pytest.mark.parametrize("resident", [None, 0], ids=["in memory", "streamed"])
def test_what_was_found_is_told_again_at_the_next_start(photos, resident):
    Image.new("RGB", (9, 9), (3, 4, 5)).save(photos / "cat" / "plain.png")
    shutil.copy(photos / "cat" / "plain.png", photos / "dog" / "plain.png")
    first, second = (load_folder(photos, 8, resident) for _ in range(2))
    assert first.notes == second.notes
    assert len(first.notes) >= 2


# --- what a bench begins with


def test_a_bench_begins_with_six_lines_at_the_most_none_of_them_cut(tmp_path):
    root = parts(tmp_path / "set", train=CLASSES, test=CLASSES)
    for name in ("a.csv", "b.txt", "c.md", "d.json", "e.yaml", "f.xml"):
        (root / "train" / "cat" / name).write_text("no image")
    for number, file in enumerate(sorted((root / "train" / "cat").glob("*.png"))[:3]):
        shutil.copy(file, root / "test" / "dog" / f"{number}-a-rather-long-name-of-a-file.png")
    Image.new("L", (9, 9)).save(root / "test" / "cat" / "plain.png")
    images = load_folder(root, 8)
    spec = DataSpec(name="folder", fingerprint=images.fingerprint, classes=2, val_fraction=0.25)
    record = data_record(images, split(images, spec))
    lines = data_lines(record, "kdzoo data folder:set")
    assert len(lines) <= LINES
    assert all(any(one.startswith(line) and one[len(line) :][:2] in ("", " (") for one in data_lines(record)) for line in lines[:-1])
    assert all(len(line) <= WIDTH or " (" not in line for line in lines), "examples in parentheses are left out of long lines"
    assert lines[0].startswith("data: 36 images, 2 classes, 9x9 colour, from folder ")
    assert lines[1] == "data: train 12 (train/), validation 4 (from train), test 20 (test/)"
    assert lines[-1].endswith(": kdzoo data folder:set")
    assert not any("…" in line for line in lines)
    whole = data_lines(record)
    assert [line.removeprefix("data: ") for line in whole[2:]] == list(images.notes)


def test_how_many_images_are_in_each_part_is_never_cut():
    origin = "takes 5 to 49 of every speaker and digit, by the numbers in the names of the files"
    record = {
        "shape": (1, 32, 32),
        "classes": 10,
        "train": 2_430,
        "validation": 270,
        "test": 300,
        "unused": 0,
        "labelled": 2_430,
        "origins": {"train": origin, "val": "from train", "test": "takes 0 to 4"},
        "source": "",
        "notes": [],
    }
    assert data_lines(record, "kdzoo data fsdd")[1:] == [
        "data: train 2,430, validation 270, test 300",
        "data: in full: kdzoo data fsdd",
    ]
    assert data_lines(record)[1:] == [f"data: train 2,430 ({origin}), validation 270 (from train), test 300 (takes 0 to 4)"]


def test_a_long_note_loses_its_examples_and_no_half_of_a_sentence():
    note = "in the train part too: 10 test images (train 627 = test 170, train 807 = test 3241, train 17688 = test 5209)"
    record = {
        "shape": (3, 32, 32),
        "classes": 100,
        "train": 50_000,
        "validation": 0,
        "test": 10_000,
        "unused": 0,
        "labelled": 50_000,
        "origins": {},
        "source": "",
        "notes": [note],
    }
    assert data_lines(record, "kdzoo data cifar100")[2:] == [
        "data: in the train part too: 10 test images",
        "data: in full: kdzoo data cifar100",
    ]
    assert data_lines(record)[2:] == [f"data: {note}"]
