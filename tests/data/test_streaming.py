"""Where a folder's pixels lie, in memory, in a file of the cache, or still in the images' own files, changes none of them."""

import threading
import time
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from sklearn.datasets import load_digits

from kdzoo.data.dataset import LazyImages, as_lazy, statistics
from kdzoo.data.files import content_digest, decode
from kdzoo.data.folder import load_folder
from kdzoo.data.loader import fetch, load_all, move_if_fits
from kdzoo.data.split import split
from kdzoo.data.views import apply_views, draw_views
from kdzoo.errors import InputError
from kdzoo.runs.recipe import Augment
from kdzoo.runs.spec import DataSpec

CPU = torch.device("cpu")
PLACES = [None, "mapped", "streamed"]


@pytest.fixture
def photos(tmp_path, monkeypatch) -> Path:
    """Real digits in three classes, PNG and JPEG, some wider than high, one class in a deeper folder."""
    monkeypatch.setenv("KDZOO_CACHE", str(tmp_path / "cache"))
    bunch = load_digits(n_class=3)
    for number, (image, label) in enumerate(zip(bunch.images[:90], bunch.target[:90], strict=True)):
        grey = np.kron(np.round(image * 255 / 16).astype(np.uint8), np.ones((4, 4 + number % 3), dtype=np.uint8))
        pixels = np.dstack([grey, 255 - grey, np.roll(grey, number, axis=1)])
        path = tmp_path / "photos" / f"class{label}" / ("more" if label == 1 else ".") / f"{number}.{'png' if number % 2 else 'jpg'}"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path)
    return tmp_path / "photos"


def loaded(folder: Path, place: str | None, monkeypatch):
    """The folder with its pixels at a place."""
    monkeypatch.setattr("kdzoo.data.files.IN_MEMORY_BYTES", 0 if place else 2**31)
    return load_folder(folder, 28, 0 if place == "streamed" else None)


@pytest.mark.parametrize("place", PLACES[1:])
def test_pixels_targets_statistics_and_fingerprint_are_those_of_a_resident_folder(photos, monkeypatch, place):
    resident = loaded(photos, None, monkeypatch)
    for _ in range(2):  # surveyed, then found again
        other = loaded(photos, place, monkeypatch)
        assert isinstance(other.train.images, LazyImages)
        for part in ("train", "test"):
            mine, theirs = getattr(other, part), getattr(resident, part)
            assert mine.images.shape == tuple(theirs.images.shape)
            assert torch.equal(load_all(mine.images, CPU), theirs.images)
            assert torch.equal(mine.targets, theirs.targets)
        told = [f.name for f in fields(resident) if f.name not in ("train", "test")]
        assert [getattr(other, name) for name in told] == [getattr(resident, name) for name in told]


def test_statistics_of_a_folder_are_those_of_all_its_training_pixels(photos, monkeypatch):
    images = loaded(photos, "streamed", monkeypatch)
    pixels = np.stack([decode(path, 32) for path in sorted(photos.rglob("*.*"))])
    held = {image.tobytes() for image in load_all(images.train.images, CPU).numpy()}
    trained = np.stack([image for image in pixels if image.tobytes() in held]) / 255
    assert images.mean == pytest.approx(trained.mean((0, 2, 3)), abs=1e-6)
    assert images.std == pytest.approx(trained.std((0, 2, 3)), abs=1e-6)
    assert (images.mean, images.std) == statistics(load_all(images.train.images, CPU))


def test_a_streamed_folder_leaves_no_pixels_on_the_disk(photos, monkeypatch, tmp_path):
    images = loaded(photos, "streamed", monkeypatch)
    pixels = load_all(images.train.images, CPU)
    assert sum(path.stat().st_size for path in (tmp_path / "cache").rglob("*.*")) < pixels.numel() / 10


@pytest.mark.parametrize("place", PLACES)
def test_limits_validation_and_labels_are_split_without_reading_an_image(photos, monkeypatch, place):
    images = loaded(photos, place, monkeypatch)
    spec = DataSpec(name="folder", fingerprint=images.fingerprint, classes=3, val_fraction=0.25, limit=40, label_fraction=0.5)
    theirs = split(loaded(photos, None, monkeypatch), spec)
    if place == "streamed":
        monkeypatch.setattr("kdzoo.data.files.decode", None)  # whoever reads here fails
    mine = split(images, spec)
    monkeypatch.undo()
    for part in ("train", "val"):
        assert torch.equal(load_all(getattr(mine, part).images, CPU), getattr(theirs, part).images)
        assert torch.equal(getattr(mine, part).targets, getattr(theirs, part).targets)


@settings(max_examples=25)
@given(
    samples=st.integers(1, 40),
    batches=st.lists(st.lists(st.integers(0, 10**6), max_size=30), max_size=8),
    threads=st.integers(1, 4),
    slowest=st.integers(0, 39),
)
def test_batches_come_in_order_whichever_thread_is_the_fastest(samples, batches, threads, slowest):
    pixels = torch.randint(256, (samples, 3, 4, 5), dtype=torch.uint8, generator=torch.Generator().manual_seed(samples))

    def read(place: int) -> np.ndarray:
        time.sleep(0.002 if place == slowest else 0)
        return pixels[place].numpy()

    indices = [torch.tensor(batch, dtype=torch.int64) % samples for batch in batches]
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        given_batches = list(fetch(LazyImages(read, torch.arange(samples), (3, 4, 5)), indices, CPU))
    finally:
        torch.set_num_threads(before)
    assert len(given_batches) == len(indices)
    assert all(torch.equal(batch, pixels[index]) for batch, index in zip(given_batches, indices, strict=True))
    assert torch.equal(load_all(as_lazy(pixels), CPU), pixels)


