"""Spoken digits as images: recordings of the Free Spoken Digit Dataset as log-mel maps, its test speakers never heard in training.

https://github.com/Jakobovski/free-spoken-digit-dataset: six speakers say each digit fifty times, in wav files of 8 kHz.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.io import wavfile

from kdzoo.errors import InputError
from kdzoo.text import number_of

RATE = 8000
"""samples a second"""
WINDOW, HOP, FOURIER = 480, 240, 512
"""samples of a frame (60 ms), from one frame to the next (30 ms), and of its Fourier transform"""
FRAMES, BANDS = 32, 32
"""width and height of a map"""
LENGTH = HOP * (FRAMES - 1) + WINDOW
"""samples that a map shows, 0.99 s; what follows is cut off, and a shorter recording is followed by silence"""
RANGE = 80.0
"""decibels below the loudest cell of a map at which it is black"""
TEST_SPEAKERS = ("theo", "yweweler")
"""the last two of six by name; the other four are the training part"""
DIGITS = tuple(map(str, range(10)))

NAME = re.compile(r"(\d)_([^_]+)_(\d+)\.wav")
SHOWN = 3
"""files that a message names"""

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Recordings:
    """maps (N, BANDS, FRAMES); digits, takes (N,) int64; speakers: a name each; cut: how many recordings were longer than a map."""

    maps: NDArray[Any]
    digits: NDArray[np.int64]
    speakers: tuple[str, ...]
    cut: int
    takes: NDArray[np.int64]

    def of(self, speakers: Collection[str]) -> tuple[NDArray[Any], NDArray[np.int64]]:
        """The maps and the digits of some speakers."""
        mask = np.array([speaker in speakers for speaker in self.speakers])
        return self.maps[mask], self.digits[mask]


def mel(hertz: Any) -> Any:
    """The mel scale, 2595 log10(1 + f / 700)."""
    return 2595 * np.log10(1 + np.asarray(hertz) / 700)


def mel_filters() -> Floats:
    """Triangular filters (BANDS, FOURIER // 2 + 1), of height 1, whose corners are evenly spaced in mel from 0 to RATE / 2."""
    corners = 700 * (10 ** (np.linspace(0, mel(RATE / 2), BANDS + 2) / 2595) - 1)
    left, middle, right = corners[:-2, None], corners[1:-1, None], corners[2:, None]
    hertz = np.fft.rfftfreq(FOURIER, 1 / RATE)[None]
    filters: Floats = np.clip(np.minimum((hertz - left) / (middle - left), (right - hertz) / (right - middle)), 0, None)
    return filters


def log_mel(samples: NDArray[Any]) -> NDArray[np.uint8]:
    """The log-mel map (BANDS, FRAMES) uint8 of a recording at RATE: its `levels`, rounded."""
    return np.round(levels(samples)).astype(np.uint8)


def levels(samples: NDArray[Any]) -> Floats:
    """The log-mel map (BANDS, FRAMES) of a recording at RATE, low bands at the bottom.

    Power of Hann windows, summed by `mel_filters`, in decibels: 255 is the loudest cell, 0 what is RANGE or more below it.
    Loudness and format of the samples, which may be whole numbers, do not matter; silence is 0.
    """
    clip = np.zeros(LENGTH)
    clip[: min(len(samples), LENGTH)] = samples[:LENGTH]
    frames = np.lib.stride_tricks.sliding_window_view(clip, WINDOW)[::HOP]
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(WINDOW) / WINDOW)
    energy = mel_filters() @ (np.abs(np.fft.rfft(frames * window, FOURIER)) ** 2).T
    loudest = energy.max()
    if loudest == 0:
        return np.zeros((BANDS, FRAMES))
    decibels = 10 * np.log10(np.maximum(energy / loudest, 10 ** (-RANGE / 10)))
    scaled: Floats = (decibels[::-1] + RANGE) * (255 / RANGE)
    return scaled


def read_recordings(folder: Path, map_of: Callable[[NDArray[Any]], NDArray[Any]] = log_mel) -> Recordings:
    """Every `DIGIT_SPEAKER_NUMBER.wav` of a folder, in the order of their names. map_of: from samples to a map.

    Raises InputError for a folder without any, and for files that are not mono recordings at RATE, all of them at once.
    """
    files = sorted(folder.glob("*.wav"))
    matches = [(file, match) for file in files if (match := NAME.fullmatch(file.name))]
    problems = [f"{file.name} (expected a name like 7_theo_31.wav)" for file in files if not NAME.fullmatch(file.name)]
    maps, cut = [], 0
    for file, _ in matches:
        samples = _samples(file, problems)
        if samples is not None:
            maps.append(map_of(samples))
            cut += len(samples) > LENGTH
    if problems:
        more = f" and {len(problems) - SHOWN} more" if len(problems) > SHOWN else ""
        raise InputError(
            f"data: {number_of(len(problems), 'recording')} below {folder} cannot be used: {'; '.join(problems[:SHOWN])}{more}"
        )
    if not matches:
        raise InputError(f"data: {folder}: no recordings; expected files such as 7_theo_31.wav")
    digits = np.array([int(match[1]) for _, match in matches], dtype=np.int64)
    takes = np.array([int(match[3]) for _, match in matches], dtype=np.int64)
    return Recordings(np.stack(maps), digits, tuple(match[2] for _, match in matches), cut, takes)


def _samples(file: Path, problems: list[str]) -> NDArray[Any] | None:
    """The samples of a recording; None, and a problem more, for what is not one."""
    try:
        rate, content = wavfile.read(file)
    except (OSError, ValueError, EOFError) as error:
        problems.append(f"{file.name} ({error or type(error).__name__})")
        return None
    samples: NDArray[Any] = content
    if rate != RATE or samples.ndim != 1 or not len(samples):
        problems.append(f"{file.name} (expected mono at {RATE} Hz, got {rate} Hz and samples of shape {samples.shape})")
        return None
    return samples if samples.dtype != np.uint8 else samples.astype(np.int16) - 128  # 8-bit wavs have their zero at 128


def require_speakers(recordings: Recordings, test: Sequence[str]) -> None:
    """Raise InputError where a test speaker has no recordings, or there is no other speaker to learn from."""
    speakers = set(recordings.speakers)
    if missing := [speaker for speaker in test if speaker not in speakers]:
        raise InputError(f"data: no recordings of the test speakers {', '.join(missing)}; speakers: {', '.join(sorted(speakers))}")
    if not speakers - set(test):
        raise InputError(f"data: every recording is of a test speaker ({', '.join(test)}); expected others to learn from")
