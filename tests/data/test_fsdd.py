"""Spoken digits as float32 maps: what a map holds, the set's own split, the cache, how the recordings are fetched, views of maps."""

import functools
import http.server
import os
import threading
import zipfile

import numpy as np
import pytest
import torch
from recordings import SPEAKERS, record, tone
from scipy.io import wavfile

from kdzoo.data import fsdd, spoken
from kdzoo.data.canonical import Raw, make_dataset
from kdzoo.data.mixing import MixPlan, mix
from kdzoo.data.operations import mask_stripes, shift_columns
from kdzoo.data.sources import load
from kdzoo.data.views import apply_views, draw_views, has_numbered_views
from kdzoo.errors import InputError
from kdzoo.runs.recipe import Augment, Recipe


def test_maps_are_those_of_images_before_they_are_rounded_and_the_takes_0_to_4_are_tested_on(tmp_path):
    folder = record(tmp_path)
    maps = load("fsdd", root=tmp_path)
    assert maps.holds_maps
    assert (len(maps.train.targets), len(maps.test.targets)) == (60, 100)
    assert maps.train.images.dtype == torch.float32
    assert [(column.name, column.classes) for column in maps.columns] == [("digit", tuple("0123456789")), ("speaker", SPEAKERS)]
    by_bytes = {maps.test.images[i, 0].numpy().tobytes(): maps.test.columns[i].tolist() for i in range(100)}
    for file in folder.glob("*_[0-4].wav"):
        levels = spoken.levels(wavfile.read(file)[1])
        assert np.array_equal(np.round(levels), spoken.log_mel(wavfile.read(file)[1]))
        digit, speaker, _ = file.stem.split("_")
        assert by_bytes[levels.astype(np.float32).tobytes()] == [int(digit), SPEAKERS.index(speaker)]
    shares = maps.train.images.double() / 255
    assert maps.mean == pytest.approx((float(shares.mean()),), abs=1e-6)
    assert maps.std == pytest.approx((float(shares.std(correction=0)),), abs=1e-6)


def test_maps_are_computed_once_and_again_where_a_recording_changes_or_the_cache_is_damaged(tmp_path, monkeypatch):
    monkeypatch.setenv("KDZOO_CACHE", str(tmp_path / "cache"))
    folder = record(tmp_path)
    first = load("fsdd", root=tmp_path)
    (kept,) = (tmp_path / "cache" / "fsdd").iterdir()
    monkeypatch.setattr(fsdd, "read_recordings", lambda *_: pytest.fail("the maps are in the cache"))
    assert load("fsdd", root=tmp_path).fingerprint == first.fingerprint
    monkeypatch.undo()
    monkeypatch.setenv("KDZOO_CACHE", str(tmp_path / "cache"))
    kept.write_bytes(kept.read_bytes()[:1000])
    assert load("fsdd", root=tmp_path).fingerprint == first.fingerprint
    wavfile.write(folder / "3_theo_7.wav", 8000, tone(3000, 0.5))
    os.utime(folder / "3_theo_7.wav", (1, 1))
    assert load("fsdd", root=tmp_path).fingerprint != first.fingerprint


@pytest.mark.parametrize(
    ("maps", "fault"),
    [
        (np.full((20, 4, 4), 256.0, np.float32), "expected float32 maps from 0 to 255, got 256 to 256 in train"),
        (np.full((20, 4, 4), np.nan, np.float32), "expected float32 maps from 0 to 255, got nan to nan in train"),
        (np.zeros((20, 4, 4)), "expected uint8 images, or float32 maps, in 0..255, got float64 in train"),
    ],
)
def test_maps_of_another_range_or_precision_are_refused(maps, fault):
    good = np.arange(20) % 2
    with pytest.raises(InputError, match=fault):
        make_dataset("x", Raw((maps, good), (np.zeros((20, 4, 4), np.float32), good)))


def test_a_set_without_recordings_names_the_command_that_fetches_them(tmp_path):
    with pytest.raises(InputError, match=r"fsdd is not on this machine; .* kdzoo data prepare fsdd"):
        load("fsdd", root=tmp_path)
    record(tmp_path, takes=4)
    with pytest.raises(InputError, match="no recording of the train part, the takes 5 and more"):
        load("fsdd", root=tmp_path)


@pytest.fixture
def server(tmp_path):
    """A web server on this machine with the files of a folder."""
    folder = tmp_path / "served"
    folder.mkdir()
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as running:
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        yield folder, f"http://127.0.0.1:{running.server_port}"
        running.shutdown()
        thread.join()


def test_recordings_are_fetched_unpacked_and_counted(tmp_path, server):
    folder, address = server
    made = record(tmp_path / "made", takes=50)
    with zipfile.ZipFile(folder / "fsdd.zip", "w") as archive:
        archive.writestr("free-spoken-digit-dataset-26eb9aaf/README.md", "text")
        for file in made.iterdir():
            archive.write(file, f"free-spoken-digit-dataset-26eb9aaf/recordings/{file.name}")
    fsdd.prepare(tmp_path, f"{address}/fsdd.zip")
    assert {file.name: file.read_bytes() for file in (tmp_path / "fsdd" / "recordings").iterdir()} == {
        file.name: file.read_bytes() for file in made.iterdir()
    }
    fsdd.prepare(tmp_path, f"{address}/nothing.zip")  # they are there
    (tmp_path / "fsdd" / "recordings" / "3_theo_7.wav").unlink()
    with pytest.raises(InputError, match="expected 50 recordings of each digit by each speaker, found 49 of 3 by theo; remove it"):
        fsdd.prepare(tmp_path)
    with pytest.raises(OSError, match="404"):
        fsdd.prepare(tmp_path / "other", f"{address}/nothing.zip")
    (folder / "text.zip").write_text("no archive")
    with pytest.raises(InputError, match="gave no archive"):
        fsdd.prepare(tmp_path / "other", f"{address}/text.zip")


