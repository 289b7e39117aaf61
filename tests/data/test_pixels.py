"""Files of other than eight bits, with transparency or several frames: no image becomes one constant, and it is told how it was read."""

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_sample_image

from kdzoo.data import files, pixels
from kdzoo.data.files import decode
from kdzoo.data.folder import load_folder
from kdzoo.data.loader import load_all
from kdzoo.errors import InputError

PHOTO = load_sample_image("china.jpg")[220:340, 200:360]
GREY = PHOTO.mean(2)
SIDE = 120


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("KDZOO_CACHE", str(tmp_path / "cache"))


def folder_of(root, ending: str, *arrays):
    """Two classes of two crops of each array."""
    for label in range(2):
        for number, array in enumerate(arrays):
            for row in (0, 20):
                (root / f"class{label}").mkdir(parents=True, exist_ok=True)
                Image.fromarray(array[row + label : row + label + 64]).save(root / f"class{label}" / f"{number}-{row}{ending}")
    return root


def one(root):
    """The pixels of all images of a folder, (N, 3, H, W)."""
    images = load_folder(root, 56)
    return torch.cat([images.train.images, images.test.images]).numpy(), images


@pytest.mark.parametrize("bits", [8, 9, 10, 12])
def test_grey_values_of_few_bits_in_sixteen_are_read_by_the_range_that_the_set_uses(tmp_path, bits):
    levels = np.round(GREY / GREY.max() * (2**bits - 1))
    root = folder_of(tmp_path / "set", ".png", levels.astype(np.uint16), (levels / 4).astype(np.uint16))
    found, images = one(root)
    path = root / "class0" / "0-0.png"
    expected = np.asarray(Image.open(path)).astype(float)[None, :, 48:112] * 256 / 2**bits  # 64 x 160: the centre square
    decoded = decode(path, 64)
    assert np.abs(decoded[0] - np.floor(expected[0])).max() <= 1
    assert len(np.unique(found)) > 64
    assert any(f"read as 0 to {2**bits}" in note for note in images.notes)
    # one rule for the set: an image of a quarter of the brightness stays one
    dark, light = (load_scaled(root, name) for name in ("1-0.png", "0-0.png"))
    assert dark.mean() / light.mean() == pytest.approx(0.25, abs=0.02)


def load_scaled(root, name):
    looks = {str(path): pixels.look(path.read_bytes()) for path in root.rglob("*.png")}
    return decode(root / "class0" / name, 64, pixels.find_scales(looks)).astype(float)


def test_sixteen_bits_of_the_whole_range_are_read_as_they_always_were(tmp_path):
    deep = (GREY * 257).astype(np.uint16)
    path = tmp_path / "deep.png"
    Image.fromarray(deep).save(path)
    assert np.array_equal(decode(path, SIDE)[0], (deep >> 8).astype(np.uint8)[:, 20:140])


@pytest.mark.parametrize(
    ("array", "words"),
    [
        ((GREY / 255).astype(np.float32), "shares of 1"),
        (GREY.astype(np.float32), "levels up to 255"),
        ((GREY * 257).astype(np.int32), "read as 0 to 65536"),
    ],
    ids=["shares", "levels", "32 bits"],
)
def test_floats_and_wide_integers_are_read_at_their_brightness(tmp_path, array, words):
    root = folder_of(tmp_path / "set", ".tif", array)
    found, images = one(root)
    assert any(words in note for note in images.notes)
    path = root / "class0" / "0-0.tif"
    assert np.abs(decode(path, 64)[0].astype(float) - GREY[:64, 48:112]).max() <= 1.01
    assert len(np.unique(found)) > 64


@pytest.mark.parametrize(
    ("array", "words"),
    [
        ((GREY * 257).astype(np.float32), "have values from 85.6667 to 64935"),
        ((GREY - 100).astype(np.float32), "have values from -99.6667 to 152"),
        (np.where(GREY > 200, np.nan, GREY).astype(np.float32), "nan"),
        ((GREY - 100).astype(np.int32), "none below 0"),
    ],
)
def test_values_that_have_no_meaning_as_brightness_are_refused_with_their_range(tmp_path, array, words):
    with pytest.raises(InputError, match=words):
        load_folder(folder_of(tmp_path / "set", ".tif", array), 56)


def test_deep_values_change_what_a_folder_is_and_plain_ones_do_not(tmp_path):
    """The same files are other data once their pixels are read in another way; ordinary files are what they were."""
    classes = ("a", "b")
    ordinary = {"train": [files.File("x", 0, b"0" * 16)], "test": [files.File("y", 1, b"1" * 16)]}
    from kdzoo.data.folder import _fingerprint, _rules

    plain = _fingerprint(ordinary, classes, _rules({"x": pixels.Look()}, {}))
    whole = _fingerprint(ordinary, classes, _rules({"x": pixels.Look("16-bit", 0, 65535)}, {"16-bit": 65536}))
    few = _fingerprint(ordinary, classes, _rules({"x": pixels.Look("16-bit", 0, 4095)}, {"16-bit": 4096}))
    clear = _fingerprint(ordinary, classes, _rules({"x": pixels.Look(transparent=True)}, {}))
    assert plain == whole
    assert len({plain, few, clear}) == 3


def test_a_black_shape_on_transparent_ground_is_seen_on_white(tmp_path):
    shape = np.zeros((64, 64, 4), np.uint8)
    shape[16:48, 16:48, 3] = 255
    for mode in ("RGBA", "LA", "PA"):
        image = Image.fromarray(shape).convert(mode)
        path = tmp_path / f"{mode}.{'tif' if mode == 'PA' else 'png'}"
        if mode == "PA":
            path = tmp_path / "palette.png"
            Image.fromarray(shape).quantize(8).save(path)
        else:
            image.save(path)
        decoded = decode(path, 64)
        assert decoded[:, 32, 32].max() == 0, mode
        assert decoded[:, 2, 2].min() == 255, mode


