"""Images per second from a folder of JPEG files, by where its pixels lie and who decodes them, as one table.

    python benchmarks/streaming.py                       # alone, and ahead of a training step
    python benchmarks/streaming.py --rounds 9 --write results/speed

The files are crops of scikit-learn's two photographs, about 256 by 256 pixels, made in a temporary folder. Beside
kdzoo's own reading threads stand one that decodes when it is asked to (0 workers) and the worker processes of torch's
DataLoader, which decode the same files. The sides alternate; medians of all rounds, with the processor time of this
process and its children beside the wall clock, since other processes of the machine change the one more than the other.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from sklearn.datasets import load_sample_images
from torch import Tensor, nn

from kdzoo.data.dataset import LazyImages
from kdzoo.data.folder import load_folder
from kdzoo.data.loader import fetch
from kdzoo.models.build import build_network
from kdzoo.runs.environment import environment
from kdzoo.runs.spec import NetworkSpec

CLASSES, BATCH, SIDE = 4, 64, 224
STUDENT = "mobilenetv3_small_050"
CPU = torch.device("cpu")
Loader = Callable[[], Iterable[Tensor]]


def write_photos(folder: Path, files: int) -> None:
    """JPEG files of random crops, whose sides are 232 to 280 pixels."""
    random = np.random.default_rng(0)
    photos = load_sample_images().images
    for number in range(files):
        height, width = 256 + random.integers(-24, 25, size=2)
        photo = photos[number % 2]
        top, left = random.integers(photo.shape[0] - height), random.integers(photo.shape[1] - width)
        path = folder / f"class{number % CLASSES}" / f"{number}.jpg"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(photo[top : top + height, left : left + width]).save(path, quality=90)


class Decoded(torch.utils.data.Dataset[Tensor]):
    """The same images for torch's DataLoader."""

    def __init__(self, images: LazyImages) -> None:
        self.images = images

    def __getitem__(self, place: int) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(self.images.read(int(self.images.places[place]))))


def loaders(folder: Path) -> dict[str, Loader]:
    resident, streamed = load_folder(folder, SIDE).train.images, load_folder(folder, SIDE, image_cache=0).train.images
    assert isinstance(streamed, LazyImages)
    indices = torch.randperm(len(resident), generator=torch.Generator().manual_seed(0)).split(BATCH)

    def threads(count: int) -> Iterable[Tensor]:
        torch.set_num_threads(count)
        batches = fetch(streamed, indices, CPU)
        first = next(batches)
        torch.set_num_threads(1)  # of the training step, everywhere
        yield first
        yield from batches

    def processes(count: int) -> Iterable[Tensor]:
        return torch.utils.data.DataLoader(
            Decoded(streamed), batch_sampler=[index.tolist() for index in indices], num_workers=count, prefetch_factor=2
        )

    when_asked = Decoded(streamed)
    return {
        "resident": lambda: fetch(resident, indices, CPU),
        "streamed, 0 workers": lambda: (torch.stack([when_asked[place] for place in index.tolist()]) for index in indices),
        **{f"streamed, {n} reading thread(s)": lambda n=n: threads(n) for n in (1, 2)},
        **{f"DataLoader, {n} process(es)": lambda n=n: processes(n) for n in (1, 2)},
    }


def training() -> Callable[[Tensor], None]:
    """Forward and backward of a small student."""
    network = build_network(NetworkSpec(name=STUDENT, classes=CLASSES), channels=3, side=SIDE, mean=(0.5,) * 3, std=(0.25,) * 3, seed=0)
    crop, label = slice(16, 16 + SIDE), torch.zeros(BATCH).long()
    return lambda images: nn.functional.cross_entropy(network.logits(images[..., crop, crop]), label[: len(images)]).backward()


def timed(loader: Loader, use: Callable[[Tensor], None]) -> tuple[float, float]:
    """Images per second of the wall clock, and of processor time."""
    began, spent, count = time.perf_counter(), processor_seconds(), 0
    for images in loader():
        use(images)
        count += len(images)
    return count / (time.perf_counter() - began), count / (processor_seconds() - spent)


def processor_seconds() -> float:
    """Of this process and of its children that have ended."""
    both = [resource.getrusage(whose) for whose in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(used.ru_utime + used.ru_stime for used in both)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=2000, help="how many photos (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=0, help="rounds with a training step after every batch")
    parser.add_argument("--write", type=Path)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        os.environ["KDZOO_CACHE"] = f"{folder}/cache"
        photos = Path(folder) / "photos"
        photos.mkdir()
        write_photos(photos, asked.files)
        sides, rows = loaders(photos), []
        for what, use, rounds in (("alone", lambda images: None, asked.rounds), ("with a step", training(), asked.steps)):
            found: dict[str, list[tuple[float, float]]] = {name: [] for name in sides}
            for _ in range(rounds):
                for name, loader in sides.items():
                    found[name].append(timed(loader, use))
            for name, pairs in found.items() if rounds else ():
                wall, spent = (statistics.median(values) for values in zip(*pairs, strict=True))
                rows.append({"what": what, "loader": name, "images_a_second": round(wall), "images_a_processor_second": round(spent)})
                print(f"{what:12} {name:32} {wall:8.0f} images/s   {spent:8.0f} images/s of processor time", flush=True)
    if asked.write:
        asked.write.mkdir(parents=True, exist_ok=True)
        record = {"environment": environment(CPU, 1), "files": asked.files, "batch": BATCH, "rows": rows}
        (asked.write / "streaming.json").write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
