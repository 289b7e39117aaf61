"""Spoken digits: what a log-mel map shows, by other means of computing it, and who speaks in which part."""

import os
import wave
from pathlib import Path

import numpy as np
import pytest
from scipy.io import wavfile
from scipy.signal import ShortTimeFFT

from kdzoo.data import spoken
from kdzoo.data.sources import load
from kdzoo.errors import InputError

REAL = Path(os.environ.get("KDZOO_DATA", "/nowhere")) / "fsdd" / "recordings"


def tone(hertz: float, seconds: float = 2.0) -> np.ndarray:
    return np.round(12_000 * np.sin(2 * np.pi * hertz * np.arange(round(seconds * 8000)) / 8000)).astype(np.int16)


@pytest.mark.parametrize("band", [4, 13, 22, 30])
def test_a_tone_is_loudest_in_the_band_whose_middle_is_its_pitch(band):
    """32 bands are 34 corners, evenly spaced from 0 to 2146.06 mel (4 kHz); band i has its middle at corner i + 1."""
    mels = 2595 * np.log10(1 + 4000 / 700) * (band + 1) / 33
    image = spoken.log_mel(tone(700 * (10 ** (mels / 2595) - 1)))
    assert image.shape == (32, 32)
    assert image.dtype == np.uint8
    assert (image[::-1].argmax(0) == band).all()  # low bands stand at the bottom
    assert image.max() == 255


def test_a_map_is_what_scipys_spectrogram_gives_through_filters_drawn_bin_by_bin():
    """Two tones and noise; decibels below the loudest cell, 80 of them over 255 levels."""
    samples = tone(440) + tone(1700) // 8 + np.random.default_rng(0).normal(0, 20, 16_000).astype(np.int16)
    hann = np.hanning(481)[:480]  # 60 ms at 8 kHz
    spectra = ShortTimeFFT(hann, hop=240, fs=8000, mfft=512, phase_shift=None).stft(samples.astype(float))
    power = abs(spectra[:, 1:33]) ** 2  # the first of scipy's is centred on the first sample, the second begins there
    corners = [700 * (10 ** (np.log10(1 + 4000 / 700) * i / 33) - 1) for i in range(34)]

    def height(hertz, low, middle, high):
        if low < hertz <= middle:
            return (hertz - low) / (middle - low)
        return (high - hertz) / (high - middle) if middle < hertz < high else 0.0

    filters = np.array([[height(8000 / 512 * k, *corners[i : i + 3]) for k in range(257)] for i in range(32)])
    energy = filters @ power
    exact = 255 * (np.clip(10 * np.log10(energy / energy.max()), -80, 0) + 80) / 80
    assert spoken.log_mel(samples)[::-1] == pytest.approx(exact, abs=0.5 + 1e-6)


def test_neither_loudness_nor_format_changes_a_map_and_silence_is_black():
    samples = tone(440, 0.3)
    image = spoken.log_mel(samples)
    assert np.array_equal(spoken.log_mel(samples / 32768), image)
    assert np.array_equal(spoken.log_mel(samples.astype(np.int32) * 1000), image)
    assert (image[:, 10:] == 0).all()  # frame 10 begins at 0.3 s
    assert not spoken.log_mel(np.zeros(900, dtype=np.int16)).any()
    assert np.array_equal(spoken.log_mel(tone(440, 1.5)), spoken.log_mel(tone(440, 0.99)))  # 0.99 s are seen


def write_recordings(folder: Path, speakers=("anna", "theo", "yweweler", "zoe"), seconds=0.4) -> Path:
    """Two takes of every digit by every speaker, each a tone of its own."""
    recordings = folder / "fsdd" / "recordings"
    recordings.mkdir(parents=True)
    for place, speaker in enumerate(speakers):
        for digit in range(10):
            for take in range(2):
                wavfile.write(recordings / f"{digit}_{speaker}_{take}.wav", 8000, tone(300 + 60 * digit + 7 * place + take, seconds))
    return recordings