def test_opaque_images_are_the_same_with_an_alpha_channel_and_without(tmp_path):
    Image.fromarray(PHOTO).save(tmp_path / "rgb.png")
    Image.fromarray(np.dstack([PHOTO, np.full(PHOTO.shape[:2], 255, np.uint8)])).save(tmp_path / "rgba.png")
    assert np.array_equal(decode(tmp_path / "rgb.png", SIDE), decode(tmp_path / "rgba.png", SIDE))


def test_one_bit_grey_with_alpha_and_four_inks_keep_their_picture(tmp_path):
    Image.fromarray(GREY > 120).save(tmp_path / "bit.png")
    assert set(np.unique(decode(tmp_path / "bit.png", SIDE))) == {0, 255}
    Image.fromarray(PHOTO).convert("CMYK").save(tmp_path / "inks.tif")
    assert np.abs(decode(tmp_path / "inks.tif", SIDE).astype(int) - PHOTO[:, 20:140].transpose(2, 0, 1)).max() <= 1


def test_colour_of_sixteen_bits_of_which_few_are_used_is_refused(tmp_path):
    import struct
    import zlib

    def png(values):
        """A PNG of 16 bits a channel, which Pillow reads and does not write."""
        height, width, _ = values.shape
        rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
        chunks = [(b"IHDR", struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0)), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
        packed = (struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body)) for name, body in chunks)
        return b"\x89PNG\r\n\x1a\n" + b"".join(packed)

    for factor in (257, 4):
        root = tmp_path / f"times{factor}"
        for label in range(2):
            for row in (0, 9):
                (root / f"class{label}").mkdir(parents=True, exist_ok=True)
                crop = PHOTO[row + label : row + label + 64].astype(np.uint16) * factor
                (root / f"class{label}" / f"{row}.png").write_bytes(png(crop))
    assert any("upper 8 of 16 bits" in note for note in load_folder(tmp_path / "times257", 56).notes)
    with pytest.raises(InputError, match="colour images of 16 bits per channel use under 1/16"):
        load_folder(tmp_path / "times4", 56)


@pytest.mark.parametrize("ending", [".gif", ".tif", ".png", ".webp"])
def test_the_first_of_several_frames_is_read_and_told(tmp_path, ending):
    root = folder_of(tmp_path / "set", ".png", PHOTO)
    frames = [Image.fromarray(PHOTO[row : row + 64, :64]) for row in (0, 20, 40)]
    options = {"lossless": True} if ending == ".webp" else {}
    frames[0].save(root / "class0" / f"several{ending}", save_all=True, append_images=frames[1:], **options)
    (note,) = [note for note in load_folder(root, 56).notes if note.startswith("of several frames, only the first is read")]
    assert f"class0/several{ending}" in note
    if ending != ".gif":
        assert np.array_equal(decode(root / "class0" / f"several{ending}", 64), PHOTO[:64, :64].transpose(2, 0, 1))


@pytest.mark.parametrize("resident", [None, 0], ids=["mapped", "streamed"])
def test_pixels_that_another_decoder_kept_are_never_read(tmp_path, monkeypatch, resident):
    root = folder_of(tmp_path / "set", ".png", (GREY * 16).astype(np.uint16))
    fresh, _ = one(root)
    monkeypatch.setattr(files, "IN_MEMORY_BYTES", 0)
    load_folder(root, 56, resident)
    monkeypatch.setattr(files, "DECODER", pixels.DECODER + 1)
    for kept in (tmp_path / "cache" / "data").glob("*.npy"):
        kept.write_bytes(b"\0" * kept.stat().st_size)
    again = load_folder(root, 56, resident)
    assert np.array_equal(torch.cat([load_all(part.images, torch.device("cpu")) for part in (again.train, again.test)]).numpy(), fresh)


@pytest.mark.parametrize("harm", [b"", b"{}", b"not json at all", None])
@pytest.mark.parametrize("resident", [None, 0], ids=["mapped", "streamed"])
def test_damaged_files_of_the_cache_are_made_again(tmp_path, monkeypatch, harm, resident):
    root = folder_of(tmp_path / "set", ".png", PHOTO)
    monkeypatch.setattr(files, "IN_MEMORY_BYTES", 0)
    first = load_folder(root, 56, resident)
    for kept in (tmp_path / "cache" / "data").iterdir():
        kept.write_bytes(kept.read_bytes()[: kept.stat().st_size // 2] if harm is None else harm)
    second = load_folder(root, 56, resident)
    assert (second.fingerprint, second.mean, second.std, second.notes) == (first.fingerprint, first.mean, first.std, first.notes)


@pytest.mark.parametrize("harm", ["bit", "zeros"])
def test_kept_pixels_that_are_not_those_that_were_written_are_made_again(tmp_path, monkeypatch, harm):
    root = folder_of(tmp_path / "set", ".png", PHOTO)
    monkeypatch.setattr(files, "IN_MEMORY_BYTES", 0)
    first = load_all(load_folder(root, 56).train.images, torch.device("cpu"))
    (kept,) = (tmp_path / "cache" / "data").glob("*.npy")
    content = bytearray(kept.read_bytes())
    if harm == "bit":
        content[-5] ^= 1
    else:
        content[len(content) // 2 :] = bytes(len(content) - len(content) // 2)
    kept.write_bytes(content)
    assert torch.equal(load_all(load_folder(root, 56).train.images, torch.device("cpu")), first)
    assert kept.read_bytes() != content
