"""Images as cameras, scanners and old programs leave them, and an environment in which nothing but a few packages is installed."""

import importlib.metadata
import subprocess
import sys
from pathlib import Path

import numpy as np
from packaging.requirements import Requirement
from PIL import Image

ROTATED = 6
"""the EXIF orientation of a photograph taken with the camera held upright"""
CLASSES, EACH = 3, 21


def write_odd_photos(folder: Path) -> Path:
    """Images of three classes: rotated by EXIF, grey, of 16 bits, with a palette, transparent or of printing inks, and of odd sizes."""
    random = np.random.default_rng(0)
    for label in range(CLASSES):
        (folder / f"class{label}").mkdir(parents=True)
        for number in range(EACH):
            height, width = (int(side) for side in random.integers(20, 90, 2))
            coarse = random.integers(0, 256, (5, 4, 3)).astype(np.uint8)
            image = Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)
            file = folder / f"class{label}" / f"{number}"
            match number % 7:
                case 0:
                    exif = Image.Exif()
                    exif[0x0112] = ROTATED
                    image.save(file.with_suffix(".jpg"), exif=exif)
                case 1:
                    deep = np.asarray(image.convert("L")).astype(np.uint16) * 15  # 12 of 16 bits, as scanners have them
                    Image.fromarray(deep).save(file.with_suffix(".png"))
                case 2:
                    image.convert("L").save(file.with_suffix(".png"))
                case 3:
                    image.convert("P").save(file.with_suffix(".gif"))
                case 4:
                    image.putalpha(Image.fromarray(random.integers(0, 256, (height, width)).astype(np.uint8)))
                    image.save(file.with_suffix(".png"))
                case 5:
                    image.save(file.with_suffix(".webp"), lossless=True)
                case 6:
                    image.convert("CMYK").save(file.with_suffix(".tif"))
    return folder


def bare_python(folder: Path, *packages: str) -> Path:
    """The interpreter of a new environment that holds these packages and what they require, linked to where they are installed here."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    site = next(folder.glob("lib/python*/site-packages"))
    for name in _with_requirements(packages):
        distribution = importlib.metadata.distribution(name)
        for top in {file.parts[0] for file in distribution.files or () if file.parts[0] not in ("..", "__pycache__")}:
            if not (site / top).exists():
                (site / top).symlink_to(Path(str(distribution.locate_file(top))))
    return folder / "bin" / "python"


def _with_requirements(packages: tuple[str, ...]) -> list[str]:
    found: list[str] = []
    waiting = list(packages)
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.append(name)
            required = importlib.metadata.requires(name) or ()
            needed = [one for one in map(Requirement, required) if one.marker is None or one.marker.evaluate({"extra": ""})]
            waiting += [one.name for one in needed]
    return found
