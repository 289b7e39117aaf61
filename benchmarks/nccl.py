"""Train small students with one process and with several, and state by how much their weights differ.

    python benchmarks/nccl.py                       # on two GPUs, by nccl
    python benchmarks/nccl.py --processes 8         # on eight
    python benchmarks/nccl.py --device cpu          # two processes of this CPU, by gloo

For whoever has several GPUs: hinton, at, rkd, crd and sp (means over samples and over maps, relations within the batch, a memory
of samples) with batch norm are trained on a few of the digits, by one process and by `--processes`, each on its part of every
batch. For each run two differences are printed: the length of all weights' difference beside that of the weights, and the largest
of a tensor's values beside the largest value of that tensor. Rounding alone gives 1e-7 to 1e-5 of either; where it turns the sign
of one input of a ReLU, gradients change by that input's share, and 1e-4 of the length and 1e-2 of a small tensor have been seen.
Exits with 1 where the length is beyond `--tolerance`, with 2 where there are fewer GPUs than processes. Some two minutes.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors.torch import load_file

import kdzoo
from kdzoo.runs.store import Store

METHODS = ("hinton", "at", "rkd", "crd", "sp")
SAMPLES = 173
"""of which 138 train: four batches of 32 and one of 10. One of 2 would not do: batch norm over two samples makes any rounding large"""
TOLERANCE = 1e-3
"""of the length. On GPUs, whose kernels for half a batch may sum in another order, nobody has measured it yet"""


class Difference(NamedTuple):
    """By how much two students' weights differ, relative to these. length: of all together; largest: of any one tensor's values."""

    length: float
    largest: float


def main(words: Sequence[str] | None = None) -> int:
    """Compare, print, and say by the exit status how it came out."""
    options = parse(words)
    gpus = torch.cuda.device_count()
    if options.device == "cuda" and gpus < options.processes:
        print(f"nccl.py: expected {options.processes} GPUs, torch {torch.__version__} sees {gpus}; --device cpu compares by gloo")
        return 2
    with tempfile.TemporaryDirectory() as folder, cache_in(Path(folder) / "cache"):
        for processes in (1, options.processes):
            train(Path(folder), processes, options.device)
        differences = compare(Path(folder), options.processes)
    backend = "nccl" if options.device == "cuda" else "gloo"
    print(f"\n{options.processes} processes by {backend} beside one, torch {torch.__version__}, on {name_of(options.device)}\n")
    print("| run | length of the difference, of the weights' | largest difference, of a tensor's largest value |\n| --- | --- | --- |")
    for run, found in differences.items():
        print(f"| {run} | {found.length:.1e} | {found.largest:.1e} |")
    is_good = all(found.length <= options.tolerance for found in differences.values())  # not so for NaN
    print(f"\ntolerance {options.tolerance:.0e} of the length: {'equal up to rounding' if is_good else 'NOT EQUAL'}")
    return 0 if is_good else 1


def parse(words: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Weights of runs that several processes train, beside those of one process.")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cuda")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--tolerance", type=float, default=TOLERANCE)
    given = parser.parse_args(words)
    if given.processes < 2:
        parser.error(f"--processes: expected 2 or more, got {given.processes}: one process is what they are compared with")
    return given


def train(folder: Path, processes: int, device: str) -> None:
    """A bench of one run for each method, in the folder's sub-folder called after the number of processes."""
    execution = kdzoo.Execution(
        device=device,
        processes_per_run=processes,
        jobs=1,
        threads=1,
        tf32=False,
        deterministic=device == "cuda",
        keep=("student",),
        allow_chance_teacher=True,
    )
    kdzoo.bench(
        METHODS,
        temperatures=4,
        alphas=0.5,
        data="digits",
        pairs="digits",
        recipe="digits",
        limit=SAMPLES,
        epochs=1,
        seeds=1,
        refit=False,
        set={"recipe.batch_size": 32, "teacher_recipe.epochs": 15},
        results=folder,
        name=str(processes),
        wandb="disabled",
        execution=execution,
    )


def compare(folder: Path, processes: int) -> dict[str, Difference]:
    """By run, how its weights differ."""
    one, several = Store(folder / "1"), Store(folder / str(processes))
    return {run_id: difference(several.run(run_id).student, one.run(run_id).student) for run_id in one.ids()}


def difference(ours: Path, theirs: Path) -> Difference:
    """How the weights of one file differ from another's; raises KeyError for other tensors."""
    pairs = [(load_file(ours)[name].double(), value.double()) for name, value in load_file(theirs).items()]
    length = sum(float((one - other).square().sum()) for one, other in pairs) / sum(float(other.square().sum()) for _, other in pairs)
    return Difference(length**0.5, max(float((one - other).abs().max() / other.abs().max().clamp(min=1e-6)) for one, other in pairs))


def name_of(device: str) -> str:
    return torch.cuda.get_device_name() if device == "cuda" else "a CPU"


@contextmanager
def cache_in(folder: Path):
    """A block in which kdzoo's cache, with the teacher that both benches share, is a folder of its own."""
    before = os.environ.get("KDZOO_CACHE")
    os.environ["KDZOO_CACHE"] = str(folder)
    try:
        yield
    finally:
        if before is None:
            del os.environ["KDZOO_CACHE"]
        else:
            os.environ["KDZOO_CACHE"] = before


if __name__ == "__main__":
    sys.exit(main())
