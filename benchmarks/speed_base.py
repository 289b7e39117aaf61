"""Whether a step is slower than in another checkout: processor time of both, in alternated rounds of two processes.

`python benchmarks/speed.py --quick BASE` runs this: BASE is a revision or the folder of a checkout. Each process trains the same
small pair on the same random images with the code and the benchmarks of its own checkout, on one thread.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from same_weights import ROOT, checkout

PAIR, BATCH = "resnet20/resnet8", 32
SIDES = ("student", "kdzoo", "kdzoo_sweep", "kdzoo_warm")
"""the student alone, one run with a live teacher, a sweep of three, and that sweep with every answer remembered"""
ROUNDS = 5
STEPS = {"student": 24, "kdzoo": 12, "kdzoo_sweep": 6, "kdzoo_warm": 8}
"""how many steps of each side a round times: some tenths of a second"""
LIMIT = 1.03
"""times the base's processor time that a step may take"""
SIDE_PROCESS = Path(__file__).with_name("speed_side.py")

Ask = Callable[[str, int], float]
"""milliseconds of processor time of a step of a side, the mean over so many"""


@dataclass(frozen=True)
class Compared:
    """Milliseconds of processor time of a step of one side, round by round: of the base and of this checkout."""

    name: str
    base: tuple[float, ...]
    here: tuple[float, ...]

    @property
    def ratio(self) -> float:
        """This checkout's time beside the base's: the median over the rounds."""
        return statistics.median(here / base for here, base in zip(self.here, self.base, strict=True))


@contextmanager
def side_process(source: Path, data: Path, cache: Path) -> Iterator[Ask]:
    """A process that has made every side with the code of one checkout, and what asks it for a round."""
    environment = {**os.environ, "KDZOO_DATA": str(data), "KDZOO_CACHE": str(cache), "OMP_NUM_THREADS": "1"}
    words = [sys.executable, str(SIDE_PROCESS), str(source), PAIR, str(BATCH), *SIDES]
    with subprocess.Popen(words, env=environment, cwd=source, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        to, answers = process.stdin, process.stdout

        def ask(name: str, steps: int) -> float:
            print(name, steps, file=to, flush=True)
            answer = answers.readline()
            if not answer:
                raise SystemExit(f"the process of {source} ended; its error stands above")
            return float(answer)

        yield ask
        to.close()


def alternate(base: Ask, here: Ask, steps: Mapping[str, int] = STEPS, rounds: int = ROUNDS) -> list[Compared]:
    """Time both checkouts in turn, another one first in every round; a round before those that count warms them up."""
    found: dict[str, tuple[list[float], list[float]]] = {name: ([], []) for name in steps}
    for number in range(rounds + 1):
        for name, count in steps.items():
            order = [(base, 0), (here, 1)] if number % 2 else [(here, 1), (base, 0)]
            for ask, place in order:
                spent = ask(name, count)
                if number:
                    found[name][place].append(spent)
    return [Compared(name, tuple(of_base), tuple(of_here)) for name, (of_base, of_here) in found.items()]


def random_cifar100(folder: Path) -> None:
    """512 random images for training and 100 for testing, packed as CIFAR-100 is."""
    random = np.random.default_rng(0)
    (folder / "cifar100").mkdir(parents=True)
    for part, count in (("train", 512), ("test", 100)):
        images = random.integers(0, 256, (count, 32, 32, 3), dtype=np.uint8)
        np.savez(folder / "cifar100" / f"{part}.npz", images=images, labels=np.arange(count) % 100)


def compare(base: str) -> list[Compared]:
    """Every side in both checkouts; raises SystemExit where one of the processes ends."""
    with ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="kdzoo-speed-")))
        random_cifar100(scratch / "data")
        source = stack.enter_context(checkout(base))
        of_base = stack.enter_context(side_process(source, scratch / "data", scratch / "base"))
        return alternate(of_base, stack.enter_context(side_process(ROOT, scratch / "data", scratch / "here")))


def report(found: Sequence[Compared]) -> str:
    """A line for each side, the slowest beside its base last."""
    lines = ["processor time of a step, median of alternated rounds:"]
    for one in sorted(found, key=lambda one: one.ratio):
        base, here = statistics.median(one.base), statistics.median(one.here)
        rounds = " ".join(f"{h / b:.3f}" for h, b in zip(one.here, one.base, strict=True))
        lines.append(f"{one.name:12} base {base:8.2f} ms   here {here:8.2f} ms   ratio {one.ratio:.3f}   ({rounds})")
    return "\n".join(lines)


def main(base: str) -> None:
    """Print the comparison; exit with 1 where a step of some side takes more than LIMIT times the base's."""
    found = compare(base)
    print(report(found))
    if slower := [one.name for one in found if one.ratio > LIMIT]:
        sys.exit(f"slower than {LIMIT} times {base}: {', '.join(slower)}")