def test_reading_runs_ahead_of_its_use_but_no_further_than_it_should():
    begun: list[int] = []

    def read(place: int) -> np.ndarray:
        begun.append(place)
        return np.zeros((3, 2, 2), dtype=np.uint8)

    batches = fetch(LazyImages(read, torch.arange(100), (3, 2, 2)), torch.arange(100).split(10), CPU)
    next(batches)
    deadline = time.monotonic() + 10
    while len(begun) < 30 and time.monotonic() < deadline:
        time.sleep(0.001)
    time.sleep(0.05)
    assert sorted(begun) == list(range(30))  # the batch in use and two ahead


def readers() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("kdzoo-read")]


def test_no_thread_stays_when_a_reader_stops_half_way():
    read = LazyImages(lambda place: np.zeros((3, 2, 2), dtype=np.uint8), torch.arange(100), (3, 2, 2))
    batches = fetch(read, torch.arange(100).split(10), CPU)
    next(batches)
    assert readers()
    batches.close()
    assert readers() == []


HARMS = {
    "gone": lambda path, other: path.unlink(),
    "torn": lambda path, other: path.write_bytes(path.read_bytes()[:60]),
    "another": lambda path, other: path.write_bytes(other.read_bytes()),
}


@pytest.mark.parametrize("harm", HARMS)
def test_a_file_that_is_not_what_it_was_is_named_when_it_is_read(photos, monkeypatch, harm):
    images = loaded(photos, "streamed", monkeypatch)
    path, other = sorted((photos / "class1" / "more").glob("*.png"))[:2]
    content = path.read_bytes()
    HARMS[harm](path, other)
    with pytest.raises(InputError, match=rf"data: {path} (cannot be read any more|has changed)"):
        _ = [load_all(subset.images, CPU) for subset in (images.train, images.test)]
    path.write_bytes(content)
    assert torch.equal(load_all(images.train.images, CPU), loaded(photos, None, monkeypatch).train.images)


def test_every_unreadable_image_of_a_streamed_folder_is_named_before_any_work(photos, monkeypatch):
    (photos / "class1" / "torn.png").write_bytes(next((photos / "class0").glob("*.png")).read_bytes()[:60])
    (photos / "class2" / "text.jpg").write_text("no image")
    for _ in range(2):
        with pytest.raises(InputError, match=r"2 image files cannot be read: .*class1/torn.png.*class2/text.jpg"):
            loaded(photos, "streamed", monkeypatch)


def test_a_start_reads_only_the_files_of_a_streamed_folder_that_have_changed(photos, monkeypatch):
    first = loaded(photos, "streamed", monkeypatch)
    changed = next((photos / "class0").glob("*.png"))
    read: list[str] = []
    monkeypatch.setattr("kdzoo.data.folder.content_digest", lambda name, content: read.append(name) or content_digest(name, content))
    assert loaded(photos, "streamed", monkeypatch).fingerprint == first.fingerprint
    assert read == []
    Image.fromarray(np.full((32, 32, 3), 7, dtype=np.uint8)).save(changed)
    second = loaded(photos, "streamed", monkeypatch)
    assert read == ["class0"]
    assert second.fingerprint == loaded(photos, None, monkeypatch).fingerprint != first.fingerprint


@pytest.mark.parametrize("place", PLACES)
def test_what_fits_is_held_on_the_device_and_what_does_not_stays_where_it_is(photos, monkeypatch, place):
    images = loaded(photos, place, monkeypatch)
    spec = DataSpec(name="folder", fingerprint=images.fingerprint, classes=3, val_fraction=0.25)
    parts, theirs = split(images, spec), split(loaded(photos, None, monkeypatch), spec)
    size = 90 * 3 * 32 * 32
    assert move_if_fits(parts, CPU, size - 1) is parts
    held = move_if_fits(parts, CPU, size)
    for part in ("train", "val", "test"):
        assert torch.equal(getattr(held, part).images, getattr(theirs, part).images)
        assert torch.equal(getattr(held, part).targets, getattr(theirs, part).targets)


@pytest.mark.parametrize(
    "augment", [Augment(crop="pad", pad=3, flip=True), Augment(crop="resized", size=28, flip=True)], ids=["pad", "resized"]
)
def test_views_of_streamed_images_are_those_of_resident_ones(photos, monkeypatch, augment):
    streamed, resident = (loaded(photos, place, monkeypatch).train.images for place in ("streamed", None))
    views = draw_views(augment, samples=len(resident), height=32, width=32, seed=1, epoch=2)
    index = torch.randperm(len(resident), generator=torch.Generator().manual_seed(0))
    for batch, rows in zip(fetch(streamed, index.split(7), CPU), index.split(7), strict=True):
        assert torch.equal(apply_views(batch, views, rows, augment), apply_views(resident[rows], views.to(CPU), rows, augment))