MAPS = torch.rand(64, 1, 8, 10, generator=torch.Generator().manual_seed(0)) * 255


def test_maps_are_shifted_with_silence_from_outside():
    shift = torch.arange(64) % 7 - 3
    moved = shift_columns(MAPS, shift)
    for before, after, by in zip(MAPS[:, 0].numpy(), moved[:, 0].numpy(), shift.tolist(), strict=True):
        expected = np.zeros_like(before)
        expected[:, max(by, 0) : 10 + min(by, 0)] = before[:, max(-by, 0) : 10 - max(by, 0)]
        np.testing.assert_array_equal(after, expected)


def test_masked_bands_and_columns_hold_the_mean_of_the_map():
    augment = Augment(time_mask=4, band_mask=3)
    views = draw_views(augment, samples=64, height=8, width=10, seed=0, epoch=0)
    seen = apply_views(MAPS, views, torch.arange(64), augment)
    lengths = [set((views.masks[:, end] - views.masks[:, end - 1]).tolist()) for end in (1, 3)]
    assert lengths == [set(range(4)), set(range(5))], "from none to all that were asked for"
    for before, after, (top, bottom, left, right) in zip(MAPS[:, 0], seen[:, 0], views.masks.tolist(), strict=True):
        hidden = torch.zeros(8, 10, dtype=torch.bool)
        hidden[top:bottom], hidden[:, left:right] = True, True
        assert torch.equal(after[~hidden], before[~hidden])
        assert after[hidden].tolist() == pytest.approx([float(before.mean())] * int(hidden.sum()), rel=1e-5)
    images = MAPS.to(torch.uint8)
    assert mask_stripes(images, views.masks).dtype == torch.uint8


def test_views_of_maps_depend_on_the_sample_alone_and_leave_other_views_as_they_were():
    augment = Augment(time_shift=3, time_mask=4, band_mask=3)
    views = draw_views(augment, samples=64, height=8, width=10, seed=0, epoch=5)
    whole = apply_views(MAPS, views, torch.arange(64), augment)
    some = torch.tensor([7, 3, 50])
    assert torch.equal(apply_views(MAPS[some], views, some, augment), whole[some])
    plain, more = (
        draw_views(one, samples=64, height=8, width=10, seed=0, epoch=5)
        for one in (Augment(crop="pad", pad=2), Augment(crop="pad", pad=2, time_shift=1))
    )
    assert torch.equal(plain.top, more.top)
    assert set(views.shift.tolist()) == set(range(-3, 4))
    assert not has_numbered_views(Recipe(epochs=1, batch_size=2, lr=0.1, augment=augment))
    assert "time_shift" not in Augment(crop="pad", pad=2).model_dump(mode="json"), "what is unused is no part of an id"


def test_mixed_maps_stay_between_levels():
    half = torch.full((64,), 0.7)
    mixed = mix(MAPS, MixPlan(half, half, torch.zeros(64, 4, dtype=torch.int64), half), torch.arange(64))
    assert mixed.dtype == torch.float32
    assert torch.allclose(mixed, 0.7 * MAPS + 0.3 * MAPS.roll(1, 0), atol=1e-4)


def test_a_student_of_both_columns_is_trained_on_maps_and_what_needs_pixels_is_refused(place, kdzoo, monkeypatch):
    monkeypatch.setenv("KDZOO_DATA", str(place))
    record(place)
    words = (
        "bench",
        "--data",
        "fsdd",
        "--columns",
        "digit,speaker",
        "--teacher",
        "mlp_30_30",
        "--student",
        "mlp_30_30",
        "--methods",
        "hinton",
    )
    small = ("--seeds", 1, "--epochs", 2, "--val-fraction", 0.34, "--allow-chance-teacher", "--no-refit", "--keep", "student")
    said = kdzoo(*words, *small, "--name", "maps")
    assert said.status == 0, said.err
    assert "160 maps, digit:10+speaker:2, 32x32 float32" in said.out + said.err
    board = (place / "results" / "maps" / "leaderboard.csv").read_text()
    assert "test_speaker.top1" in board.splitlines()[0]
    run = next((place / "results" / "maps" / "runs").glob("hinton-*"))
    refused = kdzoo("export", run, "--format", "timm", "-o", place / "out")
    assert "trained on maps, which no image file holds" in refused.err
    refused = kdzoo(*words, *small, "--set", "recipe.augment.flip=true", "--set", "recipe.augment.brightness=0.2")
    assert "recipe.augment.flip, recipe.augment.brightness: needs pixels, fsdd has maps" in refused.err
    refused = kdzoo(*words, *small, "--transfer-data", "digits")
    assert "transfer_data: digits has images of 8x8 grey; expected 32x32 float32 maps" in refused.err
