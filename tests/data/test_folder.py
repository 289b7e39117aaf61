"""Folders of image files: every fault is found before any work, and what is read is upright RGB."""

import hashlib

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_digits

from kdzoo.data.files import decode
from kdzoo.data.folder import load_folder
from kdzoo.errors import InputError


def save(path, pixels, **options) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, **options)


@pytest.fixture
def photos(tmp_path):
    """Real digits as files: three classes, PNG and JPEG, some in a deeper folder."""
    bunch = load_digits(n_class=3)
    for number, (image, label) in enumerate(zip(bunch.images[:60], bunch.target[:60], strict=True)):
        pixels = np.kron(np.round(image * 255 / 16).astype(np.uint8), np.ones((4, 4), dtype=np.uint8))
        suffix = "png" if number % 2 else "jpg"
        save(tmp_path / "photos" / f"class{label}" / ("more" if number % 5 == 0 else ".") / f"{number}.{suffix}", pixels)
    return tmp_path / "photos"


def test_a_folder_is_split_by_class_and_no_image_is_in_both_parts(photos):
    made = load_folder(photos, 28)
    assert made.classes == ("class0", "class1", "class2")
    assert len(made.train.targets) + len(made.test.targets) == 60
    assert set(made.test.targets.tolist()) == {0, 1, 2}
    assert made.train.images.shape[1:] == (3, 32, 32)
    assert made.notes == ()


def test_every_image_is_known_by_a_digest_of_its_class_and_its_file(photos):
    made = load_folder(photos, 28)
    files = [file for file in photos.rglob("*.*") if file.is_file()]
    digests = {
        hashlib.blake2b(f"{file.relative_to(photos).parts[0]}/".encode() + file.read_bytes(), digest_size=16).digest() for file in files
    }
    assert {key.numpy().tobytes() for subset in (made.train, made.test) for key in subset.keys} == digests
    assert len(made.test.keys) == len(made.test.targets)


def test_the_same_files_under_other_names_are_the_same_data(photos, tmp_path):
    for file in sorted(photos.rglob("*.*")):
        target = tmp_path / "copy" / file.relative_to(photos).parts[0] / f"{abs(hash(file.name))}{file.suffix.upper()}"
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(file.read_bytes())
    one, two = load_folder(photos, 28), load_folder(tmp_path / "copy", 28)
    assert one.fingerprint == two.fingerprint
    assert torch.equal(one.train.images, two.train.images)


def test_train_val_and_test_folders_are_taken_as_they_are(photos, tmp_path):
    whole = tmp_path / "split"
    for number, file in enumerate(sorted(photos.rglob("*.*"))):
        part = ("train", "train", "train", "valid", "test")[number % 5]
        target = whole / part / file.relative_to(photos).parts[0] / file.name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(file.read_bytes())
    made = load_folder(whole, 28)
    assert (len(made.train.targets), len(made.val.targets), len(made.test.targets)) == (36, 12, 12)


def test_every_unreadable_image_is_named_before_any_work(photos):
    whole = (photos / "class0").rglob("*.png").__next__()
    (photos / "class1" / "torn.png").write_bytes(whole.read_bytes()[:60])
    (photos / "class2" / "text.jpg").write_text("no image")
    with pytest.raises(InputError) as error:
        load_folder(photos, 28)
    assert "2 image files cannot be read" in str(error.value)
    assert "torn.png" in str(error.value)
    assert "text.jpg" in str(error.value)


def test_layouts_that_cannot_be_trained_on_are_refused(photos, tmp_path):
    (photos / "empty").mkdir()
    with pytest.raises(InputError, match="empty: no image files"):
        load_folder(photos, 28)
    with pytest.raises(InputError, match="two or more classes"):
        load_folder(photos / "class0", 28)
    with pytest.raises(InputError, match="no such folder"):
        load_folder(tmp_path / "nowhere", 28)


def test_images_that_lie_in_no_class_are_counted_where_classes_are_missing(tmp_path):
    save(tmp_path / "a.png", np.zeros((8, 8), dtype=np.uint8))
    save(tmp_path / "b.png", np.ones((8, 8), dtype=np.uint8))
    (tmp_path / "notes.txt").write_text("no image")
    with pytest.raises(InputError, match="two or more classes, found none; 2 images right in it: put those of each class into a folder"):
        load_folder(tmp_path, 8)


def test_classes_of_the_parts_must_agree(photos, tmp_path):
    for part, names in (("train", ("class0", "class1")), ("test", ("class0", "class2"))):
        for name in names:
            for file in (photos / name).glob("*.png"):
                target = tmp_path / "s" / part / name / file.name
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(file.read_bytes())
    with pytest.raises(InputError, match="classes differ from those of the train part: class1, class2"):
        load_folder(tmp_path / "s", 28)


def test_an_image_is_decoded_upright_and_in_three_channels(tmp_path):
    pixels = np.zeros((20, 40, 3), dtype=np.uint8)
    pixels[:, 20:] = (255, 0, 0)
    turned = Image.Exif()
    turned[0x0112] = 6  # to be shown turned by 90 degrees clockwise
    Image.fromarray(pixels).save(tmp_path / "turned.png", exif=turned)
    upright = decode(tmp_path / "turned.png", 20)
    assert upright[0, -1].min() == 255  # the right half of the file is at the bottom of the picture
    assert upright[0, 0].max() == 0
    for name, image in {
        "grey": Image.fromarray(pixels[..., 0]),
        "alpha": Image.fromarray(np.dstack([pixels, np.full((20, 40), 255, np.uint8)])),
        "palette": Image.fromarray(pixels).convert("P"),
        "deep": Image.fromarray(pixels[..., 0].astype(np.uint16) * 257),
    }.items():
        image.save(tmp_path / f"{name}.png")
        decoded = decode(tmp_path / f"{name}.png", 20)
        assert decoded.shape == (3, 20, 20)
        assert decoded[0].max() == 255
