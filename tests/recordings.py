"""Tones as recordings of spoken digits, for tests."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.io import wavfile

SPEAKERS = ("jackson", "theo")


def tone(hertz: float, seconds: float) -> NDArray[np.int16]:
    return np.round(12_000 * np.sin(2 * np.pi * hertz * np.arange(round(seconds * 8000)) / 8000)).astype(np.int16)


def record(root: Path, takes: int = 8) -> Path:
    """The folder of recordings below a data folder: each speaker says each digit in a pitch of its own, each take a little longer."""
    folder = root / "fsdd" / "recordings"
    folder.mkdir(parents=True)
    for place, speaker in enumerate(SPEAKERS):
        for digit in range(10):
            for take in range(takes):
                samples = tone(200 + 150 * digit + 40 * place, 0.3 + take / 100)
                wavfile.write(folder / f"{digit}_{speaker}_{take}.wav", 8000, samples)
    return folder