def test_the_test_part_is_of_speakers_that_are_not_in_training(tmp_path):
    recordings = write_recordings(tmp_path)
    images = load("spoken_digits", root=tmp_path)
    maps = {
        speaker: {spoken.log_mel(wavfile.read(file)[1]).tobytes() for file in recordings.glob(f"*_{speaker}_*.wav")}
        for speaker in ("anna", "theo", "yweweler", "zoe")
    }
    assert {image.numpy().tobytes() for image in images.train.images} == maps["anna"] | maps["zoe"]
    assert {image.numpy().tobytes() for image in images.test.images} == maps["theo"] | maps["yweweler"]
    assert images.train.images.shape == (40, 1, 32, 32)
    assert images.origins["test"] == "theo and yweweler, who are not in train"
    of_four = {spoken.log_mel(wavfile.read(file)[1]).tobytes() for file in recordings.glob("4_*.wav")}
    assert {images.train.images[i].numpy().tobytes() in of_four for i in (images.train.targets == 4).nonzero()} == {True}


def test_what_is_cut_off_is_told(tmp_path):
    write_recordings(tmp_path, seconds=1.2)
    assert "cut off after 0.99 s: 80 recordings" in load("spoken_digits", root=tmp_path).notes


def test_recordings_that_cannot_be_used_are_named_all_at_once(tmp_path):
    recordings = write_recordings(tmp_path)
    (recordings / "3_anna_0.wav").write_bytes(b"RIFF nothing")
    wavfile.write(recordings / "4_anna_0.wav", 16000, tone(440))
    (recordings / "notes.wav").write_bytes(b"")
    with pytest.raises(InputError) as refused:
        load("spoken_digits", root=tmp_path)
    told = str(refused.value)
    assert "3 recordings" in told
    assert "4_anna_0.wav (expected mono at 8000 Hz, got 16000 Hz" in told
    assert "notes.wav (expected a name like 7_theo_31.wav)" in told
    assert "3_anna_0.wav" in told


@pytest.mark.parametrize(
    ("speakers", "fault"),
    [
        (("anna", "theo"), "no recordings of the test speakers yweweler; speakers: anna, theo"),
        (spoken.TEST_SPEAKERS, "others to learn from"),
    ],
)
def test_both_parts_need_speakers(tmp_path, speakers, fault):
    write_recordings(tmp_path, speakers)
    with pytest.raises(InputError, match=fault):
        load("spoken_digits", root=tmp_path)


def test_missing_recordings_are_told_with_how_to_fetch_them(tmp_path, kdzoo):
    said = kdzoo("data", "spoken_digits", "--data-root", tmp_path)
    assert said.status == 2
    assert str(tmp_path / "fsdd" / "recordings") in said.err
    assert "git clone https://github.com/Jakobovski/free-spoken-digit-dataset fsdd" in said.err
    assert "kdzoo data spoken_digits" in kdzoo("data", "list", "--data-root", tmp_path).out
    assert "is not downloaded by kdzoo" in kdzoo("data", "prepare", "spoken_digits", "--data-root", tmp_path).err


@pytest.mark.skipif(not REAL.is_dir(), reason="KDZOO_DATA has no fsdd/recordings")
def test_the_real_recordings_are_3000_of_six_speakers():
    images = load("spoken_digits", root=REAL.parent.parent)
    assert (len(images.train.targets), len(images.test.targets)) == (2000, 1000)
    assert images.origins["train"] == "george, jackson, lucas, nicolas"
    assert images.train.targets.bincount().tolist() == [200] * 10
    # one recording, its length in samples read from its header: what follows its end is silence
    with wave.open(str(REAL / "7_theo_31.wav")) as sound:
        ends = -(-sound.getnframes() // spoken.HOP)
        samples = np.frombuffer(sound.readframes(sound.getnframes()), dtype="<i2")
    image = spoken.log_mel(samples)
    assert any(np.array_equal(image, other[0].numpy()) for other in images.test.images[images.test.targets == 7])
    assert not image[:, ends:].any()
