"""The port of a step: what is done with the finished runs of an earlier stage and is not training a bench. Free of torch.

A step is a file of this package: a specification, which is what a study's file says of it, and `act`, which makes one
result. `kdzoo.suite.study.steps.StepKeys` lists it under the key that names it in a study.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from kdzoo.runs.fields import Spec
from kdzoo.runs.store import RunFolder
from kdzoo.suite.plan.config import BenchConfig
from kdzoo.suite.study.which import Runs

Result = dict[str, Any]
"""a step's result for one seed, in JSON's types; `last.test`, where it is there, holds metrics as a run's result.json does"""


@dataclass(frozen=True)
class Work:
    """What a step makes one result from.

    runs: the folders of its runs, in the order of their seeds, each done and with its student. folder: the step's own, for
    files beside its results. device: where networks are asked. note: tells the user something of what was found. threads: of
    the CPU, which torch is set to while the step acts. data_root: where the data lie; None for where they lay when the runs
    were planned.
    """

    seed: int
    runs: tuple[RunFolder, ...]
    folder: Path
    device: str
    note: Callable[[str], None]
    threads: int = 1
    data_root: str | None = None

    @property
    def parts(self) -> Path:
        """A folder for finished parts of the result, which an interruption leaves there; it is removed when the result is written."""
        return self.folder / f"seed-{self.seed}.parts"


class Step(Spec):
    """What is done with runs of an earlier stage, with a result for each of several seeds.

    of: the runs. version: raised when the numbers that `act` comes to change, so that older results are made again. teaches:
    whether each result comes with a network, in `network_file`, which may teach a later stage.
    """

    version: ClassVar[int] = 1
    teaches: ClassVar[bool] = False
    of: Runs

    @property
    def networks(self) -> int:
        """How many networks of the earlier stage's size answer where its network teaches."""
        return 1

    def groups(self, seeds: Sequence[int]) -> dict[int, tuple[int, ...]]:
        """The seed of each result, and those of the runs that it is made from, where `seeds` are those of all runs: one each."""
        return {seed: (seed,) for seed in seeds}

    @property
    def single(self) -> bool:
        """Whether it has one result, however many seeds there are, which then stands beside each of them."""
        return False

    def problems(self, bench: BenchConfig, seeds: Sequence[int]) -> list[str]:
        """What keeps this step from being done with the runs of a bench, as far as that is known before any training."""
        return []

    def words(self) -> str:
        """What is done, for the study's page."""
        raise NotImplementedError

    def act(self, work: Work) -> Result:
        """Make one result. Raises InputError where the runs do not have what is needed."""
        raise NotImplementedError


def network_file(folder: Path, seed: int) -> Path:
    """Where a step that teaches writes the network of a result."""
    return folder / f"seed-{seed}.safetensors"


def joined(items: Iterable[object]) -> str:
    """`3`, or `7 and 8`, or `1, 2 and 3`."""
    *others, last = map(str, items)
    return f"{', '.join(others)} and {last}" if others else last
